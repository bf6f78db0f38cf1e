"""Compiler of grammars: off the event loop, within limits, and each grammar once."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from engines.base import Structure
from engines.errors import RequestError
from engines.text.claims import Check, Claims
from engines.text.grammar.grammar import Grammar
from engines.text.grammar.library import matcher as open_matcher
from engines.text.grammar.mask import broken
from engines.text.grammar.schemas import LONGEST_NAME, checked, place
from engines.text.grammar.sources import grammar_text, json_grammar, reason, refused
from engines.text.grammar.threads import CompileThreads
from engines.text.grammar.trial import passes
from engines.text.grammar.vocabulary import GrammarVocabulary

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

# Grammars kept for each engine, those used last.
KEPT = 64
# The most that a compilation may take, in seconds, waiting for others included.
TIME_LIMIT = 20.0
# Characters of a structure: a schema or grammar of so many takes about a second.
LONGEST = 512 * 1024
# Tokens that are tried before a grammar counts as good, and the CPU seconds for it.
TRIED_TOKENS = 16
TRIED_SECONDS = 0.1

THREADS = 2
_threads = CompileThreads(THREADS)


class Compiler:
    """The grammars of one engine. Belongs to its event loop."""

    def __init__(self, vocabulary: GrammarVocabulary) -> None:
        self._vocabulary = vocabulary
        self._claims = Claims(_threads)
        self._trials = asyncio.Semaphore(THREADS)
        self._checks = Claims()  # which do not wait for compilations
        self._grammars: OrderedDict[Structure, Grammar] = OrderedDict()
        self._compiling: dict[Structure, asyncio.Task[Grammar]] = {}
        self._is_ready = False

    async def compile(self, structure: Structure) -> Grammar:
        """The grammar of ``structure``, checked, so that it will not fail in the middle of an answer.

        Raises `RequestError` if it cannot be followed, and `EngineError` once this is closed.
        """
        if (known := self._known(structure)) is not None:
            return known
        if not self._is_ready:  # which has its time
            await self._claims.run(lambda check: self._vocabulary.lltokenizer())
            self._is_ready = True
        task = self._compiling.get(structure)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._compile(structure))
            self._compiling[structure] = task
            task.add_done_callback(lambda done: self._forget(structure, done))
        return await asyncio.shield(task)

    def grammar(self, structure: Structure) -> Grammar:
        """The grammar of ``structure``, which was compiled before. If it has left the cache meanwhile, it is
        made again when it is first used."""
        known = self._known(structure)
        return Grammar(lambda: self._make(structure)) if known is None else known

    async def check_whole(self, structure: Structure, tokens: Sequence[int]) -> None:
        """Raise `RequestError` unless an answer of ``tokens`` may end there. Its ``structure`` was compiled
        before."""
        grammar = self.grammar(structure)

        def work(check: Check) -> None:
            matcher = grammar.matcher()
            if not matcher.consume_tokens([*tokens]) or not matcher.is_accepting():
                raise broken(matcher, "the answer ended before it had the form that was asked for")

        await self._checks.run(work)

    async def close(self) -> None:
        """Return when nothing here touches the vocabulary any more, and nothing will."""
        await self._checks.close()
        await self._claims.close()

    def _known(self, structure: Structure) -> Grammar | None:
        grammar = self._grammars.get(structure)
        if grammar is not None:
            self._grammars.move_to_end(structure)
        return grammar

    async def _compile(self, structure: Structure) -> Grammar:
        begun = threading.Event()

        def work(check: Check) -> Grammar:
            begun.set()
            made = self._make(structure)
            check()
            _probe(made.deep_copy())
            return Grammar(lambda: made)

        await self._claims.run(lambda check: self._vocabulary.lltokenizer())  # takes as long as it takes
        try:
            async with asyncio.timeout(TIME_LIMIT):
                if _threads.has_lost:
                    await self._try(structure)
                grammar = await self._claims.run(work)
        except TimeoutError:
            if begun.is_set():
                _threads.replace()
            raise _too_slow() from None
        self._grammars[structure] = grammar
        while len(self._grammars) > KEPT:
            self._grammars.popitem(last=False)
        return grammar

    async def _try(self, structure: Structure) -> None:
        """Raise `RequestError` for what would hold a thread for long, as somebody's structure did before."""
        texts = await self._claims.run(lambda check: [*_texts(structure)])
        async with self._trials:
            if not await passes(texts):
                raise _too_slow()

    def _forget(self, structure: Structure, done: asyncio.Task[Grammar]) -> None:
        del self._compiling[structure]
        if not done.cancelled():
            done.exception()  # looked at: those who wait may all have gone

    def _make(self, structure: Structure) -> LLMatcher:
        """The beginning of the grammar of ``structure``. Blocks, and raises `RequestError`."""
        if len(structure.value) + sum(map(len, structure.choices)) > LONGEST:
            raise refused(f"the structure of an answer may have {LONGEST:,} characters at most")
        for param, part in structure.parts:
            try:
                self._make(part)
            except RequestError as error:
                raise RequestError(str(error), param=param) from None
        tokenizer = self._vocabulary.lltokenizer()
        if structure.kind == "json_schema":
            try:
                return _of_schema(structure, tokenizer)
            except RecursionError:
                raise refused("the JSON schema nests too deep") from None
        made = open_matcher(tokenizer, grammar_text(structure))
        if made.is_error():
            raise refused(f"this structure cannot be followed: {reason(made.get_error())}")
        for text in structure.choices:
            if not _can_spell(tokenizer, text):
                raise refused(f"this model has no tokens that spell the choice {text[:LONGEST_NAME]!r}")
        return made


def _texts(structure: Structure) -> Iterator[str]:
    """llguidance's own texts of a structure and its parts. Raises `RequestError`."""
    for _, part in structure.parts:
        yield from _texts(part)
    if structure.kind == "json_schema":
        yield json_grammar(checked(json.loads(structure.value)), is_strict=structure.strict)
    else:
        yield grammar_text(structure)


def _too_slow() -> RequestError:
    return refused("the structure took too long to compile: make it simpler")


def _of_schema(structure: Structure, tokenizer: LLTokenizer) -> LLMatcher:
    def opened(schema: dict[str, Any]) -> LLMatcher:
        return open_matcher(tokenizer, json_grammar(schema, is_strict=structure.strict))

    def fault_of(schema: dict[str, Any]) -> str:
        made = opened(schema)
        return reason(made.get_error()) if made.is_error() else ""

    schema = checked(json.loads(structure.value), partial(_can_spell, tokenizer))
    made = opened(schema)
    if made.is_error():
        raise place(schema, reason(made.get_error()), fault_of)
    return made


def _can_spell(tokenizer: LLTokenizer, text: str) -> bool:
    """Whether there are tokens for every byte of ``text``."""
    return tokenizer.decode_bytes(tokenizer.greedy_tokenize(text)) == text.encode()


def _probe(matcher: LLMatcher) -> None:
    """Raise `RequestError` if the first tokens of an answer cannot be found: some grammars compile and fail
    then."""
    began = time.thread_time()
    for _ in range(TRIED_TOKENS):
        bits = matcher.compute_bitmask()
        if matcher.is_error() or matcher.is_stopped():
            break
        token = next((8 * i + (byte & -byte).bit_length() - 1 for i, byte in enumerate(bits) if byte), None)
        if token is None or not matcher.consume_token(token) or time.thread_time() - began > TRIED_SECONDS:
            break
    if matcher.is_error():
        raise refused(f"this structure cannot be followed: {reason(matcher.get_error())}")
