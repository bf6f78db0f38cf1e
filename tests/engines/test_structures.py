"""Structured answers of the engines that mask by themselves. vLLM's are in ``vllm/test_engine.py``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import cast

import pytest
import pytest_asyncio

from engines.base import AnswerDelta, Engine, GenerationRequest, Prompt, Sampling, Structure
from engines.errors import RequestError
from engines.load_spec import LoadSpec
from engines.registry import EngineRegistry
from engines.text.answers.plan import Plan
from support.models import smollm2, tiny_folder
from support.structures import CASES, REFUSED, answer, check, schema, text_of, tokens_of

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

# A form is kept by a model of random weights as well, which takes a fraction of the time.
SPECS = {
    "llama_cpp": lambda: LoadSpec(
        "llama_cpp", "m", smollm2(), context_length=512, kv_cache_tokens=4096, max_sequences=8, threads=1
    ),
    "mlx": lambda: LoadSpec("mlx", "m", tiny_folder(), context_length=512, max_sequences=8),
}
STRICT = CASES["strict schema"]


@pytest_asyncio.fixture(params=SPECS, scope="module", loop_scope="module")
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    engine = cast(Engine, await EngineRegistry().load(SPECS[request.param]()))
    assert "structured" in engine.info.capabilities
    yield engine
    await engine.close()


async def test_answers_have_their_form_side_by_side_with_others_that_have_none(engine: Engine) -> None:
    prompt = Prompt(await engine.tokenize("Say something: "))
    plain = GenerationRequest("p", prompt, Sampling(0.0), max_tokens=12, ignore_eos=True)
    alone = tokens_of([chunk async for chunk in engine.generate(plain)])

    async def neighbour() -> tuple[int, ...]:
        return tokens_of([chunk async for chunk in engine.generate(plain)])

    drawn = Sampling(1.0, seed=3, frequency_penalty=0.5)
    checks = [check(engine, case) for case in CASES.values()]
    checks += [check(engine, STRICT, sampling=drawn), check(engine, STRICT, logprobs=2)]
    first, *_, last = await asyncio.gather(neighbour(), *checks, neighbour())
    assert first == last == alone


async def test_what_is_complete_ends_whatever_forbids_it(engine: Engine) -> None:
    for case in CASES.values():
        await check(engine, case, min_tokens=55, ignore_eos=True)


async def test_an_answer_goes_on_in_its_form(engine: Engine) -> None:
    assert engine.can_resume(STRICT.structure, None)
    chunks = await check(engine, STRICT)
    for cut in (1, 7):
        sent = chunks[:cut]
        rest = await answer(engine, STRICT.structure, generated=tokens_of(sent))
        assert text_of(sent) + text_of(rest) == text_of(chunks)


async def test_what_cannot_be_followed_is_refused_with_its_place(engine: Engine) -> None:
    for structure, place in REFUSED.values():
        with pytest.raises(RequestError) as refusal:
            await engine.prepare(structure)
        assert refusal.value.param == "response_format"
        assert place in refusal.value.message


async def test_tokens_that_no_answer_of_that_form_has_are_an_error_and_no_end(engine: Engine) -> None:
    allowed = (await engine.tokenize("ship", add_special=False))[:1]
    with pytest.raises(RequestError) as refusal:
        await answer(engine, schema({"type": "null"}), sampling=Sampling(0.0, allowed_token_ids=allowed))
    assert refusal.value.param == "allowed_token_ids"


class Thinker:
    """A reader that takes so many tokens for reasoning."""

    def __init__(self, count: int) -> None:
        self._left = count

    @property
    def in_reasoning(self) -> bool:
        return self._left > 0

    def feed(self, text: str, token: int, special: str = "") -> AnswerDelta:
        if self._left:
            self._left -= 1
            return AnswerDelta(reasoning=text)
        return AnswerDelta(text)

    def finish(self) -> AnswerDelta:
        return AnswerDelta()


async def test_the_form_begins_behind_the_reasoning(engine: Engine) -> None:
    structure = Structure("choice", choices=("x+y=z!",))
    plan = Plan(lambda: Thinker(5), structure=structure)
    whole = await answer(engine, structure, answer=plan)
    assert text_of(whole) == "x+y=z!"
    assert whole[-1].usage
    assert whole[-1].usage.reasoning_tokens == 5
    assert "".join(chunk.reasoning for chunk in whole)
    for cut in (3, 7):  # within the reasoning, and behind it
        rest = await answer(engine, structure, answer=plan, generated=tokens_of(whole)[:cut])
        assert tokens_of(rest) == tokens_of(whole)[cut:]


async def test_an_answer_that_is_cut_off_says_so(engine: Engine) -> None:
    chunks = await answer(engine, replace(STRICT.structure), max_tokens=4)
    assert chunks[-1].finish_reason == "length"
    assert text_of(chunks).startswith('{"name"')
