"""Facts of a model on disk, without loading it: enough to choose an engine and to estimate memory."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from engines.errors import BadModelFile, ModelFileNotFound, ModelLoadError
from engines.models import gguf, hf, projectors, sampling
from engines.models.formats import ModelFormat
from engines.models.purpose import Pooling, Purpose, purpose_in_folder, purpose_in_gguf
from engines.text.tokens.fim import has_fim

# Models whose facts are kept in memory: some hundred bytes each. More than there are in any model folder,
# as listing them reads them all.
MOST_KNOWN = 4096

_Key = tuple[Path, tuple[tuple[str | int, ...], ...]]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """``context_length`` in tokens, 0 if unknown; ``kv_bytes_per_token`` an upper bound, at 16 bits each.

    ``reasons``: its chat template knows of reasoning; ``has_fim``: its vocabulary has tokens for filling in
    the middle; ``senses`` are those of "vision" and "audio" that it has, by the ``projector`` beside a GGUF
    file, if there is one. ``sampling`` is what the model's own
    files say of it; so is ``pooling``, of a model whose ``purpose`` is not text, with vectors of
    ``embedding_length`` numbers. ``size_label`` is how many parameters its maker says that it has: ``7B``.
    """

    format: ModelFormat
    architecture: str
    context_length: int
    kv_bytes_per_token: int
    weight_bytes: int
    has_chat_template: bool
    quantization: str | None
    reasons: bool = False
    has_fim: bool = False
    senses: frozenset[str] = frozenset()
    projector: Path | None = None
    sampling: sampling.Asked = field(default_factory=dict)
    purpose: Purpose = "text"
    pooling: Pooling | None = None
    embedding_length: int = 0
    size_label: str = ""

    @property
    def pools(self) -> bool:
        """Whether whole texts become vectors or scores; a reranker that says yes or no generates tokens."""
        return self.purpose == "embeddings" or self.pooling == "rank"


class _KnownFacts:
    """What was read of models, good or bad, until their files change; of the last `MOST_KNOWN`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[_Key, ModelFacts | str] = OrderedDict()

    def get(self, key: _Key) -> ModelFacts | str | None:
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
            return self._found.get(key)

    def put(self, key: _Key, found: ModelFacts | str) -> None:
        with self._lock:
            self._found[key] = found
            self._found.move_to_end(key)
            while len(self._found) > MOST_KNOWN:
                self._found.popitem(last=False)


_known = _KnownFacts()


def describe(path: Path) -> ModelFacts:
    """The facts of a GGUF file or a folder in Hugging Face's format; reads headers only.

    Quick if it `is_known`; else it may take a second, off the event loop. Raises `ModelFileNotFound`, and
    `BadModelFile` for what is damaged, cut off or incomplete.
    """
    key = _key(path)
    found = _known.get(key)
    if isinstance(found, str):
        raise BadModelFile(found)
    if found is None:
        found = _read(path, key)
        _known.put(key, found)
    return found


def peek(path: Path) -> None:
    """Read what is at ``path``, if anything is, so that it `is_known` afterwards."""
    with suppress(ModelLoadError, OSError):
        describe(path)


def is_known(path: Path) -> bool:
    """Whether the model at ``path`` was read since its files changed last."""
    return _known.get(_key(path)) is not None


def _read(path: Path, key: _Key) -> ModelFacts:
    try:
        if path.is_dir():
            return _of_folder(path)
        if path.exists():
            return _of_gguf(path)
    except ModelFileNotFound:
        raise
    except BadModelFile as error:
        if not isinstance(error.__cause__, OSError):  # those may pass without a change of the file
            _known.put(key, error.message)
        raise
    raise ModelFileNotFound(f"there is no model {path}")


def _key(path: Path) -> _Key:
    """The model at ``path`` as it is now: a change of any of its files makes another key."""
    try:
        with os.scandir(path) as entries:
            return path, tuple(sorted((each.name, *_stamp(each.path)) for each in entries))
    except NotADirectoryError:
        projector = projectors.beside(path)
        files = (*gguf.part_paths(path), *((projector,) if projector is not None else ()))
        return path, tuple((part.name, *_stamp(part)) for part in files)
    except OSError:
        return path, ()


def _stamp(path: os.PathLike[str] | str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _of_gguf(path: Path) -> ModelFacts:
    header = gguf.read_header(path)
    made_for, pooling = purpose_in_gguf(header)
    projector = projectors.beside(path) if made_for == "text" else None
    return ModelFacts(
        format="gguf",
        architecture=header.architecture,
        context_length=header.context_length,
        kv_bytes_per_token=header.kv_bytes_per_token(),
        weight_bytes=header.tensor_bytes,
        has_chat_template=header.has_chat_template,
        reasons=_reasons(str(header.metadata.get("tokenizer.chat_template", ""))),
        has_fim=header.has_fim,
        senses=senses_by(projector),
        projector=projector,
        quantization=header.quantization,
        sampling=sampling.of_gguf(header.metadata),
        purpose=made_for,
        pooling=pooling,
        embedding_length=header.output_length,
        size_label=header.size_label,
    )


def senses_by(projector: Path | None) -> frozenset[str]:
    """Those of "vision" and "audio" that a projector gives; a damaged one fails when it is loaded."""
    try:
        return frozenset() if projector is None else projectors.read(projector).senses
    except BadModelFile:
        return frozenset()


def _of_folder(path: Path) -> ModelFacts:
    try:
        folder = hf.read_folder(path)
        hf.check_weights(folder.weights)
        made_for, pooling = purpose_in_folder(path, folder.config)
        template = hf.chat_template(path)
        return ModelFacts(
            format=folder.format,
            architecture=hf.architecture(folder.config),
            context_length=hf.context_length(folder.config),
            kv_bytes_per_token=hf.kv_bytes_per_token(folder.config),
            weight_bytes=folder.weight_bytes,
            has_chat_template=bool(template),
            reasons=_reasons(template),
            has_fim=has_fim(hf.special_names(path)),
            senses=hf.senses(folder.config),
            quantization=hf.quantization(folder.config),
            sampling=sampling.of_folder(path),
            purpose=made_for,
            pooling=pooling,
            embedding_length=hf.hidden_size(folder.config),
        )
    except OSError as error:  # a file went away meanwhile, or may not be read
        raise BadModelFile(f"{path} cannot be read: {error}") from error


def _reasons(template: str) -> bool:
    return "<think" in template or "reasoning" in template or "thinking" in template
