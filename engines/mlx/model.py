"""Weights and tokenizer from a folder, and how much memory is left for KV caches.

Everything here runs on the engine thread, as MLX ties arrays to the streams of a thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import psutil
from mlx.utils import tree_flatten

from engines.errors import BadModelFile, CannotLoad, ModelLoadError
from engines.mlx.folder import check_folder
from engines.mlx.library import load_model, load_states, load_tokenizer, make_prompt_cache
from engines.mlx.memory import KvCost
from engines.mlx.vocabulary import MlxVocabulary
from engines.sizing import auto_context

if TYPE_CHECKING:
    from engines.load_spec import LoadSpec

logger = logging.getLogger("engines.mlx")

# Without a given size KV caches take at most this part of the memory that is free.
AUTO_KV_SHARE = {"cpu": 0.25, "gpu": 0.5}
_EVALUATE_AT_ONCE = 256 * 2**20  # bytes of weights between two reports


class FloatLogits:
    """A model whose logits are float32: in bfloat16, log probabilities would have two digits."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, tokens: mx.array, cache: list[Any]) -> mx.array:
        logits: mx.array = self._model(tokens, cache=cache)
        return logits.astype(mx.float32)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model, where it runs ("cpu" or "gpu"), and its size in bytes."""

    model: Any
    config: dict[str, Any]
    tokenizer: Any
    device: str
    size: int

    @property
    def forward(self) -> FloatLogits:
        return FloatLogits(self.model)

    def new_caches(self) -> list[Any]:
        """Empty KV caches of one sequence, one a layer."""
        caches: list[Any] = make_prompt_cache(self.model)
        return caches

    def vocabulary(self, n_vocab: int) -> MlxVocabulary:
        return MlxVocabulary(self.tokenizer, self.tokenizer.eos_token_ids, n_vocab)


def load(spec: LoadSpec, report: Callable[[float], None], *, for_states: bool = False) -> LoadedModel:
    """Read ``spec.path``; its settings were checked. Raises `ModelLoadError`, and what ``report`` raises.

    ``for_states``: the weights may be those of the part alone that makes states.
    """
    path, config = check_folder(spec.path)
    device = _choose_device(spec.use_gpu)
    if spec.threads is not None:
        logger.info("MLX has no setting for the number of threads: %d is not used", spec.threads)
    read = load_states if for_states else load_model
    model, config = _translate_errors(lambda: read(path, lazy=True), config["model_type"], path)
    if spec.quantization is not None and "quantization" not in config:
        raise CannotLoad(
            f"{path} is not quantised: `mlx_lm.convert --hf-path {path} -q` makes a folder that is"
        )
    report(0.1)
    if spec.dtype not in (None, "auto"):
        model.set_dtype(getattr(mx, str(spec.dtype)))
    size = _evaluate(model, path, report)
    if not for_states and not all(hasattr(cache, "merge") for cache in make_prompt_cache(model)):
        raise CannotLoad(f"mlx-lm cannot batch {config['model_type']} models: use another engine")
    tokenizer = _translate_errors(
        lambda: load_tokenizer(path, eos_token_ids=config.get("eos_token_id")), config["model_type"], path
    )
    report(0.9)
    return LoadedModel(model, config, tokenizer, device, size)


def _choose_device(wanted: bool | None) -> str:
    has_gpu = mx.is_available(mx.gpu)
    if wanted and not has_gpu:
        raise CannotLoad(
            "a GPU was asked for (DEVICE_TYPE), but MLX finds none: it uses Apple silicon's, or install "
            "mlx[cuda] for NVIDIA's; or set DEVICE_TYPE=auto"
        )
    use_gpu = has_gpu and wanted is not False
    mx.set_default_device(mx.gpu if use_gpu else mx.cpu)
    return "gpu" if use_gpu else "cpu"


def _translate_errors(read: Callable[[], Any], model_type: str, path: Path) -> Any:
    try:
        return read()
    except ModelLoadError:
        raise
    except Exception as error:
        if "not supported" in str(error):
            raise CannotLoad(
                f"mlx-lm does not know the architecture {model_type!r}: a newer mlx-lm may "
                "(`pip install -U mlx-lm`), or another engine"
            ) from error
        kind = ModelLoadError if isinstance(error, (OSError, MemoryError)) else BadModelFile
        raise kind(f"mlx-lm cannot load {path}: {error}") from error


def _evaluate(model: Any, path: Path, report: Callable[[float], None]) -> int:
    """Read the weights, which are lazy until now; returns their bytes."""
    arrays: list[mx.array] = [array for _, array in tree_flatten(model.parameters())]
    total = sum(array.nbytes for array in arrays)
    done, part = 0, []
    try:
        for array in arrays:
            part.append(array)
            done += array.nbytes
            if sum(a.nbytes for a in part) >= _EVALUATE_AT_ONCE:
                mx.eval(part)
                part = []
                report(0.1 + 0.7 * done / total)
        mx.eval(part)
    except (RuntimeError, MemoryError) as error:
        raise ModelLoadError(f"the weights in {path} cannot be read: {error}") from error
    report(0.8)
    return total


def choose_sizes(spec: LoadSpec, loaded: LoadedModel, cost: KvCost, free: int) -> tuple[int, int]:
    """Context length in tokens and the KV budget in bytes; ``free`` is the memory left, in bytes.

    Given sizes are kept; a context never exceeds what the budget holds for one sequence alone.
    """
    trained = trained_context(loaded.config)
    context = spec.context_length or auto_context(trained)
    if spec.kv_cache_tokens is not None:
        budget = cost.sequence(spec.kv_cache_tokens)
    else:
        share = int(free * AUTO_KV_SHARE[loaded.device])
        budget = min(share, cost.batch(spec.max_sequences, context))
        if spec.context_length is not None:
            budget = max(budget, cost.sequence(context))
    context = cost.most_tokens(budget, context)
    if context < 1:
        raise ModelLoadError(
            f"{budget / 2**20:.0f} MiB are left for KV caches, too little for one token: "
            "free memory or take a smaller model"
        )
    return context, budget


def details(loaded: LoadedModel, spec: LoadSpec) -> dict[str, Any]:
    """What is told of a loaded model of whatever purpose."""
    quantization = loaded.config.get("quantization")
    return {
        "architecture": loaded.config["model_type"],
        "size": loaded.size,
        "quantization": f"{quantization['bits']}bit" if quantization else None,
        "dtype": spec.dtype or str(loaded.config.get("dtype") or loaded.config.get("torch_dtype")),
    }


def free_memory(device: str) -> int:
    """Bytes that KV caches may come from."""
    available = int(psutil.virtual_memory().available)
    working_set = mx.device_info().get("max_recommended_working_set_size")
    if device == "cpu" or working_set is None:
        return available
    return max(0, int(working_set) - mx.get_active_memory())


def trained_context(config: dict[str, Any]) -> int | None:
    """Tokens that the model was trained for; None if its configuration does not say."""
    nested = config.get("text_config")
    for place in (config, nested if isinstance(nested, dict) else {}):
        if isinstance(length := place.get("max_position_embeddings"), int):
            return length
    return None
