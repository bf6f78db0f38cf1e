"""Projectors: GGUF files beside a model, by which it sees pictures or hears sounds (``mmproj-….gguf``)."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from engines.errors import BadModelFile
from engines.models.gguf_reader import GgufReader, Value

NONE = "none"
"""In the place of a projector's path: the model is used for text alone."""

# Best first. The part that sees is small, and suffers more from few bits than what reads.
PREFERENCE = ("F16", "Q8_0", "BF16", "F32")

_IS_PROJECTOR = re.compile(r"(^|[-._])mmproj([-._]|$)", re.IGNORECASE)
_PART = re.compile(r"-\d{5}-of-\d{5}$")
# What a name has beside that of the model: a quantisation, and words that stand for nothing.
_BESIDE = re.compile(
    r"(?:^|[-._])(?:UD-)?(?:I?Q\d\w*|TQ\d\w*|BF16|F16|F32|FP16|MXFP4\w*|mmproj|ggml|model)(?=[-._]|$)",
    re.IGNORECASE,
)
# What mtmd divides by, or sizes arrays by, without a look at it.
_COUNTS: Mapping[str, tuple[int, int]] = {
    "embedding_length": (1, 2**17),
    "feed_forward_length": (1, 2**20),
    "block_count": (0, 512),
    "attention.head_count": (1, 2**12),
}
_OF_VISION: Mapping[str, tuple[int, int]] = {"image_size": (1, 2**14), "patch_size": (1, 2**10)}
_OPTIONAL: Mapping[str, tuple[int, int]] = {
    "spatial_merge_size": (1, 64),
    "projector.scale_factor": (1, 64),
    "attention.head_count_kv": (1, 2**12),
    "n_wa_pattern": (0, 512),
}
# Their embeddings depend on where in a prompt they stand, so none could be kept.
_NOT_HERE = ("hunyuanvl", "deepseek4v")
# Embeddings that are kept for a model: those of two contexts, but no more than so many numbers.
_MOST_KEPT = 2**25
_CONTEXT = 8192
_SETTLED = 10**9  # nanoseconds


@dataclass(frozen=True, slots=True)
class ProjectorFacts:
    """``senses`` are those of "vision" and "audio" that it gives a model."""

    senses: frozenset[str]
    weight_bytes: int


def is_projector(name: str) -> bool:
    """Whether a file is one by its name."""
    return name.lower().endswith(".gguf") and _IS_PROJECTOR.search(name[: -len(".gguf")]) is not None


def beside(path: Path) -> Path | None:
    """The projector in the folder of the GGUF model at ``path``, or in the one above, that is this one's by
    its name."""
    for folder in (path.parent, path.parent.parent):
        try:
            names = _names(folder)
        except OSError:
            return None
        if (found := choose(path.name, names)) is not None:
            return folder / found
    return None


def choose(model: str, names: Sequence[str]) -> str | None:
    """The projector of the file ``model`` among ``names``, which are all in its folder, or the one above.

    It is called like the model, or it is in a folder with this one model, in whatever quantisations.
    """
    projectors = [name for name in names if is_projector(name)]
    if not projectors:
        return None
    wanted = _core(model)
    others = {_core(name) for name in names if name.lower().endswith(".gguf") and not _is_helper(name)}
    own = [name for name in projectors if _core(name) == wanted]
    if not own and others <= {wanted}:
        own = projectors
    return min(own, key=_rank, default=None)


def read(path: Path) -> ProjectorFacts:
    """The facts of a projector. Raises `BadModelFile` for what is none, or is damaged, or cut off."""
    try:
        found = path.stat()
    except OSError as error:
        raise BadModelFile(f"the projector {path.name} cannot be read: {error.strerror}") from error
    return _read(path, (found.st_ino, found.st_mtime_ns, found.st_size))


def kept_numbers(context_length: int, width: int) -> int:
    """Numbers of embeddings that are kept for a model with embeddings of ``width``."""
    return min(2 * min(context_length or _CONTEXT, _CONTEXT) * width, _MOST_KEPT)


def _names(folder: Path) -> tuple[str, ...]:
    """The GGUF files in ``folder``, or none if it has no projector."""
    changed = os.stat(folder).st_mtime_ns
    # A change right after another one may leave no trace in the time.
    is_settled = time.time_ns() - changed > _SETTLED
    return _names_in(folder, changed) if is_settled else _names_in.__wrapped__(folder, changed)


@lru_cache(maxsize=256)
def _names_in(folder: Path, changed: int) -> tuple[str, ...]:
    names = tuple(name for name in os.listdir(folder) if name.lower().endswith(".gguf"))
    return names if any(map(is_projector, names)) else ()


@lru_cache(maxsize=256)
def _read(path: Path, stamp: tuple[int, int, int]) -> ProjectorFacts:
    with path.open("rb") as file:
        metadata, weight_bytes, _ = GgufReader(file, stamp[2], path.name).read()
    if metadata.get("general.architecture") != "clip":
        raise BadModelFile(f"{path.name} is no projector: name a file like mmproj-….gguf")
    kinds = {"vision": "clip.has_vision_encoder", "audio": "clip.has_audio_encoder"}
    senses = frozenset(sense for sense, key in kinds.items() if metadata.get(key) is True)
    if not senses:
        raise BadModelFile(f"the projector {path.name} has no encoder for images or sounds")
    for sense in senses:
        _check(path.name, sense, metadata)
    return ProjectorFacts(senses, weight_bytes)


def _check(name: str, sense: str, metadata: Mapping[str, Value]) -> None:
    """Raise `BadModelFile` for what mtmd would not refuse, but die of."""
    kind = metadata.get("clip.projector_type") or metadata.get(f"clip.{sense}.projector_type")
    if kind in _NOT_HERE:
        raise BadModelFile(f"projectors of the kind {kind} are not supported: {name}")
    required = {**_COUNTS, **(_OF_VISION if sense == "vision" else {"num_mel_bins": (1, 2**10)})}
    for key, (least, most) in {**required, **_OPTIONAL}.items():
        value = metadata.get(f"clip.{sense}.{key}")
        if value is None and key not in required:
            continue
        if not isinstance(value, int) or not least <= value <= most:
            raise BadModelFile(
                f"the projector {name} is damaged: clip.{sense}.{key} is {value}. Download it again"
            )
    width, heads = (
        int(str(metadata[f"clip.{sense}.{key}"])) for key in ("embedding_length", "attention.head_count")
    )
    if width % heads and f"clip.{sense}.attention.head_dim" not in metadata:
        raise BadModelFile(f"the projector {name} is damaged: {heads} heads do not share {width} numbers")


def _core(name: str) -> str:
    """A file's name without what tells its quantisation, or that it is a projector."""
    stem = _PART.sub("", name[: -len(".gguf")])
    while (shorter := _BESIDE.sub("", stem)) != stem:
        stem = shorter
    return stem.strip("-._").lower()


def _is_helper(name: str) -> bool:
    return is_projector(name) or "imatrix" in name.lower()


def _rank(name: str) -> tuple[int, int, str]:
    quantised: Iterable[int] = (
        rank
        for rank, each in enumerate(PREFERENCE)
        if re.search(rf"(?<![a-z0-9]){each}(?![a-z0-9_])", name, re.IGNORECASE)
    )
    return next(iter(quantised), len(PREFERENCE)), len(name), name
