"""Loaded models, shared by the engines that run them, and what is noted of their files."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engines.llamacpp.model import LlamaModel, ReportLoading
from engines.llamacpp.threads import usable_cores
from engines.models import projectors
from engines.text.templates.renderer import TemplateWorker
from engines.text.tokens.special_tokens import SpecialTokens


@dataclass(slots=True)
class Notes:
    """Facts about a model file that take long to find out, kept from load to load."""

    eog_ids: npt.NDArray[np.int32] | None = None
    special_tokens: SpecialTokens | None = None
    threads: int | None = None


class ModelCache:
    """Loaded models by file, so that several contexts share one copy of the weights.

    They also share the process that applies its chat template: that one belongs to the engines' event loop,
    which alone may call `acquire_templates` and `release_templates`. `Notes` on a file outlive its
    unloading, until the file changes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._notes: dict[tuple[Path, int, int, int], Notes] = {}
        self._entries: dict[tuple[Path, int, Path | None], tuple[LlamaModel, int]] = {}
        self._templates: dict[Path, tuple[TemplateWorker, int]] = {}

    def acquire(
        self,
        path: Path,
        gpu_layers: int,
        progress: ReportLoading | None = None,
        *,
        projector: Path | None = None,
        threads: int | None = None,
    ) -> LlamaModel:
        """The model of ``path``, with its ``projector``, loaded unless it is held. Blocks while loading; pair
        with `release`. ``threads`` are what the model computes with; None: all cores."""
        key = (path.resolve(), gpu_layers, projector)
        with self._lock:
            model, holders = self._entries.get(key, (None, 0))
            if model is None:
                notes = self._notes_of(path, gpu_layers)
                model = LlamaModel(
                    path,
                    gpu_layers=gpu_layers,
                    progress=progress,
                    eog_ids=notes.eog_ids,
                    special_tokens=notes.special_tokens,
                )
                if projector is not None:
                    _open_projector(model, projector, threads)
                notes.eog_ids, notes.special_tokens = model.eog_ids, model.special_tokens
            self._entries[key] = (model, holders + 1)
            return model

    def notes(self, model: LlamaModel) -> Notes:
        """The notes on the file of ``model``; the caller may add to them."""
        return self._notes_of(model.path, model.gpu_layers)

    def _notes_of(self, path: Path, gpu_layers: int) -> Notes:
        try:
            stat = path.stat()
        except OSError:  # loading says why
            return Notes()
        return self._notes.setdefault((path.resolve(), gpu_layers, stat.st_mtime_ns, stat.st_size), Notes())

    def release(self, model: LlamaModel) -> None:
        """Give up one hold; the last one frees the weights."""
        with self._lock:
            for key, (held, holders) in self._entries.items():
                if held is model:
                    if holders > 1:
                        self._entries[key] = (model, holders - 1)
                    else:
                        del self._entries[key]
                        model.close()
                    return

    def acquire_templates(self, path: Path) -> TemplateWorker:
        """The process that applies the chat template of ``path``; pair with `release_templates`."""
        key = path.resolve()
        templates, holders = self._templates.get(key, (None, 0))
        if templates is None:
            templates = TemplateWorker()
            templates.start()  # beside the load, so that no request has to wait for it
        self._templates[key] = (templates, holders + 1)
        return templates

    async def release_templates(self, templates: TemplateWorker) -> None:
        """Give up one hold; the last one ends the process."""
        key, holders = next((key, n) for key, (held, n) in self._templates.items() if held is templates)
        if holders > 1:
            self._templates[key] = (templates, holders - 1)
        else:
            del self._templates[key]
            await templates.close()


def _open_projector(model: LlamaModel, projector: Path, threads: int | None) -> None:
    """Half the threads are for it: it works beside the model."""
    try:
        projectors.read(projector)  # refuses files that libmtmd would not refuse, but die of
        model.open_projector(projector, max(1, (threads or usable_cores()) // 2))
    except BaseException:
        model.close()
        raise
