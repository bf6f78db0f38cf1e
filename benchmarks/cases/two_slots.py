"""``python -m benchmarks.cases.two_slots MODEL``: what a second engine over the same weights adds, as JSON.

Both engines generate a little before memory is read, so that all that they touch is in it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import psutil

from engines.base import GenerationRequest, Prompt, Sampling
from engines.llamacpp.engine import LlamaEngine, LlamaOptions
from engines.llamacpp.model_cache import ModelCache

KV_CELLS = 4096


async def measure(path: Path) -> dict[str, float]:
    """Bytes resident before, with one engine and with two, and those of a KV cache."""
    process = psutil.Process()
    models = ModelCache()
    resident = [process.memory_info().rss]
    engines = []
    for number in range(2):
        engines.append(await _engine(path, models, number))
        resident.append(process.memory_info().rss)
    model = models.acquire(path, 0)
    per_token = model.kv_bytes_per_token()
    models.release(model)
    for engine in engines:
        await engine.close()
    return {
        "before": resident[0],
        "one": resident[1],
        "two": resident[2],
        "kv": KV_CELLS * per_token,
        "kv_per_token": per_token,
    }


async def _engine(path: Path, models: ModelCache, number: int) -> LlamaEngine:
    options = LlamaOptions(
        name=f"slot-{number}", path=path, kv_cells=KV_CELLS, max_sequences=8, threads=1, offload=False
    )
    engine = await LlamaEngine.load(options, models)
    prompt = Prompt(await engine.tokenize("The sea was calm when the ship left the harbor. " * 60))
    request = GenerationRequest(
        f"warm-{number}", prompt, Sampling(temperature=0), max_tokens=8, ignore_eos=True
    )
    async for _ in engine.generate(request):
        pass
    return engine


def main() -> None:
    print(json.dumps(asyncio.run(measure(Path(sys.argv[1])))))


if __name__ == "__main__":
    main()
