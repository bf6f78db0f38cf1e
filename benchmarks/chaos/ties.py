"""Where two greedy answers to one question part: whether the model itself found both ways nearly as likely.

Batched arithmetic rounds differently with every batch, so the best of two tokens that are nearly as likely
may change. Text that was lost or doubled shows as a token that the model would not have chosen.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import product, takewhile
from pathlib import Path

from benchmarks.chaos.streams import Question, Transcript
from engines.base import Candidate, Engine, GenerationRequest, Prompt, Sampling
from engines.llamacpp.engine import LlamaEngine, LlamaOptions
from engines.llamacpp.model_cache import ModelCache

CONTEXT = 2048
CANDIDATES = 20
# A text can be cut into tokens otherwise than it was generated: the parting may begin a little earlier.
LOOK_BACK = 3


@dataclass(frozen=True, slots=True)
class Parting:
    """Two answers part after ``tokens``; ``margin`` (nats) is how much likelier the best token was there than
    the less likely of theirs, infinite if one of them was no candidate."""

    request_id: str
    tokens: int
    margin: float
    one: str
    other: str


class Judge:
    """The model alone, one question at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    @asynccontextmanager
    async def of(cls, model: Path) -> AsyncIterator[Judge]:
        """Raises `EngineError` if ``model`` cannot be loaded."""
        options = LlamaOptions("judge", model, context_length=CONTEXT, kv_cells=CONTEXT, max_sequences=2)
        engine = await LlamaEngine.load(options, ModelCache())
        try:
            yield cls(engine)
        finally:
            await engine.close()

    async def parting(self, one: Transcript, other: Transcript) -> Parting:
        """Of two answers to one question whose texts differ."""
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(one.text, other.text, strict=False))
        common = sum(1 for _ in alike)
        prompt = await self._prompt(one.question)
        found: list[Parting] = []
        for tokens, start in await self._places(one.text, common):
            candidates = await self._candidates((*prompt, *tokens))
            margin = _shortfall(candidates, one, other, start, common)
            shown = [each.text[start : start + 24] for each in (one, other)]
            found.append(Parting(other.request_id, len(tokens), margin, *shown))
        return min(found, key=lambda parting: parting.margin)

    async def length(self, text: str, tokens: int) -> int:
        """Characters in the first ``tokens`` of ``text``."""
        ids = await self._engine.tokenize(text, add_special=False)
        return len(await self._engine.detokenize(ids[:tokens]))

    async def _prompt(self, question: Question) -> tuple[int, ...]:
        if question.is_chat:
            return (await self._engine.render_chat(question.body["messages"])).token_ids
        return await self._engine.tokenize(question.body["prompt"])

    async def _places(self, text: str, common: int) -> list[tuple[tuple[int, ...], int]]:
        """The last places between tokens up to ``common`` characters: the tokens before, and their length."""
        ids = await self._engine.tokenize(text, add_special=False)
        places = []
        for count in range(len(ids), -1, -1):
            before = await self._engine.detokenize(ids[:count])
            if len(before) <= common and text.startswith(before):
                places.append((ids[:count], len(before)))
            if len(places) == LOOK_BACK:
                break
        return places

    async def _candidates(self, tokens: Sequence[int]) -> tuple[Candidate, ...]:
        # Log probabilities are the model's own: that the end is banned from being drawn does not touch them.
        request = GenerationRequest(
            "judge",
            Prompt(tuple(tokens)),
            Sampling(temperature=0),
            max_tokens=1,
            ignore_eos=True,
            logprobs=CANDIDATES,
        )
        found: tuple[Candidate, ...] = ()
        async for chunk in self._engine.generate(request):
            for logprob in chunk.logprobs:
                found = logprob.top
        return found


def _shortfall(
    candidates: Sequence[Candidate], one: Transcript, other: Transcript, start: int, common: int
) -> float:
    """How much less likely than the best candidate those two different ones are with which the answers go on
    at ``start``; at least one of them reaches beyond what they have in ``common``."""
    alike = len(one.text[start:common].encode())
    ones = [each for each in candidates if _fits(each.text, one, start)]
    others = [each for each in candidates if _fits(each.text, other, start)]
    pairs = [
        min(mine.logprob, theirs.logprob)
        for mine, theirs in product(ones, others)
        if mine.token_id != theirs.token_id and max(len(mine.text), len(theirs.text)) > alike
    ]
    return candidates[0].logprob - max(pairs) if pairs else math.inf


def _fits(token: bytes, answer: Transcript, start: int) -> bool:
    """Whether ``answer`` may have gone on with ``token``."""
    rest = answer.text[start:].encode()
    if rest.startswith(token):
        return True
    if answer.finish_reason != "stop":
        return False
    # It ended here: by a token that ends answers, or on the way into a stop string.
    stops = [rest + stop.encode() for stop in answer.question.body.get("stop", [])]
    is_end = not rest and token.startswith(b"<|") and token.endswith(b"|>")
    return is_end or any(stop.startswith(token) or token.startswith(stop) for stop in stops)
