"""llama.cpp's descriptor, which imports it only to load a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from engines.base import Resident
from engines.descriptor import EngineDescriptor, Judgement, Load, Suitability
from engines.errors import CannotLoad
from engines.llamacpp.adapter_file import check_adapters
from engines.llamacpp.pooled_sizes import pooled_size
from engines.llamacpp.quantizer import QUANTIZER
from engines.load_spec import LoadSpec
from engines.machine.footprint import Footprint
from engines.machine.platform import Facts, is_importable, version_of
from engines.models.facts import describe
from engines.progress import Progress
from engines.sizing import may_use_cuda, memory_of

if TYPE_CHECKING:
    from engines.llamacpp.model_cache import ModelCache

NAME = "llama_cpp"
_INSTALL = "make serve"
_CUDA_BUILD = (
    'CMAKE_ARGS="-DGGML_CUDA=on" .venv/bin/pip install --force-reinstall --no-cache-dir --no-deps '
    "llama-cpp-python"
)


def _packages() -> Mapping[str, str]:
    return {"llama_cpp": version_of("llama-cpp-python")} if is_importable("llama_cpp") else {}


def _judge(facts: Facts) -> Judgement:
    if "llama_cpp" not in facts.packages:
        return Judgement(False, f"llama-cpp-python is not installed: {_INSTALL}", Suitability.GOOD)
    if facts.metal:
        how = "its macOS builds use Metal"
    elif facts.cuda:
        how = "it uses CUDA if it was built for it"
    else:
        how = "it runs on the CPU"
    return Judgement(True, f"llama-cpp-python is installed; {how}", Suitability.GOOD)


def _idle_gpu(facts: Facts) -> str:
    if not (facts.cuda or facts.metal) or "llama_cpp" not in facts.packages or _can_offload():
        return ""
    gpu = "an Apple GPU" if facts.metal else "an NVIDIA GPU"
    build = _CUDA_BUILD.replace("CUDA", "METAL") if facts.metal else _CUDA_BUILD
    return f"{gpu} is here, but llama.cpp was built for the CPU. Build it anew: {build}"


def _estimate(spec: LoadSpec, machine: Facts, *, weights_loaded: bool) -> Footprint:
    size = _memory_of(spec, weights_loaded=weights_loaded)
    offloads = may_use_cuda(spec, machine) and _can_offload()
    return Footprint(gpu=size) if offloads else Footprint(ram=size)


def _memory_of(spec: LoadSpec, *, weights_loaded: bool) -> int:
    if not _pools(spec) or spec.path is None:
        return memory_of(spec, weights_loaded=weights_loaded)
    facts = describe(spec.path)
    pooling = spec.pooling or facts.pooling or "mean"
    size = pooled_size(spec.context_length, facts.context_length, pooling, facts.architecture, offload=False)
    return (0 if weights_loaded else facts.weight_bytes) + size.memory(facts.kv_bytes_per_token)


def _pools(spec: LoadSpec) -> bool:
    """Whether the model is for embeddings or ranking. Raises `ModelLoadError`."""
    return spec.pooling is not None or (spec.path is not None and describe(spec.path).pools)


def _check(spec: LoadSpec) -> None:
    if spec.adapters and _pools(spec):
        raise CannotLoad("llama.cpp runs LoRA adapters of models that generate text only")
    check_adapters(spec)


def _can_offload() -> bool:
    """Whether the installed llama.cpp was built for a GPU."""
    try:
        import llama_cpp.llama_cpp as lib
    except (ImportError, OSError, RuntimeError):  # loading a model tells why
        return True
    return bool(lib.llama_supports_gpu_offload())


def _opener() -> Load:
    models: ModelCache | None = None

    async def load(spec: LoadSpec, progress: Progress | None) -> Resident:
        nonlocal models
        try:
            from engines.llamacpp.engine import LlamaEngine, LlamaOptions
            from engines.llamacpp.model_cache import ModelCache as Cache
        except ImportError as error:
            raise CannotLoad(
                f"llama-cpp-python cannot be imported ({error}): `{_INSTALL}` installs it"
            ) from error
        if spec.path is None:
            raise CannotLoad("llama.cpp needs a model file")
        models = models or Cache()
        options = LlamaOptions(
            name=spec.name,
            path=spec.path,
            context_length=spec.context_length,
            kv_cells=spec.kv_cache_tokens,
            max_sequences=spec.max_sequences,
            threads=spec.threads,
            offload=spec.use_gpu,
            cache_prefixes=spec.cache_prefixes,
            stall_timeout=spec.stall_timeout,
            allow_special_tokens=spec.allow_special_tokens,
            deterministic=spec.deterministic,
            answer_format=spec.answer_format,
            pooling=spec.pooling,
            matryoshka=spec.matryoshka,
            dimensions=spec.dimensions,
            rerank_template=spec.rerank_template,
            projector=spec.projector,
            ngram_draft=spec.ngram_draft,
            adapters=spec.adapters,
        )
        if _pools(spec):
            from engines.llamacpp.pooled_engine import LlamaPooledEngine

            return await LlamaPooledEngine.load(options, models, progress)
        return await LlamaEngine.load(options, models, progress)

    return load


DESCRIPTOR = EngineDescriptor(
    name=NAME,
    label="llama.cpp",
    install="llama-cpp-python",
    formats=frozenset({"gguf"}),
    capabilities=frozenset(
        {
            *("adapters", "audio", "chat", "completion", "embeddings", "fim", "reasoning", "rerank"),
            *("sleep", "structured", "tools", "vision"),
        }
    ),
    help={
        "embeddings": "it was loaded to generate text; load an embedding model",
        "vision": "it needs the projector (mmproj) that was published with the model, in the same folder",
        "audio": "it needs the projector (mmproj) that was published with the model, in the same folder",
        "structured": f"the package llguidance is not installed: `{_INSTALL}` installs it",
    },
    request_fields=frozenset(
        {
            "typical_p",
            "mirostat",
            "xtc_probability",
            "top_n_sigma",
            "dynatemp_range",
            "repeat_last_n",
            "prompt_logprobs",
        }
    ),
    packages=_packages,
    judge=_judge,
    idle_gpu=_idle_gpu,
    check=_check,
    estimate=_estimate,
    adapts=True,
    shares_weights=True,
    quantizer=QUANTIZER,
    opener=_opener,
)
