"""What every engine must do. A new engine joins by adding a factory to `FACTORIES`, nothing else.

An engine is loaded once for all of its tests (vLLM takes most of a minute), so a test leaves it idle.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from engines.base import Chunk, Engine, GenerationRequest, Prompt, Sampling, Usage
from engines.errors import ContextLengthExceeded, EngineError, RequestError, UnsupportedFeature
from engines.fake import FakeEngine
from engines.registry import EngineRegistry, LoadSpec
from support.models import smollm2, smollm2_folder

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONTEXT = 1024
GREEDY = Sampling(temperature=0.0)
STORY = [{"role": "user", "content": "Tell me a short story about a ship, its crew and the sea."}]


async def _fake() -> Engine:
    return FakeEngine(context_length=CONTEXT)


async def _llama_cpp() -> Engine:
    spec = LoadSpec(
        "llama_cpp", "smollm2", smollm2(), context_length=CONTEXT, kv_cache_tokens=4096, threads=1
    )
    return await EngineRegistry().load(spec)


async def _llama_cpp_split() -> Engine:
    """A KV cache with room for every sequence's whole context has another layout."""
    spec = LoadSpec(
        "llama_cpp",
        "smollm2",
        smollm2(),
        context_length=CONTEXT,
        kv_cache_tokens=8 * CONTEXT,
        max_sequences=8,
        threads=1,
    )
    return await EngineRegistry().load(spec)


async def _mlx() -> Engine:
    spec = LoadSpec("mlx", "smollm2", smollm2_folder(), context_length=CONTEXT, max_sequences=16)
    return await EngineRegistry().load(spec)


async def _vllm() -> Engine:
    spec = LoadSpec(
        "vllm",
        "smollm2",
        smollm2_folder(),
        context_length=CONTEXT,
        kv_cache_tokens=16 * CONTEXT,
        max_sequences=16,
        options={"enforce_eager": True},
    )
    return await EngineRegistry().load(spec)


FACTORIES: dict[str, Callable[[], Awaitable[Engine]]] = {
    "fake": _fake,
    "llama_cpp": _llama_cpp,
    "llama_cpp_split": _llama_cpp_split,
    "mlx": _mlx,
    "vllm": _vllm,
}


@pytest_asyncio.fixture(params=FACTORIES, scope="module", loop_scope="module")
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    engine = await FACTORIES[request.param]()
    yield engine
    await engine.close()


async def drain(engine: Engine, request: GenerationRequest) -> list[Chunk]:
    return [chunk async for chunk in engine.generate(request)]


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def tokens_of(chunks: list[Chunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.token_ids]


async def settled(engine: Engine) -> None:
    """Until nothing runs or waits, within 100 ms plus what a busy machine adds."""
    async with asyncio.timeout(5):
        while engine.stats().running or engine.stats().waiting:
            await asyncio.sleep(0.001)


async def request_for(engine: Engine, name: str = "r", **fields: object) -> GenerationRequest:
    prompt = await engine.render_chat(STORY)
    settings: dict[str, object] = {"sampling": GREEDY, "max_tokens": 12, **fields}
    return GenerationRequest(name, prompt, **settings)  # type: ignore[arg-type]


async def test_info_says_what_was_loaded(engine: Engine) -> None:
    assert engine.info.context_length == CONTEXT
    assert engine.info.max_sequences >= 8
    assert {"chat", "completion"} <= engine.info.capabilities
    assert (await engine.health()).ok


async def test_only_the_last_chunk_has_reason_and_usage(engine: Engine) -> None:
    request = await request_for(engine)
    chunks = await drain(engine, request)
    assert all(chunk.finish_reason is None and chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == len(request.prompt.token_ids)
    assert chunks[-1].usage.completion_tokens == 12 == len(tokens_of(chunks))


async def test_text_is_the_tokens_text(engine: Engine) -> None:
    chunks = await drain(engine, await request_for(engine))
    assert text_of(chunks) == await engine.detokenize(tokens_of(chunks))


async def test_greedy_repeats_itself(engine: Engine) -> None:
    request = await request_for(engine)
    assert tokens_of(await drain(engine, request)) == tokens_of(await drain(engine, request))


async def test_a_seed_decides(engine: Engine) -> None:
    async def sample(seed: int) -> list[int]:
        sampling = Sampling(temperature=1.0, seed=seed)
        return tokens_of(await drain(engine, await request_for(engine, sampling=sampling)))

    assert await sample(7) == await sample(7)
    assert len({tuple(await sample(seed)) for seed in range(4)}) > 1


async def test_many_at_once_each_get_their_own(engine: Engine) -> None:
    alone, prompts = [], []
    for i in range(6):
        prompt = await engine.render_chat([{"role": "user", "content": f"Say the number {i * 111} twice"}])
        prompts.append(prompt)
        alone.append(tokens_of(await drain(engine, GenerationRequest("a", prompt, GREEDY, max_tokens=8))))
    together = await asyncio.gather(
        *(drain(engine, GenerationRequest("t", prompt, GREEDY, max_tokens=8)) for prompt in prompts)
    )
    assert [tokens_of(chunks)[:3] for chunks in together] == [tokens[:3] for tokens in alone]


async def test_stop_string_is_cut_and_never_leaks(engine: Engine) -> None:
    whole = text_of(await drain(engine, await request_for(engine, max_tokens=24)))
    stop = whole[8:14]  # spans tokens: it starts and ends where it happens to
    chunks = await drain(engine, await request_for(engine, max_tokens=24, stop=(stop,)))
    assert text_of(chunks) == whole[: whole.index(stop)]
    assert chunks[-1].finish_reason == "stop"


async def test_held_back_text_is_flushed_at_the_end(engine: Engine) -> None:
    whole = text_of(await drain(engine, await request_for(engine)))
    never = whole[-3:] + "\x01never"
    chunks = await drain(engine, await request_for(engine, stop=(never,)))
    assert text_of(chunks) == whole
    assert chunks[-1].finish_reason == "length"


async def test_logprobs_come_with_the_text(engine: Engine) -> None:
    chunks = await drain(engine, await request_for(engine, logprobs=3))
    entries = [entry for chunk in chunks for entry in chunk.logprobs]
    assert [entry.chosen.token_id for entry in entries] == tokens_of(chunks)
    assert b"".join(entry.chosen.text for entry in entries).decode() == text_of(chunks)
    for entry in entries:
        assert len(entry.top) == 3
        assert entry.top[0] == entry.chosen  # greedy takes the best
        assert [c.logprob for c in entry.top] == sorted((c.logprob for c in entry.top), reverse=True)
        assert sum(math.exp(c.logprob) for c in entry.top) < 1.001


async def test_min_tokens_and_ignore_eos(engine: Engine) -> None:
    prompt = await engine.render_chat([{"role": "user", "content": "Answer with one word: yes"}])
    chunks = await drain(engine, GenerationRequest("m", prompt, GREEDY, max_tokens=60, ignore_eos=True))
    assert chunks[-1].finish_reason == "length"
    assert len(tokens_of(chunks)) == 60
    chunks = await drain(engine, GenerationRequest("m", prompt, GREEDY, max_tokens=60, min_tokens=40))
    assert len(tokens_of(chunks)) >= 39


async def test_no_tokens_wanted(engine: Engine) -> None:
    chunks = await drain(engine, await request_for(engine, max_tokens=0))
    assert text_of(chunks) == ""
    assert chunks[-1].finish_reason == "length"
    assert isinstance(chunks[-1].usage, Usage)
    assert chunks[-1].usage.completion_tokens == 0


async def test_prompt_and_completion_must_fit_the_context(engine: Engine) -> None:
    token = (await engine.tokenize("ship"))[-1]
    with pytest.raises(ContextLengthExceeded):
        engine.generate(GenerationRequest("r", Prompt((token,) * CONTEXT), GREEDY))
    with pytest.raises(ContextLengthExceeded):
        engine.generate(GenerationRequest("r", Prompt((token,) * 10), GREEDY, max_tokens=CONTEXT - 9))
    chunks = await drain(
        engine, GenerationRequest("r", Prompt((token,) * (CONTEXT - 4)), GREEDY, ignore_eos=True)
    )
    assert chunks[-1].finish_reason == "length"
    assert len(tokens_of(chunks)) == 4


async def test_bad_prompts_are_refused(engine: Engine) -> None:
    for tokens in ((), (-1,), (2**31 - 1,)):
        with pytest.raises(RequestError):
            engine.generate(GenerationRequest("r", Prompt(tokens), GREEDY, max_tokens=4))
    with pytest.raises(RequestError):
        await engine.detokenize([2**31 - 1])


async def test_odd_text_survives(engine: Engine) -> None:
    for text in ("naïve café 😀 日本語", "\x00\x01", "a\ud800b", " " * 50, "👩‍👩‍👧‍👦" * 20):
        assert await engine.tokenize(text)
    text = "naïve café 😀 日本語"
    assert (await engine.detokenize(await engine.tokenize(text, add_special=False))).strip() == text


async def test_closing_a_stream_frees_its_sequence(engine: Engine) -> None:
    stream = engine.generate(await request_for(engine, max_tokens=900, ignore_eos=True))
    await stream.__anext__()
    assert engine.stats().running == 1
    stream.close()
    stream.close()
    await settled(engine)
    assert engine.stats().kv_used == 0
    with pytest.raises(StopAsyncIteration):
        await stream.__anext__()


async def test_closing_before_the_first_step(engine: Engine) -> None:
    engine.generate(await request_for(engine)).close()
    await settled(engine)
    assert len(tokens_of(await drain(engine, await request_for(engine)))) == 12


async def test_more_than_fit_wait_their_turn(engine: Engine) -> None:
    count = engine.info.max_sequences + 3
    request = await request_for(engine, max_tokens=3, ignore_eos=True)
    answers = await asyncio.gather(*(drain(engine, request) for _ in range(count)))
    assert {tuple(tokens_of(chunks)) for chunks in answers} == {tuple(tokens_of(answers[0]))}
    await settled(engine)


async def test_stats_add_up(engine: Engine) -> None:
    before = engine.stats()
    usages = [
        chunks[-1].usage for chunks in [await drain(engine, await request_for(engine)) for _ in range(3)]
    ]
    after = engine.stats()
    assert after.completion_tokens - before.completion_tokens == sum(u.completion_tokens for u in usages if u)
    assert after.prompt_tokens - before.prompt_tokens == sum(u.prompt_tokens for u in usages if u)


async def test_sleeping_and_waking_change_nothing_else(engine: Engine) -> None:
    request = await request_for(engine)
    if "sleep" not in engine.info.capabilities:
        with pytest.raises(UnsupportedFeature):
            await engine.sleep()
        return
    before, info = tokens_of(await drain(engine, request)), engine.info
    await engine.sleep()
    assert engine.info.memory_asleep < engine.info.memory
    await engine.wake()
    assert engine.info == info
    assert tokens_of(await drain(engine, request)) == before
    assert (await engine.health()).ok


@pytest.mark.parametrize("name", FACTORIES)
async def test_closing_the_engine_fails_what_runs(name: str) -> None:
    engine = await FACTORIES[name]()
    stream = engine.generate(await request_for(engine, max_tokens=900, ignore_eos=True))
    await stream.__anext__()
    await engine.close()
    with pytest.raises(EngineError):
        async for _ in stream:
            pass
    with pytest.raises(EngineError):
        engine.generate(GenerationRequest("r", Prompt((1,)), GREEDY))
    assert not (await engine.health()).ok
    await engine.close()
