"""Greedy streams that never cease, each followed to its end: what a client is promised, and what it got."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from app.answer_bytes import DONE, LineSplitter, event_data
from benchmarks.chaos.forms import FORMS, MOST_TOKENS, CallsSeen, Form, faults
from benchmarks.harness.processes import BenchError
from benchmarks.load.client import CLOSING, RequestFailed, connect, post_request

TIMEOUT = 240.0

_TASKS = (
    "Tell a short story about",
    "List interesting facts about",
    "Explain to a child what is special about",
    "Write a letter to a friend about",
    "Describe in plain words",
    "Give useful advice about",
)
_THINGS = (
    "a lighthouse by the sea", "bread", "the moon", "a lost dog", "bicycles", "rain in autumn", "a library",
    "mountains", "an old clock", "bees", "the colour green",
)  # fmt: skip
_STOPS: tuple[list[str], ...] = ([], [], [".\n"], ["3."], [])


@dataclass(frozen=True, slots=True)
class Question:
    """One request, for chat completions or for completions; ``number`` tells it from the others. ``form`` is
    that of its answer, if it must have one."""

    number: int
    path: str
    body: dict[str, Any]
    form: Form | None = None

    @property
    def is_chat(self) -> bool:
        return "messages" in self.body

    @property
    def max_tokens(self) -> int:
        return int(self.body["max_tokens"])


@dataclass(slots=True)
class Transcript:
    """A streamed answer as its client saw it; the ``text`` of a call are its arguments.

    ``arrivals`` are a `time.perf_counter` time and the length of the text from then on. ``faults`` are
    breaches of what every stream keeps to.
    """

    question: Question
    request_id: str
    sent: float
    ended: float = 0.0
    text: str = ""
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    finish_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return int(self.usage.get("completion_tokens", 0))


def questions(model: str, count: int, *, shortest: int, longest: int) -> list[Question]:
    """``count`` different ones, chats and completions in turn, of ``shortest`` to ``longest`` tokens; every
    fourth is to be answered in one of `FORMS`."""
    return [_question(model, n, shortest + n * 37 % (longest - shortest + 1)) for n in range(count)]


def _question(model: str, number: int, max_tokens: int) -> Question:
    # Both lists have lengths without a common divisor, so that texts repeat after all pairs only.
    text = f"{_TASKS[number % 6]} {_THINGS[number % 11]}, number {number}."
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if stop := _STOPS[number % 5]:
        body["stop"] = stop
    if number % 2:
        return Question(number, "/v1/completions", {**body, "prompt": text})
    body["messages"] = [{"role": "user", "content": text}]
    if number % 4 == 2:
        form = FORMS[number // 4 % len(FORMS)]
        body = {**body, **form.fields, "max_tokens": MOST_TOKENS}
        body.pop("stop", None)
        return Question(number, "/v1/chat/completions", body, form)
    return Question(number, "/v1/chat/completions", body)


class StreamLoad:
    """Keeps streams going at a server, and their answers."""

    def __init__(self, url: str, label: str) -> None:
        """``label`` begins the ids of its requests."""
        self.answers: list[Transcript] = []
        self._label = label
        self._numbers = itertools.count()
        self._url = url

    @asynccontextmanager
    async def going(self, asked: Sequence[Question], inflight: int) -> AsyncIterator[None]:
        """Keep ``inflight`` of ``asked`` going, over and over, until the block ends; then those that are
        on their way end, too. Raises `BenchError` if they do not."""
        endless = itertools.cycle(asked)
        stopped = asyncio.Event()

        async def work() -> None:
            while not stopped.is_set():
                self.answers.append(await self.ask(next(endless)))

        workers = [asyncio.create_task(work()) for _ in range(inflight)]
        try:
            yield
            stopped.set()
            await self._end(workers)
        finally:
            for worker in workers:
                worker.cancel()

    async def once(self, asked: Sequence[Question], inflight: int) -> list[Transcript]:
        """Each of ``asked``, ``inflight`` at a time. Raises `BenchError` if they do not end."""
        remaining = iter(asked)
        answers: list[Transcript] = []

        async def work() -> None:
            answers.extend([await self.ask(question) for question in remaining])

        await self._end([asyncio.create_task(work()) for _ in range(inflight)])
        return answers

    async def ask(self, question: Question) -> Transcript:
        """Follow one stream to its end; whatever goes wrong is among the answer's faults."""
        answer = Transcript(question, f"{self._label}-{next(self._numbers)}", time.perf_counter())
        follower = _Follower(answer)
        headers = {**CLOSING, "x-request-id": answer.request_id}
        request = post_request(self._url, question.path, json.dumps(question.body).encode(), headers)
        try:
            async with asyncio.timeout(TIMEOUT):
                connection = await connect(self._url)
                try:
                    await connection.post(request, follower.feed)
                finally:
                    connection.close()
            follower.end()
        except (OSError, RequestFailed) as error:
            answer.faults.append(f"{type(error).__name__}: {error} after {len(answer.text)} characters")
        answer.ended = time.perf_counter()
        return answer

    async def _end(self, workers: Sequence[asyncio.Task[None]]) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                await asyncio.gather(*workers)
        except TimeoutError:
            raise BenchError(f"streams had not ended after {TIMEOUT:.0f} s") from None


class _Follower:
    """Reads a stream's lines into its answer, and finds what does not belong there."""

    def __init__(self, answer: Transcript) -> None:
        self._answer = answer
        self._lines = LineSplitter()
        self._heads: set[tuple[str, int]] = set()
        self._openings = self._finishes = self._usages = 0
        self._is_done = False
        self._content = ""
        self._calls = CallsSeen()

    def feed(self, data: bytes) -> None:
        """Take a part of the body. Raises ValueError for an event that is no JSON."""
        for line in filter(None, self._lines.feed(data)):
            payload = event_data(line)
            if self._is_done:
                self._fault(f"after [DONE]: {line[:80]!r}")
            elif payload is None:
                self._fault(f"not for clients: {line[:80]!r}")
            elif payload == DONE:
                self._is_done = True
            else:
                self._event(json.loads(payload))

    def end(self) -> None:
        """The connection brought its last byte."""
        answer, usage = self._answer, self._answer.usage
        expected = {"[DONE]": self._is_done, "one id and `created`": len(self._heads) == 1}
        expected["one opening event"] = self._openings == (1 if answer.question.is_chat else 0)
        expected["one finish event"] = self._finishes == 1
        expected["one usage event"] = self._usages == 1
        answer.faults += [f"not {what}" for what, is_so in expected.items() if not is_so]
        if answer.question.form is not None:
            answer.faults += faults(answer.question.form, self._content, self._calls, answer.finish_reason)
        if not usage:
            return
        if usage["total_tokens"] != usage["prompt_tokens"] + answer.tokens:
            self._fault(f"usage does not add up: {usage}")
        most = answer.question.max_tokens
        if answer.tokens > most or (answer.finish_reason == "length" and answer.tokens != most):
            self._fault(f"{answer.tokens} tokens of {most} at {answer.finish_reason}")

    def _event(self, event: dict[str, Any]) -> None:
        if "error" in event:
            self._fault(f"an error event: {event['error'].get('message')}")
            return
        self._heads.add((event["id"], event["created"]))
        if event.get("usage"):
            self._usages += 1
            self._answer.usage = event["usage"]
        for choice in event["choices"]:
            self._choice(choice)

    def _choice(self, choice: dict[str, Any]) -> None:
        answer = self._answer
        if self._finishes:
            self._fault("text after the finish event")
        delta = choice.get("delta", {})
        self._openings += "role" in delta
        content = choice.get("text") or delta.get("content") or ""
        self._content += content
        text = content + self._calls.take(delta.get("tool_calls") or ())
        if text:
            answer.text += text
            answer.arrivals.append((time.perf_counter(), len(answer.text)))
        if choice["finish_reason"]:
            self._finishes += 1
            answer.finish_reason = choice["finish_reason"]

    def _fault(self, what: str) -> None:
        self._answer.faults.append(what)
