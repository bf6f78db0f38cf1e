"""What a `LoadSpec` becomes. No vLLM needed."""

from __future__ import annotations

import importlib.machinery
import json
from dataclasses import replace
from pathlib import Path

import pytest

from engines.base import Adapter
from engines.errors import CannotLoad, ModelLoadError
from engines.load_spec import LoadSpec
from engines.vllm.folder import check_folder, check_settings, largest_rank, weight_bytes
from engines.vllm.options import KvSize, cpu_environment, engine_args, kv_size, own_options
from engines.vllm.version import check_version

KNOWN = ["model", "max_model_len", "enforce_eager", "max_num_batched_tokens"]


def spec(**fields: object) -> LoadSpec:
    return LoadSpec("vllm", "m", Path("/m"), **fields)  # type: ignore[arg-type]


def args(**fields: object) -> dict[str, object]:
    return engine_args(spec(**fields), KNOWN, can_sleep=False)


def adapter(folder: Path, rank: object) -> Adapter:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return Adapter(folder.name, folder)


def test_sizes_and_shares_go_under_vllms_names() -> None:
    found = args(
        context_length=4096, max_sequences=7, gpu_memory=0.5, tensor_parallel=2, cache_prefixes=False
    )
    assert found["max_model_len"] == 4096
    assert found["max_num_seqs"] == 7
    assert found["gpu_memory_utilization"] == 0.5
    assert found["tensor_parallel_size"] == 2
    assert found["enable_prefix_caching"] is False
    assert "dtype" not in found
    assert args(dtype="float16", quantization="fp8")["quantization"] == "fp8"


def test_without_a_context_length_vllm_fits_one() -> None:
    assert args()["max_model_len"] == -1


def test_options_are_passed_on_and_win() -> None:
    assert args(options={"enforce_eager": True})["enforce_eager"] is True
    assert args(context_length=1, options={"max_model_len": 2})["max_model_len"] == 2


def test_an_unknown_option_names_close_ones() -> None:
    with pytest.raises(ModelLoadError, match=r"no option 'enforce_eagr'; did you mean enforce_eager\?"):
        args(options={"enforce_eagr": True})


def test_own_options_are_not_vllms() -> None:
    ours = spec(options={"tool_call_parser": "hermes"})
    assert "tool_call_parser" not in engine_args(ours, KNOWN, can_sleep=False)
    assert own_options(ours) == {
        "tool_call_parser": "hermes",
        "reasoning_parser": None,
        "chat_template": None,
    }
    with pytest.raises(ModelLoadError, match="must be text"):
        own_options(spec(options={"tool_call_parser": 1}))


def test_adapters_take_the_next_rank_that_kernels_have(tmp_path: Path) -> None:
    adapters = (adapter(tmp_path / "a", 4), adapter(tmp_path / "b", 12))
    found = args(adapters=adapters)
    assert (found["enable_lora"], found["max_loras"], found["max_lora_rank"]) == (True, 2, 16)
    with pytest.raises(ModelLoadError, match="up to rank 512"):
        args(adapters=(adapter(tmp_path / "c", 1024),))


def test_broken_adapters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="PEFT"):
        largest_rank((Adapter("x", tmp_path),))
    with pytest.raises(ModelLoadError, match="no rank"):
        largest_rank((adapter(tmp_path / "d", None),))


def size(asked: LoadSpec, free: int | None) -> KvSize:
    return kv_size(asked, block_size=16, bytes_per_token=10, context_length=100, free_memory=free)


def test_asked_for_kv_tokens_are_rounded_up_to_blocks_beside_vllms_own() -> None:
    assert size(spec(kv_cache_tokens=33), None) == KvSize(blocks=4)
    assert size(spec(kv_cache_tokens=33), 10**9) == KvSize(blocks=4, bytes=4 * 16 * 10)


def test_unasked_a_gpu_is_left_to_vllm_and_ram_is_not_filled() -> None:
    assert size(spec(), None) == KvSize()
    assert size(spec(max_sequences=16), 10**9) == KvSize(blocks=101, bytes=101 * 160)
    assert size(spec(max_sequences=16), 6400) == KvSize(blocks=11, bytes=11 * 160)


def test_threads_are_shared_among_parallel_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 4, 5, 6}, raising=False)
    assert cpu_environment(spec()) == {}
    assert cpu_environment(spec(threads=2)) == {"VLLM_CPU_OMP_THREADS_BIND": "3,4"}
    assert cpu_environment(spec(threads=4, tensor_parallel=2)) == {"VLLM_CPU_OMP_THREADS_BIND": "3,5|4,6"}
    with pytest.raises(ModelLoadError):
        cpu_environment(spec(threads=1, tensor_parallel=2))


@pytest.mark.parametrize("version", ["0.32.0", "0.33.1+cu130", "1.0.0", "dev", "0.20.0.dev3"])
def test_new_enough(version: str) -> None:
    check_version(version)


def test_too_old() -> None:
    with pytest.raises(ModelLoadError, match=r"vLLM 0.31.2 is too old: 0.32 or newer"):
        check_version("0.31.2")


def test_folders_are_judged_before_vllm_starts(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="there is no"):
        check_folder(tmp_path / "missing")
    (tmp_path / "m.gguf").touch()
    with pytest.raises(ModelLoadError, match="llama_cpp"):
        check_folder(tmp_path / "m.gguf")
    with pytest.raises(ModelLoadError, match=r"no config\.json"):
        check_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"quantization": {"group_size": 64, "bits": 4}}')
    with pytest.raises(ModelLoadError, match="engine mlx"):
        check_folder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"1234")
    assert check_folder(tmp_path) == tmp_path
    assert weight_bytes(tmp_path) == 4


def test_a_quantisation_that_vllm_does_not_name_is_told_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its source, as importing it takes seconds; where that says nothing, vLLM itself has the word."""
    (tmp_path / "config.json").write_text("{}")
    source = tmp_path / "vllm" / "model_executor" / "layers" / "quantization" / "__init__.py"
    source.parent.mkdir(parents=True)
    (tmp_path / "vllm" / "__init__.py").write_text("raise ImportError")
    source.write_text('QuantizationMethods = Literal[\n    "awq",\n    "fp8",\n]\nX = ["q9_9"]\n')
    found = importlib.machinery.ModuleSpec("vllm", None, origin=str(tmp_path / "vllm" / "__init__.py"))
    monkeypatch.setattr("engines.vllm.folder.importlib.util.find_spec", lambda name: found)
    check_settings(replace(spec(quantization="FP8"), path=tmp_path))
    with pytest.raises(CannotLoad, match="choose one of awq, fp8"):
        check_settings(replace(spec(quantization="q9_9"), path=tmp_path))
    source.write_text("")
    check_settings(replace(spec(quantization="q9_9"), path=tmp_path))
