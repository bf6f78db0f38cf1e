"""Chat templates, rendered in a child process that can be killed.

``ChatTemplate`` is what engines use; ``TemplateWorker`` owns the child; ``template_child.py`` speaks with
it; ``sandbox.py`` is what the child runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from engines.errors import EngineError, RequestError, UnsupportedFeature
from engines.text.claims import Claims
from engines.text.json_values import PIECE, encode, encode_in_pieces, size_of, texts_of
from engines.text.templates.child import TemplateChild, TemplateChildDied, TemplateJob

MEMORY_LIMIT = 512 * 2**20
STARTUP_SECONDS = 30.0


def _text_of(reply: Mapping[str, Any]) -> str:
    """The rendered text; raises what the reply reports."""
    if "text" in reply:
        return str(reply["text"])
    template, message = "the model's chat template", reply.get("message", "")
    match reply.get("error"):
        case "compile":
            raise UnsupportedFeature(f"{template} cannot be compiled: {message}", param="messages")
        case "refused":
            raise RequestError(f"{template} refused the messages: {message}", param="messages")
        case "limit":
            raise RequestError(f"{template} was stopped: it {message}", param="messages")
        case _:
            raise RequestError(f"{template} failed on the messages: {message}", param="messages")


class TemplateWorker:
    """Renders templates in one child process, started when first needed.

    Belongs to one event loop and to whoever made it, who closes it. Requests are answered one at a
    time, in order, and each has its own clock that runs only while it renders; one that has to be
    killed takes none of those behind it along.
    """

    def __init__(
        self,
        *,
        memory_limit: int | None = MEMORY_LIMIT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``environment`` is all that the child sees of one (say, ``TZ``): by default, nothing."""
        self._memory_limit = memory_limit
        self._environment = environment or {}
        self._jobs: deque[TemplateJob] = deque()
        self._runner: asyncio.Task[None] | None = None
        self._child: TemplateChild | None = None
        self._encoding = Claims()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The child's process id while there is one."""
        return self._child.pid if self._child else None

    async def render(self, source: str, context: Mapping[str, Any], *, timeout: float) -> str:
        """The text that template ``source`` makes of ``context`` (JSON values) within ``timeout`` seconds.

        Raises `UnsupportedFeature` if it does not compile, `RequestError` if it fails or exceeds a
        limit, and `EngineError` if the worker is closed or the child does not start. May be
        cancelled at any time.
        """
        if self._closed:
            raise _closed()
        encoded = await self._encode(context)
        if self._closed:
            raise _closed()
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._jobs.append(TemplateJob(source, encoded, timeout, done))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run(), name="chat-template-worker")
        return await done

    def start(self) -> None:
        """Start the child now instead of when it is first needed; that it cannot is told to who needs it."""
        if self._runner is None:
            self._runner = asyncio.create_task(self._warm_up(), name="chat-template-worker")

    async def close(self) -> None:
        """Fail what waits, end the child, and return when it is gone. Idempotent."""
        self._closed = True
        while self._jobs:
            self._jobs.popleft().fail(_closed())
        if self._child is not None:
            self._child.kill()
        await self._encoding.close()
        if self._runner is not None:
            await asyncio.wait([self._runner])
        await self._stop_child()

    async def _encode(self, context: Mapping[str, Any]) -> str:
        try:
            if size_of(texts_of(context, PIECE)) <= PIECE:
                return encode(context)
            return await self._encoding.run(lambda check: encode_in_pieces(context, check))
        except (TypeError, ValueError, RecursionError) as error:
            message = f"the messages cannot be given to the chat template: {error}"
            raise RequestError(message, param="messages") from error

    async def _warm_up(self) -> None:
        with contextlib.suppress(EngineError):
            await self._start_child()
        await self._run()

    async def _run(self) -> None:
        """Answer jobs until none is left. Nothing here is ever cancelled: `close` kills the child instead."""
        try:
            while self._jobs:
                job = self._jobs.popleft()
                if not job.done.done():  # else its caller has gone
                    await self._answer(job)
        finally:
            self._runner = None

    async def _answer(self, job: TemplateJob) -> None:
        try:
            text = await self._render(job)
        except EngineError as error:
            job.fail(error)
        except Exception as error:  # a bug here; those who queue must not wait for ever
            job.fail(EngineError(f"applying the chat template failed: {error!r}"))
            await self._stop_child()
        else:
            if not job.done.done():
                job.done.set_result(text)

    async def _render(self, job: TemplateJob) -> str:
        reused = self._child is not None
        try:
            return await self._attempt(job)
        except TemplateChildDied:
            await self._stop_child()
        if self._closed:
            raise _closed()
        if reused:  # it may have died idle, which is no fault of this job
            return await self._render(job)
        raise RequestError(
            "the process died that applied the model's chat template; the template may need more "
            "memory than there is",
            param="messages",
        )

    async def _attempt(self, job: TemplateJob) -> str:
        child = self._child or await self._start_child()
        try:
            async with asyncio.timeout(job.timeout):
                reply = await child.exchange(job)
        except TimeoutError:
            await self._stop_child()
            raise RequestError(
                f"the model's chat template took longer than {job.timeout:g} s; it was stopped",
                param="messages",
            ) from None
        return _text_of(reply)

    async def _start_child(self) -> TemplateChild:
        try:
            child = self._child = await TemplateChild.spawn(self._memory_limit, self._environment)
            if self._closed:  # meanwhile: `close` could not kill it
                raise TemplateChildDied
            async with asyncio.timeout(STARTUP_SECONDS):
                await child.ready()
        except (OSError, TemplateChildDied) as error:  # OSError: also TimeoutError
            await self._stop_child()
            if self._closed:
                raise _closed() from None
            raise EngineError(f"the chat template process did not start (see its stderr) {error}") from error
        return child

    async def _stop_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.stop()


def _closed() -> EngineError:
    return EngineError("the chat template process is closed")


class ChatTemplate:
    """A model's chat template and the tokens it is given."""

    def __init__(
        self,
        source: str,
        *,
        bos_token: str,
        eos_token: str,
        timeout: float = 2.0,
        worker: TemplateWorker | None = None,
    ) -> None:
        """``worker`` is shared and stays its owner's; without one the template has its own."""
        self.source = source
        self._timeout = timeout
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._owns_worker = worker is None
        self._worker = worker or TemplateWorker()

    async def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        template_args: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt's text. ``template_args`` are further variables.

        Errors are those of `TemplateWorker.render`.
        """
        # Many templates ask "tools is not none", which holds for what is undefined.
        own = {
            "messages": list(messages),
            "tools": list(tools) if tools else None,
            "add_generation_prompt": add_generation_prompt,
            **self._tokens,
        }
        args = template_args or {}
        if taken := own.keys() & args.keys():
            raise RequestError(f"the chat template argument {min(taken)!r} is set by the server")
        context = {"documents": None, **args, **own}
        return await self._worker.render(self.source, context, timeout=self._timeout)

    async def close(self) -> None:
        """End the template's own worker; a shared one is left alone. Idempotent."""
        if self._owns_worker:
            await self._worker.close()
