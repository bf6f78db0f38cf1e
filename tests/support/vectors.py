"""Vectors of texts by transformers, to compare those of an engine with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engines.base import Vectors


def reference(folder: Path, texts: Sequence[Sequence[int]], pooling: str) -> Vectors:
    """One vector of length 1 for each of ``texts``, which are token ids."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    rows = []
    with torch.no_grad():
        for tokens in texts:
            states = model(torch.tensor([list(tokens)])).last_hidden_state[0]
            pooled = {"last": states[-1], "cls": states[0], "mean": states.mean(0)}[pooling]
            rows.append((pooled / pooled.norm()).numpy())
    return np.stack(rows)


def cosines(first: Vectors, second: Vectors) -> list[float]:
    """The cosine of each pair of rows, of length 1."""
    return [float(cosine) for cosine in (first * second).sum(axis=1)]
