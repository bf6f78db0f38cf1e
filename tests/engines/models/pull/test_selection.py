"""Which files of a repository are downloaded."""

from __future__ import annotations

import pytest

from engines.machine.job_process import JobFailed
from engines.models.pull.selection import check_path, choose

MISTRAL = [
    "README.md",
    "config.json",
    "consolidated.safetensors",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "params.json",
    "tokenizer.model",
]
GGUF = ["README.md", "m-Q8_0.gguf", "m-Q4_0_4_4.gguf", "m-q4_0.gguf", "m-F16.gguf", "m-imatrix.gguf"]


def test_a_second_copy_of_the_weights_is_left() -> None:
    chosen, _ = choose(MISTRAL, ())
    assert chosen == sorted(set(MISTRAL) - {"README.md", "consolidated.safetensors"})


def test_only_copy_is_taken_whatever_its_name() -> None:
    assert choose(["consolidated.safetensors"], ())[0] == ["consolidated.safetensors"]


def test_other_runtimes_are_left_but_modules_are_kept() -> None:
    paths = ["1_Pooling/config.json", "model.safetensors", "onnx/config.json", "onnx/model.onnx"]
    assert choose(paths, ())[0] == ["1_Pooling/config.json", "model.safetensors"]


def test_old_weights_if_there_are_no_others() -> None:
    paths = ["config.json", "pytorch_model.bin", "training_args.bin"]
    assert choose(paths, ())[0] == ["config.json", "pytorch_model.bin"]


def test_one_gguf_of_many() -> None:
    chosen, reason = choose(GGUF, ())
    assert chosen == ["m-q4_0.gguf"]
    assert reason == "chose m-q4_0.gguf of 5 GGUF files; `include` picks another"
    assert choose([*GGUF, "m.Q4_K_M.gguf"], ())[0] == ["m.Q4_K_M.gguf"]


@pytest.mark.parametrize(
    ("projectors", "expected"),
    [
        (("mmproj-BF16.gguf", "mmproj-F16.gguf", "mmproj-F32.gguf"), "mmproj-F16.gguf"),
        (("mmproj-m-Q8_0.gguf", "mmproj-m-f32.gguf"), "mmproj-m-Q8_0.gguf"),
        (("m.mmproj-f16.gguf", "mmproj-other-f16.gguf"), "m.mmproj-f16.gguf"),
        (("other.gguf", "mmproj-F16.gguf"), None),
        (("other.gguf", "mmproj-m-Q8_0.gguf", "mmproj-other-f16.gguf"), "mmproj-m-Q8_0.gguf"),
    ],
)
def test_the_projector_comes_along(projectors: tuple[str, ...], expected: str | None) -> None:
    found = [expected] if expected is not None else []
    assert choose([*GGUF, *projectors], (), "q4_0")[0] == ["m-q4_0.gguf", *found]
    assert choose([*GGUF, *projectors], ())[0][1:] == found
    if "other.gguf" not in projectors:
        assert choose(["Q4_0/m-Q4_0.gguf", *projectors], ())[0] == ["Q4_0/m-Q4_0.gguf", *found]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("Q8_0", "m-Q8_0.gguf"),
        ("q4_0", "m-q4_0.gguf"),
        ("f16", "m-F16.gguf"),
        ("Q4_K_XL", "m-UD-Q4_K_XL.gguf"),
    ],
)
def test_a_quantisation_by_its_name(wanted: str, chosen: str) -> None:
    paths = [*GGUF, "m-UD-Q4_K_XL.gguf", "config.json", "model.safetensors"]
    assert choose(paths, (), wanted)[0] == [chosen]


def test_a_quantisation_in_several_files() -> None:
    parts = [f"Q4_K_M/m-Q4_K_M-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert choose([*GGUF, *parts], (), "q4_k_m")[0] == parts


@pytest.mark.parametrize(
    ("paths", "wanted", "message"),
    [
        (GGUF, "Q9_9", "there is no Q9_9: choose one of F16, Q4_0_4_4, Q8_0, q4_0$"),
        (GGUF, "Q4", "there is no Q4: "),
        (["a-UD-IQ2_M.gguf", "b.gguf"], "x", "choose one of UD-IQ2_M$"),
        (["b.gguf"], "x", "choose one of b.gguf$"),
        (MISTRAL, "Q4_0", "no GGUF files to choose Q4_0 from"),
    ],
)
def test_a_quantisation_that_there_is_not(paths: list[str], wanted: str, message: str) -> None:
    with pytest.raises(JobFailed, match=message):
        choose(paths, (), wanted)


def test_all_parts_of_a_gguf() -> None:
    parts = [f"Q4_K_M/m-Q4_K_M-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert choose([*GGUF, *reversed(parts)], ())[0] == parts


def test_a_gguf_of_an_unknown_type_is_better_than_none() -> None:
    assert choose(["m.gguf"], ())[0] == ["m.gguf"]


@pytest.mark.parametrize(("include", "message"), [((), "no weights"), (("*.gguf",), "no file matches")])
def test_nothing_to_serve(include: tuple[str, ...], message: str) -> None:
    with pytest.raises(JobFailed, match=f"{message}.*: README.md, model.onnx$"):
        choose(["README.md", "model.onnx"], include)


@pytest.mark.parametrize("path", ["config.json", "a b/c-d_e.json", "1_Pooling/模型.json", "..almost"])
def test_safe_paths(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize(
    "path", ["", "/a", "a/", "a//b", ".", "..", "a/..", "a/./b", "a\\b", "C:a", "a\0", "a\n", " a", "a/b "]
)
def test_unsafe_paths(path: str) -> None:
    with pytest.raises(JobFailed, match="not safe"):
        check_path(path)
