"""MLX's descriptor, which imports it only to load a model."""

from __future__ import annotations

from collections.abc import Mapping

from engines.base import Resident
from engines.descriptor import EngineDescriptor, Judgement, Load, Suitability
from engines.errors import CannotLoad
from engines.load_spec import LoadSpec
from engines.machine.footprint import Footprint
from engines.machine.platform import Facts, is_importable, version_of
from engines.mlx.folder import check_settings
from engines.mlx.quantizer import QUANTIZER
from engines.progress import Progress
from engines.sizing import memory_of

NAME = "mlx"
INSTALL = "make serve ENGINES=llama,mlx"
# mlx-lm installs on Linux without MLX, and MLX without the library that computes.
_LIBRARIES = ("mlx-metal", "mlx-cpu", "mlx-cuda-12", "mlx-cuda-13")


def _packages() -> Mapping[str, str]:
    """mlx-lm, if what it cannot do without is there too."""
    if not is_importable("mlx_lm") or not any(version_of(library) for library in _LIBRARIES):
        return {}
    return {"mlx_lm": version_of("mlx-lm")}


def _judge(facts: Facts) -> Judgement:
    suitability = Suitability.BEST if facts.metal else Suitability.FAIR
    if obstacle := _obstacle(facts):
        return Judgement(False, obstacle, suitability)
    how = "it uses Metal" if facts.metal else "it runs on the CPU, or on CUDA if MLX was built for it"
    return Judgement(True, f"mlx-lm is installed; {how}", suitability)


def _obstacle(facts: Facts) -> str:
    """Why MLX cannot run and what to do about it; empty if it can."""
    if facts.is_windows:
        return "MLX has no build for Windows: use llama_cpp, or WSL2"
    if facts.is_macos and not facts.metal:
        return "MLX needs a Mac with Apple silicon: use llama_cpp"
    if "mlx_lm" not in facts.packages:
        return f"mlx-lm is not installed: {INSTALL}"
    return ""


def _estimate(spec: LoadSpec, machine: Facts, *, weights_loaded: bool) -> Footprint:
    return Footprint(ram=memory_of(spec, weights_loaded=weights_loaded))


def _opener() -> Load:
    async def load(spec: LoadSpec, progress: Progress | None) -> Resident:
        try:
            from engines.mlx import loading
        except ImportError as error:
            raise CannotLoad(f"mlx-lm cannot be imported ({error}): `{INSTALL}` installs it") from error
        return await loading.load(spec, progress)

    return load


DESCRIPTOR = EngineDescriptor(
    name=NAME,
    label="MLX",
    install="mlx-lm",
    formats=frozenset({"hf", "mlx"}),
    capabilities=frozenset(
        {"adapters", "chat", "completion", "embeddings", "fim", "reasoning", "rerank", "structured", "tools"}
    ),
    help={"structured": f"the package llguidance is not installed: `{INSTALL}` installs it"},
    request_fields=frozenset({"typical_p"}),
    packages=_packages,
    judge=_judge,
    estimate=_estimate,
    adapts=True,
    check=check_settings,
    quantizer=QUANTIZER,
    opener=_opener,
)
