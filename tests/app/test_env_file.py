"""The .env file as people's editors write it, and the variables in it and around it."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

import pytest

from app.env_file import EnvFileError, read_env_file
from app.setting_notes import notes
from app.settings import Settings, adopt_hub_variables, read_variables
from app.variables import unquoted

TEXT = 'export PORT=9000\nAPI_KEYS="sk-1"  # ours\nMODEL_BASE_PATH=${BASE}/models\nHOST=grün\n'


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where `.env` is; no variable of the machine the tests run on."""
    for name in list(os.environ):
        if name.lower() in Settings.model_fields or name.startswith(("HF_", "ENGINEHOUSE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ],
)
def test_it_is_read_as_editors_write_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, mark: bytes, encoding: str, line_end: str
) -> None:
    monkeypatch.setenv("BASE", "/srv")
    (folder / ".env").write_bytes(mark + TEXT.replace("\n", line_end).encode(encoding))
    settings = Settings()
    assert (settings.port, settings.api_keys, settings.host) == (9000, {"sk-1"}, "grün")
    assert settings.model_base_path == Path("/srv/models")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (
            "PORT=1\nHOST=grün\n".encode("latin-1"),
            r"\.env is not written in UTF-8 \(line 2\): save it as UTF-8",
        ),
        (TEXT.encode("utf-16-le"), "save it as UTF-8"),
        ("PORT=1\n".encode("utf-16-le"), "NUL bytes"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_line(folder: Path, data: bytes, told: str) -> None:
    (folder / ".env").write_bytes(data)
    with pytest.raises(EnvFileError, match=told):
        Settings()


def test_what_is_no_variable_is_told_with_its_line(folder: Path) -> None:
    (folder / ".env").write_text("PORT=9000\n\nMAX_MEMORY\n= 3\nHOST=::1\n")
    found = read_env_file(Path(".env"))
    assert found.values == {"PORT": "9000", "HOST": "::1"}
    assert [problem.partition(",")[2][:7] for problem in found.problems] == [" line 3", " line 4"]


def test_a_folder_in_its_place_is_told(folder: Path) -> None:
    (folder / ".env").mkdir()
    assert Settings().port == 8000
    assert ".env is a folder" in read_variables().notes[0]


@pytest.mark.parametrize(
    ("name", "value", "field", "meant"),
    [
        ("API_KEYS", '"sk-1, sk-2"', "api_keys", {"sk-1", "sk-2"}),
        ("PORT", "'9000'\r", "port", 9000),
        ("PORT", "", "port", 8000),
        ("LOG_LEVEL", "debug", "log_level", "DEBUG"),
        ("LOG_FORMAT", "console", "log_format", "text"),
        ("INFERENCE_MODE", "Single", "inference_mode", "single"),
        ("MODEL_BASE_PATH", "~/models", "model_base_path", "HOME/models"),
        ("MODEL_BASE_PATH", "$HOME/models", "model_base_path", "HOME/models"),
        ("DEFAULT_MODEL", "${HOME}/a.gguf", "default_model", "HOME/a.gguf"),
    ],
)
@pytest.mark.parametrize("in_file", [False, True])
def test_values_count_as_they_were_meant(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    field: str,
    meant: object,
    in_file: bool,
) -> None:
    if in_file:
        (folder / ".env").write_text(f"{name}={value}\n")
    else:
        monkeypatch.setenv(name, value)
    found = getattr(Settings(), field)
    if isinstance(meant, str) and meant.startswith("HOME"):
        assert str(found) == meant.replace("HOME", str(folder))
    else:
        assert found == meant


def test_quotes_that_docker_leaves_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", '"sk-1"')
    told = list(notes(Settings(), read_variables()))
    assert told == ["API_KEYS (environment) has quotes around its value: they do not count"]


@pytest.mark.parametrize(
    ("value", "bare"), [("'", "'"), ('"a', '"a'), ("''", ""), (" 'a' ", "a"), ("\"a'", "\"a'")]
)
def test_only_quotes_that_match_go(value: str, bare: str) -> None:
    assert unquoted(value) == bare


@pytest.mark.parametrize(
    ("name", "in_file", "in_environment"),
    [
        ("MAX_CONCURENT_REQUESTS", "MAX_CONCURRENT_REQUESTS", "MAX_CONCURRENT_REQUESTS"),
        ("ENGINEHOUSE_PORT", "PORT", "PORT"),
        ("CORS_ORIGIN", "CORS_ORIGINS", "CORS_ORIGINS"),
        ("MAX_TOKENS", "", None),
        ("API_KEY", "API_KEYS", None),  # what the curl command reads
        ("LOGLEVEL", "LOG_LEVEL", None),
        ("OPENAI_API_KEY", None, None),
        ("HOSTNAME", None, None),
        ("HF_TOKEN", None, None),
        ("COMPOSE_PROJECT_NAME", None, None),
        ("NODE_EXTRA_CA_CERTS", None, None),
    ],
)
def test_names_with_a_slip_are_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, in_file: str | None, in_environment: str | None
) -> None:
    """None: nothing is said. An empty one: that it is no setting."""
    monkeypatch.setenv(name, "1")
    _told(name, "environment", in_environment)
    monkeypatch.delenv(name)
    (folder / ".env").write_text(f"{name}=1\n")
    _told(name, ".env", in_file)


def test_a_service_of_kubernetes_is_no_slip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEHOUSE_PORT", "tcp://10.0.0.1:8000")
    _told("ENGINEHOUSE_PORT", "environment", None)


def _told(name: str, origin: str, close: str | None) -> None:
    told = [note for note in read_variables().notes if note.startswith(f"{name} ")]
    hint = f": did you mean {close}?" if close else ""
    assert told == ([] if close is None else [f"{name} ({origin}) is no setting{hint}"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ["the API is open to everyone who can reach it: set API_KEYS to require a key"]),
        ("API_KEYS=\n", ["API_KEYS (.env) is set, but holds no key: the API is open"]),
        ("API_KEYS=,\n", ["API_KEYS (.env) is set, but holds no key: the API is open"]),
        ("API_KEYS=k\nADMIN_API_KEYS=\n", []),
        ("API_KEYS=k\nADMIN_API_KEYS=' '\n", []),
        (
            "API_KEYS=k\nADMIN_API_KEYS=,\n",
            ["ADMIN_API_KEYS (.env) is set, but holds no key: models are managed"],
        ),
        ("API_KEYS=k\nMODEL_BASE_PATH=~/none\n", ["MODEL_BASE_PATH (.env): there is no folder "]),
        ("API_KEYS=k\nINFERENCE_MODE=multi_instance\n", ["multi_instance keeps one model only"]),
    ],
)
def test_what_is_hardly_meant_so_is_told(folder: Path, text: str, told: list[str]) -> None:
    (folder / ".env").write_text(text)
    found = list(notes(Settings(), read_variables()))
    assert len(found) == len(told)
    assert all(note.startswith(start) for note, start in zip(found, told, strict=True))


def test_an_empty_list_in_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", "k")
    monkeypatch.setenv("ADMIN_API_KEYS", "")
    assert [note[:30] for note in notes(Settings(), read_variables())] == ["ADMIN_API_KEYS (environment) i"]


def test_hubs_variables_in_the_file_count(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / ".env").write_text("HF_TOKEN=hf_file\nHF_ENDPOINT=http://mirror\nOTHER_TOKEN=x\n")
    monkeypatch.setenv("HF_ENDPOINT", "http://environment")
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.delenv("HF_TOKEN")
    adopt_hub_variables(read_variables())
    assert (os.environ["HF_TOKEN"], os.environ["HF_ENDPOINT"]) == ("hf_file", "http://environment")
    assert "OTHER_TOKEN" not in os.environ
