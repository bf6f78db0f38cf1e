"""What a catalog says, and what is said about one with mistakes."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.models.catalog import (
    Catalog,
    CatalogEntry,
    CatalogError,
    ModelSettings,
    UpstreamEntry,
    load_catalog,
    parse_catalog,
)

SHIPPED = Path(__file__).parents[4] / "models" / "models.yaml"


def parse(text: str) -> Catalog:
    return parse_catalog(dedent(text), "models.yaml")


def only(text: str) -> CatalogEntry:
    (entry,) = parse(text).entries
    return entry


def complaints(text: str) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        parse(text)
    return str(caught.value).splitlines()


def test_a_whole_entry() -> None:
    entry = only(
        """
        models:
          - name: org/model:7b-4.5
            aliases: [small]
            path: org/model.gguf
            engine: llama_cpp
            context_length: 8192
            slots: 4
            kv_cache_tokens: 65536
            quantization: q8_0
            dtype: bfloat16
            keep_alive: 1h30m
            pin: true
            preload: true
            instances: 2
            weight: 3
            adapters: [{name: mine, path: adapters/mine}]
            sampling: {temperature: 0.5, stop: END}
            tensor_parallel: 2
            pipeline_parallel: 2
            threads: 8
            gpu_memory: 0.5
            description: Small.
            options: {rope_scaling: {factor: 2.0}, flags: [a, null]}
        """
    )
    assert entry.names == ("org/model:7b-4.5", "small")
    assert (entry.keep_alive, entry.weight, entry.slots, entry.pin) == (5400, 3.0, 4, True)
    assert (entry.adapters[0].name, entry.adapters[0].path) == ("mine", "adapters/mine")
    assert (entry.sampling.temperature, entry.sampling.stop, entry.sampling.top_p) == (0.5, ("END",), None)
    assert entry.options == {"rope_scaling": {"factor": 2.0}, "flags": ["a", None]}


def test_an_entry_needs_a_name_only() -> None:
    entry = only("models: [{name: m}]")
    assert (entry.engine, entry.keep_alive, entry.instances, entry.hub, entry.path) == (
        "auto",
        None,
        None,
        None,
        None,
    )


@pytest.mark.parametrize("text", ["", "# nothing", "models:", "models: []", "defaults:\nmodels:\n", "---\n"])
def test_empty_catalogs(text: str) -> None:
    assert parse(text) == Catalog()


def test_no_file_is_an_empty_catalog(tmp_path: Path) -> None:
    assert load_catalog(tmp_path / "models.yaml") == Catalog()


@pytest.mark.parametrize(
    ("hub", "expected"),
    [
        ("org/name", ("huggingface", "org/name", ())),
        ("{huggingface: org/name}", ("huggingface", "org/name", ())),
        ("{modelscope: org/name, file: a.gguf}", ("modelscope", "org/name", ("a.gguf",))),
        ("{huggingface: org/name, include: '*q4*', revision: v1.0}", ("huggingface", "org/name", ("*q4*",))),
        ("{huggingface: org/name, include: [a, b]}", ("huggingface", "org/name", ("a", "b"))),
    ],
)
def test_hubs(hub: str, expected: tuple[str, str, tuple[str, ...]]) -> None:
    source = only(f"models: [{{name: m, hub: {hub}}}]").hub
    assert source is not None
    assert (source.hub, source.repository, source.patterns) == expected


# -- defaults ---------------------------------------------------------------------------------------


def test_defaults_fill_in_what_is_not_said() -> None:
    catalog = parse(
        """
        defaults:
          keep_alive: 10m
          slots: 8
          sampling: {temperature: 0.7, top_p: 0.9}
          options: {a: 1, b: 1}
        models:
          - name: plain
          - name: own
            keep_alive: -1
            slots: null
            sampling: {temperature: 0}
            options: {b: 2}
        """
    )
    plain, own = catalog.entries
    assert (plain.keep_alive, plain.slots, plain.sampling.temperature) == (600, 8, 0.7)
    assert (own.keep_alive, own.slots) == (-1, None)
    assert (own.sampling.temperature, own.sampling.top_p) == (0, 0.9)
    assert own.options == {"a": 1, "b": 2}
    other = catalog.unlisted("a model on disk")
    assert (other.name, other.keep_alive, other.engine, other.aliases) == ("a model on disk", 600, "auto", ())


# -- upstreams --------------------------------------------------------------------------------------


def test_upstreams() -> None:
    plain, full = parse(
        """
        upstreams:
          - url: http://gpu1:8000
          - url: https://gpu2/v1
            name: second
            api_key_file: keys/gpu2
            weight: 2
            models: {ours: theirs}
            max_concurrent: 8
        """
    ).upstreams
    assert plain == UpstreamEntry(url="http://gpu1:8000")
    assert (full.name, full.api_key_file, full.weight, full.max_concurrent) == ("second", "keys/gpu2", 2.0, 8)
    assert full.models == {"ours": "theirs"}


def test_models_of_an_upstream_can_be_a_list() -> None:
    [entry] = parse("upstreams: [{url: 'http://a', models: [x, y]}]").upstreams
    assert entry.models == {"x": "x", "y": "y"}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ("name: a", "upstreams[0].url: this field is required"),
        ("url: gpu1:8000", "upstreams[0].url: this is not of the right form, http://host:8000/v1"),
        ("{url: http://a, api_key: x, api_key_file: y}", "give api_key or api_key_file, not both"),
        ("{url: http://a, api_key_file: /etc/key}", "relative to MODEL_BASE_PATH"),
        ("{url: http://a, wieght: 2}", "did you mean weight?"),
        ("{url: http://a, models: [1]}", "upstreams[0].models: this must be a mapping"),
        ("{url: http://a, max_concurrent: 0}", "greater than or equal to 1"),
    ],
)
def test_mistakes_in_upstreams(fields: str, complaint: str) -> None:
    [told] = complaints(f"upstreams:\n  - {fields}\n")
    assert complaint in told


def test_entries_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        only("models: [{name: m}]").pin = True  # type: ignore[misc]


# -- mistakes ---------------------------------------------------------------------------------------


def test_all_mistakes_are_told_with_their_lines() -> None:
    assert complaints(
        """\
        defaults:
          keep_alive: soon
        models:
          - name: a
            keepalive: 5m
            slots: "3"
          - name: b
            aliases: [c, A]
            sampling:
              temperature: 3
          - path: m.gguf
          - b
        extra: 1
        """
    ) == [
        "models.yaml:2: defaults.keep_alive: 'soon' is no duration: give seconds, "
        'or text like "5m" or "1h30m"; -1 is forever',
        "models.yaml:5: models[0].keepalive: there is no such field; did you mean keep_alive?",
        "models.yaml:6: models[0].slots: this should be a valid integer",
        "models.yaml:8: models[1].aliases[1]: the name 'A' is already on line 4",
        "models.yaml:10: models[1].sampling.temperature: this should be less than or equal to 2",
        "models.yaml:11: models[2].name: this field is required",
        "models.yaml:12: models[3]: this must be a mapping (key: value)",
        "models.yaml:13: extra: there is no such field",
    ]


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("name: two words", "no spaces"),
        ('name: "a\\tb"', "no spaces and no control characters"),
        ('name: "a\\u200bb"', "no control characters"),
        ("name: ''", "1 to 200 characters"),
        ("name: Auto", "it means the first model"),
        ("name: 7", "quotes"),
        ("path: /etc/passwd", "relative to MODEL_BASE_PATH"),
        ("path: a/../../b", "without .."),
        ("path: 'C:\\models'", "relative"),
        ("path: ~/m", "relative"),
        ("hub: name", "org/name"),
        ("hub: {huggingface: ../x}", "org/name"),
        ("hub: {revision: main}", "give one hub"),
        ("hub: {huggingface: a/b, modelscope: a/b}", "give one hub"),
        ("hub: {huggingface: a/b, file: x, include: y}", "file or include"),
        ("hub: {huggingface: a/b, include: ../y}", "without .."),
        ("hub: {huggingfce: a/b}", "did you mean huggingface?"),
        ("engine: tensorrt", "'vllm'"),
        ("context_length: 0", "greater than or equal to 1"),
        ("context_length: 1.5", "integer"),
        ("context_length: true", "integer"),
        ("slots: 10000", "1024"),
        ("quantization: q4 0", "right form"),
        ("keep_alive: 5 minutes", "no duration"),
        ("keep_alive: true", "no duration"),
        ("keep_alive: 1:30", "'1:30' is no duration"),
        ("weight: 0", "greater than 0"),
        ("weight: .inf", "finite"),
        ("instances: 0", "greater than or equal to 1"),
        ("gpu_memory: 1.1", "less than or equal to 1"),
        ("pin: 1", "boolean"),
        ("options: [a]", "mapping"),
        ("adapters: [{name: a}]", "adapters[0].path: this field is required"),
        ("adapters: {name: a}", "must be a list"),
        ("sampling: {top_p: 2}", "sampling.top_p"),
        ("sampling: {max_token: 2}", "did you mean max_tokens?"),
        (f"sampling: {{stop: {list('abcdefghijklmnopq')}}}", "at most 16"),
        ("? [a]\n  : b", "a key must be plain text"),
        ("description: !!python/name:os.system x", "is not allowed"),
        ("options: !!python/object/apply:os.system [ls]", "is not allowed"),
        ("options: {a: !!binary eA==}", "is not allowed"),
        ("description: &x y", "anchors and aliases"),
        ("description: *x", "anchors and aliases"),
        (f"options: {'{a: ' * 40}1{'}' * 40}", "nested too deeply"),
        (f"slots: {'9' * 5000}", "not what its form says"),
    ],
)
def test_a_mistake_in_an_entry(field: str, message: str) -> None:
    name = "" if field.startswith("name") else "  name: m\n  "
    lines = complaints(f"models:\n-\n{name}{'  ' if not name else ''}{field}\n")
    assert any(message in line for line in lines), lines
    assert all(line.startswith("models.yaml:") for line in lines)


def test_a_path_and_a_hub_are_one_too_many() -> None:
    [line] = complaints("models:\n  - name: m\n    path: a\n    hub: a/b\n")
    assert line == "models.yaml:2: models[0]: give path or hub, not both"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "models:\n  - name: a\n    pin: true\n    pin: false\n",
            "models.yaml:4: the key 'pin' is already given on line 3",
        ),
        ("models:\n  - name: [\n", "models.yaml:3: this is not YAML: "),
        ("models: []\n\tx: 1\n", "models.yaml:2: this is not YAML: "),
        ("a: 1\n---\nb: 2\n", "models.yaml:2: this is not YAML: "),
        ("models: []\n# \x00\n", "models.yaml:2: the character U+0000 is not allowed"),
        ("- a\n", "models.yaml:1: this must be a mapping"),
        ('models: "\\U99999999"\n', "models.yaml: this is not YAML: an escape"),
        ("[" * 500_000, "models.yaml:1: it is nested too deeply"),
        ("#" * 2**21, "models.yaml: it is longer than"),
    ],
)
def test_what_is_no_catalog(text: str, line: str) -> None:
    assert complaints(text)[0].startswith(line)


@pytest.mark.parametrize(
    ("second", "where"),
    [
        ("name: QWEN", "models[1].name"),
        ("name: b\n    aliases: [c, Qwen]", "models[1].aliases[1]"),
        ("name: b\n    aliases: [B]", "models[1].aliases[0]"),
        ("name: b\n    adapters: [{name: q7, path: x}]", "models[1].adapters[0].name"),
    ],
)
def test_a_name_means_one_thing(second: str, where: str) -> None:
    [line] = complaints(f"models:\n  - name: qwen\n    aliases: [q7]\n  - {second}\n")
    assert f"{where}: the name" in line


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="cannot be read"):
        load_catalog(tmp_path)
    (tmp_path / "models.yaml").write_bytes(b"models: []\n# \xff")
    with pytest.raises(CatalogError, match=r"is not UTF-8 \(byte 13\)"):
        load_catalog(tmp_path / "models.yaml")


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "models.yaml").write_bytes(b"\xef\xbb\xbfmodels: [{name: m}]")
    assert [entry.name for entry in load_catalog(tmp_path / "models.yaml").entries] == ["m"]


KEYS = ("models", "defaults", "name", "hub", "sampling", "a", "<<", "null", "5m", "0x", "1:3", ".inf")
MARKS = (
    *"-[]{}'\"#|>?~%,: \n\t\x85\ud800",
    "\n  ",
    ": ",
    "&a",
    "*a",
    "!!int",
    "!x",
    "\\U00",
    "\n---\n",
    "...",
)
SOUP = st.lists(st.sampled_from([*KEYS, *MARKS]), max_size=30).map("".join)


@settings(max_examples=500, deadline=None)
@given(SOUP | st.text(max_size=40))
def test_anything_else_is_a_catalog_error(text: str) -> None:
    with suppress(CatalogError):
        parse_catalog(text, "models.yaml")


# -- the file we ship -------------------------------------------------------------------------------


def test_the_shipped_catalog_is_valid() -> None:
    catalog = load_catalog(SHIPPED)
    assert {entry.name for entry in catalog.entries} >= {"Qwen2.5-7B-Instruct", "Qwen2.5-14B-Instruct"}
    assert all(entry.hub is not None for entry in catalog.entries)
    assert catalog.defaults == ModelSettings()


def test_the_shipped_catalog_describes_every_field() -> None:
    """The commented entry is a valid one with all fields, but for the second way to write ``hub``."""
    text = SHIPPED.read_text()
    _, _, commented = text.partition("# Every field:\n")
    models, *_ = commented.split("\n\n")
    example = "\n".join(line.strip().removeprefix("#") for line in models.splitlines())
    example = example.replace("   hub: org/name", "   # hub: org/name", 1)
    [described] = yaml.safe_load(example)
    assert set(described) == set(CatalogEntry.model_fields)
    assert set(described["sampling"]) == set(type(CatalogEntry(name="m").sampling).model_fields)
    del described["path"], described["hub"]["file"]
    parse_catalog(yaml.safe_dump({"models": [described]}), "models.yaml")


def test_the_shipped_catalog_describes_upstreams() -> None:
    """The commented example is a valid one with all fields, but for the second way to give a key."""
    _, _, commented = SHIPPED.read_text().partition("# upstreams:\n")
    example = "\n".join(line.removeprefix("#") for line in commented.splitlines())
    example = example.replace("    models: [", "    # models: [", 1)
    [described] = yaml.safe_load(example)
    assert set(described) == set(UpstreamEntry.model_fields)
    del described["api_key_file"]
    parse_catalog(yaml.safe_dump({"upstreams": [described]}), "models.yaml")
