"""What each strategy promises, with stand-ins for backends; no clock, no I/O."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.policies import (
    SPARE_NAMES,
    LeastConnections,
    PeakEwma,
    Policy,
    PrefixAware,
    RoundRobin,
    Strategy,
    Weighted,
    make_policy,
)
from balancer.prefixes import BLOCK_CHARS, INDEX_ENTRIES, MAX_BLOCKS, PrefixIndex, prefix_blocks

often = settings(derandomize=True, max_examples=100, deadline=None)


@dataclass(eq=False)
class Stub:
    name: str
    weight: float = 1.0
    inflight: int = 0
    ttft: float | None = None


def stubs(count: int) -> list[Stub]:
    return [Stub(f"b{i}") for i in range(count)]


def picks(policy: Policy, candidates: Sequence[Stub], count: int) -> list[str]:
    """The names chosen in ``count`` calls that all end at once."""
    return [pick(policy, candidates).name for _ in range(count)]


def pick(policy: Policy, candidates: Sequence[Stub], prefix: Sequence[int] = ()) -> Stub:
    chosen = policy.select(candidates, prefix)
    assert chosen is not None
    return chosen


backends = st.builds(
    Stub,
    name=st.sampled_from("abcdef"),
    weight=st.floats(0.1, 10),
    inflight=st.integers(0, 50),
    ttft=st.none() | st.floats(0, 10),
)
candidate_lists = st.lists(backends, max_size=6, unique_by=lambda backend: backend.name)
prefixes = st.lists(st.integers(0, 1), max_size=4).map(tuple)


@pytest.mark.parametrize("strategy", Strategy)
@often
@given(calls=st.lists(st.tuples(candidate_lists, prefixes), max_size=20))
def test_a_pick_is_one_of_the_candidates(
    strategy: Strategy, calls: list[tuple[list[Stub], tuple[int, ...]]]
) -> None:
    policy = make_policy(strategy, random.Random(0))
    for candidates, prefix in calls:
        chosen = policy.select(candidates, prefix)
        assert (chosen is None) == (not candidates)
        assert chosen is None or chosen in candidates


# Round robin


def test_round_robin_is_the_plain_cycle_while_nothing_changes() -> None:
    assert picks(RoundRobin(), stubs(3), 7) == ["b0", "b1", "b2", "b0", "b1", "b2", "b0"]


@often
@given(calls=st.lists(st.sets(st.sampled_from("abcde"), min_size=1), max_size=60))
def test_round_robin_gives_nobody_a_second_turn_while_another_candidate_waits(calls: list[set[str]]) -> None:
    policy, turns = RoundRobin(), list[str]()
    for present in calls:
        chosen = pick(policy, [Stub(name) for name in sorted(present)]).name
        if chosen in turns:
            since = turns[len(turns) - turns[::-1].index(chosen) :]
            assert present - {chosen} <= set(since)
        turns.append(chosen)


def test_round_robin_takes_in_a_newcomer_with_one_turn_not_many() -> None:
    policy, candidates = RoundRobin(), stubs(3)
    picks(policy, candidates[:2], 100)
    assert picks(policy, candidates, 4)[0] == "b2"
    assert Counter(picks(policy, candidates, 30)) == {"b0": 10, "b1": 10, "b2": 10}


# Weighted


@often
@given(weights=st.lists(st.floats(0.1, 10), min_size=1, max_size=6))
def test_weights_are_honoured_within_one_percent(weights: list[float]) -> None:
    candidates = [Stub(f"b{i}", weight) for i, weight in enumerate(weights)]
    counts = Counter(picks(Weighted(), candidates, 2000))
    for candidate in candidates:
        assert counts[candidate.name] / 2000 == pytest.approx(candidate.weight / sum(weights), abs=0.01)


def test_weighted_is_smooth() -> None:
    candidates = [Stub("a", 5), Stub("b", 1), Stub("c", 1)]
    assert "".join(picks(Weighted(), candidates, 14)) == "aabacaa" * 2  # nginx's own example


def test_weights_hold_while_a_backend_comes_and_goes() -> None:
    policy, a, b, c = Weighted(), Stub("a", 3), Stub("b", 1), Stub("c", 2)
    counts: Counter[str] = Counter()
    for i in range(6000):
        counts[pick(policy, [a, b] if i % 3 else [a, b, c]).name] += 1
    assert counts["a"] / counts["b"] == pytest.approx(3, rel=0.01)
    assert counts["c"] == pytest.approx(2000 * 2 / 6, rel=0.01)


def test_random_honours_weights() -> None:
    candidates = [Stub("a", 3), Stub("b", 1)]
    counts = Counter(picks(make_policy(Strategy.RANDOM, random.Random(1)), candidates, 20_000))
    assert counts["a"] / 20_000 == pytest.approx(0.75, abs=0.01)


# Least connections


def test_least_connections_counts_the_call_to_come() -> None:
    policy = make_policy(Strategy.LEAST_CONNECTIONS)
    assert pick(policy, [Stub("a", 1, 0), Stub("b", 4, 2)]).name == "b"  # 1/1 against 3/4
    assert pick(policy, [Stub("a", 1, 0), Stub("b", 4, 4)]).name == "a"  # 1/1 against 5/4


def test_ties_are_fair() -> None:
    policy = LeastConnections(random.Random(1))
    candidates = [*stubs(4), Stub("busy", inflight=1)]
    counts = Counter(picks(policy, candidates, 4000))
    assert counts.keys() == {"b0", "b1", "b2", "b3"}
    assert all(count == pytest.approx(1000, rel=0.1) for count in counts.values())


@often
@given(candidates=candidate_lists.filter(len))
def test_least_connections_takes_the_lowest_load(candidates: list[Stub]) -> None:
    chosen = pick(LeastConnections(random.Random(0)), candidates)
    assert (chosen.inflight + 1) / chosen.weight == min((c.inflight + 1) / c.weight for c in candidates)


# Response time


def test_response_time_prefers_the_fast_until_its_queue_is_longer() -> None:
    policy = make_policy(Strategy.RESPONSE_TIME)
    slow, fast = Stub("slow", ttft=1.0), Stub("fast", ttft=0.3)
    for inflight, expected in ((0, "fast"), (2, "fast"), (3, "slow")):
        fast.inflight = inflight
        assert pick(policy, [slow, fast]).name == expected


def test_a_backend_without_a_sample_is_tried_by_one_call_not_by_all() -> None:
    policy = make_policy(Strategy.RESPONSE_TIME)
    known, new = Stub("known", ttft=0.5), Stub("new")
    assert pick(policy, [known, new]) is new
    new.inflight = 1
    assert pick(policy, [known, new]) is known
    known.inflight = 3
    assert pick(policy, [known, new]) is new  # it counts as the slowest of the others: 1.0 against 2.0


def test_without_any_sample_the_least_busy_is_taken() -> None:
    policy = make_policy(Strategy.RESPONSE_TIME)
    assert pick(policy, [Stub("a", inflight=2), Stub("b", inflight=1)]).name == "b"


def test_a_backend_that_was_slow_once_gets_calls_again() -> None:
    policy, slow, fast = make_policy(Strategy.RESPONSE_TIME), Stub("slow"), Stub("fast")
    averages = {"slow": PeakEwma(), "fast": PeakEwma()}
    averages["slow"].observe(5.0, 0.0)
    averages["fast"].observe(0.1, 0.0)
    chosen = []
    for second in range(1, 120):
        slow.ttft, fast.ttft = averages["slow"].value(second), averages["fast"].value(second)
        chosen.append(pick(policy, [slow, fast]).name)
        averages[chosen[-1]].observe(0.1, second)
    assert chosen[:30] == ["fast"] * 30
    assert chosen.count("slow") > 20


def test_peak_ewma_rises_at_once_and_falls_slowly() -> None:
    ewma = PeakEwma(decay=10.0)
    assert ewma.value(0.0) is None
    ewma.observe(1.0, 0.0)
    ewma.observe(4.0, 0.0)
    assert ewma.value(0.0) == 4.0
    ewma.observe(1.0, 10.0)
    assert ewma.value(10.0) == pytest.approx(4.0 / 2.71828 + 1.0 * (1 - 1 / 2.71828), rel=1e-4)


def test_peak_ewma_fades_and_is_then_forgotten() -> None:
    ewma = PeakEwma(decay=10.0)
    ewma.observe(1.0, 5.0)
    assert ewma.value(15.0) == pytest.approx(1 / 2.71828, rel=1e-4)
    assert ewma.value(15.0) == ewma.value(15.0)  # looking changes nothing
    assert ewma.value(1000.0) is None


# Prefix aware


def conversation(word: str, blocks: int) -> tuple[int, ...]:
    return prefix_blocks((word * BLOCK_CHARS * blocks)[: BLOCK_CHARS * blocks])


def test_blocks_are_whole_chained_and_bounded() -> None:
    text = "".join(map(chr, range(32, 32 + 3 * BLOCK_CHARS)))
    blocks = prefix_blocks(text)
    assert len(blocks) == 3
    assert prefix_blocks(text + "half a block") == blocks
    assert prefix_blocks(text[:-1]) == blocks[:2]
    assert prefix_blocks("") == ()
    assert not set(prefix_blocks("!" + text[1:])) & set(blocks)  # the first character is in all of them
    assert len(set(conversation("a", 3))) == 3
    assert len(conversation("a", MAX_BLOCKS + 5)) == MAX_BLOCKS


def test_a_conversation_stays_where_its_prefix_is() -> None:
    policy, candidates = PrefixAware(random.Random(0)), stubs(5)
    homes = {word: pick(policy, candidates, conversation(word, 4)) for word in "abcdefgh"}
    for turn in range(5, 15):
        for word, home in homes.items():
            assert pick(policy, candidates, conversation(word, turn)) is home


def test_a_conversation_leaves_a_backend_five_times_as_loaded() -> None:
    policy, candidates = PrefixAware(random.Random(0)), stubs(2)
    home = pick(policy, candidates, conversation("a", 8))
    other = next(candidate for candidate in candidates if candidate is not home)
    home.inflight = 3
    assert pick(policy, candidates, conversation("a", 8)) is home
    home.inflight = 5
    assert pick(policy, candidates, conversation("a", 8)) is other


def test_a_longer_match_wins_over_a_shorter_one() -> None:
    policy, candidates = PrefixAware(random.Random(0)), stubs(2)
    common = "s" * BLOCK_CHARS * 2
    first, second = (prefix_blocks(common + word * BLOCK_CHARS * 2) for word in "ab")
    assert pick(policy, candidates[:1], first).name == "b0"
    assert pick(policy, candidates[1:], second).name == "b1"
    assert {pick(policy, candidates, first).name for _ in range(20)} == {"b0"}
    assert {pick(policy, candidates, second).name for _ in range(20)} == {"b1"}


def test_a_miss_and_a_short_prompt_go_to_the_least_loaded() -> None:
    policy, candidates = PrefixAware(random.Random(0)), stubs(3)
    candidates[0].inflight = candidates[2].inflight = 1
    assert pick(policy, candidates, conversation("new", 3)).name == "b1"
    assert pick(policy, candidates).name == "b1"


def test_a_conversation_moves_on_when_its_backend_is_gone() -> None:
    policy, candidates = PrefixAware(random.Random(0)), stubs(3)
    home = pick(policy, candidates, conversation("a", 8))
    rest = [candidate for candidate in candidates if candidate is not home]
    rest[0].inflight = 1
    assert pick(policy, rest, conversation("a", 8)) is rest[1]
    rest[0].inflight, rest[1].inflight = 0, 1
    assert pick(policy, rest, conversation("a", 9)) is rest[1]


def test_the_index_keeps_what_is_used_and_drops_what_is_not() -> None:
    index = PrefixIndex(entries=100)
    index.add(conversation("used", 4), "b0")
    index.add(conversation("unused", 4), "b0")
    for i in range(50):
        index.add(conversation(f"other{i}", 4), "b1")
        index.add(conversation("used", 4), "b0")
    assert matched(index, conversation("used", 6)) == {"b0": 4}
    assert matched(index, conversation("unused", 4)) == {}


def matched(index: PrefixIndex, prefix: Sequence[int]) -> dict[str, int]:
    """How many of the leading blocks each backend was sent."""
    depths = reversed(list(index.depths(prefix)))
    return {name: depth for depth in depths for name in index.holders(prefix[depth - 1])}


@often
@given(sent=st.lists(st.tuples(prefixes, st.sampled_from("abc")), max_size=30))
def test_the_index_matches_as_many_leading_blocks_as_were_sent(
    sent: list[tuple[tuple[int, ...], str]],
) -> None:
    def chained(prefix: tuple[int, ...]) -> list[int]:
        return [hash(prefix[: end + 1]) for end in range(len(prefix))]

    index, probe = PrefixIndex(), (0, 1, 0, 1)
    expected: dict[str, int] = {}
    for prefix, name in sent:
        index.add(chained(prefix), name)
        same = next((i for i, (a, b) in enumerate(zip(prefix, probe, strict=False)) if a != b), len(prefix))
        expected[name] = max(same, expected.get(name, 0))
    assert matched(index, chained(probe)) == {name: depth for name, depth in expected.items() if depth}


# Memory


def test_memory_is_bounded_in_conversations() -> None:
    index = PrefixIndex()
    for i in range(2000):
        index.add(conversation(str(i), 20), f"b{i % 3}")
    assert INDEX_ENTRIES / 2 <= len(index) <= INDEX_ENTRIES + 2 * MAX_BLOCKS


@pytest.mark.parametrize(("policy", "state"), [(RoundRobin(), "_turns"), (Weighted(), "_credits")])
def test_memory_is_bounded_in_backends_that_came_and_went(policy: Policy, state: str) -> None:
    living = deque(stubs(2), maxlen=2)
    for i in range(3 * SPARE_NAMES):
        living.append(Stub(f"new{i}"))
        pick(policy, list(living))
    assert len(getattr(policy, state)) <= SPARE_NAMES + 2
    assert Counter(picks(policy, list(living), 10)) == {living[0].name: 5, living[1].name: 5}
