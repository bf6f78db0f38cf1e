"""The MLX engine as the rest of the server sees it. Everything here runs on the event loop's thread."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from engines.base import Adapter, EngineInfo, GenerationRequest
from engines.batching.adapters import AdapterShelf
from engines.batching.engine import BatchingEngine
from engines.batching.thread import CheckWanted, EngineThread
from engines.errors import CannotLoad, EngineError, UnsupportedFeature
from engines.limits import no_prompt_logprobs
from engines.mlx import threads
from engines.mlx.folder import check_folder, check_settings
from engines.mlx.sequence import MlxSequence
from engines.mlx.stepper import MlxStepper
from engines.mlx.vocabulary import MlxVocabulary
from engines.stream import ChunkStream
from engines.text import grammar
from engines.text.answers.output import Output
from engines.text.templates.renderer import TemplateWorker

if TYPE_CHECKING:
    from engines.load_spec import LoadSpec
    from engines.mlx.adapters import MlxAdapter

if importlib.util.find_spec("mlx_lm") is None:
    raise ImportError("No module named 'mlx_lm'")

# An engine with work that takes no step for so long counts as hung, in seconds.
STALL_SECONDS = 60.0


class MlxEngine(BatchingEngine[MlxSequence]):
    """One model with its own thread. Make it with `load`."""

    def __init__(
        self,
        thread: EngineThread[MlxSequence],
        info: EngineInfo,
        vocabulary: MlxVocabulary,
        *,
        stall_timeout: float = STALL_SECONDS,
        allow_special_tokens: bool = False,
        answer_format: str | None = None,
        rerank_template: str | None = None,
    ) -> None:
        super().__init__(
            thread,
            info,
            vocabulary,
            TemplateWorker(),
            stall_timeout=stall_timeout,
            allow_special_tokens=allow_special_tokens,
            answer_format=answer_format,
            response_template=vocabulary.response_template,
            grammar_vocabulary=vocabulary.grammar_vocabulary if grammar.is_installed() else None,
            rerank_template=rerank_template,
            adapters=AdapterShelf(self._load_adapter, self._free_adapter),
        )

    @classmethod
    async def load(cls, spec: LoadSpec, progress: Callable[[float], None] | None = None) -> MlxEngine:
        """Load a model on a thread of its own; cancelling gives the load up.

        Raises `ModelLoadError`. ``progress`` gets 0..1, from the loading thread.
        """
        loop = asyncio.get_running_loop()
        thread = EngineThread(lambda check: _open(spec, check, progress), loop, threads.run)
        thread.start()
        try:
            info, vocabulary = await thread.opened
        except asyncio.CancelledError:
            thread.stop(EngineError("the load was given up"))
            raise
        assert isinstance(vocabulary, MlxVocabulary)
        engine = cls(
            thread,
            info,
            vocabulary,
            stall_timeout=spec.stall_timeout,
            allow_special_tokens=spec.allow_special_tokens,
            answer_format=spec.answer_format,
            rerank_template=spec.rerank_template,
        )
        try:
            for adapter in spec.adapters:
                await engine.add_adapter(adapter)
        except BaseException:
            await engine.close()
            raise
        return engine

    async def sleep(self) -> None:
        raise UnsupportedFeature("MLX cannot sleep: unload the model instead")

    async def wake(self) -> None:
        raise UnsupportedFeature("MLX cannot sleep: unload the model instead")

    def _new_sequence(
        self, request: GenerationRequest, stream: ChunkStream, output: Output, limit: int
    ) -> MlxSequence:
        if request.prompt_logprobs is not None:
            raise no_prompt_logprobs()
        return MlxSequence(request, stream, output, limit, self._adapters.of(request))

    async def _load_adapter(self, adapter: Adapter) -> MlxAdapter:
        return await self._thread.call(lambda stepper: cast(MlxStepper, stepper).load_adapter(adapter))

    async def _free_adapter(self, adapter: MlxAdapter) -> None:
        await self._thread.call(lambda stepper: cast(MlxStepper, stepper).forget_adapter(adapter))

    def _lacks_special(self, text: str) -> bool:
        return False  # Hugging Face's templates write every special token themselves

    async def _release_templates(self) -> None:
        await self._templates.close()

    def _release_model(self) -> None:
        """The engine thread freed it: MLX's arrays belong to their thread."""


def _open(spec: LoadSpec, check: CheckWanted, progress: Callable[[float], None] | None) -> MlxStepper:
    """Runs on the engine thread."""
    report = reporter(spec, check, progress)
    with imports_explained():
        from engines.mlx.runtime import open_runtime
    return MlxStepper(open_runtime(spec, report))


def reporter(
    spec: LoadSpec, check: CheckWanted, progress: Callable[[float], None] | None
) -> Callable[[float], None]:
    """Begins a load: what tells of its progress, and gives it up when nobody wants it any more."""
    check_settings(spec)
    check_folder(spec.path)

    def report(fraction: float) -> None:
        check()
        if progress is not None:
            progress(fraction)

    report(0.0)
    return report


@contextmanager
def imports_explained() -> Iterator[None]:
    """Importing mlx-lm takes seconds, which the loop must not wait for."""
    try:
        yield
    except ImportError as error:
        raise CannotLoad(
            f"MLX cannot be imported ({error}): `make serve ENGINES=llama,mlx` installs it"
        ) from error
