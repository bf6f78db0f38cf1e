"""A call on its way through backends: where it is tried again, goes on, or ends, and what is left of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.backends.base import BackendState
from balancer.balancer import Balancer, QueueLimits
from balancer.call import Reply, ResumePoint
from balancer.dispatch import FAILURES, MOST_BREAKS, MOST_TRIES, Dispatch, Failovers
from balancer.errors import BackendFailed, NoBackend, NotLetIn, QueueFull, RequestKills
from balancer.retry import RetryBudget
from balancer.suspects import MOST_DEATHS
from engines.errors import EngineError, RequestError
from support.balancing import Body, Clock, StubBackend, StubPool, call, reply, turns

LOST = BackendFailed("connection refused")


class Desk:
    """A balancer over stubs; its calls, and what became of the pauses between their tries."""

    def __init__(self, *backends: StubBackend, retries: int = 100, **limits: Any) -> None:
        self.clock = Clock()
        self.pool = StubPool(backends)
        self.balancer = Balancer(QueueLimits(**limits), self.pool, self.clock)
        self.pauses: list[float] = []
        self.others = 0  # calls that run beside the one that is looked at
        budget = RetryBudget(self.clock, share=0.0, minimum=retries)
        self.failovers = Failovers(budget, random.Random(0), self._pause)

    async def _pause(self, seconds: float) -> None:
        assert self.balancer.running == self.others, "a place is held for nothing"
        self.pauses.append(seconds)

    def serving(self, **fields: Any) -> Dispatch:
        return Dispatch(self.balancer, call(**fields), self.failovers)

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.failovers.counts)

    def assert_clean(self) -> None:
        """No lease is out, and every body that was opened was closed, once."""
        assert (self.balancer.running, self.balancer.queue_depth) == (0, 0)
        for backend in self.pool.known:
            assert backend.inflight == 0
            assert backend.requests == len(backend.asked) or not backend.asked
            for each in backend.replies:
                assert isinstance(each.body, Body)
                assert each.body.closes == 1


def named(*answers: Any, name: str = "a", **fields: Any) -> StubBackend:
    return StubBackend(name, answers=answers, **fields)


async def rest(body: Any) -> bytes:
    return b"".join([data async for data in body])


async def served(desk: Desk, serving: Dispatch) -> bytes:
    """All that the client gets; breaks are mended."""
    opened, data = await serving.open()
    body = opened.body
    while True:
        try:
            data += await rest(body)
            break
        except FAILURES as failure:
            body, first = await serving.resume(failure)
            data += first
    serving.finish()
    return data


# -- before the first byte -------------------------------------------------------------------------


async def test_a_whole_answer() -> None:
    backend = named(reply(b"1", b"2"))
    desk = Desk(backend)
    serving = desk.serving()
    opened, first = await serving.open()
    assert (opened.status, first, serving.backend) == (200, b"1", "a")
    assert desk.balancer.running == 1
    assert await rest(opened.body) == b"2"
    serving.finish()
    serving.close()
    desk.assert_clean()
    assert (backend.successes, desk.counts, desk.pauses) == (1, {}, [])


@pytest.mark.parametrize(("status", "failures"), [(401, 1), (403, 0), (407, 1)])
async def test_who_is_not_let_in_goes_elsewhere(status: int, failures: int) -> None:
    """A 403 may be about what one client asks for: no client may talk a backend down."""
    wary, other = named(NotLetIn("a wrong key", status)), named(reply(b"1"), name="b")
    desk = Desk(wary, other)
    assert await served(desk, desk.serving()) == b"1"
    assert (wary.failures, other.successes, desk.counts) == (failures, 1, {"retried": 1})
    desk.assert_clean()


async def test_an_upstream_that_finds_a_loop_is_none_the_worse() -> None:
    looping = named(reply(status=508))
    desk = Desk(looping)
    serving = desk.serving()
    assert (await serving.open())[0].status == 508
    serving.finish()
    assert looping.failures == 0
    desk.assert_clean()


async def test_the_time_to_the_first_token_is_noted() -> None:
    backend = named(reply(Body.PAUSE, b"1"))
    desk = Desk(backend)
    backend._clock = desk.clock
    serving = desk.serving()
    opening = asyncio.create_task(serving.open())
    await turns()
    desk.clock.now = 3.0
    body = backend.replies[0].body
    assert isinstance(body, Body)
    body.resume()
    await opening
    assert backend.ttft == 3.0
    serving.close()


async def test_an_answer_in_one_piece_says_nothing_of_the_first_token() -> None:
    backend = named(reply(b"1"))
    desk = Desk(backend)
    assert await served(desk, desk.serving(stream=False)) == b"1"
    assert (backend.successes, backend.ttft) == (1, None)


@pytest.mark.parametrize("failure", [LOST, EngineError("out of memory")])
@pytest.mark.parametrize("late", [False, True])
async def test_what_fails_before_its_first_byte_is_tried_elsewhere(failure: Exception, late: bool) -> None:
    failing = named(reply(failure) if late else failure)
    other = named(name="b")
    desk = Desk(failing, other)
    serving = desk.serving()
    assert await served(desk, serving) == b"ok"
    assert (serving.backend, failing.failures, failing.suspicions, other.successes) == ("b", 1, 1, 1)
    assert desk.counts == {"retried": 1}
    assert len(desk.pauses) == 1
    assert 0 <= desk.pauses[0] <= 0.05
    desk.assert_clean()


async def test_the_pauses_grow_with_full_jitter() -> None:
    """Each is anything up to a bound that doubles."""
    pauses: list[list[float]] = [[], []]
    for seed in range(200):
        desk = Desk(named(LOST), named(LOST, name="b"), named(name="c"))
        desk.failovers._rng = random.Random(seed)
        await served(desk, desk.serving())
        for each, pause in zip(pauses, desk.pauses, strict=True):
            each.append(pause)
    for bound, each in zip((0.05, 0.1), pauses, strict=True):
        assert max(each) <= bound
        assert max(each) > 0.9 * bound
        assert min(each) < 0.1 * bound


async def test_no_call_is_sent_to_more_than_three_backends_nor_to_one_twice() -> None:
    backends = [named(*[LOST] * 9, name=name) for name in "abcde"]
    desk = Desk(*backends)
    with pytest.raises(BackendFailed):
        await desk.serving().open()
    assert sorted(backend.requests for backend in backends) == [0, 0, 1, 1, 1]
    assert desk.counts == {"retried": MOST_TRIES - 1}
    desk.assert_clean()


async def test_the_last_failure_is_told_if_there_is_no_other() -> None:
    desk = Desk(named(LOST), named(EngineError("the last"), name="b"))
    with pytest.raises(EngineError, match="the last"):
        await desk.serving().open()
    assert desk.counts == {"retried": 1}
    desk.assert_clean()


async def test_a_failure_is_told_rather_than_that_no_other_was_there() -> None:
    other = named(name="b", limit=1)
    desk = Desk(named(LOST), other)
    busy = await desk.balancer.acquire(call(), {"a": 0})
    desk.others = 1
    opening = asyncio.create_task(desk.serving().open())
    await turns()
    assert not opening.done()
    other.state = BackendState.FAILED
    desk.balancer.changed()
    with pytest.raises(BackendFailed, match="connection refused"):
        await opening
    busy.release()
    assert desk.balancer.running == 0


class Dying:
    """Sees to it that one of our own dies ``after`` seconds of each call, and comes back."""

    def __init__(self, desk: Desk, backend: StubBackend, after: float) -> None:
        self._desk, self._backend, self._after = desk, backend, after
        desk.failovers.sleep = self.come_back
        run = backend.run

        async def die(*args: Any) -> Any:
            desk.clock.now += after
            return await run(*args)

        backend.run = die  # type: ignore[method-assign]

    async def come_back(self, seconds: float) -> None:
        self._backend.start_anew()


@pytest.mark.parametrize("after", [0.1, 5.0, 600.0])
async def test_a_request_that_kills_is_tried_a_few_times(after: float) -> None:
    """However long each death takes."""
    backend = named(*[LOST] * 50, managed=True)
    desk = Desk(backend)
    backend._clock = desk.clock
    Dying(desk, backend, after)
    with pytest.raises(
        RequestKills, match=rf"{MOST_DEATHS} instances failed while they computed it.*refused"
    ):
        await served(desk, desk.serving())
    assert backend.requests == MOST_DEATHS
    desk.assert_clean()


async def test_ours_may_die_twice_under_a_call() -> None:
    backend = named(*[LOST] * (MOST_DEATHS - 1), managed=True)
    desk = Desk(backend)
    Dying(desk, backend, after=5.0)
    assert await served(desk, desk.serving()) == b"ok"
    assert desk.counts == {"retried": MOST_DEATHS - 1}
    desk.assert_clean()


async def test_a_backend_that_was_started_anew_is_tried_again() -> None:
    backend = named(LOST)
    desk = Desk(backend)

    async def restart(seconds: float) -> None:
        backend.start_anew()

    failing = asyncio.get_running_loop().create_future()
    backend.answers = type(backend.answers)([failing])
    desk.failovers.sleep = restart
    serving = desk.serving()
    opening = asyncio.create_task(serving.open())
    await turns()
    backend.state = BackendState.STARTING  # it crashed
    failing.set_result(LOST)
    _, first = await opening
    assert (first, backend.requests) == (b"ok", 2)
    serving.finish()
    desk.assert_clean()


async def test_one_that_starts_is_waited_for() -> None:
    starting = named(name="b", state=BackendState.STARTING)
    desk = Desk(named(LOST), starting)
    serving = desk.serving()
    opening = asyncio.create_task(serving.open())
    await turns()
    assert not opening.done()
    starting.state = BackendState.READY
    desk.balancer.changed()
    _, first = await opening
    assert (first, serving.backend) == (b"ok", "b")
    serving.finish()
    desk.assert_clean()


async def test_a_failure_makes_no_stopped_model_load() -> None:
    desk = Desk(named(LOST), named(name="b", state=BackendState.STOPPED))
    with pytest.raises(BackendFailed):
        await desk.serving().open()
    assert not any(desk.pool.demanded)
    desk.assert_clean()


async def test_no_backend_at_all() -> None:
    desk = Desk(named(state=BackendState.FAILED))
    with pytest.raises(NoBackend):
        await desk.serving().open()
    desk.assert_clean()


# -- the budget ------------------------------------------------------------------------------------


async def test_retries_are_bounded_by_the_budget() -> None:
    desk = Desk(named(LOST, LOST), named(LOST, LOST, name="b"), retries=1)
    for _ in range(2):
        with pytest.raises(BackendFailed):
            await desk.serving().open()
    assert desk.counts == {"retried": 1}
    assert sum(backend.requests for backend in desk.pool.known) == 3
    desk.assert_clean()


@pytest.mark.parametrize("failure", [LOST, reply(status=500)])
async def test_what_this_server_runs_itself_needs_no_budget(failure: Any) -> None:
    desk = Desk(named(failure, managed=True), named(name="b", managed=True), retries=0)
    assert await served(desk, desk.serving()) == b"ok"
    assert desk.counts == {"retried": 1}


async def test_every_call_is_noted_once() -> None:
    desk = Desk(named(LOST), named(name="b"))
    noted = []
    desk.failovers.budget.note_call = lambda: noted.append(1)  # type: ignore[method-assign]
    await served(desk, desk.serving())
    assert noted == [1]


# -- what is not the backend's fault ---------------------------------------------------------------


async def test_a_request_at_fault_is_not_tried_again() -> None:
    backend = named(RequestError("too long"))
    desk = Desk(backend, named(name="b"))
    with pytest.raises(RequestError):
        await desk.serving().open()
    assert (backend.failures, backend.suspicions, desk.counts) == (0, 0, {})
    desk.assert_clean()


@pytest.mark.parametrize("status", [400, 401, 404, 422])
async def test_a_clients_mistake_is_passed_through(status: int) -> None:
    backend = named(reply(b"why", status=status))
    desk = Desk(backend, named(name="b"))
    serving = desk.serving()
    opened, first = await serving.open()
    assert (opened.status, first, await rest(opened.body)) == (status, b"", b"why")
    serving.finish()
    assert (backend.successes, backend.failures, desk.counts) == (0, 0, {})
    assert backend.ttft is None
    desk.assert_clean()


@pytest.mark.parametrize(("status", "failures"), [(500, 1), (502, 1), (503, 0), (429, 0)])
async def test_an_upstream_in_distress_is_left_for_another(status: int, failures: int) -> None:
    refusing = named(reply(b"why", status=status))
    desk = Desk(refusing, named(name="b"))
    serving = desk.serving()
    assert await served(desk, serving) == b"ok"
    assert (serving.backend, refusing.failures) == ("b", failures)
    assert (desk.counts, len(desk.pauses)) == ({"retried": 1}, 1)
    desk.assert_clean()


@pytest.mark.parametrize(("status", "failures"), [(500, 1), (503, 0), (429, 0)])
@pytest.mark.parametrize("others", [0, 1, 2])
async def test_its_words_are_passed_through_if_no_other_does_better(
    status: int, failures: int, others: int
) -> None:
    refusing = [named(reply(b"why", status=status), name=name) for name in "abc"[: others + 1]]
    desk = Desk(*refusing)
    serving = desk.serving()
    opened, first = await serving.open()
    assert (opened.status, first, await rest(opened.body)) == (status, b"", b"why")
    serving.finish()
    assert [backend.failures for backend in refusing] == [failures] * (others + 1)
    desk.assert_clean()


async def test_without_a_budget_they_are_passed_through_too() -> None:
    desk = Desk(named(reply(b"why", status=500)), named(name="b"), retries=0)
    serving = desk.serving()
    opened, _ = await serving.open()
    assert opened.status == 500
    serving.finish()
    desk.assert_clean()


# -- an answer that breaks off ---------------------------------------------------------------------


async def test_another_backend_goes_on_where_the_answer_broke_off() -> None:
    failing, other = named(reply(b"1", LOST, at=1)), named(reply(b"2", b"3"), name="b")
    desk = Desk(failing, other)
    serving = desk.serving(resumable=True)
    assert await served(desk, serving) == b"123"
    assert other.asked == [ResumePoint((0,), created=1)]
    assert (serving.backend, failing.failures, other.successes) == ("b", 1, 1)
    assert desk.counts == {"resumed": 1}
    desk.assert_clean()


async def test_a_second_break_is_mended_too() -> None:
    desk = Desk(
        named(reply(b"1", LOST, at=1)),
        named(reply(b"2", LOST, at=2), name="b"),
        named(reply(b"3", at=3), name="c"),
    )
    assert await served(desk, desk.serving(resumable=True)) == b"123"
    assert desk.pool.known[2].asked == [ResumePoint((0, 1), created=1)]
    assert desk.counts == {"resumed": 2}
    desk.assert_clean()


@pytest.mark.parametrize(
    "bad", [LOST, RequestError("unknown token"), reply(LOST), reply(status=500), reply(status=503)]
)
async def test_one_that_cannot_go_on_is_passed_over(bad: Any) -> None:
    other = named(bad, name="b")
    desk = Desk(named(reply(b"1", LOST, at=1)), other, named(reply(b"2"), name="c"))
    assert await served(desk, desk.serving(resumable=True)) == b"12"
    neutral = isinstance(bad, RequestError) or (isinstance(bad, Reply) and bad.status == 503)
    assert other.failures == (0 if neutral else 1)
    assert desk.counts == {"resumed": 1}
    assert desk.balancer.running == 0


@pytest.mark.parametrize(
    ("resumable", "at", "failure"),
    [(False, 1, LOST), (True, None, LOST), (True, 1, RequestError("the text is at fault"))],
)
async def test_what_cannot_go_on_is_broken(resumable: bool, at: int | None, failure: Exception) -> None:
    desk = Desk(named(reply(b"1", failure, at=at)), named(name="b"))
    serving = desk.serving(resumable=resumable)
    with pytest.raises(type(failure)) as raised:
        await served(desk, serving)
    assert str(raised.value) == str(failure)
    assert desk.counts == {"broken": 1}
    assert desk.pool.known[1].asked == []
    assert desk.pool.known[0].failures == (not isinstance(failure, RequestError))
    desk.assert_clean()


@pytest.mark.parametrize("other", [BackendState.STOPPED, BackendState.FAILED, None])
async def test_the_break_is_told_if_no_other_backend_lives(other: BackendState | None) -> None:
    desk = Desk(named(reply(b"1", LOST, at=1)), named(name="b"))
    serving = desk.serving(resumable=True)
    opened, _ = await serving.open()
    if other is None:
        desk.pool.known.clear()  # the model was removed
    else:
        desk.pool.known[1].state = other
    with pytest.raises(BackendFailed):
        await rest(opened.body)
    with pytest.raises(BackendFailed, match="connection refused"):
        await serving.resume(LOST)
    assert desk.counts == {"broken": 1}
    assert not any(desk.pool.demanded)
    desk.assert_clean()


async def test_at_most_three_are_asked_to_go_on() -> None:
    others = [named(LOST, name=name) for name in "bcdef"]
    desk = Desk(named(reply(b"1", LOST, at=1)), *others)
    with pytest.raises(BackendFailed):
        await served(desk, desk.serving(resumable=True))
    assert sum(backend.requests for backend in others) == MOST_TRIES
    assert desk.counts == {"broken": 1}
    desk.assert_clean()


async def test_an_answer_waits_for_one_that_starts() -> None:
    starting = named(reply(b"2"), name="b", state=BackendState.STARTING)
    desk = Desk(named(reply(b"1", LOST, at=1)), starting)
    serving = desk.serving(resumable=True)
    answer = asyncio.create_task(served(desk, serving))
    await turns()
    assert not answer.done()
    assert desk.balancer.queue_depth == 1
    starting.state = BackendState.READY
    desk.balancer.changed()
    assert await answer == b"12"
    desk.assert_clean()


@pytest.mark.parametrize(
    ("managed", "state", "most"),
    [
        (True, BackendState.READY, MOST_DEATHS - 1),
        (True, BackendState.FAILED, MOST_DEATHS - 1),
        (True, BackendState.DRAINING, MOST_BREAKS),
        (True, BackendState.STOPPED, MOST_BREAKS),
        (False, BackendState.READY, MOST_BREAKS),
    ],
)
async def test_a_request_that_kills_what_computes_it_comes_to_an_end(
    managed: bool, state: BackendState, most: int
) -> None:
    """However often its backends come back, and however far it got; what is unloaded was not killed."""
    backends = [named(name=name, managed=managed) for name in "ab"]
    for backend in backends:
        backend.answers.extend(reply(b"1", LOST, at=1) for _ in range(2 * MOST_BREAKS))
    desk = Desk(*backends)

    async def come_back(seconds: float) -> None:
        for backend in backends:
            backend.start_anew()

    desk.failovers.sleep = come_back
    serving = desk.serving(resumable=True)
    opened, data = await serving.open()
    body = opened.body
    for left in range(most, -1, -1):
        with pytest.raises(BackendFailed):
            await rest(body)
        for backend in backends:
            backend.state = state
        if left:
            if not managed:
                await come_back(0.0)
            body, more = await serving.resume(LOST)
            data += more
    with pytest.raises(RequestKills if most < MOST_BREAKS else BackendFailed):
        await serving.resume(LOST)
    assert data == b"1" * (most + 1)
    assert desk.counts == {"resumed": most, "broken": 1}
    desk.assert_clean()


async def test_a_broken_answer_goes_before_those_that_wait() -> None:
    other = named(reply(b"2"), name="b", limit=1)
    desk = Desk(named(reply(b"1", LOST, at=1), limit=1), other)
    held = await desk.balancer.acquire(call(), {"a": 0})
    serving = desk.serving(resumable=True)
    opened, _ = await serving.open()
    desk.pool.known[0].state = BackendState.FAILED
    fresh = asyncio.create_task(desk.balancer.acquire(call()))
    await turns()
    with pytest.raises(BackendFailed):
        await rest(opened.body)
    going_on = asyncio.create_task(serving.resume(LOST))
    await turns()
    assert desk.balancer.queue_depth == 2
    held.release()
    _, first = await going_on
    assert (first, fresh.done()) == (b"2", False)
    serving.finish()
    (await fresh).release()
    assert desk.balancer.running == 0


# -- the client leaves -----------------------------------------------------------------------------


async def leave(desk: Desk, serving: Dispatch, work: Awaitable[Any]) -> None:
    task = asyncio.ensure_future(work)
    await turns()
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    serving.close()
    serving.close()
    desk.assert_clean()
    assert sum(backend.failures for backend in desk.pool.known) <= 1  # leaving says nothing of a backend


async def test_leaving_the_queue() -> None:
    desk = Desk(named(state=BackendState.STARTING))
    serving = desk.serving()
    await leave(desk, serving, serving.open())


async def test_leaving_while_the_backend_has_not_answered() -> None:
    desk = Desk(named(asyncio.get_running_loop().create_future()))
    serving = desk.serving()
    await leave(desk, serving, serving.open())


async def test_leaving_before_the_first_byte() -> None:
    desk = Desk(named(reply(Body.PAUSE)))
    serving = desk.serving()
    await leave(desk, serving, serving.open())


async def test_leaving_in_mid_answer() -> None:
    desk = Desk(named(reply(b"1", Body.PAUSE)))
    serving = desk.serving()
    opened, _ = await serving.open()
    await leave(desk, serving, anext(opened.body))


async def test_leaving_in_the_pause_between_two_tries() -> None:
    desk = Desk(named(LOST), named(name="b"))
    desk.failovers.sleep = lambda seconds: asyncio.Event().wait()
    serving = desk.serving()
    await leave(desk, serving, serving.open())


@pytest.mark.parametrize("where", ["queue", "run", "first byte"])
async def test_leaving_while_the_answer_is_to_go_on(where: str) -> None:
    answers = {"queue": reply(), "run": asyncio.get_running_loop().create_future()}
    other = named(answers.get(where, reply(Body.PAUSE)), name="b")
    desk = Desk(named(reply(b"1", LOST, at=1)), other)
    serving = desk.serving(resumable=True)
    opened, _ = await serving.open()
    if where == "queue":
        other.state = BackendState.STARTING
    with pytest.raises(BackendFailed):
        await rest(opened.body)
    await leave(desk, serving, serving.resume(LOST))


async def test_closing_while_it_still_waits_or_runs() -> None:
    """`close` comes before the cancellation has arrived: it must not matter."""
    desk = Desk(named(reply(b"1")), concurrent=1)
    held = await desk.balancer.acquire(call())
    serving = desk.serving()
    opening = asyncio.create_task(serving.open())
    await turns()
    serving.close()
    opening.cancel()
    held.release()  # granted in the turn in which it leaves
    await asyncio.gather(opening, return_exceptions=True)
    serving.close()
    assert desk.balancer.running == 0


async def test_what_no_backend_may_raise_leaves_nothing_either() -> None:
    desk = Desk(named(ValueError("a bug")), named(name="b"))
    serving = desk.serving()
    with pytest.raises(ValueError, match="a bug"):
        await serving.open()
    serving.close()
    desk.assert_clean()
    assert desk.pool.known[0].failures == 0


async def test_a_full_queue_ends_the_call() -> None:
    desk = Desk(named(), concurrent=1, queued=0)
    held = await desk.balancer.acquire(call())
    serving = desk.serving()
    with pytest.raises(QueueFull):
        await serving.open()
    held.release()
    assert desk.balancer.running == 0


# -- whatever happens ------------------------------------------------------------------------------

ANSWERS: dict[str, Callable[[], Any]] = {
    "ok": lambda: reply(b"x"),
    "lost": lambda: LOST,
    "late": lambda: reply(LOST),
    "breaks": lambda: reply(b"x", LOST, at=1),
    "breaks for good": lambda: reply(b"x", LOST),
    "500": lambda: reply(b"e", status=500),
    "429": lambda: reply(b"e", status=429),
    "400": lambda: reply(b"e", status=400),
    "refuses": lambda: RequestError("no"),
    "bug": lambda: ValueError("oops"),
    "hangs": lambda: reply(Body.PAUSE),
    "hangs later": lambda: reply(b"x", Body.PAUSE),
    "": lambda: reply(),
}


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    scripts=st.lists(st.lists(st.sampled_from(sorted(ANSWERS)), max_size=4), min_size=1, max_size=4),
    resumable=st.booleans(),
    patience=st.integers(1, 30),
)
def test_every_way_ends_clean(scripts: list[list[str]], resumable: bool, patience: int) -> None:
    async def run() -> None:
        backends = [
            named(*(ANSWERS[what]() for what in script), name=f"b{i}") for i, script in enumerate(scripts)
        ]
        desk = Desk(*backends)
        serving = desk.serving(resumable=resumable)
        answer = asyncio.create_task(served(desk, serving))
        await turns(patience)
        answer.cancel()
        result = (await asyncio.gather(answer, return_exceptions=True))[0]
        serving.close()
        desk.assert_clean()
        assert isinstance(result, (bytes, EngineError, ValueError, asyncio.CancelledError, *FAILURES))
        assert all(backend.requests <= 1 for backend in backends)

    asyncio.run(run())
