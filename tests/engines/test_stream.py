"""Streams that lag, and answers that were begun elsewhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engines.base import AnswerDelta, Chunk, GenerationRequest, Prompt, Sampling, ToolCallDelta, Usage
from engines.stream import ChunkStream, ended, resume, retell
from engines.text.answers.output import Output
from support.output import text_output

END = 0
PIECES = [b"", b"a", b"b", b"\xc3", b"\xa9"]


def request(generated: tuple[int, ...] = (), **fields: object) -> GenerationRequest:
    return GenerationRequest("r", Prompt((1, 2, 3)), generated=generated, **fields)  # type: ignore[arg-type]


def resumed(request: GenerationRequest, limit: int = 20) -> tuple[Chunk | None, Output]:
    output = text_output(PIECES.__getitem__, request.stop)
    return resume(request, output, limit=limit, is_end=END.__eq__), output


async def test_chunks_that_wait_merge_and_lose_no_token() -> None:
    stream = ChunkStream(on_close=lambda: None)
    stream.put(Chunk("a", (1,)))
    stream.put(Chunk("", (3,)))
    stream.put(Chunk("é", (4,), finish_reason="length", usage=Usage(3, 3)))
    assert [chunk async for chunk in stream] == [
        Chunk("aé", (1, 3, 4), finish_reason="length", usage=Usage(3, 3))
    ]


async def test_chunks_that_wait_keep_the_order_of_an_answers_parts() -> None:
    parts = [
        Chunk(reasoning="a"),
        Chunk("b", reasoning="c"),
        Chunk(tool_calls=(ToolCallDelta(0, "id", "f"),)),
        Chunk(tool_calls=(ToolCallDelta(0, arguments="{}"),)),
        Chunk("d"),
        Chunk(reasoning="e", finish_reason="stop", usage=Usage(3, 6)),
    ]
    stream = ChunkStream(on_close=lambda: None)
    for part in parts:
        stream.put(part)
    assert [chunk async for chunk in stream] == [
        Chunk("b", reasoning="ac", tool_calls=(ToolCallDelta(0, "id", "f", "{}"),)),
        Chunk("d"),
        parts[-1],
    ]


def test_what_was_held_back_still_is() -> None:
    last, output = resumed(request((1, 3)))
    assert last is None
    assert output.push(4).text == "é"


def test_an_answer_ends_at_its_end_token_unless_that_is_ignored() -> None:
    assert resumed(request((1, END)))[0] == Chunk(finish_reason="stop", usage=Usage(3, 2))
    assert resumed(request((1, END), ignore_eos=True))[0] is None


def test_an_answer_ends_at_its_stop_string() -> None:
    last, _ = resumed(request((1, 2, 1), stop=("ab",)))
    assert last == Chunk(finish_reason="stop", usage=Usage(3, 2), stop="ab")


def test_what_is_not_told_again_can_be_asked_for() -> None:
    class Vocabulary:
        piece = label = staticmethod(PIECES.__getitem__)

    assert retell(request((1, 2, 1, 3), stop=("bab",)), Vocabulary()) == (AnswerDelta("a"),)
    assert retell(request((1, 3, 4)), Vocabulary()) == (AnswerDelta("a"), AnswerDelta("é"))


def test_an_answer_that_is_long_enough_says_what_was_held_back() -> None:
    assert resumed(request(()), limit=0)[0] == Chunk(finish_reason="length", usage=Usage(3, 0))
    last, _ = resumed(request((1, 1, 3), stop=("ab",)), limit=3)
    assert last == Chunk("a\ufffd", finish_reason="length", usage=Usage(3, 3))
    last, _ = resumed(request((1, 1), stop=("ab",)), limit=2)
    assert last == Chunk("a", finish_reason="length", usage=Usage(3, 2))


async def test_an_ended_answer_is_its_last_chunk() -> None:
    last = Chunk("a", finish_reason="stop", usage=Usage(3, 1))
    stream = ended(last)
    assert [chunk async for chunk in stream] == [last]
    stream.close()


@given(st.integers(-(2**63), 2**64), st.integers(1, 10_000))
def test_an_answer_goes_on_with_draws_of_its_own(seed: int, count: int) -> None:
    sampling = Sampling(seed=seed)
    first, later = request(sampling=sampling), request((1,) * count, sampling=sampling)
    assert first.generator_seed == seed
    assert later.generator_seed == request((2,) * count, sampling=sampling).generator_seed != seed
    assert later.generator_seed != request((1,) * (count + 1), sampling=sampling).generator_seed
    assert request((1,)).generator_seed is None
