"""The outcome of an inference request: one record a request, whatever backend served it, for every sink."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from balancer.call import Target
from engines.base import Chunk, GenerationRequest, Usage

# Tokens of a proxied answer that come within so many seconds are told as one.
NEAR = 0.002

Status = Literal["finished", "error", "aborted", "refused"]


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """The end of one request, and what it took. Times in seconds.

    ``backend`` served it last, empty if none did; ``attempts`` is how often it was sent to one. ``usage``
    is what was computed for it, also where the answer was aborted, broke off, or came from an upstream
    that did not tell (then the events are counted); nothing for a request that was refused.
    ``first_token`` is the time to it, None if none came.
    """

    request_id: str
    target: Target
    endpoint: str
    status: Status
    backend: str
    attempts: int
    usage: Usage
    duration: float
    first_token: float | None
    error: str | None = None


Sink = Callable[[RequestOutcome], None]


class LiveMetrics(Protocol):
    """The sink of token times while a request runs. Called for every chunk of every stream."""

    def first_token(self, seconds: float, tokens: int = 1) -> None: ...

    def inter_token(self, seconds: float, tokens: int = 1) -> None: ...

    def untimed(self, tokens: int) -> None: ...


class RequestRecord:
    """The record of a request from its arrival to its end; a `TokenMeter` of what a proxy passes on.

    An engine of this process tells each chunk (`started`, `chunk`); for an answer that is proxied the body
    counts (`begin`, `prompt`, `tokens`, `told`). `end` makes the outcome and gives it to the sinks.
    """

    def __init__(
        self,
        target: Target,
        endpoint: str,
        request_id: str,
        *,
        live: LiveMetrics,
        sinks: Sequence[Sink] = (),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._target = target
        self._endpoint = endpoint
        self._request_id = request_id
        self._live = live
        self._sinks = sinks
        self._clock = clock
        self._arrived = clock()
        self._first_token: float | None = None
        self._first_bytes: float | None = None
        self._last_token: dict[int, float] = {}
        self._usages: dict[int, Usage] = {}
        self._answers = 1
        self._prompt = self._completion = 0  # of an answer that is proxied
        self._near, self._seen = 0, 0.0  # tokens since the last that was told, and when the newest came
        self._ended = False

    # -- an engine of this process -----------------------------------------------------------------

    def started(self, requests: Sequence[GenerationRequest], answers: int = 1) -> None:
        """Note what was queued: ``answers`` sequences for each prompt, in the order of the choices.

        Called again for each further run of the same request.
        """
        self._answers = answers
        for index, request in enumerate(requests):
            # What an earlier run generated is in the request, or is generated anew.
            self._usages[index] = Usage(len(request.prompt.token_ids), len(request.generated))
            if request.generated:
                # Its first token came before, perhaps from a server that did not tell when.
                self._last_token.setdefault(index, self._clock())

    def chunk(self, index: int, chunk: Chunk) -> None:
        """Note that choice ``index`` went on."""
        tokens = len(chunk.token_ids)
        if tokens:
            self._time(index, tokens)
        sofar = self._usages[index]
        self._usages[index] = chunk.usage or Usage(sofar.prompt_tokens, sofar.completion_tokens + tokens)

    # -- an answer that is proxied (`balancer.call.TokenMeter`) ------------------------------------

    def begin(self, generated: int = 0) -> None:
        self._answers = 1
        self._usages = {}
        self._prompt, self._completion = 0, generated

    def prompt(self, tokens: int) -> None:
        self._prompt = tokens

    def tokens(self, count: int) -> None:
        # This runs for every piece of every stream that is passed on, so tokens that come close together are
        # told as one: an observation costs more than the rest of this.
        now = self._clock()
        if not count:
            self._first_bytes = self._first_bytes or now
            return
        self._completion += count
        last = self._last_token.get(0)
        if last is None:
            self._time(0, count)
            return
        self._near += count
        self._seen = now
        if now - last >= NEAR:
            self._tell_near(last)

    def overcounted(self, count: int) -> None:
        self._completion = max(0, self._completion - count)

    def told(self, usage: Usage) -> None:
        if 0 not in self._last_token:
            # A whole answer: when its tokens came is not known, only that they did.
            self._live.untimed(usage.completion_tokens)
        self._usages = {0: usage}

    def _tell_near(self, last: float) -> None:
        self._live.inter_token(self._seen - last, self._near)
        self._last_token[0] = self._seen
        self._near = 0

    # ----------------------------------------------------------------------------------------------

    def usage(self) -> Usage:
        """Tokens of all choices so far. A prompt counts once, however many answers it has."""
        if not self._usages:
            return Usage(self._prompt, self._completion)
        usages = [self._usages[index] for index in sorted(self._usages)]
        prompts = usages[:: self._answers]
        return Usage(
            prompt_tokens=sum(u.prompt_tokens for u in prompts),
            completion_tokens=sum(u.completion_tokens for u in usages),
            cached_tokens=sum(u.cached_tokens for u in prompts),
            reasoning_tokens=sum(u.reasoning_tokens for u in usages),
        )

    def end(self, status: Status, error: str | None = None, *, backend: str = "", attempts: int = 0) -> None:
        """Make the outcome and give it to the sinks; the first call decides."""
        if self._ended:
            return
        self._ended = True
        if self._near:
            self._tell_near(self._last_token[0])
        if not self._last_token and self._first_bytes is not None:
            # A stream whose tokens cannot be seen: it began with its first bytes.
            self._first_token = self._first_bytes - self._arrived
            self._live.first_token(self._first_token, 0)
        outcome = RequestOutcome(
            request_id=self._request_id,
            target=self._target,
            endpoint=self._endpoint,
            status=status,
            backend=backend,
            attempts=attempts,
            usage=Usage(0, 0) if status == "refused" else self.usage(),
            duration=self._clock() - self._arrived,
            first_token=self._first_token,
            error=error,
        )
        for sink in self._sinks:
            sink(outcome)

    def _time(self, index: int, tokens: int) -> None:
        now = self._clock()
        last = self._last_token.get(index)
        if last is None:
            if self._first_token is None:
                self._first_token = now - self._arrived
            self._live.first_token(now - self._arrived, tokens)
        else:
            self._live.inter_token(now - last, tokens)
        self._last_token[index] = now
