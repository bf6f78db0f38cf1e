"""A loaded `llama_model`: weights and vocabulary. Immutable once loaded, safe to share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llama_cpp.llama_cpp as lib
import numpy as np
import numpy.typing as npt

from engines.errors import BadModelFile, CannotLoad, EngineError, ModelLoadError
from engines.llamacpp import native_log
from engines.llamacpp.adapters import NativeAdapters
from engines.llamacpp.grammar_tokens import read_lltokenizer
from engines.llamacpp.native_text import read_bytes, read_string
from engines.llamacpp.special_tokens import read_fim, read_special_tokens
from engines.models.facts import describe
from engines.models.projectors import kept_numbers
from engines.text.grammar import LazyTokenizer
from engines.text.ranking import pair_template
from engines.text.tokens.special_tokens import SpecialTokens

if TYPE_CHECKING:
    from engines.llamacpp.media.projector import Projector

# Gets 0..1 while loading; returning False gives the load up.
ReportLoading = Callable[[float], bool]

# In what llama.cpp says where the file is not at fault.
_NO_MEMORY = ("alloc", "out of memory")


class LlamaModel:
    """Owns one native model.

    ``gpu_layers`` is how many layers go to the GPU (-1: all). Raises `ModelLoadError`.
    """

    def __init__(
        self,
        path: Path,
        *,
        gpu_layers: int = 0,
        progress: ReportLoading | None = None,
        eog_ids: npt.NDArray[np.int32] | None = None,
        special_tokens: SpecialTokens | None = None,
    ) -> None:
        describe(path)  # refuses files that llama.cpp would not refuse, but die of
        self.path = path
        self.gpu_layers = gpu_layers
        self._handle = _load(path, gpu_layers, progress)
        self._vocab = lib.llama_model_get_vocab(self._handle)
        self.adapters = NativeAdapters(self._handle)
        self.n_vocab = int(lib.llama_vocab_n_tokens(self.vocab))
        self.n_ctx_train = int(lib.llama_model_n_ctx_train(self._handle))
        self.size = int(lib.llama_model_size(self._handle))
        self.description = read_string(partial(lib.llama_model_desc, self._handle))
        # States that are not a list of per-token cells cannot be cut at a token.
        self.can_share_prefix = not (
            lib.llama_model_is_recurrent(self._handle) or lib.llama_model_is_hybrid(self._handle)
        )
        if eog_ids is None:  # tens of milliseconds for a large vocabulary
            ends = [t for t in range(self.n_vocab) if lib.llama_vocab_is_eog(self.vocab, t)]
            eog_ids = np.array(ends, dtype=np.int32)
        self.eog_ids = eog_ids
        self._eog = frozenset(self.eog_ids.tolist())
        self._pieces: dict[int, bytes] = {}
        self.special_tokens = special_tokens or read_special_tokens(self.vocab, self.n_vocab)
        # Only these have a pre-tokeniser.
        self.splits_runs = lib.llama_vocab_type(self.vocab) == lib.LLAMA_VOCAB_TYPE_BPE
        self.projector: Projector | None = None
        self.fim = read_fim(self.vocab, partial(self.tokenize, add_special=False))

    @property
    def handle(self) -> Any:
        if self._handle is None:
            raise EngineError("the model is closed")
        return self._handle

    def open_projector(self, path: Path, threads: int) -> None:
        """Load the projector at ``path``, by which the model sees or hears; `close` closes it. Raises
        `ModelLoadError`."""
        from engines.llamacpp.media.projector import Projector  # libmtmd is loaded with the first one

        most_kept = kept_numbers(self.n_ctx_train, int(lib.llama_model_n_embd_inp(self.handle)))
        self.projector = Projector(
            path, self.handle, threads=threads, use_gpu=self.gpu_layers != 0, most_kept=most_kept
        )

    @property
    def vocab(self) -> Any:
        if self._vocab is None:
            raise EngineError("the model is closed")
        return self._vocab

    def close(self) -> None:
        """Free the memory; nothing may touch the model in another thread meanwhile."""
        if self.projector is not None:
            self.projector.close()
        handle, self._handle, self._vocab = self._handle, None, None
        if handle is not None:
            lib.llama_model_free(handle)

    def is_end(self, token: int) -> bool:
        """Whether ``token`` ends a generation (end of text, end of turn, …)."""
        return token in self._eog

    def piece(self, token: int) -> bytes:
        """The bytes ``token`` adds to the text; control tokens add none."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._to_piece(token, special=False)
        return piece

    def label(self, token: int) -> bytes:
        """The bytes that name ``token``, control tokens included."""
        return self.piece(token) or self._to_piece(token, special=True)

    def token_text(self, token: int) -> str:
        """Text of a single special token, such as BOS; empty if the model has none (``token`` < 0)."""
        return self._to_piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    @property
    def bos_text(self) -> str:
        return self.token_text(lib.llama_vocab_bos(self.vocab))

    @property
    def eos_text(self) -> str:
        return self.token_text(lib.llama_vocab_eos(self.vocab))

    @property
    def chat_template(self) -> str | None:
        return self._template(None)

    @property
    def rerank_template(self) -> str | None:
        """The template for a query and a document, by its name or by what it takes."""
        named = (self._template(name) for name in pair_template.NAMES)
        return next((each for each in named if each), self.chat_template)

    def _template(self, name: str | None) -> str | None:
        raw = lib.llama_model_chat_template(self.handle, name.encode() if name else None)
        return raw.decode("utf-8", "replace") if raw else None

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool = True) -> tuple[int, ...]:
        """Token ids of ``text``; a `Tokenizer` keeps it short. Thread-safe: the vocabulary never changes."""
        raw = text.encode("utf-8", "replace")  # a lone surrogate is no text
        size = len(raw) + 8
        while True:
            buffer = (lib.llama_token * size)()
            n = lib.llama_tokenize(self.vocab, raw, len(raw), buffer, size, add_special, parse_special)
            if n >= 0:
                return tuple(buffer[:n])
            size = -n

    def detokenize(self, token_ids: Sequence[int]) -> str:
        tokens = (lib.llama_token * len(token_ids))(*token_ids)
        raw = read_bytes(
            lambda buffer, n: lib.llama_detokenize(
                self.vocab, tokens, len(token_ids), buffer, n, False, True
            ),
            first_guess=8 * len(token_ids) + 16,
        )
        return raw.decode("utf-8", "replace")

    @cached_property
    def grammar_vocabulary(self) -> LazyTokenizer:
        """The tokens as grammars need them, shared by all engines of this model."""
        return LazyTokenizer(lambda: read_lltokenizer(self.vocab, self.n_vocab, self.eog_ids.tolist()))

    def kv_bytes_per_token(self) -> int:
        """Estimate of what one KV cell costs, keys and values in fp16."""
        heads = max(1, int(lib.llama_model_n_head(self.handle)))
        width = (
            int(lib.llama_model_n_embd(self.handle)) * int(lib.llama_model_n_head_kv(self.handle)) // heads
        )
        return 2 * 2 * width * int(lib.llama_model_n_layer(self.handle))

    @property
    def parameters(self) -> int:
        return int(lib.llama_model_n_params(self.handle))

    def idle_cell_budget(self) -> int:
        """How many (sequence, idle KV cell) pairs a step may carry for a tenth or so of its time.

        Looking at a masked cell costs a few nanoseconds a head and layer; the weights cost in
        proportion to their number. Measured with SmolLM2-135M (270 heads in all): 16,384 pairs are
        5 ms of a step of 30 to 100 ms on two cores.
        """
        heads = int(lib.llama_model_n_head(self.handle)) * int(lib.llama_model_n_layer(self.handle))
        return self.parameters // (30 * max(1, heads))

    def _to_piece(self, token: int, *, special: bool) -> bytes:
        return read_bytes(
            lambda buffer, n: lib.llama_token_to_piece(self.vocab, token, buffer, n, 0, special),
            first_guess=32,
        )


def _load(path: Path, gpu_layers: int, progress: ReportLoading | None) -> Any:
    native_log.install()
    native_log.forget_errors()
    lib.llama_backend_init()
    params = lib.llama_model_default_params()
    params.n_gpu_layers = gpu_layers

    def report(fraction: float, _user_data: Any) -> bool:
        return progress is None or progress(fraction)

    callback = lib.llama_progress_callback(report)  # alive until the load returns
    params.progress_callback = callback
    handle = lib.llama_model_load_from_file(str(path).encode(), params)
    if not handle:
        reason = native_log.recent_errors()
        is_bad = reason and not any(sign in reason for sign in _NO_MEMORY)
        kind = BadModelFile if is_bad else ModelLoadError
        raise kind(f"llama.cpp cannot load {path.name}: {reason or 'no reason given'}")
    if lib.llama_model_has_encoder(handle) and lib.llama_model_has_decoder(handle):
        lib.llama_model_free(handle)
        raise CannotLoad(f"{path.name} has an encoder and a decoder: this engine runs models of one part")
    return handle
