"""Pictures in llama.cpp, on tiny models of random weights. The measure is what libmtmd's helper computes."""

from __future__ import annotations

import asyncio
import ctypes
import io
import math
import threading
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as lib
import llama_cpp.mtmd_cpp as mtmd
import numpy as np
import pytest
from PIL import Image

from engines import media
from engines.base import Chunk, GenerationRequest, Media, Prompt, Sampling
from engines.errors import BadModelFile, ContextLengthExceeded, EngineError, RequestError, UnsupportedFeature
from engines.llamacpp.engine import LlamaEngine, LlamaOptions
from engines.llamacpp.model_cache import ModelCache
from support.tiny_vision import Family, tiny_vision, write_ears, write_projector

pytestmark = pytest.mark.real

GREEDY = Sampling(temperature=0.0)
SEEN = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "before "},
            {"type": "image", "index": 0},
            {"type": "text", "text": " after"},
        ],
    }
]


def picture(seed: int, width: int = 64, height: int = 48) -> Media:
    pixels = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(file, "PNG")
    return media.image(file.getvalue())


@pytest.fixture(params=["qwen2vl", "gemma3"])
def family(request: pytest.FixtureRequest) -> Family:
    found: Family = request.param
    return found


@pytest.fixture(params=["pooled", "split"])
async def engine(
    family: Family, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[LlamaEngine]:
    loaded = await load(tmp_path, family, kv_cells=2048 if request.param == "pooled" else None)
    yield loaded
    await loaded.close()


async def load(folder: Path, family: Family, **options: Any) -> LlamaEngine:
    model, projector = tiny_vision(folder, family)
    given = {"context_length": 1024, "threads": 1, "max_sequences": 4, **options}
    return await LlamaEngine.load(
        LlamaOptions(name="m", path=model, projector=projector, **given), ModelCache()
    )


async def ask(engine: LlamaEngine, prompt: Prompt, **fields: Any) -> list[Chunk]:
    request = GenerationRequest("r", prompt, **{"sampling": GREEDY, "max_tokens": 8, "logprobs": 0, **fields})
    return [chunk async for chunk in engine.generate(request)]


def tokens_of(chunks: list[Chunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.token_ids]


def logprobs_of(chunks: list[Chunk]) -> list[float]:
    return [each.chosen.logprob for chunk in chunks for each in chunk.logprobs]


def cached_of(chunks: list[Chunk]) -> int:
    usage = chunks[-1].usage
    assert usage is not None
    return usage.cached_tokens


async def test_all_of_it(engine: LlamaEngine, family: Family, tmp_path: Path) -> None:
    one, other = picture(1), picture(2)
    assert "vision" in engine.info.capabilities
    prompt = await engine.render_chat(SEEN, media=[one])
    assert prompt.text is not None
    assert "before <media> after" in prompt.text
    ids = prompt.token_ids
    assert sum(token < 0 for token in ids) == (48 if family == "qwen2vl" else 16)

    first = await ask(engine, prompt)
    drawn, expected = reference(tmp_path, family, prompt, one, 8)
    assert tokens_of(first) == drawn
    assert logprobs_of(first) == pytest.approx(expected, abs=0.02)
    # The same again: nothing is encoded, and all but the last token is there.
    again = await ask(engine, await engine.render_chat(SEEN, media=[one]))
    assert (tokens_of(again), logprobs_of(again)) == (tokens_of(first), logprobs_of(first))
    end = max(place for place, token in enumerate(ids) if token < 0) + 1
    assert cached_of(again) == end
    assert engine.metrics() == {"media_encoded_total": 1, "media_cached_total": 1}

    # Another picture gives other logits, and shares what is before it only.
    second = await engine.render_chat(SEEN, media=[other])
    differently = await ask(engine, second)
    assert logprobs_of(differently) != pytest.approx(logprobs_of(first), abs=1e-3)
    assert cached_of(differently) <= ids.index(next(token for token in ids if token < 0))

    # Beside each other, and beside a text, all answer as alone.
    plain = await engine.render_chat([{"role": "user", "content": "hello"}])
    alone = await ask(engine, plain)
    together = await asyncio.gather(*(ask(engine, each) for each in (prompt, second, plain)))
    for beside, before in zip(together, (first, differently, alone), strict=True):
        assert tokens_of(beside) == tokens_of(before)
        assert logprobs_of(beside) == pytest.approx(logprobs_of(before), abs=0.02)

    # The second turn has the picture from the cache.
    turn = [*SEEN, {"role": "assistant", "content": "x"}, {"role": "user", "content": "and?"}]
    third = await ask(engine, await engine.render_chat(turn, media=[one]))
    assert cached_of(third) >= end
    assert engine.metrics()["media_encoded_total"] == 2


async def test_what_runs_beside_an_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await load(tmp_path, "qwen2vl", kv_cells=512, context_length=256, ngram_draft=7)
    projector = engine._model.projector
    assert projector is not None
    gate, encode = threading.Event(), projector.encode
    begun: list[str] = []

    def encode_at_last(each: Media) -> Any:
        begun.append(each.key)
        gate.wait(10)
        return encode(each)

    monkeypatch.setattr(projector, "encode", encode_at_last)
    one, other = picture(1), picture(2)
    prompt = await engine.render_chat(SEEN, media=[one])
    waiting = engine.generate(GenerationRequest("a", prompt, sampling=GREEDY, max_tokens=40, ignore_eos=True))
    left = engine.generate(GenerationRequest("b", await engine.render_chat(SEEN, media=[other])))
    plain = await engine.render_chat([{"role": "user", "content": "hello"}])
    assert len(tokens_of(await ask(engine, plain, ignore_eos=True))) == 8  # while a picture is being encoded
    assert engine.stats().waiting == 2
    left.close()
    gate.set()
    alone = tokens_of([chunk async for chunk in waiting])
    assert (begun, engine.stats().waiting) == ([one.key], 0)
    broken = media.image(one.data[: len(one.data) // 2])
    cut_off = await engine.render_chat(SEEN, media=[broken])
    with pytest.raises(RequestError, match="damaged"):
        await ask(engine, cut_off)
    # Too little room for all at once: some are preempted, and computed again from what they hold.
    sampling = Sampling(temperature=0.0, repetition_penalty=1.01)  # looks at the prompt's tokens
    crowd = [await engine.render_chat(SEEN, media=[picture(seed)]) for seed in (1, 3, 4, 5)]
    answers = await asyncio.gather(*(ask(engine, each, max_tokens=150, ignore_eos=True) for each in crowd))
    assert engine.stats().preemptions > 0
    assert tokens_of(answers[0])[:8] == alone[:8]
    assert len(tokens_of(await ask(engine, prompt, sampling=sampling, ignore_eos=True))) == 8
    with pytest.raises(RequestError, match="prompt_logprobs"):
        await ask(engine, prompt, prompt_logprobs=0)
    with pytest.raises(ContextLengthExceeded):
        await engine.render_chat(SEEN, media=[picture(1, 256, 256)])
    # Unloading gives up what waits for its turn.
    gate.clear()
    last = [
        engine.generate(GenerationRequest("c", each))
        for each in (await many(engine, 6), await many(engine, 7))
    ]
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(engine.close())
    await asyncio.sleep(0)
    gate.set()
    await closing
    for stream in last:
        with pytest.raises(EngineError, match="unloaded"):
            await anext(stream)


async def many(engine: LlamaEngine, seed: int) -> Prompt:
    return await engine.render_chat(SEEN, media=[picture(seed)])


async def test_sounds(tmp_path: Path) -> None:
    model, _ = tiny_vision(tmp_path, "qwen2vl")
    ears = write_ears(tmp_path / "mmproj-ears.gguf")
    options = LlamaOptions(name="m", path=model, projector=ears, context_length=2048, threads=1)
    engine = await LlamaEngine.load(options, ModelCache())
    assert {"vision", "audio"} & engine.info.capabilities == {"audio"}
    heard = [{"role": "user", "content": [{"type": "audio", "index": 0}, {"type": "text", "text": "what?"}]}]
    answers = []
    for sound in (tone(440), tone(880), tone(440), tone(440, rate=8000, channels=2, width=3)):
        prompt = await engine.render_chat(heard, media=[sound])
        assert sum(token < 0 for token in prompt.token_ids) > 100
        answers.append(logprobs_of(await ask(engine, prompt, ignore_eos=True)))
    assert answers[0] == answers[2]
    assert answers[1] != pytest.approx(answers[0], abs=1e-3)
    assert engine.metrics() == {"media_encoded_total": 3, "media_cached_total": 1}
    for damaged in (tone(440).data[:60], tone(440).data[:20], b"ID3" + bytes(99)):
        with pytest.raises(RequestError, match="WAV"):
            await engine.render_chat(heard, media=[media.audio(damaged)])
    with pytest.raises(UnsupportedFeature, match="takes no images"):
        await engine.render_chat(SEEN, media=[picture(1)])
    await engine.close()


def tone(pitch: int, *, rate: int = 16000, channels: int = 1, width: int = 2) -> Media:
    wave_form = np.sin(np.arange(rate) * 2 * np.pi * pitch / rate) * (2 ** (8 * width - 1) - 1)
    raw = np.repeat(wave_form.astype("<i4"), channels).view(np.uint8).reshape(-1, 4)[:, :width].tobytes()
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(width)
        sound.setframerate(rate)
        sound.writeframes(raw)
    return media.audio(file.getvalue())


async def test_a_projector_that_does_not_fit(tmp_path: Path) -> None:
    model, _ = tiny_vision(tmp_path, "gemma3")
    other = write_projector(tmp_path / "mmproj-other.gguf", "gemma3", width=32)
    with pytest.raises(BadModelFile, match="mismatch between text model"):
        await LlamaEngine.load(LlamaOptions(name="m", path=model, projector=other), ModelCache())
    other.write_bytes(other.read_bytes()[:-64])
    with pytest.raises(BadModelFile, match="cut off"):
        await LlamaEngine.load(LlamaOptions(name="m", path=model, projector=other), ModelCache())


def reference(
    folder: Path, family: Family, prompt: Prompt, seen: Media, count: int
) -> tuple[list[int], list[float]]:
    """What libmtmd's helper and greedy decoding make of the prompt: tokens, and their log probabilities."""
    model, projector = folder / f"tiny-{family}.gguf", folder / f"mmproj-tiny-{family}-f16.gguf"
    handle = lib.llama_model_load_from_file(str(model).encode(), lib.llama_model_default_params())
    params = lib.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 512
    context = lib.llama_init_from_model(handle, params)
    given = mtmd.mtmd_context_params_default()
    given.use_gpu = given.warmup = False
    sees = mtmd.mtmd_init_from_file(str(projector).encode(), handle, given)
    pixels = np.asarray(media.decoded(seen)).copy()
    bitmap = mtmd.mtmd_bitmap_init(
        seen.width, seen.height, pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
    )
    text = (prompt.text or "").replace("<media>", "<__media__>").encode()
    chunks = mtmd.mtmd_input_chunks_init()
    asked = mtmd.mtmd_input_text(text=text, text_len=len(text), add_special=True, parse_special=True)
    bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
    assert mtmd.mtmd_tokenize(sees, chunks, ctypes.byref(asked), bitmaps, 1) == 0
    past = lib.llama_pos(0)
    assert mtmd.mtmd_helper_eval_chunks(sees, context, chunks, 0, 0, 512, True, ctypes.byref(past)) == 0
    tokens: list[int] = []
    logprobs: list[float] = []
    shape = (lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(handle)),)
    for place in range(count):
        logits = np.ctypeslib.as_array(lib.llama_get_logits_ith(context, -1), shape=shape)
        row = logits.astype(np.float64)
        token = int(row.argmax())
        tokens.append(token)
        logprobs.append(float(row[token] - row.max() - math.log(np.exp(row - row.max()).sum())))
        single = lib.llama_batch_init(1, 0, 1)
        single.n_tokens = 1
        single.token[0], single.pos[0], single.n_seq_id[0] = token, past.value + place, 1
        single.seq_id[0][0], single.logits[0] = 0, 1
        assert lib.llama_decode(context, single) == 0
        lib.llama_batch_free(single)
    mtmd.mtmd_input_chunks_free(chunks)
    mtmd.mtmd_bitmap_free(bitmap)
    mtmd.mtmd_free(sees)
    lib.llama_free(context)
    lib.llama_model_free(handle)
    return tokens, logprobs
