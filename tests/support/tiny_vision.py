"""Vision models that llama.cpp runs: a few layers of random weights, and a projector of as many beside them.

*Qwen 2 VL* has positions in two dimensions (M-RoPE) and pictures of any size, *Gemma 3* sees a picture's
tokens at once, without a causal mask, and has pictures of one size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import gguf
import numpy as np

from support.tiny_gguf import FEED, HEADS, KV_HEADS, LAYERS, WIDTH, add_tokenizer, random_weights

Family = Literal["qwen2vl", "gemma3"]
PATCH, MERGE = 4, 2
SEEN, SEEN_HEADS, SEEN_FEED = 32, 2, 64  # the sizes of the part that sees
MELS = 80
SIDE = 32  # of Gemma 3's pictures
MARKS: Mapping[Family, tuple[str, str]] = {
    "qwen2vl": ("<|vision_start|>", "<|vision_end|>"),
    "gemma3": ("<start_of_image>", "<end_of_image>"),
}
PROJECTORS: Mapping[Family, str] = {"qwen2vl": "qwen2vl_merger", "gemma3": "gemma3"}


def tiny_vision(folder: Path, family: Family, *, width: int = WIDTH) -> tuple[Path, Path]:
    """A model and its projector in ``folder``. A projector of another ``width`` does not belong to it."""
    folder.mkdir(parents=True, exist_ok=True)
    model, projector = folder / f"tiny-{family}.gguf", folder / f"mmproj-tiny-{family}-f16.gguf"
    _write_model(model, family)
    write_projector(projector, family, width=width)
    return model, projector


def _write_model(path: Path, family: Family) -> None:
    writer = gguf.GGUFWriter(path, family)
    head = WIDTH // HEADS
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    if family == "qwen2vl":
        writer.add_rope_dimension_sections([head // 4, head // 8, head // 8, 0])
    n_vocab = add_tokenizer(writer, MARKS[family])
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (n_vocab, WIDTH),
        "output.weight": (n_vocab, WIDTH),
        "output_norm.weight": (WIDTH,),
    }
    narrow = head * KV_HEADS
    for layer in range(LAYERS):
        block: dict[str, tuple[int, ...]] = {
            "attn_norm.weight": (WIDTH,),
            "attn_q.weight": (WIDTH, WIDTH),
            "attn_k.weight": (narrow, WIDTH),
            "attn_v.weight": (narrow, WIDTH),
            "attn_output.weight": (WIDTH, WIDTH),
            "ffn_norm.weight": (WIDTH,),
            "ffn_gate.weight": (FEED, WIDTH),
            "ffn_up.weight": (FEED, WIDTH),
            "ffn_down.weight": (WIDTH, FEED),
        }
        if family == "qwen2vl":
            block |= {"attn_q.bias": (WIDTH,), "attn_k.bias": (narrow,), "attn_v.bias": (narrow,)}
        else:
            block |= {"post_attention_norm.weight": (WIDTH,), "post_ffw_norm.weight": (WIDTH,)}
            block |= {"attn_q_norm.weight": (head,), "attn_k_norm.weight": (head,)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    _write(writer, shapes)


def write_projector(path: Path, family: Family, *, width: int = WIDTH) -> Path:
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_string("general.type", "mmproj")
    writer.add_string("clip.projector_type", PROJECTORS[family])
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.use_gelu", True)
    for key, value in {
        "embedding_length": SEEN,
        "feed_forward_length": SEEN_FEED,
        "block_count": 1,
        "projection_dim": width,
        "attention.head_count": SEEN_HEADS,
        "image_size": SIDE,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "projector.scale_factor": MERGE,
    }.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    shapes: dict[str, tuple[int, ...]] = {"v.patch_embd.weight": (SEEN, 3, PATCH, PATCH)}
    for name, width_in, width_out in (
        *((f"attn_{part}", SEEN, SEEN) for part in ("q", "k", "v", "out")),
        ("ffn_up", SEEN, SEEN_FEED),
        ("ffn_down", SEEN_FEED, SEEN),
    ):
        shapes |= {f"v.blk.0.{name}.weight": (width_out, width_in), f"v.blk.0.{name}.bias": (width_out,)}
    for name in ("v.blk.0.ln1", "v.blk.0.ln2", "v.post_ln"):
        shapes |= {f"{name}.weight": (SEEN,), f"{name}.bias": (SEEN,)}
    if family == "qwen2vl":
        merged = SEEN * MERGE * MERGE
        shapes |= {"v.patch_embd.weight.1": (SEEN, 3, PATCH, PATCH)}
        shapes |= {"mm.0.weight": (merged, merged), "mm.0.bias": (merged,)}
        shapes |= {"mm.2.weight": (width, merged), "mm.2.bias": (width,)}
    else:
        patches = (SIDE // PATCH) ** 2
        shapes |= {"v.patch_embd.bias": (SEEN,), "v.position_embd.weight": (patches, SEEN)}
        shapes |= {"mm.input_projection.weight": (SEEN, width), "mm.soft_emb_norm.weight": (SEEN,)}
    _write(writer, shapes)
    return path


def write_ears(path: Path, *, width: int = WIDTH) -> Path:
    """A projector that hears, as Qwen 2 Audio's: 30 seconds are 750 tokens, and shorter sounds as many."""
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_string("general.type", "mmproj")
    writer.add_string("clip.projector_type", "qwen2a")
    writer.add_bool("clip.has_audio_encoder", True)
    for key, value in {
        "embedding_length": SEEN,
        "feed_forward_length": SEEN_FEED,
        "block_count": 1,
        "projection_dim": width,
        "attention.head_count": SEEN_HEADS,
        "num_mel_bins": MELS,
    }.items():
        writer.add_uint32(f"clip.audio.{key}", value)
    writer.add_float32("clip.audio.attention.layer_norm_epsilon", 1e-5)
    halves: dict[str, tuple[int, ...]] = {
        "a.conv1d.1.weight": (SEEN, MELS, 3),
        "a.conv1d.2.weight": (SEEN, SEEN, 3),
    }
    for name, shape in halves.items():
        writer.add_tensor(name, random_weights(name, shape).astype(np.float16))
    shapes: dict[str, tuple[int, ...]] = {
        "a.conv1d.1.bias": (SEEN, 1),
        "a.conv1d.2.bias": (SEEN, 1),
        "a.position_embd.weight": (1500, SEEN),
        "mm.a.fc.weight": (width, SEEN),
        "mm.a.fc.bias": (width,),
        "a.blk.0.attn_k.weight": (SEEN, SEEN),
    }
    for name, width_in, width_out in (
        *((f"attn_{part}", SEEN, SEEN) for part in ("q", "v", "out")),
        ("ffn_up", SEEN, SEEN_FEED),
        ("ffn_down", SEEN_FEED, SEEN),
    ):
        shapes |= {f"a.blk.0.{name}.weight": (width_out, width_in), f"a.blk.0.{name}.bias": (width_out,)}
    for name in ("a.blk.0.ln1", "a.blk.0.ln2", "a.post_ln"):
        shapes |= {f"{name}.weight": (SEEN,), f"{name}.bias": (SEEN,)}
    _write(writer, shapes)
    return path


def _write(writer: gguf.GGUFWriter, shapes: Mapping[str, tuple[int, ...]]) -> None:
    for name, shape in shapes.items():
        writer.add_tensor(name, random_weights(name, shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
