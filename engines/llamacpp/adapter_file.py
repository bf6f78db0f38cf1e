"""Checks of LoRA adapters in GGUF files, before llama.cpp reads them: what it does not expect, it dies of."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from engines.base import Adapter
from engines.errors import BadModelFile, CannotLoad, ModelFileNotFound
from engines.load_spec import LoadSpec
from engines.models.gguf import GgufTable, part_paths, read_table
from engines.models.gguf_reader import TensorEntry
from engines.models.store import stamp

_STRING, _FLOAT32 = 8, 6
# Types that its converter writes: F32, F16, BF16 and Q8_0. Others cannot be multiplied with, or rarely.
_TYPES = frozenset({0, 1, 30, 8})
_A, _B = ".lora_a", ".lora_b"
_IGNORED = "_norm.weight"
_EMBEDDING = "token_embd.weight"
_ACTIVATED = "adapter.alora.invocation_tokens"


def check_adapters(spec: LoadSpec) -> None:
    """Raise `ModelLoadError` for an adapter that does not fit the model."""
    if spec.path is None or not spec.adapters:
        return
    base = _table_of(spec.path)
    for adapter in spec.adapters:
        _check(adapter, base)


def _table_of(path: Path) -> GgufTable:
    """The table of a model, whose vocabulary takes long to pass over: kept until its files change."""
    return _known_table(path, tuple(map(stamp, part_paths(path))))


@lru_cache(maxsize=8)
def _known_table(path: Path, stamps: object) -> GgufTable:
    return read_table(path)


def _check(adapter: Adapter, base: GgufTable) -> None:
    path, name = adapter.path, adapter.name
    if path.is_dir():
        raise CannotLoad(
            f"the adapter {name} is a folder, and llama.cpp needs a GGUF file: convert it with llama.cpp's "
            f"`convert_lora_to_gguf.py --base MODEL_FOLDER --outfile {path.name}.gguf {path}`"
        )
    if not path.is_file():
        raise ModelFileNotFound(f"there is no file {path} of the adapter {name}")
    table = read_table(path)
    if (problem := _problem(table, base)) is not None:
        raise BadModelFile(f"{path.name} cannot be used as the adapter {name}: {problem}")


def _problem(table: GgufTable, base: GgufTable) -> str | None:
    """What is wrong with the adapter in ``table``, if anything is."""
    said = table.metadata
    for key, wanted in (("general.type", "adapter"), ("adapter.type", "lora")):
        if said.get(key) != wanted:
            return f"its {key} is {said.get(key)!r}, not {wanted!r}"
    ours, theirs = said.get("general.architecture"), base.metadata.get("general.architecture")
    if ours != theirs:
        return f"it is for models of the architecture {ours!r}, and this one is {theirs!r}"
    if table.kinds.get("adapter.lora.alpha", _FLOAT32) != _FLOAT32:
        return "its adapter.lora.alpha is no number of 32 bits"
    if _ACTIVATED in said:
        return "it is an activated LoRA (aLoRA), which this server does not run"
    return _tensor_problem(table.tensors, base.tensors)


def _tensor_problem(tensors: Mapping[str, TensorEntry], base: Mapping[str, TensorEntry]) -> str | None:
    targets = set()
    for name, entry in tensors.items():
        if name.endswith((_A, _B)):
            targets.add(name[: -len(_A)])
            if entry.kind not in _TYPES:
                return f"its tensor {name} is not in F32, F16, BF16 or Q8_0"
        elif not name.endswith(_IGNORED):
            return f"its tensor {name} is no part of a LoRA"
    if not targets:
        return "it has no tensors"
    for target in sorted(targets):
        a, b, weight = tensors.get(target + _A), tensors.get(target + _B), base.get(target)
        if a is None or b is None:
            return f"of {target} it has only one half"
        if weight is None:
            return f"the model has no {target}: it was made for another model"
        if not _fits(a.shape, b.shape, weight.shape, embeds=target == _EMBEDDING):
            sizes = f"{_shown(a)} and {_shown(b)} do not make {_shown(weight)}"
            return f"its {target} is of the wrong size ({sizes}): it was made for another model"
    return None


def _fits(a: tuple[int, ...], b: tuple[int, ...], weight: tuple[int, ...], *, embeds: bool) -> bool:
    """Whether ``a`` and ``b`` make a change of ``weight``; dimensions beyond two are of experts."""
    if not len(a) == len(b) == len(weight) or len(weight) not in (2, 3) or 0 in (*a, *b):
        return False
    if not a[2:] == b[2:] == weight[2:]:
        return False
    if embeds:  # rows of ``a`` are looked up, not multiplied with
        return len(weight) == 2 and (b[1], a[1]) == weight and a[0] == b[0]
    return (a[0], b[1]) == weight[:2] and a[1] == b[0]


def _shown(entry: TensorEntry) -> str:
    return " x ".join(map(str, entry.shape))
