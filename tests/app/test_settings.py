"""The settings parse what people write, and the documents tell the truth about them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.setting_errors import explain
from app.settings import Settings, forward_proxies, read_variables
from balancer.proxy.route import ForwardProxy, Routes
from scripts import settings_docs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable and no .env of the machine the tests run on."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def env_values(text: str) -> dict[str, str]:
    """Variables and values of a .env file, read independently of the script that writes it."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pairs = [(name, value) for name, _, value in (line.partition("=") for line in lines)]
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def table_rows(readme: str) -> dict[str, tuple[str, str]]:
    """Variable: (default, meaning) of the README's table, read independently of the script."""
    table = readme.split("<!-- settings -->")[1].split("<!-- /settings -->")[0]
    rows = re.findall(r"^\| `([A-Z_]+)` \| (?:`([^`]*)`)? ?\| (.+) \|$", table, re.MULTILINE)
    return {name: (default, meaning) for name, default, meaning in rows}


def test_env_example_readme_and_settings_agree() -> None:
    example = env_values((ROOT / ".env.example").read_text())
    table = table_rows((ROOT / "README.md").read_text())
    assert list(example) == [name.upper() for name in Settings.model_fields]
    assert list(table) == list(example)
    assert {name: default for name, (default, _) in table.items()} == example
    for name, field in Settings.model_fields.items():
        assert field.description is not None
        assert table[name.upper()][1].startswith(field.description)


def test_env_example_gives_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = Settings()
    for name, value in env_values((ROOT / ".env.example").read_text()).items():
        monkeypatch.setenv(name, value)
    assert Settings() == defaults


def test_every_variable_has_a_comment_of_one_line() -> None:
    blocks = (ROOT / ".env.example").read_text().strip().split("\n\n")[1:]
    assert len(blocks) == len(Settings.model_fields)
    for block in blocks:
        comment, assignment = block.splitlines()
        assert comment.startswith("# ")
        assert "=" in assignment


def test_documents_are_up_to_date() -> None:
    assert settings_docs.outdated() == {}, "run: make settings-docs"


def test_check_notices_drift_and_repairs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- settings -->\n| old |\n<!-- /settings -->\nafter\n")
    assert {path.name for path in settings_docs.outdated(tmp_path)} == {"README.md", ".env.example"}
    for path, text in settings_docs.outdated(tmp_path).items():
        path.write_text(text)
    assert settings_docs.outdated(tmp_path) == {}
    assert "| old |" not in readme.read_text()
    assert readme.read_text().startswith("before\n")
    assert readme.read_text().endswith("after\n")


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", set()),
        (" , ,", set()),
        ("one", {"one"}),
        ("one, two ,one,", {"one", "two"}),
        ('["a"]', {'["a"]'}),
    ],
)
def test_api_keys_are_split_at_commas(monkeypatch: pytest.MonkeyPatch, text: str, keys: set[str]) -> None:
    monkeypatch.setenv("API_KEYS", text)
    assert Settings().api_keys == keys


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("MAX_CPU_THREADS", "3", 3),
        ("MAX_CPU_THREADS", "auto", "auto"),
        ("CONTEXT_LENGTH", "4096", 4096),
        ("MODEL_BASE_PATH", "/srv/models", Path("/srv/models")),
        ("ENABLE_CACHING", "false", False),
        ("ENABLE_CACHING", "0", False),
        ("QUEUE_TIMEOUT", "1.5", 1.5),
        ("WORKERS", "1", 1),
    ],
)
def test_values_are_parsed(monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object) -> None:
    monkeypatch.setenv(name, text)
    assert getattr(Settings(), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("PORT", "eighty"),
        ("PORT", "70000"),
        ("PORT", "-1"),
        ("WORKERS", "2"),
        ("MAX_CPU_THREADS", "0"),
        ("MAX_CPU_THREADS", "many"),
        ("KV_CACHE_TOKENS", "-5"),
        ("LOG_LEVEL", "LOUD"),
        ("INFERENCE_ENGINE", "abacus"),
        ("MAX_SEQUENCES", "0"),
        ("QUEUE_TIMEOUT", "0"),
        ("RATE_LIMIT_RPM", "-1"),
        ("ENABLE_CACHING", "perhaps"),
        ("ALLOWED_UPSTREAMS", "http://gpu1"),
        ("ALLOWED_UPSTREAMS", "10.0.0.0/33"),
        ("UPSTREAMS", "http://gpu1#weight=1001"),
    ],
)
def test_bad_values_are_rejected_by_name(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert {str(error["loc"][0]).upper() for error in caught.value.errors()} == {name}


def test_the_environment_comes_before_the_env_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=1111\nHOST=::1\nUNKNOWN=x\n")
    monkeypatch.setenv("PORT", "2222")
    settings = Settings()
    assert (settings.port, settings.host) == (2222, "::1")


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("PORT", "70000", "PORT=70000 (.env): must be a whole number, at least 0, at most 65535"),
        ("ENABLE_CACHING", "maybe", "ENABLE_CACHING=maybe (.env): must be true or false"),
        ("MAX_GPU_MEMORY", "2", "MAX_GPU_MEMORY=2 (.env): must be a number, more than 0, at most 1"),
        ("CONTEXT_LENGTH", "0", 'CONTEXT_LENGTH=0 (.env): must be "auto" or at least 1'),
        ("LOG_FORMAT", "xml", "LOG_FORMAT=xml (.env): must be auto, json or text"),
        (
            "INFERENCE_ENGINE",
            "abacus",
            "INFERENCE_ENGINE=abacus (.env): must be auto, vllm, mlx, llama_cpp or fake",
        ),
        (
            "LOAD_BALANCE_STRATEGY",
            "best",
            "LOAD_BALANCE_STRATEGY=best (.env): must be round_robin, least_connections, weighted, random, "
            "response_time or prefix_aware",
        ),
        ("MIN_INSTANCES", "99", "MIN_INSTANCES must not exceed MAX_INSTANCES"),
        ("MODEL_BASE_PATH", ".env", "MODEL_BASE_PATH=.env (.env): is a file, and must be a folder"),
        (
            "MODEL_BASE_PATH",
            "$NO_SUCH/x",
            "MODEL_BASE_PATH=$NO_SUCH/x (.env): the variable NO_SUCH in this path is not set",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, name: str, text: str, line: str) -> None:
    (tmp_path / ".env").write_text(f"{name}={text}\n")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert explain(caught.value, Settings.model_fields, read_variables().settings) == [line]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_forward_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    assert forward_proxies() == {}
    monkeypatch.setenv("HTTPS_PROXY", "http://squid:3128")
    monkeypatch.setenv("no_proxy", "lan")
    routes = Routes(forward_proxies())
    assert routes.to("https://api.test/v1").proxy == ForwardProxy("squid", 3128)
    assert routes.to("https://gpu1.lan/v1").proxy is None
    assert routes.to("http://api.test/v1").proxy is None


def test_a_bad_engine_is_told_which_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_ENGINE", "abacus")
    with pytest.raises(ValidationError) as caught:
        Settings()
    [error] = caught.value.errors()
    assert error["msg"] == "Input should be 'auto', 'vllm', 'mlx', 'llama_cpp' or 'fake'"
