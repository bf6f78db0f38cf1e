"""The inference pipeline: the only place that starts an inference, for an HTTP request or without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar, cast

from app.errors import to_api_error
from app.inference import capabilities, merge, reply
from app.inference.answer import best
from app.inference.dialect import AnswerContext, Dialect, Execution, GeneratingDialect
from app.inference.outcome import RequestRecord, Status
from app.inference.prompting import prompts_of, told_of
from app.inference.resume import cannot_resume, is_resumable
from app.inference.targets import Resolved
from app.inference.task import BaseTask, Task
from app.inference.wire_request import WireRequest
from app.media.loading import MediaLoader, RequestMedia
from balancer.balancer import Balancer
from balancer.call import Call, Reply, ResumePoint, Target
from balancer.dispatch import Dispatch, Failovers
from balancer.errors import BadAnswer
from engines.base import AnswerPlan, Engine, GenerationRequest, Prompt, Resident
from engines.errors import RequestError

# A whole answer that has more bytes is not kept for whoever wants it in one piece.
MOST_BYTES = 64 * 2**20

MakeRecord = Callable[[Target, str, str], RequestRecord]
"""Makes the record of a request from its target, its endpoint and its id."""

T = TypeVar("T", bound=BaseTask)


@dataclass(frozen=True, slots=True)
class Inference:
    """One inference that is about to run: `dispatch` finds it a backend."""

    call: Call
    dispatch: Dispatch
    record: RequestRecord
    dialect: Dialect[Any]
    media: RequestMedia | None = None
    for_parent: bool = False

    async def open(self) -> tuple[Reply, bytes]:
        """Load the media, then find a backend: its reply, and the first bytes (`Dispatch.open`)."""
        if self.media is not None:
            await self.media.load()
        return await self.dispatch.open()

    def close(self) -> None:
        """Let go of everything; a request that did not `end` counts as aborted. Idempotent."""
        self._end("aborted", None)
        self.dispatch.close()
        if self.media is not None:
            self.media.release()

    def end(self, status: int, error: str | None = None) -> None:
        """Close the record with the answer's HTTP ``status``."""
        self._end("finished" if status < 400 else "refused" if status < 500 else "error", error)

    def _end(self, status: Status, error: str | None) -> None:
        self.record.end(status, error, backend=self.dispatch.backend, attempts=self.dispatch.attempts)


class Pipeline:
    """Starts inferences. ``check`` raises `EngineError` for tasks that the target is known not to meet.
    ``is_worker``: the parent decides how long the model stays loaded."""

    def __init__(
        self,
        balancer: Balancer,
        failovers: Failovers,
        make_record: MakeRecord,
        media: MediaLoader,
        check: Callable[[BaseTask], None],
        *,
        is_worker: bool = False,
    ) -> None:
        self._balancer = balancer
        self._failovers = failovers
        self._make_record = make_record
        self._media = media
        self._check = check
        self._is_worker = is_worker

    def begin(self, task: T, dialect: Dialect[T], request: WireRequest) -> Inference:
        """The inference of ``task`` on whatever backend serves its target.

        Raises `UnsupportedFeature` for what the target is known not to do.
        """
        self._check(task)
        media = None
        if task.media:
            media = self._media.of(task.media)
            task = replace(task, media=())  # which may be as large as the body: loaded, they are let go
        record = self._make_record(task.target, request.path, request.request_id)

        async def run(resident: Resident, resume_point: ResumePoint | None) -> Reply:
            loaded = media.loaded if media is not None else ()
            execution = Execution(request, record, resident, resume_point or request.resume_point, loaded)
            return await dialect.run(task, execution)

        call = Call(
            request_id=request.request_id,
            answer_id=request.own_id,
            target=task.target,
            path=request.path,
            body=request.body,
            stream=task.stream,
            wire=dialect.wire,
            run=run,
            headers=request.headers,
            defaults=task.defaults,
            worker_fields=request.worker_fields,
            meter=record,
            resumable=isinstance(task, Task) and is_resumable(task),
            priority=task.priority,
            conversation=task.conversation,
            keep_alive=None if self._is_worker else task.keep_alive,
            hops=request.hops,
            inline=media.inline if media is not None else None,
        )
        return self._inference(call, record, dialect, media, for_parent=request.for_parent)

    def relay(
        self,
        resolved: Resolved,
        dialect: Dialect[Any],
        request: WireRequest,
        document: Mapping[str, Any],
        priority: int = 0,
    ) -> Inference:
        """The inference of a request that only upstreams can serve: its ``document`` is passed on unread."""
        record = self._make_record(resolved.target, request.path, request.request_id)
        call = Call(
            request_id=request.request_id,
            answer_id=request.own_id,
            target=resolved.target,
            path=request.path,
            body=request.body,
            stream=document.get("stream") is True,
            wire=dialect.wire,
            headers=request.headers,
            meter=record,
            priority=priority,
            conversation=lambda: str(document.get("messages") or document.get("prompt")),
            hops=request.hops,
        )
        return self._inference(call, record, dialect)

    async def answer(self, task: T, dialect: Dialect[T], request: WireRequest) -> tuple[int, bytes]:
        """The status and the whole body of the answer to ``task``, for who has no HTTP client.

        Raises `EngineError` or `BalancerError`; cancelling it aborts the inference.
        """
        if task.stream:
            task = replace(task, stream=False, defaults={**task.defaults, "stream": False})
        return await self.whole(self.begin(task, dialect, request))

    async def whole(self, inference: Inference) -> tuple[int, bytes]:
        """As `answer`, of an inference that does not stream."""
        try:
            answer, first = await inference.open()
            body = bytearray(first)
            async for data in answer.body:
                body += data
                if len(body) > MOST_BYTES:
                    raise BadAnswer(f"an answer has more than {MOST_BYTES:,} bytes")
            inference.end(answer.status)
            inference.dispatch.finish()
        except Exception as error:
            inference.end(to_api_error(error).status, str(error))
            raise
        finally:
            inference.close()
        return answer.status, bytes(body)

    def _inference(
        self,
        call: Call,
        record: RequestRecord,
        dialect: Dialect[Any],
        media: RequestMedia | None = None,
        *,
        for_parent: bool = False,
    ) -> Inference:
        dispatch = Dispatch(self._balancer, call, self._failovers)
        return Inference(call, dispatch, record, dialect, media, for_parent)


async def generate(task: Task, dialect: GeneratingDialect, execution: Execution) -> Reply:
    """The reply of an engine of this process to ``task``, from a resume point on if there is one."""
    request, record, resume_point = execution.request, execution.record, execution.resume_point
    capabilities.check_generates(execution.resident.info)
    capabilities.check(task.needs, execution.resident.info)
    engine = cast(Engine, execution.resident)
    with told_of(task, engine.info):
        prompts = await prompts_of(task, engine, execution.media)
        plan = None
        if task.messages is not None:
            with _told_of_structure(task):
                plan = engine.answer_plan(task.tools, prompts[0], task.structure)
        structure = task.structure if plan is None else plan.structure
        resumable = is_resumable(task) and engine.can_resume(structure, plan)
        if resume_point is not None and not resumable:
            raise cannot_resume()
        if structure is not None:
            with _told_of_structure(task):
                await engine.prepare(structure)
        asked = task if structure is task.structure else replace(task, structure=structure)
        sequences = generation_requests(asked, prompts, request, resume_point, plan)
        generation = merge.start(engine, sequences, record, answers=task.candidates)
    writer = dialect.writer(
        task,
        AnswerContext(
            answer_id=request.own_id,
            choices=len(sequences),
            has_parts=plan is not None,
            prompts=[prompt for prompt in prompts for _ in range(task.n)],
            resume_point=resume_point,
            begun=engine.retell(sequences[0]) if resume_point is not None else (),
        ),
    )
    if not task.stream:
        return await reply.whole(generation, writer, partial(best, task))
    return await reply.streamed(
        generation,
        writer,
        resumable=resumable,
        resume_point=resume_point,
        for_parent=request.for_parent,
    )


@contextmanager
def _told_of_structure(task: Task) -> Iterator[None]:
    """A structure that is refused is told of by the field of ``task`` that asked for it."""
    try:
        yield
    except RequestError as error:
        if error.param == "response_format":
            error.param = task.needs.get("structured", "tools" if task.tools is not None else error.param)
        raise


def generation_requests(
    task: Task,
    prompts: Sequence[Prompt],
    request: WireRequest,
    resume_point: ResumePoint | None = None,
    plan: AnswerPlan | None = None,
) -> list[GenerationRequest]:
    """A request for each candidate of each prompt, prompt by prompt: the order of the choices' indices.

    With a seed each answer gets its own, or they would all be the same.
    """
    return [
        GenerationRequest(
            request_id=request.request_id,
            prompt=prompt,
            sampling=task.sampling if seed is None else replace(task.sampling, seed=seed + i),
            max_tokens=task.max_tokens,
            min_tokens=task.min_tokens,
            stop=task.stop,
            stop_token_ids=(*task.stop_token_ids, *prompt.ends),
            include_stop=task.include_stop,
            show_special=task.show_special,
            ignore_eos=task.ignore_eos,
            logprobs=task.logprobs if not task.best_of else task.logprobs or 0,
            prompt_logprobs=task.prompt_logprobs,
            structure=task.structure,
            answer=plan,
            adapter=task.target.adapter,
            generated=resume_point.token_ids if resume_point is not None else (),
            must_fit=task.must_fit,
            answer_id=f"{request.own_id}/{number}/{i}",
        )
        for seed in (task.sampling.seed,)
        for number, prompt in enumerate(prompts)
        for i in range(task.candidates)
    ]
