"""Cross-encoders: BERTs of two layers of random weights, with a pooler and one score. One in GGUF that
llama.cpp runs, and one as a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np

WORDS = ("the", "is", "of", "capital", "france", "paris", "berlin", "germany", "sea", "blue", "what", "?")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNKNOWN, CLS, SEP, MASK = range(len(SPECIAL))
WIDTH, HEADS, FEED, LAYERS, CONTEXT, EPSILON = 32, 4, 64, 2, 64, 1e-12


def vocabulary() -> list[str]:
    """As BERT's ``vocab.txt`` has it: words, then letters that begin or continue one."""
    letters = [chr(letter) for letter in range(ord("a"), ord("z") + 1)]
    return [*SPECIAL, *WORDS, *letters, *(f"##{letter}" for letter in letters)]


def weights(labels: int = 1) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """By the names that GGUF has for them."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(vocabulary()), WIDTH),
        "token_types.weight": (2, WIDTH),
        "position_embd.weight": (CONTEXT, WIDTH),
        "token_embd_norm.weight": (WIDTH,),
        "token_embd_norm.bias": (WIDTH,),
        "cls.weight": (WIDTH, WIDTH),
        "cls.bias": (WIDTH,),
        "cls.output.weight": (labels, WIDTH),
        "cls.output.bias": (labels,),
    }
    for layer in range(LAYERS):
        for name, rows, columns in (
            *((f"attn_{each}", WIDTH, WIDTH) for each in ("q", "k", "v", "output")),
            ("ffn_up", FEED, WIDTH),
            ("ffn_down", WIDTH, FEED),
        ):
            shapes[f"blk.{layer}.{name}.weight"] = (rows, columns)
            shapes[f"blk.{layer}.{name}.bias"] = (rows,)
        for name in ("attn_output_norm", "layer_output_norm"):
            shapes[f"blk.{layer}.{name}.weight"] = (WIDTH,)
            shapes[f"blk.{layer}.{name}.bias"] = (WIDTH,)
    return {name: _random(name, shape) for name, shape in shapes.items()}


def tiny_reranker(path: Path, *, labels: Sequence[str] = ("LABEL_0",)) -> Path:
    """Written to ``path``."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(EPSILON)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_classifier_output_labels(list(labels))
    writer.add_tokenizer_model("bert")
    writer.add_token_type_count(2)
    tokens = vocabulary()
    # llama.cpp marks where words begin, not where they go on.
    writer.add_token_list(
        [t if t in SPECIAL else t[2:] if t.startswith("##") else f"\u2581{t}" for t in tokens]
    )
    kinds = gguf.TokenType
    writer.add_token_types([kinds.CONTROL if token in SPECIAL else kinds.NORMAL for token in tokens])
    writer.add_bos_token_id(CLS)
    writer.add_eos_token_id(SEP)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_sep_token_id(SEP)
    writer.add_pad_token_id(PAD)
    writer.add_mask_token_id(MASK)
    for name, array in weights(len(labels)).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tiny_cross_encoder(path: Path) -> Path:
    """Written to the folder ``path``, with heads as wide as vLLM's kernels for CPUs want them."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    path.mkdir()
    (path / "vocab.txt").write_text("\n".join(vocabulary()))
    BertTokenizer(str(path / "vocab.txt"), model_max_length=CONTEXT).save_pretrained(path)
    config = BertConfig(
        vocab_size=len(vocabulary()),
        hidden_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        intermediate_size=FEED,
        max_position_embeddings=CONTEXT,
        num_labels=1,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(path)
    return path


def cross_encoder_scores(path: Path, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The logits that transformers gives to ``pairs``."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    with torch.no_grad():
        return [
            float(model(**tokenizer(text=query, text_pair=document, return_tensors="pt")).logits[0, 0])
            for query, document in pairs
        ]


def _random(name: str, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    generator = np.random.default_rng(sum(name.encode()))
    scale = 0.1 if len(shape) == 1 else 0.3
    values = generator.normal(0.0, scale, shape).astype(np.float32)
    return values + 1.0 if name.endswith("norm.weight") else values


def _marked(token: str) -> str:
    if token in SPECIAL:
        return token
    return token[2:] if token.startswith("##") else f"\u2581{token}"
