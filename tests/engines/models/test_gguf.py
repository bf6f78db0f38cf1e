"""GGUF headers: real ones, made-up ones, and what is no header at all."""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.errors import ModelFileNotFound, ModelLoadError
from engines.models import gguf, gguf_reader
from engines.models.gguf import read_header
from support.gguf import DATA, F32, LLAMA, UNKNOWN, header, text
from support.models import bundled, gemma_base


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def test_what_a_header_says(path: Path) -> None:
    path.write_bytes(header(LLAMA | {"tokenizer.chat_template": "{{ x }}"}) + bytes(DATA))
    read = read_header(path)
    assert (read.architecture, read.context_length, read.block_count) == ("llama", 4096, 2)
    assert (read.head_counts, read.kv_head_counts) == ((4, 4), (2, 2))
    assert (read.embedding_length, read.key_length, read.value_length) == (64, 16, 16)
    assert (read.quantization, read.has_chat_template, read.tensor_bytes) == ("Q4_K_M", True, DATA)
    assert read.kv_bytes_per_token() == 2 * 2 * (16 + 16) * 2  # layers, heads, keys and values, bytes


def test_heads_may_differ_from_layer_to_layer(path: Path) -> None:
    metadata = LLAMA | {
        "llama.attention.head_count_kv": [0, 1, 4],
        "llama.attention.key_length": 8,
        "llama.attention.value_length": 24,
    }
    path.write_bytes(header(metadata) + bytes(DATA))
    assert read_header(path).kv_bytes_per_token() == 5 * (8 + 24) * 2


def test_hybrid_models_cache_in_some_layers_only(path: Path) -> None:
    path.write_bytes(
        header(LLAMA | {"llama.block_count": 8, "llama.full_attention_interval": 4}) + bytes(DATA)
    )
    assert len(read_header(path).kv_head_counts) == 8
    assert read_header(path).kv_bytes_per_token() == 2 * 2 * 32 * 2


def test_what_a_header_does_not_say_is_unknown(path: Path) -> None:
    path.write_bytes(header({}) + bytes(DATA))
    read = read_header(path)
    assert (read.architecture, read.context_length, read.kv_bytes_per_token()) == ("", 0, 0)
    assert (read.quantization, read.has_chat_template, read.tensor_bytes) == (None, False, DATA)


def test_long_arrays_are_passed_over(path: Path) -> None:
    metadata = {"tokens": ["a", "bc"] * 9, "scores": list(range(5000)), **LLAMA}
    path.write_bytes(header(metadata) + bytes(DATA))
    read = read_header(path)
    assert (read.metadata["tokens"], read.metadata["scores"]) == (None, None)
    assert read.block_count == 2


def test_alignment_counts(path: Path) -> None:
    raw = header(LLAMA | {"general.alignment": 1024}, alignment=1024)
    path.write_bytes(raw + bytes(DATA))
    read_header(path)
    path.write_bytes(raw + bytes(DATA - 1))
    with pytest.raises(ModelLoadError, match="cut off"):
        read_header(path)


@pytest.mark.parametrize("missing", [1, DATA, DATA + 40])
def test_a_file_that_ends_early_is_cut_off(path: Path, missing: int) -> None:
    path.write_bytes((header(LLAMA) + bytes(DATA))[:-missing])
    with pytest.raises(ModelLoadError, match=r"cut off.*Download it again"):
        read_header(path)


def test_a_tensor_of_unknown_type_counts_from_its_offset(path: Path) -> None:
    path.write_bytes(header(LLAMA, (("a", (32,), UNKNOWN, 64),)) + bytes(64))
    assert read_header(path).tensor_bytes == 0


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is empty"),
        (b"PK\3\4", "not a GGUF"),
        (header(LLAMA, version=1), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), "tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**63), "metadata keys"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**62), "text is said to be"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<I", 13), "unknown type 13"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 9, 1), "unknown type 9"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 8, 2**60),
            "millions of texts",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 0, 2**60),
            "within its header",
        ),
        (header({"general.alignment": 0}, ()), "alignment"),
        (header({"general.alignment": 2**31}, ()), "alignment"),
        (header({}, (("a", (1,) * 9, F32, 0),)), "dimensions"),
    ],
)
def test_what_is_refused(path: Path, raw: bytes, message: str) -> None:
    path.write_bytes(raw)
    with pytest.raises(ModelLoadError, match=message):
        read_header(path)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("block_count", 2**32 - 1, "block_count is 4,294,967,295, not 1 to 512"),
        ("block_count", 0, "block_count is 0"),
        ("block_count", 513, "block_count is 513"),
        ("context_length", 2**31, "context_length"),
        ("embedding_length", 2**32 - 1, "embedding_length"),
        ("feed_forward_length", [1, -1], "feed_forward_length is -1"),
        ("vocab_size", 2**31, "vocab_size"),
        ("expert_count", 513, "expert_count"),
        ("expert_used_count", 2**16, "expert_used_count"),
        ("attention.head_count", 2**20, "head_count"),
        ("attention.head_count_kv", [2, 2**20], "head_count_kv"),
        ("attention.key_length", 2**31, "key_length"),
        ("attention.value_length", 2**31, "value_length"),
        ("rope.dimension_count", 2**31, "dimension_count"),
        ("full_attention_interval", 0, "full_attention_interval"),
        ("some.other_number", 2**32 - 1, "other_number"),
        ("attention.layer_norm_rms_epsilon", math.nan, "epsilon is nan"),
        ("attention.layer_norm_rms_epsilon", -1e-5, "epsilon is negative"),
        ("attention.layer_norm_epsilon", math.inf, "epsilon is inf"),
        ("rope.freq_base", -math.inf, "freq_base is -inf"),
        ("rope.scaling.factor", math.nan, "factor is nan"),
    ],
)
def test_numbers_that_would_abort_llama_cpp_are_refused(
    path: Path, key: str, value: Any, problem: str
) -> None:
    path.write_bytes(header(LLAMA | {f"llama.{key}": value}) + bytes(DATA))
    with pytest.raises(ModelLoadError, match=f"is damaged: llama.*{problem}"):
        read_header(path)


def test_token_ids_and_scores_may_be_anything(path: Path) -> None:
    odd = {"tokenizer.ggml.padding_token_id": 2**32 - 1, "tokenizer.ggml.scale": -math.inf}
    path.write_bytes(header(LLAMA | odd) + bytes(DATA))
    assert read_header(path).block_count == 2


@pytest.mark.parametrize("chunk", [8, 9, 16, 2**20])
def test_texts_are_passed_over_in_pieces_of_any_size(
    path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_reader, "_CHUNK", chunk)
    texts = ["", "a", "b" * 7, "c" * 40, "", "d" * 9] * 3
    raw = header({"tokens": texts, **LLAMA})
    path.write_bytes(raw + bytes(DATA))
    assert read_header(path).block_count == 2
    start = raw.index(b"tokens")
    for end in range(start, start + 60):
        path.write_bytes(raw[:end])
        with pytest.raises(ModelLoadError, match="cut off or damaged"):
            read_header(path)


def test_a_header_may_not_be_endless(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_reader, "MAX_HEADER_BYTES", 100)
    path.write_bytes(header(LLAMA) + bytes(DATA))
    with pytest.raises(ModelLoadError, match="larger than 100 bytes"):
        read_header(path)


def test_a_missing_file(path: Path) -> None:
    with pytest.raises(ModelFileNotFound):
        read_header(path)


# -- several parts ----------------------------------------------------------------------------------


def part(folder: Path, number: int, count: int = 2) -> Path:
    path = folder / f"big-{number:05}-of-{count:05}.gguf"
    path.write_bytes(header((LLAMA if number == 1 else {}) | {"split.count": count}) + bytes(DATA))
    return path


def test_parts_are_one_model(tmp_path: Path) -> None:
    first, second = part(tmp_path, 1), part(tmp_path, 2)
    assert gguf.part_paths(first) == (first, second)
    assert read_header(first).tensor_bytes == 2 * DATA
    second.write_bytes(second.read_bytes()[:-1])
    with pytest.raises(ModelLoadError, match=r"00002-of-00002.gguf is cut off"):
        read_header(first)
    second.unlink()
    with pytest.raises(ModelFileNotFound, match="00002-of-00002"):
        read_header(first)


def test_a_part_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="00001-of-00002"):
        read_header(part(tmp_path, 2))
    renamed = part(tmp_path, 1).rename(tmp_path / "renamed.gguf")
    with pytest.raises(ModelLoadError, match="keep the names"):
        read_header(renamed)


def test_a_name_cannot_claim_any_number_of_parts(tmp_path: Path) -> None:
    path = tmp_path / "big-00001-of-99999.gguf"
    assert gguf.part_paths(path) == (path,)


# -- anything at all --------------------------------------------------------------------------------

WHOLE = header(LLAMA | {"tokens": ["a", "b"], "list": [1, 2, 3]}) + bytes(DATA)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damage_raises_nothing_else(path: Path, data: st.DataObject) -> None:
    raw = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - DATA))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    with suppress(ModelLoadError):
        assert read_header(path).kv_bytes_per_token() >= 0


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200))
def test_bytes_raise_nothing_else(path: Path, raw: bytes) -> None:
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + raw)
    with suppress(ModelLoadError):
        assert read_header(path).tensor_bytes >= 0


# -- real files -------------------------------------------------------------------------------------


def test_smollm2() -> None:
    read = read_header(bundled())
    assert (read.architecture, read.context_length, read.quantization) == ("llama", 8192, "Q4_1")
    assert (read.block_count, read.kv_head_counts[0], read.key_length) == (30, 3, 64)
    assert read.kv_bytes_per_token() == 30 * 3 * 128 * 2
    assert read.has_chat_template
    assert 0.95 < read.tensor_bytes / bundled().stat().st_size < 1


def test_gemma_has_key_lengths_of_its_own_and_no_chat_template() -> None:
    read = read_header(gemma_base())
    assert (read.key_length, read.embedding_length // read.head_counts[0]) == (256, 160)
    assert not read.has_chat_template
