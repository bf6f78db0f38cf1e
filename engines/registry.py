"""All engines, and what loads models with them. A new engine is a package of its own and one line here."""

from __future__ import annotations

from engines.base import Resident
from engines.descriptor import EngineDescriptor, Load
from engines.errors import CannotLoad
from engines.fake.descriptor import DESCRIPTOR as FAKE
from engines.llamacpp.descriptor import DESCRIPTOR as LLAMA_CPP
from engines.load_spec import LoadSpec
from engines.mlx.descriptor import DESCRIPTOR as MLX
from engines.progress import Progress
from engines.vllm.descriptor import DESCRIPTOR as VLLM

AUTO = "auto"
"""In the place of an engine's name: the most suitable one."""

ENGINES: dict[str, EngineDescriptor] = {
    VLLM.name: VLLM,
    MLX.name: MLX,
    LLAMA_CPP.name: LLAMA_CPP,
    FAKE.name: FAKE,
}
"""By name. Equally suitable engines are preferred in this order."""


def engine_names() -> tuple[str, ...]:
    """What may be written where an engine is chosen."""
    return (AUTO, *ENGINES)


def needs_file(name: str) -> bool:
    """Whether the engine called ``name``, or whichever "auto" chooses, loads model files."""
    return name not in ENGINES or bool(ENGINES[name].formats)


class EngineRegistry:
    """Owns what engines of one process share, such as weights loaded once for several slots."""

    def __init__(self) -> None:
        self._opened: dict[str, Load] = {}

    async def load(self, spec: LoadSpec, progress: Progress | None = None) -> Resident:
        """Load a model. Raises `ModelLoadError`."""
        descriptor = ENGINES.get(spec.engine)
        if descriptor is None:
            raise CannotLoad(f"there is no engine {spec.engine!r}")
        load = self._opened.get(spec.engine)
        if load is None:
            load = self._opened[spec.engine] = descriptor.opener()
        return await load(spec, progress)
