"""What is known of a model before it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.errors import ModelFileNotFound, ModelLoadError
from engines.models import facts, gguf, hf
from engines.models.facts import ModelFacts, describe
from support.gguf import DATA, LLAMA, SAFETENSORS, header, safetensors
from support.models import bundled, smollm2_folder

QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 3584,
    "max_position_embeddings": 32768,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
}


def folder(path: Path, config: Any = QWEN, **files: bytes) -> Path:
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    for name, content in ({"model.safetensors": SAFETENSORS, "tokenizer.json": b"{}"} | files).items():
        (path / name).write_bytes(content)
    return path


def test_a_folder(tmp_path: Path) -> None:
    template = {"tokenizer_config.json": b'{"chat_template": "{{ x }}"}'}
    assert describe(folder(tmp_path / "m", **template)) == ModelFacts(
        format="hf",
        architecture="Qwen2ForCausalLM",
        context_length=32768,
        kv_bytes_per_token=28 * 2 * 4 * 128 * 2,
        weight_bytes=len(SAFETENSORS),
        has_chat_template=True,
        quantization=None,
        embedding_length=3584,
    )


FIM = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]


@pytest.mark.parametrize("names", [FIM, FIM[:2]])
def test_whether_a_vocabulary_can_fill_in_the_middle(tmp_path: Path, names: list[str]) -> None:
    added = {str(i): {"content": name} for i, name in enumerate(names)}
    config = json.dumps({"added_tokens_decoder": added, "chat_template": "{{ enable_thinking }}"})
    found = describe(folder(tmp_path / "m", **{"tokenizer_config.json": config.encode()}))
    (tmp_path / "m.gguf").write_bytes(header(LLAMA | {"tokenizer.ggml.tokens": [*names, "a"]}) + bytes(DATA))
    in_gguf = describe(tmp_path / "m.gguf")
    assert (found.has_fim, in_gguf.has_fim) == (names == FIM,) * 2
    assert (found.reasons, in_gguf.reasons) == (True, False)


@pytest.mark.parametrize(
    ("config", "kv"),
    [
        (QWEN, 57344),
        ({"text_config": QWEN, "num_hidden_layers": 1}, 57344),
        (QWEN | {"head_dim": 64}, 28672),
        (QWEN | {"num_key_value_heads": None}, 7 * 57344),
        ({"n_layer": 12, "n_head": 12, "n_embd": 768}, 12 * 2 * 768 * 2),
        (QWEN | {"layer_types": ["linear_attention"] * 21 + ["full_attention"] * 7}, 57344 // 4),
        (QWEN | {"kv_lora_rank": 512, "qk_rope_head_dim": 64}, 28 * 576 * 2),
        (QWEN | {"num_hidden_layers": "28"}, 0),
        ({}, 0),
    ],
)
def test_kv_cache(config: dict[str, Any], kv: int) -> None:
    assert hf.kv_bytes_per_token(config) == kv


@pytest.mark.parametrize(
    ("config", "quantization", "format"),
    [
        ({"quantization": {"group_size": 64, "bits": 4}}, "4bit", "mlx"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq", "hf"),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "fp8", "hf"),
        ({"quantization": "yes", "quantization_config": 3}, None, "hf"),
    ],
)
def test_quantization(tmp_path: Path, config: dict[str, Any], quantization: str | None, format: str) -> None:
    found = describe(folder(tmp_path / "m", QWEN | config))
    assert (found.quantization, found.format) == (quantization, format)


def test_an_unquantised_conversion_for_mlx_is_known_by_its_weights(tmp_path: Path) -> None:
    weights = safetensors(format="mlx")
    assert describe(folder(tmp_path / "m", **{"model.safetensors": weights})).format == "mlx"


def test_only_one_form_of_the_weights_counts(tmp_path: Path) -> None:
    others = {"consolidated.safetensors": bytes(70), "pytorch_model.bin": bytes(80)}
    assert describe(folder(tmp_path / "m", **others)).weight_bytes == len(SAFETENSORS)


def index(*names: str) -> bytes:
    return json.dumps({"weight_map": {f"layer{n}": name for n, name in enumerate(names)}}).encode()


def test_shards_that_the_index_names_must_be_there(tmp_path: Path) -> None:
    shards = {
        "a.safetensors": SAFETENSORS,
        "model.safetensors.index.json": index("a.safetensors", "b.safetensors"),
    }
    path = folder(tmp_path / "m", **shards)
    with pytest.raises(ModelLoadError, match=r"1 of 2 weight files are missing, b.safetensors"):
        describe(path)
    (path / "b.safetensors").write_bytes(SAFETENSORS)
    assert describe(path).weight_bytes == 2 * len(SAFETENSORS)


@pytest.mark.parametrize(
    "content", [index("../x"), index("/etc/passwd"), b"[]", b"{}", b"[" * 10**5, b"\xff"]
)
def test_a_damaged_index(tmp_path: Path, content: bytes) -> None:
    path = folder(tmp_path / "m", **{"model.safetensors.index.json": content})
    with pytest.raises(ModelLoadError):
        describe(path)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("model.safetensors", "no weights"),
        ("tokenizer.json", "no tokenizer"),
        ("config.json", "cannot be read"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, gone: str, message: str) -> None:
    path = folder(tmp_path / "m")
    (path / gone).unlink()
    with pytest.raises(ModelLoadError, match=message):
        describe(path)


def test_a_file_and_nothing(tmp_path: Path) -> None:
    assert describe(bundled()).format == "gguf"
    with pytest.raises(ModelFileNotFound):
        describe(tmp_path / "nothing")


@pytest.mark.real
def test_the_same_model_in_both_formats_costs_the_same() -> None:
    file, real_folder = describe(bundled()), describe(smollm2_folder())
    assert (file.kv_bytes_per_token, file.context_length) == (real_folder.kv_bytes_per_token, 8192)
    assert real_folder.format == "hf"
    assert real_folder.has_chat_template
    assert real_folder.weight_bytes > 2 * file.weight_bytes


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab-", max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["bits", "quant_method"]), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = [
    *QWEN,
    "text_config",
    "quantization",
    "quantization_config",
    "layer_types",
    "kv_lora_rank",
    "head_dim",
]


@given(st.dictionaries(st.sampled_from(KEYS), json_values))
def test_any_configuration_can_be_described(config: dict[str, Any]) -> None:
    assert hf.kv_bytes_per_token(config) >= 0
    assert hf.context_length(config) >= 0
    assert isinstance(hf.architecture(config), str)
    hf.quantization(config)


# -- what is known ---------------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read."""
    seen: list[Path] = []
    read = gguf.read_header

    def noted(path: Path) -> gguf.GgufHeader:
        seen.append(path)
        return read(path)

    monkeypatch.setattr(gguf, "read_header", noted)
    return seen


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, reads: list[Path]) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(header(LLAMA) + bytes(DATA))
    assert not facts.is_known(path)
    first = describe(path)
    assert facts.is_known(path)
    assert describe(path) is first
    assert len(reads) == 1
    path.write_bytes(header(LLAMA | {"llama.context_length": 77}) + bytes(DATA))
    assert not facts.is_known(path)
    assert (describe(path).context_length, len(reads)) == (77, 2)


def test_a_later_part_counts(tmp_path: Path, reads: list[Path]) -> None:
    first, second = (tmp_path / f"m-0000{n}-of-00002.gguf" for n in (1, 2))
    for path in (first, second):
        path.write_bytes(header(LLAMA | {"split.count": 2}) + bytes(DATA))
    describe(first)
    second.write_bytes(second.read_bytes()[:-1])
    with pytest.raises(ModelLoadError, match="cut off"):
        describe(first)


def test_what_is_damaged_is_known_too(tmp_path: Path, reads: list[Path]) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes((header(LLAMA) + bytes(DATA))[:-1])
    for _ in range(3):
        with pytest.raises(ModelLoadError, match="cut off"):
            describe(path)
    assert len(reads) == 1
    assert facts.is_known(path)


def test_what_is_not_there_may_come(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    with pytest.raises(ModelFileNotFound):
        describe(path)
    path.write_bytes(header(LLAMA) + bytes(DATA))
    assert describe(path).weight_bytes == DATA


def test_few_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "MOST_KNOWN", 2)
    paths = [tmp_path / f"{n}.gguf" for n in range(3)]
    for path in paths:
        path.write_bytes(header(LLAMA) + bytes(DATA))
        describe(path)
    assert [facts.is_known(path) for path in paths] == [False, True, True]


def test_a_folder_is_known_until_one_of_its_files_changes(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", QWEN)
    assert describe(path) is describe(path)
    (path / "config.json").write_text(json.dumps(QWEN | {"max_position_embeddings": 99}))
    assert describe(path).context_length == 99
