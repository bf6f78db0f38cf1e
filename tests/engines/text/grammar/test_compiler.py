from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from engines.base import Structure
from engines.errors import EngineError, RequestError
from engines.text.grammar import Compiler, TokenMask, start
from engines.text.grammar import compiler as grammar_compiler
from engines.text.grammar.sources import json_grammar
from engines.text.grammar.threads import CompileThreads
from engines.text.grammar.trial import passes
from support.grammars import END, N_VOCAB, OTHER_END, byte_vocabulary, text_of


def walk(mask: TokenMask, most: int = 60, seed: int = 1) -> tuple[str, bool]:
    """An answer drawn at random under ``mask``, and whether it ended."""
    draw, drawn = random.Random(seed), list[int]()
    for _ in range(most):
        mask.start()
        token = draw.choice(np.flatnonzero(mask.allowed(N_VOCAB)).tolist())
        if token in (END, OTHER_END):
            return text_of(drawn), True
        mask.consume(token)
        drawn.append(token)
    return text_of(drawn), False


@pytest.mark.parametrize(
    ("structure", "possible"),
    [
        (Structure("choice", choices=("yes", "yesterday", "n\no")), {"yes", "yesterday", "n\no"}),
        (Structure("regex", "[ab]{2}"), {"aa", "ab", "ba", "bb"}),
        (Structure("grammar", 'start: "x" /[12]/'), {"x1", "x2"}),
        (Structure("grammar", r'root ::= "\u00e9\\" [\U00000041-\u0042]'), {"é\\A", "é\\B"}),
        (Structure("grammar", 'root ::= "x" digit\ndigit ::= [12]'), {"x1", "x2"}),
        (Structure("json_schema", '{"enum": [{"a": 1}, null]}'), {'{"a":1}', '{"a": 1}', "null"}),
    ],
)
async def test_an_answer_has_the_form_that_was_asked_for(structure: Structure, possible: set[str]) -> None:
    grammar = await Compiler(byte_vocabulary()).compile(structure)

    answers = [walk(grammar.mask(), seed=seed) for seed in range(40)]

    assert all(ended for _, ended in answers)
    assert {text for text, _ in answers} == possible


async def test_what_cannot_be_followed_is_refused() -> None:
    for structure in (
        Structure("json_schema", '{"type": "strin"}'),
        Structure("json_schema", '{"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}'),
        Structure("regex", "(?=a)b"),
        Structure("grammar", "root ::= nothing"),
        Structure("grammar", "start: nothing"),
    ):
        with pytest.raises(RequestError):
            await Compiler(byte_vocabulary()).compile(structure)


async def test_a_grammar_is_compiled_once_for_all_who_ask() -> None:
    compiler, structure = Compiler(byte_vocabulary()), Structure("json_schema", json.dumps({"type": "null"}))

    first, *others = await asyncio.gather(*(compiler.compile(structure) for _ in range(4)))

    assert all(other is first for other in others)
    assert compiler.grammar(structure) is first


async def test_a_mask_goes_on_behind_what_was_generated_before() -> None:
    grammar = await Compiler(byte_vocabulary()).compile(Structure("regex", "abcd"))

    assert walk(grammar.mask(list(b"ab"))) == ("cd", True)


async def test_a_broken_mask_is_an_error_and_no_end() -> None:
    grammar = await Compiler(byte_vocabulary()).compile(Structure("regex", "abcd"))
    mask = grammar.mask()

    with pytest.raises(EngineError, match="forbids"):
        mask.consume(ord("x"))
    with pytest.raises(EngineError, match="forbids"):
        mask.apply(np.zeros(N_VOCAB, dtype=np.float32))
    with pytest.raises(EngineError):
        grammar.mask(list(b"x")).apply(np.zeros(N_VOCAB, dtype=np.float32))


async def test_apply_leaves_what_may_come_next() -> None:
    grammar = await Compiler(byte_vocabulary()).compile(Structure("choice", choices=("a", "b")))
    masks = [grammar.mask() for _ in range(5)]
    start(masks)
    rows = np.zeros((5, N_VOCAB), dtype=np.float32)

    for mask, row in zip(masks, rows, strict=True):
        mask.apply(row)

    assert [np.flatnonzero(np.isfinite(row)).tolist() for row in rows] == [[ord("a"), ord("b")]] * 5


async def test_what_takes_too_long_is_refused_and_leaves_the_others_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiler, free = Compiler(byte_vocabulary()), threading.Event()
    monkeypatch.setattr(grammar_compiler, "TIME_LIMIT", 0.05)
    monkeypatch.setattr(compiler, "_make", lambda structure: free.wait(5))

    with pytest.raises(RequestError, match="too long"):
        await compiler.compile(Structure("json_object"))
    free.set()
    await compiler.close()
    with pytest.raises(EngineError, match="closed"):
        await compiler.compile(Structure("json_object"))


async def test_a_compilation_without_end_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    release, tried = threading.Event(), list[str]()
    compiler = Compiler(byte_vocabulary())
    await compiler.compile(Structure("choice", choices=("a",)))
    opened = grammar_compiler.open_matcher

    def open_slowly(tokenizer: Any, grammar: str) -> Any:
        if "endless" in grammar:
            release.wait(20)
        return opened(tokenizer, grammar)

    async def passes(texts: Iterable[str]) -> bool:
        tried.extend(texts)
        return "endless" not in tried[-1]

    monkeypatch.setattr(grammar_compiler, "open_matcher", open_slowly)
    monkeypatch.setattr(grammar_compiler, "passes", passes)
    monkeypatch.setattr(grammar_compiler, "_threads", CompileThreads(1))
    compiler = Compiler(byte_vocabulary())
    try:
        with monkeypatch.context() as short:
            short.setattr(grammar_compiler, "TIME_LIMIT", 0.2)
            with pytest.raises(RequestError, match="too long"):
                await compiler.compile(Structure("choice", choices=("endless",)))
        assert not tried
        await compiler.compile(Structure("choice", choices=("b",)))
        with pytest.raises(RequestError, match="too long"):
            await compiler.compile(Structure("choice", choices=("endless", "c")))
        assert len(tried) == 2
    finally:
        release.set()
        await compiler.close()


async def test_a_trial_ends_what_takes_too_long() -> None:
    slow = {"type": "integer", "multipleOf": 9973, "allOf": [{"multipleOf": 9967}]}
    assert await passes([json_grammar({"enum": ["a"]})])
    assert not await passes([json_grammar(slow)], seconds=1)
