"""Checks of a model folder, made before vLLM is imported and started in vain."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from engines.base import Adapter
from engines.errors import BadModelFile, CannotLoad, ModelFileNotFound
from engines.load_spec import LoadSpec
from engines.models import hf
from engines.models.facts import describe
from engines.models.purpose import Pooling, Purpose, has_classifier, purpose_of

_METHODS = re.compile(r"^QuantizationMethods = Literal\[(.*?)\]", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r'"([\w.-]+)"')


def check_settings(spec: LoadSpec) -> None:
    """Raise `ModelLoadError` for what vLLM would refuse once it had started, which takes a while."""
    check_folder(spec.path)
    largest_rank(spec.adapters)
    for adapter in spec.adapters:
        if adapter.scale != 1:
            raise CannotLoad(
                f"vLLM has no `scale` of adapters ({adapter.name}): change lora_alpha in adapter_config.json"
            )
    known = _quantizations()
    if spec.quantization is not None and known and spec.quantization.lower() not in known:
        raise CannotLoad(f"vLLM has no quantization {spec.quantization!r}: choose one of {', '.join(known)}")


def _quantizations() -> tuple[str, ...]:
    """Those that the installed vLLM names in its source, as importing it takes seconds; empty if they cannot
    be told."""
    package = importlib.util.find_spec("vllm")
    if package is None or package.origin is None:
        return ()
    source = Path(package.origin).parent / "model_executor" / "layers" / "quantization" / "__init__.py"
    try:
        found = _METHODS.search(source.read_text())
    except OSError:
        return ()
    return tuple(sorted(set(_NAME.findall(found[1])))) if found else ()


def check_folder(path: Path | None) -> Path:
    """The folder, if vLLM can read it. Raises `ModelLoadError` that says what to do."""
    if path is None:
        raise CannotLoad("vLLM needs a model folder in Hugging Face's format")
    if not path.exists():
        raise ModelFileNotFound(f"there is no {path}")
    if path.suffix.lower() == ".gguf":
        raise CannotLoad(
            f"{path.name} is a GGUF file, which llama.cpp runs: use the engine llama_cpp, "
            "or give vLLM the model's folder in Hugging Face's format"
        )
    if hf.is_for_mlx(hf.read_config(path)):
        raise CannotLoad(
            f"the weights in {path} are quantised for MLX: use the engine mlx, or the original weights"
        )
    return path


def purpose(spec: LoadSpec) -> tuple[Purpose, Pooling | None]:
    """What a model is loaded for, and how its states are pooled, if that is known: the catalog's word, or the
    files'. Raises `ModelLoadError`."""
    if spec.pooling is not None:
        return purpose_of(spec.pooling), spec.pooling
    facts = describe(check_folder(spec.path))
    return facts.purpose, facts.pooling


def pools(spec: LoadSpec) -> bool:
    """Whether whole texts become vectors or scores; a reranker that says yes or no generates tokens. Raises
    `ModelLoadError`."""
    made_for, pooling = purpose(spec)
    return made_for == "embeddings" or pooling == "rank"


def check_ranks(spec: LoadSpec) -> None:
    """Raise `CannotLoad` for a model that is to rank and has no head that makes scores, nor gets one."""
    if purpose(spec)[1] != "rank" or "hf_overrides" in spec.options:
        return
    folder = check_folder(spec.path)
    names = hf.read_config(folder).get("architectures") or [""]
    if not has_classifier(str(names[0])):
        raise CannotLoad(
            f"the model in {folder.name} has no head that makes scores ({names[0]}): if it says yes or no, "
            "give it a `rerank_template` in models.yaml and no `pooling: rank`"
        )


def weight_bytes(path: Path) -> int:
    """Size of the weight files."""
    return sum(file.stat().st_size for file in hf.weight_files(path))


def largest_rank(adapters: tuple[Adapter, ...]) -> int:
    """The largest rank of LoRA adapters. Raises `ModelLoadError` for one that is not in PEFT's format."""
    ranks = []
    for adapter in adapters:
        config = adapter.path / "adapter_config.json"
        if not config.is_file():
            raise BadModelFile(f"the adapter {adapter.name} has no {config}: PEFT's format is needed")
        rank = hf.read_json(config).get("r")
        if not isinstance(rank, int) or rank < 1:
            raise BadModelFile(f"{config} says no rank (`r`): is it a LoRA adapter?")
        ranks.append(rank)
    return max(ranks, default=0)
