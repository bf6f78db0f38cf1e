"""Images in vLLM's prompts, with a model of random weights on the CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engines.base import GenerationRequest, Media, Prompt, Sampling
from engines.errors import RequestError, UnsupportedFeature
from engines.load_spec import LoadSpec
from engines.vllm.engine import VllmEngine
from support.pictures import image
from support.tiny_vision_folder import TOKENS, tiny_vision_folder

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def question(*indices: int, text: str = "What is this?") -> list[dict[str, Any]]:
    parts = [{"type": "image", "index": index} for index in indices]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


async def answer(engine: VllmEngine, prompt: Prompt) -> list[tuple[int, float]]:
    request = GenerationRequest("r", prompt, Sampling(temperature=0.0), max_tokens=3, logprobs=0)
    chunks = [chunk async for chunk in engine.generate(request)]
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.prompt_tokens == len(prompt.token_ids)
    return [(each.chosen.token_id, each.chosen.logprob) for chunk in chunks for each in chunk.logprobs]


async def test_it_sees() -> None:
    """Different images give different answers, an equal one the same, and they count as what they take. An
    engine for all of it, as a start takes long."""
    options = {"enforce_eager": True}
    spec = LoadSpec("vllm", "seer", tiny_vision_folder(), context_length=512, options=options)
    engine = await VllmEngine.load(replace(spec, kv_cache_tokens=2048, max_sequences=4))
    try:
        assert {"vision", "chat"} <= engine.info.capabilities
        assert "audio" not in engine.info.capabilities
        red, blue = image("red", (40, 30)), image("blue", (40, 30))

        async def prompt(*media: Media, text: str = "What is this?") -> Prompt:
            return await engine.render_chat(question(*range(len(media)), text=text), media=media)

        first, second, both = await prompt(red), await prompt(blue), await prompt(red, blue)
        assert first.media == (red,)
        assert both.media == (red, blue)
        none = await engine.render_chat([{"role": "user", "content": "What is this?"}])
        taken = len(first.token_ids) - len(none.token_ids)
        assert taken == TOKENS + 3
        assert len(both.token_ids) == len(none.token_ids) + 2 * taken
        seen = await answer(engine, first)
        assert seen != await answer(engine, second)
        assert seen == await answer(engine, await prompt(image("red", (40, 30))))
        # What a client writes is no image.
        written = await prompt(red, text="<image><image>")
        assert len(written.media) == 1
        assert await answer(engine, written)
        with pytest.raises(UnsupportedFeature, match="takes no audio"):
            await prompt(replace(red, kind="audio"))
        with pytest.raises(RequestError, match="damaged or cut off"):
            await prompt(replace(red, data=red.data[:60]))
    finally:
        await engine.close()
