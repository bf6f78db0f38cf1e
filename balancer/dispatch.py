"""Dispatch: retries a call before its first byte and resumes its stream after it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from balancer.backends.base import Verdict
from balancer.balancer import Balancer
from balancer.call import ByteStream, Call, Reply, ResumePoint
from balancer.errors import BalancerError, NotLetIn, RequestKills
from balancer.lease import Lease
from balancer.retry import RetryBudget, backoff
from balancer.suspects import Suspects, Suspicion
from engines.errors import EngineError, RequestError

logger = logging.getLogger("balancer")

# Backends that a call is sent to at most before its first byte, and for each break in its answer.
MOST_TRIES = 3
# And so many breaks in all it may see, with those that are nobody's fault, as of instances that were
# unloaded under it; how many may be its own doing, `suspects` says.
MOST_BREAKS = 20

# How often, and how far apart in seconds, it is asked whether a backend that broke comes back.
SETTLE_TIMES = 10
SETTLE_SECONDS = 0.05

_NO_FAILURES = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.LOOP_DETECTED)

FAILURES = (EngineError, BalancerError)
"""What a call can fail with because of its backend, or for want of one."""


class Failovers:
    """The retry budget and the failover counts that all calls of one server share.

    ``counts``: "retried", "resumed" (went on elsewhere in mid-answer) and "broken" (could not).
    ``suspects``: calls that may be what instances died of.
    """

    def __init__(
        self,
        budget: RetryBudget | None = None,
        rng: random.Random | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.budget = budget or RetryBudget()
        self.counts: Counter[str] = Counter()
        self.suspects = Suspects()
        self._rng = rng or random.Random()
        self.sleep = sleep

    async def pause(self, attempt: int) -> None:
        await self.sleep(backoff(attempt, self._rng))


class Dispatch:
    """Holds the lease and the body of one call. `close` is synchronous and idempotent."""

    def __init__(self, balancer: Balancer, call: Call, failovers: Failovers) -> None:
        self._balancer = balancer
        self._call = call
        self._failovers = failovers
        self._tried: dict[str, int] = {}
        self._lease: Lease | None = None
        self._reply: Reply | None = None
        self._name = ""
        self._breaks = 0
        self._attempts = 0
        self._suspicion = Suspicion(failovers.suspects, call.model)
        failovers.budget.note_call()

    @property
    def backend(self) -> str:
        """The name of the backend that serves the call, or did last."""
        return self._name

    @property
    def attempts(self) -> int:
        """How many backends the call was sent to, each as often as it was."""
        return self._attempts

    async def open(self) -> tuple[Reply, bytes]:
        """The reply and its first bytes: those of a success are there, so that nothing was sent before.

        A reply with an error's status is an upstream's own. Raises `EngineError` or `BalancerError`.
        """
        attempt = 0
        reason: Exception | None = None
        while True:
            attempt += 1
            try:
                reply, first = await self._attempt(None)
            except RequestError:
                self.close()
                raise
            except FAILURES as failure:
                if self._lease is None:
                    # Why it has to go elsewhere says more than that it cannot.
                    raise (reason or failure) from None
                reason = failure
                if not await self._fails_over(attempt, failure):
                    raise self._told(failure) from None
            else:
                if reply.status < 400 or not self._is_refused_elsewhere(attempt, reply):
                    return reply, first
            await self._failovers.pause(attempt - 1)

    async def resume(self, failure: Exception) -> tuple[ByteStream, bytes]:
        """The body, and its first bytes, that goes on where the broken one ended.

        Raises ``failure`` if none can, or what it says of the call.
        """
        resume_point = self._reply.body.resume_point() if self._reply is not None else None
        broken, is_ours = self._name, self._is_ours
        self._fail(_blame(failure), 0 if resume_point is None else len(resume_point.token_ids))
        self._breaks += 1
        tries = 0
        if self._may_resume(failure) and resume_point is not None:
            if is_ours:
                await self._settle()
            while tries < MOST_TRIES and self._may_break_more() and self._has_other():
                try:
                    reply, first = await self._attempt(resume_point)
                    if reply.status == 200:
                        self._note_resumed(broken, resume_point, failure)
                        return reply.body, first
                    outcome = _verdict(reply.status)
                except FAILURES as error:
                    outcome = _blame(error)
                is_ours = self._is_ours
                self._fail(outcome)
                if is_ours:
                    self._breaks += 1
                    await self._settle()
                else:
                    tries += 1
        self._failovers.counts["broken"] += 1
        raise self._told(failure) from None

    def finish(self) -> None:
        """The body came to its end."""
        self._end(_verdict(self._reply.status) if self._reply is not None else Verdict.NEUTRAL)

    def close(self) -> None:
        """The call is over, whatever became of it."""
        self._end(Verdict.NEUTRAL)

    async def _attempt(self, resume_point: ResumePoint | None) -> tuple[Reply, bytes]:
        lease = self._lease = await self._acquire()
        self._name = lease.backend.name
        self._attempts += 1
        reply = self._reply = await lease.backend.run(self._call, resume_point)
        if reply.status >= 400:
            return reply, b""
        first = await anext(reply.body, b"")
        if self._call.stream:  # else the first bytes are the last
            lease.backend.first_token(lease.age)
        return reply, first

    async def _acquire(self) -> Lease:
        await self._suspicion.wait_turn()
        try:
            lease = await self._balancer.acquire(self._call, self._tried)
        except BaseException:
            self._suspicion.end()
            raise
        self._suspicion.begin(lease)
        return lease

    def _may_resume(self, failure: Exception) -> bool:
        is_possible = self._call.resumable and not isinstance(failure, RequestError)
        return is_possible and self._may_break_more()

    def _may_break_more(self) -> bool:
        return self._breaks <= MOST_BREAKS and not self._suspicion.is_proven

    def _told(self, failure: Exception) -> Exception:
        """What the client is told of the last failure: of a call that killed too often, that it did."""
        if not self._suspicion.is_proven:
            return failure
        told = {"request_id": self._call.request_id, "reason": str(failure)}
        deaths = self._suspicion.deaths
        logger.error("a request is given up: %d instances failed while they computed it", deaths, extra=told)
        return RequestKills(
            f"the request was given up, as {deaths} instances failed while they computed it; "
            f"the last: {failure}"
        )

    def _note_resumed(self, broken: str, resume_point: ResumePoint, failure: Exception) -> None:
        self._failovers.counts["resumed"] += 1
        told = {
            "request_id": self._call.request_id,
            "tokens": len(resume_point.token_ids),
            "from": broken,
            "to": self._name,
            "reason": str(failure),
        }
        logger.info("an answer went on elsewhere", extra=told)

    async def _fails_over(self, attempt: int, failure: Exception) -> bool:
        """Give up the backend that failed; whether another is to be tried."""
        is_ours = self._is_ours
        self._fail(_blame(failure))
        if is_ours:
            await self._settle()
        return self._may_retry(attempt, is_ours)

    async def _settle(self) -> None:
        """Give the death of one of our own backends the moment it takes to be known, if it was the only one:
        before that nobody knows that it comes back."""
        for _ in range(SETTLE_TIMES):
            if self._has_other():
                return
            await self._failovers.sleep(SETTLE_SECONDS)

    def _has_other(self) -> bool:
        return self._balancer.has_other(self._call, self._tried)

    @property
    def _is_ours(self) -> bool:
        return self._lease is not None and self._lease.backend.is_managed

    def _is_refused_elsewhere(self, attempt: int, reply: Reply) -> bool:
        """Whether ``reply``, an upstream's error, is dropped because another backend may do better."""
        if reply.status < 500 and reply.status != 429:
            return False
        lease = self._lease
        assert lease is not None
        tried = {**self._tried, lease.backend.name: lease.generation}
        if not self._balancer.has_other(self._call, tried) or not self._may_retry(attempt, self._is_ours):
            return False
        self._fail(_verdict(reply.status))
        return True

    def _may_retry(self, attempt: int, is_free: bool) -> bool:
        """``is_free``: what dies here takes its load with it; the budget is for upstreams in distress."""
        most = MOST_BREAKS if is_free else MOST_TRIES
        if attempt >= most or self._suspicion.is_proven or not self._has_other():
            return False
        if not is_free and not self._failovers.budget.take():
            return False
        self._failovers.counts["retried"] += 1
        return True

    def _fail(self, outcome: Verdict = Verdict.FAILURE, tokens: int = 0) -> None:
        """This backend, as it is now, is not asked again; it broke after so many ``tokens`` of the answer."""
        lease = self._lease
        if lease is not None:
            self._tried[lease.backend.name] = lease.generation
            if outcome is Verdict.FAILURE:
                self._suspicion.note(lease, tokens)
        self._end(outcome)

    def _end(self, outcome: Verdict) -> None:
        reply, self._reply = self._reply, None
        lease, self._lease = self._lease, None
        if reply is not None:
            reply.body.close()
        self._suspicion.end()
        if lease is not None:
            lease.release(outcome)


def _blame(failure: Exception) -> Verdict:
    """What ``failure`` says of its backend: a 403 may be about this one request, as a client can cause it."""
    is_about_request = isinstance(failure, NotLetIn) and failure.status == HTTPStatus.FORBIDDEN
    return Verdict.NEUTRAL if is_about_request or isinstance(failure, RequestError) else Verdict.FAILURE


def _verdict(status: int) -> Verdict:
    """What a reply says of its backend: a client's mistake, a loop, or having enough to do, is no failure."""
    if status < 400:
        return Verdict.SUCCESS
    return Verdict.FAILURE if status >= 500 and status not in _NO_FAILURES else Verdict.NEUTRAL
