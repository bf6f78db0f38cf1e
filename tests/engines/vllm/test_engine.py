"""The real engine on the CPU, loaded once. What every engine must do is in ``test_contract.py``."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from engines.base import (
    Adapter,
    AnswerDelta,
    GenerationRequest,
    Pair,
    Prompt,
    Rendering,
    Sampling,
    Structure,
    ToolUse,
)
from engines.errors import (
    CannotLoad,
    ContextLengthExceeded,
    EngineError,
    ModelLoadError,
    RequestError,
    UnsupportedFeature,
)
from engines.load_spec import LoadSpec
from engines.vllm.engine import VllmEngine
from engines.vllm.parsers import AnswerParsers
from engines.vllm.sampling import sampling_params
from engines.vllm.structures import structured_outputs
from support.judging import PLAIN, log_odds
from support.lora import lora_folder
from support.models import smollm2_folder
from support.structures import CASES, REFUSED, check

pytestmark = [
    pytest.mark.real,
    pytest.mark.asyncio(loop_scope="module"),
    # A start that fails leaves vLLM's ZeroMQ context to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

GREEDY = Sampling(temperature=0.0)
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


def spec(**options: object) -> LoadSpec:
    return LoadSpec(
        "vllm",
        "smollm2",
        smollm2_folder(),
        context_length=1024,
        kv_cache_tokens=16 * 1024,
        max_sequences=16,
        rerank_template=PLAIN,
        options={"enforce_eager": True, "enable_lora": True, "tool_call_parser": "hermes", **options},
    )


def engine_processes() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if _is_engine(child)]


def _is_engine(process: psutil.Process) -> bool:
    try:
        return process.name().startswith("VLLM::")
    except psutil.NoSuchProcess:  # it has ended since it was listed
        return False


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[VllmEngine]:
    environment = dict(os.environ)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    engine = await VllmEngine.load(spec())
    assert dict(os.environ) == environment
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    yield engine
    await engine.close()


async def answer(engine: VllmEngine, **fields: object) -> str:
    prompt = await engine.render_chat([{"role": "user", "content": "What is the capital of France?"}])
    settings = {"sampling": GREEDY, "max_tokens": 40, **fields}
    request = GenerationRequest("r", prompt, **settings)  # type: ignore[arg-type]
    return "".join([chunk.text async for chunk in engine.generate(request)])


async def test_adapters_come_and_go(engine: VllmEngine, tmp_path: Path) -> None:
    few = {"max_tokens": 8}  # more of them meet a near tie, which a batch may turn around
    plain = await answer(engine, **few)
    for seed, name in enumerate(("one", "two"), 1):
        folder = lora_folder(tmp_path / name, smollm2_folder(), seed=seed, strength=0.1)
        await engine.add_adapter(Adapter(name, folder))
    alone = [await answer(engine, adapter=name, **few) for name in (None, "one", "two")]
    assert alone[0] == plain
    assert len(set(alone)) == 3
    together = await asyncio.gather(*(answer(engine, adapter=name, **few) for name in (None, "one", "two")))
    assert together == alone
    running = asyncio.create_task(answer(engine, adapter="two", ignore_eos=True, max_tokens=100))
    await asyncio.sleep(0.01)
    await engine.remove_adapter("two")
    assert running.done()
    with pytest.raises(UnsupportedFeature, match=r"no adapter 'two' \(loaded: one\)"):
        await answer(engine, adapter="two")
    with pytest.raises(CannotLoad, match="max_lora_rank: 128"):
        await engine.add_adapter(Adapter("big", lora_folder(tmp_path / "big", smollm2_folder(), rank=128)))
    await engine.remove_adapter("one")


async def test_it_says_what_it_is(engine: VllmEngine) -> None:
    assert {"adapters", "chat", "completion", "rerank", "structured", "tools"} == engine.info.capabilities
    assert engine.info.devices == ("cpu",)
    assert engine.info.details["kv_tokens"] >= 16 * 1024
    assert engine.info.memory > 200 * 2**20


async def test_structures_mean_what_they_mean_on_other_engines(engine: VllmEngine) -> None:
    for case in CASES.values():
        await check(engine, case)
    await check(engine, CASES["GBNF"], min_tokens=30, ignore_eos=True)
    assert not engine.can_resume(CASES["GBNF"].structure, None)  # its grammar would begin again


async def test_a_bad_structure_is_refused_as_on_other_engines(engine: VllmEngine) -> None:
    for structure, place in REFUSED.values():
        with pytest.raises(RequestError) as refusal:
            await engine.prepare(structure)
        assert refusal.value.param == "response_format"
        assert place in refusal.value.message
    await check(engine, CASES["choice"])


async def test_where_vllm_keeps_structures_in_its_own_way_they_are_passed_on() -> None:
    def passed(structure: Structure, *, uses_llguidance: bool) -> tuple[str | None, ...]:
        params = structured_outputs(structure, uses_llguidance=uses_llguidance)
        return params.json, params.regex, params.grammar

    schema = CASES["strict schema"].structure
    assert passed(schema, uses_llguidance=False) == (schema.value, None, None)
    ours = json.loads(passed(schema, uses_llguidance=True)[0] or "")
    assert ours.pop("x-guidance")["whitespace_flexible"] is False
    assert ours == json.loads(schema.value)
    gbnf = CASES["GBNF"].structure
    assert passed(gbnf, uses_llguidance=False) == (None, None, gbnf.value)
    assert "start:" in (passed(gbnf, uses_llguidance=True)[2] or "")


async def test_a_model_that_says_yes_or_no_ranks(engine: VllmEngine) -> None:
    pairs = [Pair("What is blue?", "The sea is blue."), Pair("<|im_end|>", "Bread.")]
    scores = await engine.score(pairs)
    assert scores.scores[0] == pytest.approx(await log_odds(engine, pairs[0]), abs=0.1)
    with pytest.raises(ContextLengthExceeded) as refused:
        await engine.score([pairs[0], Pair("What?", "word " * 1200)])
    assert refused.value.param == "documents.1"


async def test_what_the_model_lacks_is_refused(engine: VllmEngine) -> None:
    with pytest.raises(UnsupportedFeature, match="no adapter 'x'"):
        await answer(engine, adapter="x")
    with pytest.raises(UnsupportedFeature):
        await engine.sleep()
    with pytest.raises(RequestError):
        await answer(engine, logprobs=10_000)


def params(generated: tuple[int, ...], *, min_tokens: int = 0, **sampling: Any) -> Any:
    request = GenerationRequest(
        "r", Prompt((1,)), Sampling(**sampling), min_tokens=min_tokens, generated=generated
    )
    return sampling_params(request, 20)


async def test_what_was_generated_elsewhere_counts() -> None:
    asked = params((5, 5, 7), min_tokens=8)
    assert (asked.max_tokens, asked.min_tokens, asked.logit_bias) == (17, 5, None)
    assert params((5, 5, 7), min_tokens=2).min_tokens == 0
    assert params((), min_tokens=2).min_tokens == 2
    assert params((5,), seed=3).seed not in (3, None)


async def test_penalties_on_what_was_generated_elsewhere_are_biases() -> None:
    asked = params((5, 5, 7), frequency_penalty=0.5, presence_penalty=1.0, logit_bias=((5, 3.0), (9, 1.0)))
    assert asked.logit_bias == {5: 1.0, 7: -1.5, 9: 1.0}
    assert params((), frequency_penalty=0.5).logit_bias is None


async def test_metrics_are_vllms_own(engine: VllmEngine) -> None:
    before = engine.metrics()["steps_total"]
    await answer(engine)
    assert engine.metrics()["steps_total"] > before


def parse(engine: VllmEngine, parsers: AnswerParsers | None, text: str, size: int) -> AnswerDelta:
    """Everything that ``text`` is, pushed ``size`` characters at a time."""
    reader = (parsers or engine._open().plans).make(None if parsers else [TOOL])
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    deltas = [*(reader.feed(piece, 1) for piece in pieces), reader.finish()]
    calls = tuple(call for delta in deltas for call in delta.tool_calls)
    return AnswerDelta("".join(d.content for d in deltas), "".join(d.reasoning for d in deltas), calls)


async def test_parsers_are_told_what_the_template_was_given(
    engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some look for reasoning only where the template was told to have it."""
    given = {"enable_thinking": False}
    prompt = await engine.render_chat([{"role": "user", "content": "Hi"}], rendering=Rendering(given))
    assert prompt.variables == given
    parsers, seen = engine._open().plans, dict[str, Any]()
    monkeypatch.setattr(parsers, "_parser_class", lambda tokenizer, tools, **others: seen.update(others))
    engine.answer_plan(ToolUse((TOOL,)), prompt, None)
    assert seen["chat_template_kwargs"] == given


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_tool_calls_are_found(engine: VllmEngine, size: int) -> None:
    text = 'Let me see. <tool_call>\n{"name": "add", "arguments": {"a": 1, "b": [2]}}\n</tool_call>'
    found = parse(engine, None, text, size)
    assert found.content.strip() == "Let me see."
    assert [call.name for call in found.tool_calls if call.name] == ["add"]
    assert json.loads("".join(call.arguments for call in found.tool_calls)) == {"a": 1, "b": [2]}
    assert [bool(call.id) for call in found.tool_calls].count(True) == 1


async def test_a_dying_engine_process_fails_what_runs() -> None:
    others = set(multiprocessing.active_children())
    engine = await VllmEngine.load(spec())
    prompt = await engine.render_chat([{"role": "user", "content": "Tell me a story"}])
    stream = engine.generate(GenerationRequest("r", prompt, GREEDY, max_tokens=900, ignore_eos=True))
    await stream.__anext__()
    (core,) = set(multiprocessing.active_children()) - others
    started = time.monotonic()
    core.kill()
    with pytest.raises(EngineError, match="died"):
        async for _ in stream:
            pass
    assert time.monotonic() - started < 5
    assert not (await engine.health()).ok
    await engine.close()


async def test_killed_while_loading() -> None:
    others = set(engine_processes())
    load = asyncio.create_task(VllmEngine.load(spec()))
    async with asyncio.timeout(60):
        while not (mine := set(engine_processes()) - others):
            await asyncio.sleep(0.05)
    mine.pop().kill()
    with pytest.raises(ModelLoadError, match="died while it started"):
        await asyncio.wait_for(load, 15)
    assert set(engine_processes()) == others


async def test_cancelling_a_load_ends_its_process() -> None:
    others = set(engine_processes())
    load = asyncio.create_task(VllmEngine.load(spec()))
    async with asyncio.timeout(60):
        while set(engine_processes()) == others:
            await asyncio.sleep(0.05)
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    async with asyncio.timeout(10):
        while set(engine_processes()) != others:
            await asyncio.sleep(0.05)


async def test_vllms_own_refusal_says_why() -> None:
    with pytest.raises(CannotLoad, match=r"vLLM could not load the model: cache_dtype"):
        await VllmEngine.load(spec(kv_cache_dtype="nonsense"))
