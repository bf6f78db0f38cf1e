"""What only the fake engine does; the contract is in ``test_contract.py``."""

from __future__ import annotations

import pytest

from engines.base import Chunk, GenerationRequest, Prompt, Sampling
from engines.errors import RequestError
from engines.fake import FakeEngine


async def ask(engine: FakeEngine, text: str, **fields: object) -> list[Chunk]:
    prompt = Prompt(await engine.tokenize(text))
    return [chunk async for chunk in engine.generate(GenerationRequest("r", prompt, **fields))]  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [None, 3])
async def test_another_one_goes_on(seed: int | None) -> None:
    first, second = FakeEngine(), FakeEngine()
    await ask(first, "words that the other one never saw")
    sampling, text = Sampling(seed=seed), "a café on the quay, open till late"
    whole = await ask(first, text, sampling=sampling)
    for cut in range(len(whole)):
        tokens = tuple(token for chunk in whole[:cut] for token in chunk.token_ids)
        assert await ask(second, text, sampling=sampling, generated=tokens) == whole[cut:]


async def test_tokens_of_words_it_never_saw_are_refused() -> None:
    (word,) = await FakeEngine().tokenize("ship")
    engine = FakeEngine()
    with pytest.raises(RequestError):
        await engine.detokenize([word])
    with pytest.raises(RequestError) as refusal:
        await ask(engine, "sea", generated=(word,), max_tokens=5)
    assert refusal.value.param == "continuation"
