"""Rerankers that generate: whether a document answers a query is their next token, "yes" or "no"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from engines.base import (
    EngineInfo,
    GenerationRequest,
    Pair,
    Prompt,
    Sampling,
    Scores,
    TokenLogprob,
    TokenStream,
)
from engines.errors import ContextLengthExceeded, EngineError
from engines.text.ranking.pair_template import is_for_pairs
from engines.text.ranking.pairs import PairPrompts
from engines.text.templates.renderer import ChatTemplate, TemplateWorker
from engines.text.tokens.tokenizer import TextVocabulary, Tokenizer

YES, NO = "yes", "no"


class ChatVocabulary(TextVocabulary, Protocol):
    """The part of a model's vocabulary that chat templates need too."""

    @property
    def bos_text(self) -> str: ...

    @property
    def eos_text(self) -> str: ...


class Generating(Protocol):
    """The part of an engine that a judge needs."""

    @property
    def info(self) -> EngineInfo: ...

    def generate(self, request: GenerationRequest) -> TokenStream: ...


@dataclass(frozen=True, slots=True)
class YesNo:
    """The tokens of the two answers."""

    yes: int
    no: int

    @classmethod
    def of(cls, vocabulary: TextVocabulary) -> YesNo | None:
        """None if one of them is no token of its own."""
        yes, no = (vocabulary.tokenize(word, add_special=False) for word in (YES, NO))
        return cls(yes[0], no[0]) if len(yes) == len(no) == 1 else None


def can_judge(
    source: str | None, vocabulary: TextVocabulary, said: tuple[int | None, int | None] | None = None
) -> bool:
    """Whether a model with the template ``source`` is a reranker that generates those answers. Another
    model's words may be others: its files may have ``said`` their tokens."""
    answers = YesNo.of(vocabulary) if is_for_pairs(source) else None
    return answers is not None and said in (None, (answers.yes, answers.no))


def judge_of(
    source: str | None,
    vocabulary: ChatVocabulary,
    tokenizer: Tokenizer,
    worker: TemplateWorker,
    lacks_special: Callable[[str], bool],
) -> PairJudge | None:
    """The judge of a model with the template ``source``; None if it is no reranker that generates."""
    answers = YesNo.of(vocabulary) if is_for_pairs(source) else None
    if source is None or answers is None:
        return None
    bos, eos = vocabulary.bos_text, vocabulary.eos_text
    template = ChatTemplate(source, bos_token=bos, eos_token=eos, worker=worker)
    return PairJudge(PairPrompts(source, tokenizer, lacks_special, template), answers)


class PairJudge:
    """Scores pairs by the log odds of "yes" against "no" (`engines.base.Embeds.score`)."""

    def __init__(self, prompts: PairPrompts, answers: YesNo) -> None:
        self._prompts = prompts
        self._answers = answers

    async def score(
        self, engine: Generating, pairs: Sequence[Pair], *, most: int | None, request_id: str
    ) -> Scores:
        """The prompts share their beginning, which the engine computes once."""
        if most is not None:
            most = min(most, engine.info.context_length - 1)  # the answer has a token
        prompts = await self._prompts.prompts(pairs, most=most)
        streams: list[TokenStream] = []
        try:
            for index, prompt in enumerate(prompts):
                streams.append(self._start(engine, prompt, index, request_id))
            scores = [await self._log_odds(stream) for stream in streams]
        finally:
            for stream in streams:
                stream.close()
        return Scores(tuple(scores), tuple(len(prompt.token_ids) for prompt in prompts))

    def _start(self, engine: Generating, prompt: Prompt, index: int, request_id: str) -> TokenStream:
        both = (self._answers.yes, self._answers.no)
        request = GenerationRequest(
            request_id,
            prompt,
            Sampling(temperature=0.0, allowed_token_ids=both),
            max_tokens=1,
            logprobs=0,
            logprob_token_ids=both,
        )
        try:
            return engine.generate(request)
        except ContextLengthExceeded as error:
            raise error.told(f"documents.{index}", "") from None

    async def _log_odds(self, stream: TokenStream) -> float:
        entries: list[TokenLogprob] = []
        async for chunk in stream:
            entries += chunk.logprobs
        if not entries:
            raise EngineError("the model gave no probability of its answer")
        told = {candidate.token_id: candidate.logprob for candidate in entries[0].top}
        return told[self._answers.yes] - told[self._answers.no]
