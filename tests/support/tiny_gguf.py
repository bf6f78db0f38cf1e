"""A GGUF file that llama.cpp runs: two layers of random weights over the bytes, in Llama 2's way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np

UNKNOWN, BOS, EOS = range(3)
WIDTH, HEADS, KV_HEADS, FEED, LAYERS = 64, 4, 2, 128, 2
TEMPLATE = "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"


def tiny_gguf(
    path: Path, *, add_eos: bool = False, marks: Sequence[str] = (), rerank: str | None = None
) -> Path:
    """Written to ``path``. ``add_eos``: its tokenizer puts the end of text behind every text. ``marks`` are
    further control tokens, ``rerank`` a template for pairs, of a model that says yes or no."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    words = ("\u2581y", "\u2581ye", "\u2581yes", "\u2581n", "\u2581no") if rerank is not None else ()
    n_vocab = add_tokenizer(writer, marks, words, add_eos=add_eos)
    if rerank is not None:
        writer.add_string("tokenizer.chat_template.rerank", rerank)
    for name, shape in _shapes(n_vocab).items():
        writer.add_tensor(name, random_weights(name, shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(
    writer: gguf.GGUFWriter, marks: Sequence[str] = (), words: Sequence[str] = (), *, add_eos: bool = False
) -> int:
    """Give ``writer`` a vocabulary of bytes and letters, and the chat template; returns its size. A word is
    merged from its letters one by one."""
    kinds = gguf.TokenType
    tokens = [("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", kinds.BYTE) for byte in range(256)]
    tokens += [(chr(letter), kinds.NORMAL) for letter in range(0x21, 0x7F)] + [("\u2581", kinds.NORMAL)]
    tokens += [(mark, kinds.CONTROL) for mark in marks]
    tokens += [(word, kinds.NORMAL) for word in words]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_scores([-float(rank) for rank in range(len(tokens))])
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(add_eos)
    writer.add_chat_template(TEMPLATE)
    return len(tokens)


def _shapes(n_vocab: int) -> dict[str, tuple[int, ...]]:
    narrow = WIDTH // HEADS * KV_HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (n_vocab, WIDTH),
        "output.weight": (n_vocab, WIDTH),
        "output_norm.weight": (WIDTH,),
    }
    for layer in range(LAYERS):
        block = {
            "attn_norm": (WIDTH,),
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (narrow, WIDTH),
            "attn_v": (narrow, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_norm": (WIDTH,),
            "ffn_gate": (FEED, WIDTH),
            "ffn_up": (FEED, WIDTH),
            "ffn_down": (WIDTH, FEED),
        }
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
    return shapes


def random_weights(name: str, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    if len(shape) == 1:
        return np.ones(shape, dtype=np.float32)
    seed = sum(name.encode())
    return np.random.default_rng(seed).normal(0.0, 0.3, shape).astype(np.float32)
