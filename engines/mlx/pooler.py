"""Vectors of texts from the states of a decoder model. Belongs to the thread that opened it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from engines.base import EngineInfo, Vectors
from engines.errors import CannotLoad
from engines.mlx import model as models
from engines.mlx.folder import check_folder, check_pools
from engines.mlx.library import make_prompt_cache
from engines.models import hf
from engines.models.purpose import Pooling
from engines.sizing import auto_context

if TYPE_CHECKING:
    from engines.load_spec import LoadSpec

# The most tokens of a pass, padding included; a longer text is computed in parts, one after the other.
PASS_TOKENS = 2048


class MlxPooler:
    """A `Pooler`. Texts are padded behind their ends, where a decoder does not look."""

    def __init__(self, loaded: models.LoadedModel, spec: LoadSpec, pooling: Pooling) -> None:
        self._model = loaded.model
        self._states = _states_of(loaded)
        self._pooling = pooling
        self.width, n_vocab = self._probe(loaded)
        self.most_texts, self.most_tokens = spec.max_sequences, PASS_TOKENS
        self.vocabulary = loaded.vocabulary(n_vocab)
        self.info = EngineInfo(
            engine="mlx",
            model=spec.name,
            context_length=spec.context_length or auto_context(models.trained_context(loaded.config)),
            longest_context=models.trained_context(loaded.config) or 0,
            max_sequences=spec.max_sequences,
            devices=(loaded.device,),
            capabilities=frozenset({"embeddings"}),
            memory=loaded.size,
            pooling=pooling,
            embedding_length=self.width,
            matryoshka=spec.matryoshka,
            dimensions=spec.dimensions,
            details=models.details(loaded, spec),
        )

    def compute(self, texts: Sequence[Sequence[int]]) -> Vectors:
        rows = np.empty((len(texts), self.width), dtype=np.float32)
        for places in _rectangles([len(text) for text in texts]):
            rows[places] = self._compute([texts[place] for place in places])
        return rows

    def _compute(self, texts: Sequence[Sequence[int]]) -> Vectors:
        lengths = mx.array([len(text) for text in texts])[:, None]
        longest = max(map(len, texts))
        padded = np.zeros((len(texts), longest), dtype=np.int32)
        for row, text in zip(padded, texts, strict=True):
            row[: len(text)] = text
        caches = make_prompt_cache(self._model) if longest > PASS_TOKENS else None
        pooled = mx.zeros((len(texts), 1))
        for start in range(0, longest, PASS_TOKENS):
            tokens = mx.array(padded[:, start : start + PASS_TOKENS])
            states = self._states(tokens, cache=caches).astype(mx.float32)
            pooled = pooled + self._sum(states, start, lengths)
            mx.eval(pooled)
        if self._pooling == "mean":
            pooled = pooled / lengths
        return np.array(pooled)

    def close(self) -> None:
        del self._model, self._states
        mx.clear_cache()

    def _sum(self, states: mx.array, start: int, lengths: mx.array) -> mx.array:
        """The sum of those of ``states``, from position ``start`` on, that count."""
        places = mx.arange(start, start + states.shape[1])[None, :]
        match self._pooling:
            case "mean":
                counts = places < lengths
            case "cls":
                counts = mx.broadcast_to(places == 0, states.shape[:2])
            case _:
                counts = places == lengths - 1
        return mx.sum(mx.where(counts[:, :, None], states, 0.0), axis=1)

    def _probe(self, loaded: models.LoadedModel) -> tuple[int, int]:
        """The length of a state and the number of tokens."""
        states = self._states(mx.array([[0, 1]]), cache=None)
        logits = loaded.model(mx.array([[0, 1]]))
        mx.eval(states)
        expected = hf.hidden_size(loaded.config)
        if states.shape != (1, 2, expected or states.shape[-1]):
            raise _no_states(loaded.config)
        return int(states.shape[-1]), int(logits.shape[-1])


def _rectangles(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The places of texts of such lengths in groups that are no longer than a pass when they are padded."""
    group: list[int] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if group and lengths[place] * (len(group) + 1) > PASS_TOKENS:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def open_pooler(spec: LoadSpec, pooling: Pooling | None, report: Callable[[float], None]) -> MlxPooler:
    """Load ``spec`` to pool in the way of ``pooling``, if that is known. Raises `ModelLoadError`, and what
    ``report`` raises to give up."""
    path, config = check_folder(spec.path)
    chosen = check_pools(path, config, pooling)
    loaded = models.load(spec, report, for_states=True)
    pooler = MlxPooler(loaded, spec, chosen)
    report(1.0)
    return pooler


def _states_of(loaded: models.LoadedModel) -> Any:
    """The part of a model that makes the last states of its tokens."""
    outer = getattr(loaded.model, "language_model", loaded.model)
    inner = getattr(outer, "model", None)
    if inner is None:
        raise _no_states(loaded.config)
    return inner


def _no_states(config: dict[str, Any]) -> CannotLoad:
    return CannotLoad(
        f"mlx-lm does not give the states of {config['model_type']} models, of which embeddings are made: "
        "use llama_cpp with the model's GGUF file, or vllm"
    )
