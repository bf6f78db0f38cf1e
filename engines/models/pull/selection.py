"""Selection of the files of a repository to download."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from engines.machine.job_process import JobFailed
from engines.models import projectors

# Best first: the usual compromise of size and quality, what is near it, then what is better, then worse.
GGUF_PREFERENCE = (
    *("Q4_K_M", "Q4_0", "Q4_K_S", "IQ4_NL", "IQ4_XS", "Q4_1", "Q4_K_L", "Q4_K_XL", "MXFP4"),
    *("Q5_K_M", "Q5_K_S", "Q5_0", "Q5_1", "Q6_K", "Q8_0", "Q3_K_L", "Q3_K_M", "Q3_K_S"),
    *("IQ3_M", "IQ3_S", "Q2_K", "IQ2_M", "F16", "BF16", "F32"),
)

# The ends of files with weights, in the order in which they are looked for.
WEIGHTS = (".safetensors", ".gguf", ".bin")

_PART = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$)", re.IGNORECASE)
_GGUF_HELPERS = re.compile(r"(^|/)[^/]*(mmproj|imatrix)[^/]*$", re.IGNORECASE)
# The name of a quantisation in a file's, as in m-UD-Q4_K_XL.gguf.
_QUANTISATION = re.compile(
    r"(?<![a-z0-9])(?:UD-)?(?:I?Q\d\w*|TQ\d\w*|BF16|F16|F32|MXFP4\w*)(?=[-./]|$)", re.IGNORECASE
)
_CONFIGURATION = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
# Copies of the same weights for other runtimes.
_OTHER_RUNTIMES = {"onnx", "openvino", "coreml", "tensorrt", "original", "metal", "runs"}


def choose(
    paths: Sequence[str], include: Sequence[str], quantization: str | None = None
) -> tuple[list[str], str]:
    """The files to download, and a word on why these. Raises `JobFailed` if nothing fits."""
    if quantization is not None:
        return _quantised(paths, quantization)
    if include:
        chosen = [path for path in paths if any(fnmatchcase(path, pattern) for pattern in include)]
        if not chosen:
            raise JobFailed(f"no file matches {', '.join(include)}; there are: {_some(paths)}")
        return chosen, f"{len(chosen)} files match {', '.join(include)}"
    ours = [path for path in paths if not _OTHER_RUNTIMES & set(PurePosixPath(path).parts[:-1])]
    for suffix in WEIGHTS:
        weights = [path for path in ours if path.lower().endswith(suffix)]
        if suffix == ".gguf" and (files := _one_gguf(weights)):
            word = f"chose {files[0]} of {len(weights)} GGUF files; `include` picks another"
            return _with_projector(files, paths), word
        if suffix != ".gguf" and (files := _main_weights(weights)):
            configuration = [path for path in ours if any(fnmatchcase(path, p) for p in _CONFIGURATION)]
            return sorted({*files, *configuration}), f"chose the {suffix} weights and the configuration"
    raise JobFailed(f"no weights that can be served here; name files with `include`: {_some(paths)}")


def check_path(path: str) -> None:
    """Raise `JobFailed` unless ``path`` stays inside whatever folder it is joined to, on any system."""
    segments = path.split("/")
    if (
        any(segment in ("", ".", "..") or segment != segment.strip() for segment in segments)
        or any(character in path for character in '\\:*?"<>|')
        or not path.isprintable()
    ):
        raise JobFailed(f"the repository has a file name that is not safe, {path[:200]!r}: pull another one")


def _main_weights(weights: list[str]) -> list[str]:
    """Those of the top folder, if it has any, without a second copy in the publisher's own layout."""
    top = [path for path in weights if "/" not in path] or weights
    named = [path for path in top if path.startswith(("model", "pytorch_model"))]
    return named or [path for path in top if not path.endswith(".bin")]


def _one_gguf(paths: list[str]) -> list[str]:
    """All parts of the preferred model."""
    models = _gguf_models(paths)
    return models[min(models, key=_rank)] if models else []


def _quantised(paths: Sequence[str], wanted: str) -> tuple[list[str], str]:
    """All parts of the model in this quantisation, whatever the case of its name."""
    models = _gguf_models([path for path in paths if path.lower().endswith(".gguf")])
    if not models:
        raise JobFailed(f"there are no GGUF files to choose {wanted} from: leave the :{wanted} out")
    fitting = [path for path in models if _is_in(path, wanted)]
    if not fitting:
        there = sorted({found[0] for path in models if (found := _QUANTISATION.search(path))} or models)
        raise JobFailed(f"there is no {wanted}: choose one of {_some(there)}")
    files = models[min(fitting, key=lambda path: (len(path), path))]
    return _with_projector(files, paths), f"chose {files[0]} for {wanted}"


def _with_projector(files: list[str], paths: Sequence[str]) -> list[str]:
    """``files`` of a model, and the projector by which it sees or hears, if there is one in their folder or
    above it."""
    first = PurePosixPath(files[0])
    for folder in dict.fromkeys((first.parent, first.parent.parent)):
        names = [name.name for path in paths if (name := PurePosixPath(path)).parent == folder]
        if (found := projectors.choose(first.name, names)) is not None:
            return [*files, str(folder / found)]
    return files


def _gguf_models(paths: Sequence[str]) -> dict[str, list[str]]:
    """The parts of each model."""
    models: dict[str, list[str]] = {}
    for path in sorted(paths):
        if not _GGUF_HELPERS.search(path):
            models.setdefault(_PART.sub("", path), []).append(path)
    return models


def _is_in(path: str, quantization: str) -> bool:
    pattern = rf"(?<![a-z0-9]){re.escape(quantization)}(?![a-z0-9_])"
    return re.search(pattern, path, re.IGNORECASE) is not None


def _rank(path: str) -> tuple[int, int, str]:
    for rank, name in enumerate(GGUF_PREFERENCE):
        if _is_in(path, name):
            return rank, len(path), path
    return len(GGUF_PREFERENCE), len(path), path


def _some(paths: Sequence[str], limit: int = 20) -> str:
    more = f" and {len(paths) - limit} more" if len(paths) > limit else ""
    return (", ".join(path[:200] for path in paths[:limit]) or "none") + more
