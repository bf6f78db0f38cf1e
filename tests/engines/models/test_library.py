"""The catalog and the disk, merged."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from engines.errors import BadModelFile, ModelFileNotFound, RequestError
from engines.models import store, survey
from engines.models.catalog import Catalog, CatalogError, load_catalog
from engines.models.library import MOST_ALIASES, Library
from engines.models.merger import pull_folder
from engines.models.model import Changes
from engines.models.store import PathNotAllowed
from support.gguf import FILE, file_of


class Shelf:
    """A model folder with a catalog, to be filled by a test; no package brings models."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.catalog = base / "models.yaml"
        self._time = 1_000_000_000

    def put(self, *names: str) -> None:
        for name in names:
            path = self.base / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file_of(name))
            self._age(path.parent)

    def put_folder(self, name: str) -> None:
        self.put(f"{name}/config.json", f"{name}/model.safetensors", f"{name}/tokenizer.json")
        (self.base / name / "config.json").write_text("{}")
        self._age((self.base / name).parent)

    def write(self, text: str) -> None:
        self.catalog.write_text(dedent(text))
        self._age(self.catalog)

    def library(self) -> Library:
        return Library(self.base, self.catalog)

    def _age(self, path: Path) -> None:
        """Give each change a time of its own: the clock of a file system is coarse."""
        self._time += 1
        os.utime(path, (self._time, self._time))


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    monkeypatch.setattr(survey, "BUNDLED_PACKAGES", ())
    return Shelf(tmp_path)


def names(library: Library) -> list[str]:
    return [model.name for model in library.models()]


def path_of(library: Library, name: str) -> str | None:
    file = library.find(name).file
    return file.path.relative_to(library.base).as_posix() if file is not None else None


# -- which file is whose ----------------------------------------------------------------------------


def test_without_a_catalog_there_is_what_is_on_disk(shelf: Shelf) -> None:
    shelf.put("b.gguf", "a.Q4_0.gguf")
    library = shelf.library()
    assert names(library) == ["a", "b"]
    assert library.find("A.q4_0.GGUF").entry.name == "a"


def test_the_catalog_comes_first_and_has_absent_models(shelf: Shelf) -> None:
    shelf.put("a.gguf")
    shelf.write("models: [{name: z, hub: org/z}, {name: y}]")
    library = shelf.library()
    assert names(library) == ["z", "y", "a"]
    assert library.find("z").is_absent
    assert not library.find("a").is_absent


def test_an_entry_finds_its_file_by_name_or_alias(shelf: Shelf) -> None:
    shelf.put("m.Q4_0.gguf", "other.gguf")
    shelf.write("models: [{name: M, slots: 2}, {name: mine, aliases: [other]}]")
    library = shelf.library()
    assert names(library) == ["M", "mine"]
    assert (path_of(library, "m.q4_0"), library.find("m").entry.slots) == ("m.Q4_0.gguf", 2)
    assert path_of(library, "other") == "other.gguf"


def test_an_entry_finds_its_file_by_path(shelf: Shelf) -> None:
    shelf.put("org/m.gguf")
    shelf.put_folder("org/f")
    shelf.write(
        "models: [{name: one, path: org/m.gguf}, {name: two, path: org/f}, {name: gone, path: x.gguf}]"
    )
    library = shelf.library()
    assert names(library) == ["one", "two", "gone"]
    assert (path_of(library, "m.gguf"), path_of(library, "two")) == ("org/m.gguf", "org/f")
    assert library.find("org/f").name == "two"
    assert library.find("gone").is_absent


def test_two_entries_may_share_a_file(shelf: Shelf) -> None:
    shelf.put("m.gguf")
    shelf.write("models: [{name: short, path: m.gguf, context_length: 99}, {name: m}]")
    library = shelf.library()
    assert names(library) == ["short", "m"]
    assert path_of(library, "short") == path_of(library, "m") == "m.gguf"


def test_a_pulled_folder_is_found(shelf: Shelf) -> None:
    shelf.write("models: [{name: q, hub: Qwen/Qwen2.5-7B-Instruct}]")
    library = shelf.library()
    entry = library.find("q").entry
    assert entry.hub is not None
    assert pull_folder(library.base, entry.hub.repository) == library.base / "Qwen" / "Qwen2.5-7B-Instruct"
    shelf.put_folder("Qwen/Qwen2.5-7B-Instruct")
    assert library.reload() == Changes(changed=("q",))
    assert library.find("Qwen/Qwen2.5-7B-Instruct").name == "q"


def test_patterns_tell_the_files_of_a_repository_apart(shelf: Shelf) -> None:
    shelf.put("org/m-GGUF/m-q4_k_m-00001-of-00002.gguf", "org/m-GGUF/m-q4_k_m-00002-of-00002.gguf")
    shelf.put("org/m-GGUF/m-q8_0.gguf", "org/m-GGUF/sub/m-f16.gguf")
    shelf.write(
        """
        models:
          - {name: four, hub: {huggingface: org/m-GGUF, include: "*q4_k_m*.gguf"}}
          - {name: eight, hub: {huggingface: org/m-GGUF, file: m-q8_0.gguf}}
          - {name: two, hub: {huggingface: org/m-GGUF, include: "*q2_k*.gguf"}}
          - {name: any, hub: org/m-GGUF}
        """
    )
    library = shelf.library()
    assert path_of(library, "four") == "org/m-GGUF/m-q4_k_m-00001-of-00002.gguf"
    assert path_of(library, "eight") == "org/m-GGUF/m-q8_0.gguf"
    assert path_of(library, "two") is None
    assert path_of(library, "any") is not None


def test_a_file_put_by_hand_stands_in_for_a_hubs(shelf: Shelf) -> None:
    shelf.put("m-q4_0.gguf")
    shelf.write("models: [{name: m, hub: org/m}]")
    assert path_of(shelf.library(), "m") == "m-q4_0.gguf"


def test_what_was_pulled_for_one_entry_does_not_stand_in_for_another(shelf: Shelf) -> None:
    shelf.put("org/m-GGUF/m-q4_0.gguf")
    shelf.write("models: [{name: m, hub: org/m}, {name: m-GGUF, hub: org/m-GGUF}]")
    library = shelf.library()
    assert (path_of(library, "m"), path_of(library, "m-gguf")) == (None, "org/m-GGUF/m-q4_0.gguf")


def test_names_of_the_catalog_come_before_names_of_files(shelf: Shelf) -> None:
    shelf.put("a.Q4_0.gguf", "b.gguf")
    shelf.write("models: [{name: a, path: b.gguf}]")
    library = shelf.library()
    assert names(library) == ["a", "a.Q4_0"]
    assert path_of(library, "a") == "b.gguf"
    assert path_of(library, "a.Q4_0") == "a.Q4_0.gguf"


def test_a_path_of_the_catalog_stays_in_the_folder(
    shelf: Shelf, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "m.gguf"
    outside.write_bytes(FILE)
    (shelf.base / "m.gguf").symlink_to(outside)
    shelf.write("models: [{name: m, path: m.gguf}]")
    assert shelf.library().find("m").is_absent
    assert "m of the catalog cannot be used" in caplog.text


def test_defaults_hold_for_models_on_disk_too(shelf: Shelf) -> None:
    shelf.put("my model.gguf")
    shelf.write("defaults: {keep_alive: 1m}")
    assert shelf.library().find("my model").entry.keep_alive == 60


def test_skipped_models_are_known(shelf: Shelf) -> None:
    shelf.put("m-00001-of-00002.gguf")
    [skipped] = shelf.library().skipped
    assert "00002-of-00002" in skipped.reason


# -- finding ----------------------------------------------------------------------------------------


def test_an_unknown_name_is_told_with_close_ones(shelf: Shelf) -> None:
    shelf.put("SmolLM2.gguf", "Qwen2.5.gguf")
    with pytest.raises(
        ModelFileNotFound, match=r"no model 'smolm2'; did you mean SmolLM2\? \(models here: Qwen"
    ):
        shelf.library().find("smolm2")
    with pytest.raises(ModelFileNotFound, match=r"did you mean SmolLM2\?"):
        shelf.library().find("smol")


def test_an_endless_name_costs_little(shelf: Shelf) -> None:
    shelf.put("m.gguf")
    with pytest.raises(ModelFileNotFound) as caught:
        shelf.library().find("m" * 10**7)
    assert len(str(caught.value)) < 500


def test_the_default_may_be_a_name(shelf: Shelf) -> None:
    shelf.put("a.gguf")
    shelf.write("models: [{name: absent, hub: o/n}]")
    library = shelf.library()
    assert library.named("A.gguf").name == "a"
    assert library.named("absent").is_absent
    with pytest.raises(ModelFileNotFound, match=r"models here: a\b"):
        library.named("nothing")


def test_the_default_may_be_any_path(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> None:
    shelf.put("a.gguf")
    library = shelf.library()
    assert library.named(str(shelf.base / "a.gguf")).name == "a"
    outside = tmp_path_factory.mktemp("outside") / "mine.Q4_0.gguf"
    outside.write_bytes(FILE)
    assert library.named(str(outside)).name == "mine"
    assert names(library) == ["mine", "a"]
    with pytest.raises(BadModelFile, match="is no model"):
        library.named(str(outside.parent))


# -- registering at run time ------------------------------------------------------------------------


def test_a_path_gets_a_name(shelf: Shelf) -> None:
    shelf.put("a.gguf")
    shelf.write("defaults: {slots: 3}")
    library = shelf.library()
    model = library.add_path("mine", "a.gguf")
    assert (model.name, model.entry.slots, names(library)) == ("mine", 3, ["mine", "a"])
    assert library.add_path("mine", "a.gguf") == model
    assert library.add_path("a", "a.gguf").name == "a"
    library.reload()
    assert library.find("mine") == model


def test_a_file_is_one_model_whatever_it_is_called(shelf: Shelf) -> None:
    """Each model is loaded, counted and shown in metrics by itself: their number is that of the files."""
    shelf.put("sub/a.gguf", "b.gguf")
    library = shelf.library()
    spellings = ["sub/a.gguf", "./sub/a.gguf", "sub/../sub//a.gguf", str(shelf.base / "sub" / "a.gguf")]
    models = {library.add_path(f"mine-{n}", path).name for n, path in enumerate(spellings)}
    assert models == {"mine-0"}
    assert sorted(names(library)) == ["a", "b", "mine-0"]
    library.reload()
    assert library.find("MINE-3").name == "mine-0"
    for number in range(len(spellings), MOST_ALIASES + 1):
        library.add_path(f"mine-{number}", "sub/a.gguf")
    with pytest.raises(RequestError, match="other names") as caught:
        library.add_path("mine-more", "sub/a.gguf")
    assert caught.value.param == "model_name"
    assert library.add_path("mine-3", "sub/a.gguf").name == "mine-0"
    assert library.add_path("other", "b.gguf").name == "other"
    with pytest.raises(RequestError, match="another model's"):
        library.add_path("mine-3", "b.gguf")


def test_other_names_of_a_file_that_the_catalog_got(shelf: Shelf) -> None:
    shelf.put("a.gguf")
    shelf.write("models: [{name: q, hub: o/q}]")
    library = shelf.library()
    library.add_path("q", "a.gguf")
    assert library.add_path("mine", "a.gguf").names == ("q", "mine")


def test_what_may_not_be_read(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.put("a.gguf")
    library = shelf.library()

    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("engines.models.store.leads_out", refuse)
    with pytest.raises(BadModelFile, match=r"cannot be read: .*denied"):
        library.add_path("mine", "a.gguf")


def test_a_message_about_an_unknown_name_is_short_however_many_there_are(shelf: Shelf) -> None:
    entries = "".join(f"- {{name: absent-{number}}}\n" for number in range(1000))
    shelf.write(f"models:\n{entries}")
    shelf.put(*(f"model-{number}.gguf" for number in range(60)))
    with pytest.raises(ModelFileNotFound, match="and 10 more") as caught:
        shelf.library().find("model-1x")
    assert "did you mean model-1" in caught.value.message
    assert "absent" not in caught.value.message, "only what is here is of use"
    assert len(caught.value.message) < 2000


def test_an_absent_model_of_the_catalog_gets_the_file(shelf: Shelf) -> None:
    shelf.put("a.gguf")
    shelf.write("models: [{name: q, aliases: [r], hub: o/q, slots: 3}]")
    library = shelf.library()
    model = library.add_path("R", "a.gguf")
    assert (model.name, model.entry.slots, path_of(library, "q")) == ("q", 3, "a.gguf")


def test_a_file_that_went_away_is_forgotten(shelf: Shelf) -> None:
    shelf.put("a.gguf")
    library = shelf.library()
    library.add_path("mine", "a.gguf")
    (shelf.base / "a.gguf").unlink()
    assert set(library.reload().removed) == {"mine", "a"}


def test_a_registered_name_stays_when_a_file_of_that_name_comes(shelf: Shelf) -> None:
    shelf.put("a.gguf")
    library = shelf.library()
    library.add_path("mine", "a.gguf")
    shelf.put("mine.gguf")
    library.reload()
    assert (path_of(library, "mine"), path_of(library, "mine.gguf")) == ("a.gguf", "mine.gguf")


def test_another_models_name_is_refused(shelf: Shelf) -> None:
    shelf.put("a.gguf", "b.gguf")
    with pytest.raises(RequestError, match="another model's") as caught:
        shelf.library().add_path("A", "b.gguf")
    assert caught.value.param == "model_name"


@pytest.mark.parametrize("name", ["", "two words", "auto", "x" * 500])
def test_names_are_checked(shelf: Shelf, name: str) -> None:
    shelf.put("a.gguf")
    with pytest.raises(RequestError) as caught:
        shelf.library().add_path(name, "a.gguf")
    assert caught.value.param == "model_name"


def test_paths_are_checked(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.gguf"
    outside.write_bytes(FILE)
    shelf.put_folder("m")
    (shelf.base / "m" / "model.safetensors").unlink()
    (shelf.base / "m" / "model.safetensors").symlink_to(outside)
    library = shelf.library()
    for path in (str(outside), "../x", "m"):
        with pytest.raises(PathNotAllowed):
            library.add_path("mine", path)
    with pytest.raises(ModelFileNotFound):
        library.add_path("mine", "nothing.gguf")
    with pytest.raises(BadModelFile, match="is no model"):
        library.add_path("mine", ".")


# -- reloading --------------------------------------------------------------------------------------


def test_changes_are_told(shelf: Shelf) -> None:
    shelf.put("a.gguf", "b.gguf")
    shelf.write("models: [{name: a}]")
    library = shelf.library()
    assert not library.changed()
    assert not library.reload()
    shelf.put("sub/c.gguf")
    shelf.write("models: [{name: a, slots: 3}]")
    (shelf.base / "b.gguf").unlink()
    assert library.changed()
    assert library.reload() == Changes(added=("c",), removed=("b",), changed=("a",))
    assert not library.changed()
    assert library.find("a").entry.slots == 3


def test_every_kind_of_change_is_noticed(shelf: Shelf) -> None:
    shelf.put("org/a.gguf")
    library = shelf.library()
    shelf.write("models: []")
    assert library.changed()
    library.reload()
    shelf.put("org/b.gguf")
    assert library.changed()
    library.reload()
    (shelf.base / "org" / "a.gguf").write_bytes(FILE + b", and longer")
    assert library.changed()
    assert library.reload() == Changes(changed=("a",), overwritten=("a",))


def test_a_file_that_is_written_to_is_told_from_one_that_is_replaced(
    shelf: Shelf, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shelf.put("a.gguf", "b.gguf", "big-00001-of-00002.gguf", "big-00002-of-00002.gguf")
    library = shelf.library()
    (elsewhere := tmp_path_factory.mktemp("other") / "elsewhere.gguf").write_bytes(FILE + b"2")
    put = library.put("given", elsewhere)
    other = shelf.base / "b.gguf.new"
    other.write_bytes(FILE + b"!")
    other.rename(shelf.base / "b.gguf")
    library.reload()
    for path in (shelf.base / "a.gguf", shelf.base / "big-00002-of-00002.gguf", elsewhere):
        with path.open("r+b") as file:
            file.write(b"gguf")
        os.utime(path, ns=(1, 1))
    assert library.changed()
    assert set(library.reload().overwritten) == {"a", "big", put.name}
    assert not library.reload().overwritten


def test_a_folder_that_comes_later_is_noticed(shelf: Shelf, tmp_path: Path) -> None:
    library = Library(tmp_path / "later", tmp_path / "later" / "models.yaml")
    assert names(library) == []
    (tmp_path / "later").mkdir()
    assert library.changed()


def test_a_broken_catalog_changes_nothing_and_is_told_once(shelf: Shelf) -> None:
    shelf.put("a.gguf")
    shelf.write("models: [{name: a, slots: 2}]")
    library = shelf.library()
    shelf.write("models: [{name: a, slot: 2}]")
    with pytest.raises(CatalogError, match=r"models.yaml:1: models\[0\].slot"):
        library.reload()
    assert library.find("a").entry.slots == 2
    assert not library.changed()
    shelf.write("models: [{name: a, slots: 4}]")
    assert library.changed()
    library.reload()
    assert library.find("a").entry.slots == 4


def test_a_catalog_with_mistakes_at_the_start_is_used_without_them(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.put("a.gguf", "b.gguf")
    shelf.write(
        """
        defaults: {slots: many}
        models:
          - {name: a, slots: 2, aliases: [x]}
          - {name: b, slot: 3}
          - {name: x, path: b.gguf}
        """
    )
    library = shelf.library()
    assert (names(library), library.find("x").entry.slots) == (["a", "b"], 2)
    assert library.catalog_error is not None
    for words in (
        "yaml:2: defaults.slots",
        "yaml:5: models[1].slot",
        "'x' is already on line 4",
    ):
        assert words in caplog.text
        assert words in library.catalog_error.message
    shelf.put("c.gguf")
    library.reload()
    assert library.catalog_error is not None
    shelf.write("models: [{name: b, slots: 3}]")
    library.reload()
    assert (library.catalog_error, library.find("b").entry.slots) == (None, 3)


@pytest.mark.parametrize("text", ["models: {}", "[", "models: [1, {name: a}", "\tx", "- a", "models: [[]]"])
def test_a_catalog_of_which_nothing_is_right_is_an_empty_one(shelf: Shelf, text: str) -> None:
    shelf.put("a.gguf")
    shelf.write(text)
    library = shelf.library()
    assert names(library) == ["a"]
    assert library.catalog_error is not None


def test_a_catalog_that_did_not_change_is_not_parsed_again(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long ones take seconds, and models come and go more often."""
    shelf.write("models: [{name: a, slots: 2}]")
    library = shelf.library()
    parsed: list[Path] = []

    def noting(path: Path) -> Catalog:
        parsed.append(path)
        return load_catalog(path)

    monkeypatch.setattr("engines.models.library.load_catalog", noting)
    shelf.put("a.gguf")
    assert library.reload() == Changes(changed=("a",))
    assert not parsed
    shelf.catalog.unlink()
    library.reload()
    assert (parsed, library.find("a").entry.slots) == ([shelf.catalog], None)


def test_what_was_read_before_something_newer_counts_no_more(shelf: Shelf) -> None:
    library = shelf.library()
    older = library.read()
    shelf.put("a.gguf")
    assert library.reload().added == ("a",)
    assert not library.adopt(older)
    assert names(library) == ["a"]


def test_a_file_that_is_still_copied_becomes_a_model(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    """Which changes neither its folder nor any model."""
    for end in (-1, len(FILE) // 2, len(FILE)):
        if end < 0:
            shelf.put("a.gguf")
            library = shelf.library()
            (shelf.base / "b.gguf").write_bytes(FILE[:50])
            library.reload()
        before = os.stat(shelf.base)
        with (shelf.base / "b.gguf").open("ab") as file:
            file.write(FILE[file.tell() : end])
        os.utime(shelf.base, ns=(before.st_atime_ns, before.st_mtime_ns))
        if end > 0:
            assert library.changed()
            library.reload()
    assert names(library) == ["a", "b"]
    assert caplog.text.count("skipped") == 1


def test_a_file_that_grows_while_it_is_read_is_read_again(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.put("a.gguf")
    path = shelf.base / "b.gguf"
    path.write_bytes(FILE[:50])
    read = store.describe

    def slowly(found: Path) -> Any:
        try:
            return read(found)
        finally:
            if found == path:
                path.write_bytes(FILE)

    monkeypatch.setattr(store, "describe", slowly)
    library = shelf.library()
    assert names(library) == ["a"]
    assert library.changed()
    library.reload()
    assert names(library) == ["a", "b"]
