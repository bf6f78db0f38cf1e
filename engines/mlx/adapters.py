"""LoRA adapters over a loaded model: linear layers that add what the adapter of the moment has for them.

Everything here runs on the engine thread. MLX computes later what is written down now, with the arrays of
then: so turning to another adapter between two forward passes changes nothing of what is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from engines.base import Adapter
from engines.errors import BadModelFile
from engines.mlx.adapter_folder import AdapterFolder, read_folder

Forward = Callable[..., mx.array]


class Delta(NamedTuple):
    """A layer's change: ``scale`` times its input through ``a`` (input, rank) and ``b`` (rank, output)."""

    a: mx.array
    b: mx.array
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class MlxAdapter:
    """An adapter by the paths of the layers that it changes. Each has cached prefixes of its own."""

    name: str
    deltas: Mapping[str, Delta]
    nbytes: int


class Adapting:
    """The adapter that the model computes with now."""

    def __init__(self) -> None:
        self.deltas: Mapping[str, Delta] = {}


class AdaptedLinear(nn.Module):  # type: ignore[misc]
    """A linear layer, quantised or not, and what the adapter of the moment adds to it; without one it
    computes exactly what it did before."""

    def __init__(self, linear: nn.Module, path: str, adapting: Adapting) -> None:
        super().__init__()
        self.linear = linear
        self._path = path
        self._adapting = adapting

    def __call__(self, x: mx.array) -> mx.array:
        y: mx.array = self.linear(x)
        delta = self._adapting.deltas.get(self._path)
        if delta is None:
            return y
        return y + (delta.scale * ((x @ delta.a) @ delta.b)).astype(y.dtype)


class ModelAdapters:
    """Loads adapters for ``model``, and lets it compute with one."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._adapting = Adapting()

    def load(self, adapter: Adapter) -> MlxAdapter:
        """Read the files of ``adapter``, and make the layers ready for it. Raises `ModelLoadError`."""
        folder = read_folder(adapter)
        try:
            weights = cast(dict[str, mx.array], mx.load(str(folder.weights)))
            layers = dict(self._model.named_modules())
            deltas = {path: self._delta(folder, path, weights, layers) for path in folder.paths(weights)}
            mx.eval([part for delta in deltas.values() for part in (delta.a, delta.b)])
        except (RuntimeError, ValueError, OSError) as error:
            raise BadModelFile(f"the adapter {adapter.name} cannot be read: {error}") from error
        if not deltas:
            raise BadModelFile(f"the adapter {adapter.name} has no weights of a LoRA in {folder.weights}")
        self._prepare(deltas, layers)
        return MlxAdapter(
            adapter.name, deltas, sum(delta.a.nbytes + delta.b.nbytes for delta in deltas.values())
        )

    def forward(self, plain: Forward, adapter: MlxAdapter) -> Forward:
        """The forward pass ``plain`` with ``adapter``."""

        def adapted(tokens: mx.array, cache: list[Any]) -> mx.array:
            self._adapting.deltas = adapter.deltas
            try:
                return plain(tokens, cache=cache)
            finally:
                self._adapting.deltas = {}

        return adapted

    def _delta(
        self, folder: AdapterFolder, path: str, weights: Mapping[str, mx.array], layers: Mapping[str, Any]
    ) -> Delta:
        layer, (a, b) = layers.get(path), folder.halves(path, weights)
        linear = layer.linear if isinstance(layer, AdaptedLinear) else layer
        if not isinstance(linear, nn.Linear | nn.QuantizedLinear):
            raise BadModelFile(
                f"the adapter {folder.name} changes {path}, which is no linear layer of this model: it was "
                "made for another one"
            )
        outputs, inputs = linear.weight.shape
        if isinstance(linear, nn.QuantizedLinear):
            inputs = inputs * 32 // linear.bits
        rank = a.shape[-1]
        if a.shape != (inputs, rank) or b.shape != (rank, outputs):
            raise BadModelFile(
                f"the adapter {folder.name} has {path} in another size ({a.shape}, {b.shape}) than this "
                f"model ({inputs}, {outputs}): it was made for another one"
            )
        return Delta(a, b, folder.scale(rank))

    def _prepare(self, deltas: Mapping[str, Delta], layers: Mapping[str, Any]) -> None:
        """Put `AdaptedLinear` in the place of the layers that are to be changed."""
        plain = {path: layers[path] for path in deltas if not isinstance(layers[path], AdaptedLinear)}
        if plain:
            adapted = [(path, AdaptedLinear(layer, path, self._adapting)) for path, layer in plain.items()]
            self._model.update_modules(tree_unflatten(adapted))
