from __future__ import annotations

from engines.base import GenerationRequest, Prompt
from engines.mlx.memory import GROWTH_STEP, KvCost
from engines.mlx.scheduler import MlxScheduler
from engines.mlx.sequence import MlxSequence
from engines.stream import ChunkStream
from support.output import text_output

COST = KvCost(per_token=1)


def sequence(prompt: int, limit: int = 10) -> MlxSequence:
    request = GenerationRequest("r", Prompt((1,) * prompt))
    return MlxSequence(request, ChunkStream(lambda: None), text_output(), limit)


def scheduler(budget: int, max_running: int = 8) -> MlxScheduler:
    return MlxScheduler(COST, budget=budget, max_running=max_running)


def test_as_many_are_admitted_as_fit_side_by_side() -> None:
    one = 100 + 10 + GROWTH_STEP
    queue = scheduler(3 * one)
    sequences = [sequence(100) for _ in range(4)]
    for each in sequences:
        queue.submit(each)
    assert queue.admit() == sequences[:3]
    queue.remove(sequences[0])
    assert queue.admit() == sequences[3:]


def test_a_long_prompt_makes_the_whole_batch_as_long() -> None:
    queue = scheduler(2 * (100 + 10 + GROWTH_STEP) + 500)
    short, long = sequence(100), sequence(500)
    for each in (short, long):
        queue.submit(each)
    assert queue.admit() == [short]  # both are padded to 510


def test_one_alone_always_fits_and_none_overtakes() -> None:
    queue = scheduler(budget=1)
    first, second = sequence(1000), sequence(1)
    queue.submit(first)
    queue.submit(second)
    assert queue.admit() == [first]
    assert queue.admit() == []
    queue.remove(first)
    assert queue.admit() == [second]


def test_the_number_of_sequences_is_bounded_too() -> None:
    queue = scheduler(10**9, max_running=2)
    for _ in range(3):
        queue.submit(sequence(1))
    assert len(queue.admit()) == 2
    assert len(queue.waiting) == 1


def test_the_youngest_gives_way_when_the_batch_outgrows_the_budget() -> None:
    queue = scheduler(2 * (100 + 256 + GROWTH_STEP))
    old, young = sequence(100, limit=5000), sequence(100, limit=5000)
    for each in (old, young):
        queue.submit(each)
    assert queue.admit() == [old, young]
    assert queue.preempt() == []
    old.tokens += [1] * 257
    assert queue.preempt() == [young]
    assert queue.admit() == []
    assert queue.preemptions == 1
    assert queue.running == [old]
    queue.remove(old)
    assert queue.admit() == [young]


def test_prefixes_get_what_the_batch_leaves() -> None:
    queue = scheduler(1000)
    assert queue.spare_bytes == 1000
    queue.submit(sequence(100))
    queue.admit()
    assert queue.spare_bytes == 1000 - 100 - GROWTH_STEP


def test_waiting_sequences_can_be_removed() -> None:
    queue = scheduler(1000)
    one = sequence(1)
    queue.submit(one)
    queue.remove(one)
    assert not queue.has_work
    queue.remove(one)
