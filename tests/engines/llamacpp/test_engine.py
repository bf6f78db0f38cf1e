"""The llama.cpp engine on real models: correctness that only real arithmetic can show."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import llama_cpp
import psutil
import pytest

from engines.base import Chunk, GenerationRequest, Prompt, Sampling, Structure
from engines.errors import EngineError, ModelFileNotFound, ModelLoadError, UnsupportedFeature
from engines.llamacpp.engine import LlamaEngine, LlamaOptions
from engines.llamacpp.model_cache import ModelCache
from engines.llamacpp.stepper import ForwardPass, LlamaStepper
from support.models import bundled, gemma_base, smollm2

pytestmark = pytest.mark.real

GREEDY = Sampling(temperature=0.0)
HELLO = [{"role": "user", "content": "hello"}]

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a land far away,",
    "def fibonacci(n):\n",
    "Water boils at a temperature of",
    "The three primary colours are",
    "To be, or not to be,",
    "1, 2, 3, 4,",
    "A recipe for pancakes: take",
    "La capitale de l'Allemagne est",
    "日本の首都は",
]


@asynccontextmanager
async def engine(models: ModelCache | None = None, **options: Any) -> AsyncIterator[LlamaEngine]:
    settings = {
        "name": "m",
        "path": smollm2(),
        "context_length": 2048,
        "kv_cells": 4096,
        "threads": 1,
        **options,
    }
    loaded = await LlamaEngine.load(LlamaOptions(**settings), models or ModelCache())
    try:
        yield loaded
    finally:
        await loaded.close()


async def drain(engine: LlamaEngine, prompt: Prompt, **fields: Any) -> list[Chunk]:
    request = GenerationRequest("r", prompt, **{"sampling": GREEDY, "max_tokens": 32, **fields})
    return [chunk async for chunk in engine.generate(request)]


def _stepper(engine: LlamaEngine) -> LlamaStepper:
    stepper = engine._thread._stepper
    assert isinstance(stepper, LlamaStepper)
    return stepper


def _context(engine: LlamaEngine) -> ForwardPass:
    return _stepper(engine)._context


def tokens_of(chunks: list[Chunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.token_ids]


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


@pytest.mark.parametrize("model", [bundled, smollm2])
async def test_greedy_equals_llama_cpp_pythons_own_loop(model: Callable[[], Path]) -> None:
    reference = llama_cpp.Llama(
        str(model()), n_ctx=2048, n_threads=1, n_gpu_layers=0, verbose=False, flash_attn=True
    )
    async with engine(path=model()) as ours:
        for text in PROMPTS:
            prompt = Prompt(await ours.tokenize(text))
            assert list(prompt.token_ids) == reference.tokenize(text.encode(), special=True)
            expected: list[int] = []
            for token in reference.generate(list(prompt.token_ids), temp=0.0, repeat_penalty=1.0):
                if llama_cpp.llama_vocab_is_eog(reference._model.vocab, token) or len(expected) == 32:
                    break
                expected.append(token)
            assert tokens_of(await drain(ours, prompt)) == expected, text
    reference.close()


async def test_multi_byte_characters_are_never_split() -> None:
    text = "Repeat exactly: 😀 日本語 naïve 👩‍👩‍👧‍👦 Ω"
    async with engine() as ours:
        # Whatever the model says, biased towards the bytes of an emoji, every chunk is whole characters.
        emoji = await ours.tokenize("😀🚀日本", add_special=False)
        bias = tuple((token, 12.0) for token in emoji)
        chunks = await drain(
            ours, Prompt(await ours.tokenize(text)), sampling=Sampling(temperature=0, logit_bias=bias)
        )
        assert any(ord(c) > 0xFFFF for c in text_of(chunks))
        assert all("\ufffd" not in chunk.text for chunk in chunks[:-1])
        assert text_of(chunks).rstrip("\ufffd") in await ours.detokenize(tokens_of(chunks))


async def test_equal_prompts_are_prefilled_once_and_answer_the_same() -> None:
    async with engine() as ours:
        shared = "You are a careful assistant who answers briefly. " * 20
        prompts = [Prompt(await ours.tokenize(f"{shared}\nQuestion {i}: what is {i}+{i}?")) for i in range(6)]
        alone = tokens_of(await drain(ours, prompts[0], max_tokens=8))
        async with engine() as fresh:
            together = await asyncio.gather(*(drain(fresh, p, max_tokens=8) for p in prompts))
            cached = [chunks[-1].usage.cached_tokens for chunks in together if chunks[-1].usage]
        assert tokens_of(together[0]) == alone
        assert sorted(cached)[0] == 0
        assert sorted(cached)[1] > 150  # all but one found the prefix


async def test_a_cached_prefix_changes_nothing() -> None:
    async with engine() as ours, engine(cache_prefixes=False) as plain:
        prompt = Prompt(await ours.tokenize("A long story about a lighthouse keeper and his dog. " * 12))
        first = await drain(ours, prompt)
        second = await drain(ours, prompt)
        assert second[-1].usage is not None
        assert second[-1].usage.cached_tokens == len(prompt.token_ids) // 64 * 64
        assert tokens_of(first) == tokens_of(second) == tokens_of(await drain(plain, prompt))


async def test_more_conversations_than_the_kv_cache_holds() -> None:
    async with engine(kv_cells=1024, max_sequences=16) as ours:
        word = (await ours.tokenize(" story", add_special=False))[0]

        async def talk(i: int) -> list[Chunk]:
            prompt = await ours.tokenize(f"Conversation {i} begins here.") + (word,) * 170
            return await drain(ours, Prompt(prompt[:170]), max_tokens=30, ignore_eos=True)

        answers = await asyncio.gather(*(talk(i) for i in range(16)))
        assert [len(tokens_of(chunks)) for chunks in answers] == [30] * 16
        again = await talk(3)
        assert tokens_of(again)[:10] == tokens_of(answers[3])[:10]


async def test_a_preempted_sequence_goes_on_where_it_was() -> None:
    async with engine(kv_cells=512, context_length=400) as small, engine() as large:
        prompts = [
            Prompt(await small.tokenize(f"The history of city number {i} began when")) for i in range(4)
        ]
        forms = (None, Structure("regex", "([A-Z][a-z]+[,.] ?)+"), None, Structure("regex", "( [0-9]{4},)+"))
        for form in filter(None, forms):
            await asyncio.gather(small.prepare(form), large.prepare(form))
        asked = [{"ignore_eos": True, "structure": form} for form in forms]
        crowded = await asyncio.gather(
            *(drain(small, p, max_tokens=200, **fields) for p, fields in zip(prompts, asked, strict=True))
        )
        assert small.stats().preemptions > 0
        for prompt, chunks, fields in zip(prompts, crowded, asked, strict=True):
            expected = await drain(large, prompt, max_tokens=40, **fields)
            assert tokens_of(chunks)[:40] == tokens_of(expected)
            assert text_of(chunks) == await small.detokenize(tokens_of(chunks))


async def test_an_abort_mid_prefill_frees_everything() -> None:
    async with engine() as ours:
        prompt = Prompt(await ours.tokenize("word " * 1800))
        stream = ours.generate(GenerationRequest("r", prompt, GREEDY))
        async with asyncio.timeout(10):
            while not ours.stats().running:
                await asyncio.sleep(0.001)
        stream.close()
        async with asyncio.timeout(10):
            while ours.stats().running:
                await asyncio.sleep(0.001)
        assert ours.stats().kv_used == 0
        assert len(tokens_of(await drain(ours, Prompt(await ours.tokenize("Hello")), max_tokens=3))) == 3


async def test_one_failing_sequence_fails_alone() -> None:
    async with engine() as ours:
        context = _context(ours)
        decode = context.decode
        poison = (await ours.tokenize(" zebra", add_special=False))[0]

        def failing(slices: Any) -> Any:
            if any(poison in piece.tokens for piece in slices):
                raise EngineError("planted")
            return decode(slices)

        context.decode = failing  # type: ignore[method-assign]
        good = [Prompt(await ours.tokenize(f"Number {i} is")) for i in range(4)]
        bad = Prompt((*await ours.tokenize("I saw a"), poison))
        results = await asyncio.gather(
            *(drain(ours, prompt, max_tokens=6, ignore_eos=True) for prompt in (*good, bad)),
            return_exceptions=True,
        )
        assert isinstance(results[-1], EngineError)
        assert all(isinstance(r, list) and len(tokens_of(r)) == 6 for r in results[:-1])
        assert ours.stats().running == 0
        assert (await ours.health()).ok


async def test_sampling_that_fails_fails_one_sequence() -> None:
    async with engine() as ours:

        def planted(chain: Any, row: int) -> int:
            raise RuntimeError("planted")

        _context(ours).sample = planted  # type: ignore[method-assign]
        prompt = Prompt(await ours.tokenize("Hello"))
        sampled = drain(ours, prompt, sampling=Sampling(temperature=1.0), max_tokens=4)
        results = await asyncio.gather(sampled, drain(ours, prompt, max_tokens=4), return_exceptions=True)
        assert isinstance(results[0], EngineError)
        assert isinstance(results[1], list)
        assert len(tokens_of(results[1])) == 4


async def test_a_dead_thread_is_unhealthy_and_fails_what_runs() -> None:
    async with engine() as ours:
        stream = ours.generate(
            GenerationRequest("r", Prompt(await ours.tokenize("Hi")), GREEDY, ignore_eos=True)
        )
        await stream.__anext__()

        def explode(budget: int) -> Any:
            raise RuntimeError("planted")

        _stepper(ours)._scheduler.schedule = explode  # type: ignore[method-assign]
        with pytest.raises(EngineError, match="planted"):
            async for _ in stream:
                pass
        async with asyncio.timeout(5):
            while (await ours.health()).ok:
                await asyncio.sleep(0.001)
        with pytest.raises(EngineError):
            ours.generate(GenerationRequest("r", Prompt((1,)), GREEDY))


async def test_a_hung_step_is_unhealthy() -> None:
    async with engine(stall_timeout=0.2) as ours:
        release = asyncio.Event()
        loop = asyncio.get_running_loop()
        decode = _context(ours).decode

        def hang(slices: Any) -> Any:
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
            return decode(slices)

        _context(ours).decode = hang  # type: ignore[method-assign]
        stream = ours.generate(
            GenerationRequest("r", Prompt(await ours.tokenize("Hi")), GREEDY, max_tokens=2)
        )
        async with asyncio.timeout(10):
            while (await ours.health()).ok:
                await asyncio.sleep(0.01)
        assert "no step" in (await ours.health()).detail
        release.set()
        assert [c async for c in stream][-1].finish_reason == "length"
        assert (await ours.health()).ok


async def test_a_request_after_a_long_rest_is_no_stall() -> None:
    async with engine(stall_timeout=5.0) as ours:
        ours._thread.last_progress -= 1000
        stream = ours.generate(
            GenerationRequest("r", Prompt(await ours.tokenize("Hi")), GREEDY, max_tokens=2)
        )
        assert (await ours.health()).ok
        assert [c async for c in stream][-1].finish_reason == "length"


async def test_two_slots_share_the_weights() -> None:
    models = ModelCache()
    process = psutil.Process()
    async with engine(models, kv_cells=256, context_length=256):
        before = process.memory_info().rss
        async with engine(models, kv_cells=256, context_length=256) as second:
            assert len(models._entries) == 1
            grown = process.memory_info().rss - before
            weights = second.info.details["size"]
            assert grown < 0.9 * weights, f"{grown / 2**20:.0f} MB more"
    assert models._entries == {}


async def test_slots_share_the_process_that_renders_until_the_last_one_closes() -> None:
    models = ModelCache()
    small = {"kv_cells": 256, "context_length": 256}
    async with engine(models, **small) as first:
        text = (await first.render_chat(HELLO)).text
        worker = first._templates
        pid = worker.pid
        assert pid is not None
        async with engine(models, **small) as second:
            await first.close()
            with pytest.raises(EngineError, match="closed"):
                await first.render_chat(HELLO)
            await second.sleep()
            assert (await second.render_chat(HELLO)).text == text
            assert worker.pid == pid
            await second.wake()
            os.kill(pid, signal.SIGKILL)
            assert (await second.render_chat(HELLO)).text == text
        assert worker.pid is None
        assert models._templates == {}


async def test_a_load_that_fails_or_is_cancelled_takes_no_process_from_the_others(tmp_path: Path) -> None:
    models = ModelCache()
    options = LlamaOptions("m", smollm2(), context_length=256, kv_cells=256)
    async with engine(models, kv_cells=256, context_length=256) as ours:
        await ours.render_chat(HELLO)
        pid = ours._templates.pid
        loading = asyncio.create_task(LlamaEngine.load(options, models))
        await asyncio.sleep(0)
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        with pytest.raises(ModelFileNotFound):
            await LlamaEngine.load(replace(options, path=tmp_path / "missing.gguf"), models)
        await ours.render_chat(HELLO)
        assert ours._templates.pid == pid
        assert list(models._templates) == [smollm2().resolve()]
    assert models._templates == {}


async def test_a_base_model_completes_but_does_not_chat() -> None:
    async with engine(path=gemma_base(), name="gemma", kv_cells=1024, context_length=512) as gemma:
        assert "chat" not in gemma.info.capabilities
        with pytest.raises(UnsupportedFeature, match="chat template"):
            await gemma.render_chat([{"role": "user", "content": "hi"}])
        prompt = Prompt(await gemma.tokenize("The capital of France is"))
        assert "France" in text_of(await drain(gemma, prompt, max_tokens=8))
        longer = Prompt(await gemma.tokenize("One, two, three, four. " * 10))
        first = await drain(gemma, longer, max_tokens=4, logprobs=0)
        # Sliding windows must survive the prefix cache, and the stash.
        for _ in range(2):
            again = await drain(gemma, longer, max_tokens=4, logprobs=0)
            assert [chunk.logprobs for chunk in again] == [chunk.logprobs for chunk in first]
            assert again[-1].usage is not None
            assert again[-1].usage.cached_tokens == 64
            await drain(gemma, prompt, max_tokens=1)


async def test_loads_that_cannot_work_say_why(tmp_path: Path) -> None:
    with pytest.raises(ModelFileNotFound):
        async with engine(path=tmp_path / "missing.gguf"):
            pass
    if not llama_cpp.llama_supports_gpu_offload():
        with pytest.raises(ModelLoadError, match="without GPU support"):
            async with engine(offload=True):
                pass
    text = tmp_path / "text.gguf"
    text.write_text("not a model")
    with pytest.raises(ModelLoadError, match="not a GGUF"):
        async with engine(path=text):
            pass
    odd = tmp_path / "odd.gguf"
    raw = bytearray(smollm2().read_bytes())
    epsilon = b"llama.attention.layer_norm_rms_epsilon"
    struct.pack_into("<f", raw, raw.index(epsilon) + len(epsilon) + 4, math.nan)
    odd.write_bytes(raw)
    with pytest.raises(ModelLoadError, match="epsilon is nan"):  # llama.cpp would abort
        async with engine(path=odd):
            pass
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(smollm2().read_bytes()[: 20 * 2**20])
    with pytest.raises(ModelLoadError, match=r"cut\.gguf"):
        async with engine(path=cut):
            pass


async def test_a_cancelled_load_leaves_nothing() -> None:
    models = ModelCache()
    options = LlamaOptions("m", smollm2(), context_length=256, kv_cells=256)
    loading = asyncio.create_task(LlamaEngine.load(options, models))
    await asyncio.sleep(0)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    async with asyncio.timeout(30):
        while models._entries:
            await asyncio.sleep(0.01)
    async with engine(models, kv_cells=256, context_length=256) as ours:
        assert (await ours.health()).ok


async def test_a_hostile_chat_template_neither_runs_nor_hangs() -> None:
    async with engine() as ours:
        message = [{"role": "user", "content": "hi"}]
        from engines.text.templates.renderer import ChatTemplate

        def use(source: str) -> None:
            assert ours._chats is not None
            ours._chats.template = ChatTemplate(
                source, bos_token="", eos_token="", timeout=0.5, worker=ours._templates
            )

        for source in (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "{{ ''.__class__.__mro__[1].__subclasses__()[0]() }}",
            "{{ cycler.__init__.__globals__.os.system('touch /tmp/owned') }}",
            "{{ 'a' * 10**10 }}",
        ):
            use(source)
            with pytest.raises(EngineError):
                await ours.render_chat(message)
        use("{{ messages[0].content }}")
        assert (await ours.render_chat(message)).text == "hi"
        assert not Path("/tmp/owned").exists()
