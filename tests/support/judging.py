"""Scores of rerankers that generate, found out by asking for each answer."""

from __future__ import annotations

from typing import Any

from engines.base import GenerationRequest, Pair, Prompt, Sampling

PLAIN = "Is the document an answer?\nQuery: {query}\nDocument: {document}\nAnswer (yes or no):"


async def log_odds(engine: Any, pair: Pair) -> float:
    """As any client could find it out."""
    text = PLAIN.replace("{query}", pair.query).replace("{document}", pair.document)
    prompt = await engine.tokenize(text)
    found = {}
    for word in ("yes", "no"):
        (token,) = await engine.tokenize(word, add_special=False)
        sampling = Sampling(temperature=0.0, allowed_token_ids=(token,))
        request = GenerationRequest("r", Prompt(prompt), sampling, max_tokens=1, logprobs=0)
        found[word] = [entry async for chunk in engine.generate(request) for entry in chunk.logprobs]
    return float(found["yes"][0].chosen.logprob - found["no"][0].chosen.logprob)
