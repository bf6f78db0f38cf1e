"""The command line, as people use it: options in, text and exit status out."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner, Result

from app import __version__, answer_bytes
from app.cli import chat as chat_module
from app.cli import client, common, follow, listening, load, stream
from app.cli import serve as serve_module
from app.cli.app import cli
from app.cli.stream import StreamedAnswer
from app.connections import EdgeConnection
from app.setting_errors import explain
from app.settings import Settings, read_variables
from engines import selection
from engines.machine import platform
from support.gguf import FILE, SAFETENSORS
from support.stub_server import WORDS, Stub, running

ANSWER = "".join(WORDS)
Invoke = Callable[..., Result]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No settings of the machine the tests run on, and none left behind by a command."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Invoke:
    root = logging.getLogger()
    # A server that ran in this process has left its own, with a stream that pytest has closed.
    of_pytest = [each for each in root.handlers if type(each).__module__.startswith("_pytest")]
    monkeypatch.setattr(root, "handlers", of_pytest)

    def run(*args: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, list(args), input=stdin)

    return run


@pytest.fixture(scope="module")
def _stub() -> Iterator[Stub]:
    with running() as stub:
        yield stub


@pytest.fixture
def stub(_stub: Stub) -> Stub:
    _stub.reset()
    return _stub


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def facts(**changes: Any) -> platform.Facts:
    given: dict[str, Any] = {"packages": {"llama_cpp": ""}, **changes}
    return platform.Facts("linux", "x86_64", "3.11.7", 2, 2, 8 * 2**30, 4 * 2**30, **given)


def gguf(folder: Path, name: str = "tiny.Q4_0.gguf") -> Path:
    """A file that looks like a model from the outside."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(FILE + bytes(2_000_000))
    return path


def hf_folder(folder: Path) -> Path:
    """A folder that looks like a model in Hugging Face's format."""
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "model.safetensors").write_bytes(SAFETENSORS)
    return folder


def catalog(folder: Path, text: str) -> None:
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / "models.yaml").write_text(text)


# -- the program ------------------------------------------------------------------------------------


def test_help_lists_the_commands(invoke: Invoke) -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    commands = ("serve", "chat", "ps", "load", "unload", "pull", "models", "rm", "doctor", "bench")
    assert [name for name in commands if f" {name} " not in result.stdout] == []


def test_version(invoke: Invoke) -> None:
    assert invoke("--version").stdout == f"{__version__}\n"


@pytest.mark.processes
def test_python_dash_m() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app", "--version"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(serve_module.ROOT)},
    )
    assert done.stdout == f"{__version__}\n"


@pytest.mark.parametrize("command", ["serve", "doctor", "models", "chat", "bench"])
def test_invalid_settings_are_named(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("PORT", "eighty")
    monkeypatch.setenv("MAX_CPU_THREADS", "many")
    result = invoke(command)
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert lines == [
        "Invalid settings:",
        "  PORT=eighty (environment): must be a whole number, at least 0, at most 65535",
        "  MAX_CPU_THREADS=many (environment): must be a whole number or auto",
    ]


def test_an_invalid_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Keyed(Settings):
        api_keys: int = 0  # type: ignore[assignment]

    monkeypatch.setenv("API_KEYS", "sk-secret")
    monkeypatch.setenv("UPSTREAMS", "http://gpu1:9000#key=sk-secret&what=1")
    with pytest.raises(ValueError, match="api_keys") as caught:
        Keyed()
    assert "secret" not in str(caught.value)
    error = caught.value
    assert isinstance(error, ValidationError)
    explained = "".join(explain(error, Keyed.model_fields, read_variables(None).settings))
    assert "UPSTREAMS" in explained
    assert "secret" not in explained


# -- doctor and models ------------------------------------------------------------------------------


def test_doctor_says_what_would_run(invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gguf(tmp_path / "models")
    monkeypatch.setattr(selection, "detect", facts)
    result = invoke("doctor")
    assert result.exit_code == 0
    assert "4.0 GiB available of 8.0 GiB" in result.stdout
    assert "vLLM is not installed" in result.stdout
    assert "mlx-lm is not installed" in result.stdout
    assert "llama_cpp (INFERENCE_ENGINE=auto)" in result.stdout
    assert "tiny (gguf, 2 MB, disk) (DEFAULT_MODEL=auto)" in result.stdout
    assert "6.4 GiB (MAX_MEMORY=auto)" in result.stdout


def test_doctor_chooses_the_engine_for_the_models_format(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hf_folder(tmp_path / "models" / "Tiny")
    monkeypatch.setattr(selection, "detect", facts)
    monkeypatch.setenv("DEFAULT_MODEL", "Tiny")
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "llama.cpp loads GGUF files, and this model is a Hugging Face folder" in result.stdout
    monkeypatch.setattr(selection, "detect", lambda: facts(packages={"llama_cpp": "", "mlx_lm": ""}))
    result = invoke("doctor")
    assert result.exit_code == 0
    assert "mlx (INFERENCE_ENGINE=auto)" in result.stdout


def test_doctor_counts_the_catalog_and_names_what_is_skipped(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gguf(tmp_path / "models")
    (tmp_path / "models" / "split-00001-of-00002.gguf").write_bytes(FILE)
    catalog(tmp_path, "models: [{name: tiny}, {name: far, hub: acme/far}]")
    monkeypatch.setattr(selection, "detect", facts)
    result = invoke("doctor")
    assert "2 models, 1 of them not on disk" in result.stdout
    assert "split-00001-of-00002.gguf: " in result.stdout
    assert "split-00002-of-00002.gguf is missing" in result.stdout
    assert result.stderr == ""


BROKEN = "models:\n  - name: tiny\n    pinn: true\n  - nam: x\n"


def test_doctor_lists_the_catalogs_mistakes(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    catalog(tmp_path, BROKEN)
    monkeypatch.setattr(selection, "detect", facts)
    result = invoke("doctor")
    assert result.exit_code == 0
    assert "models.yaml:3: models[0].pinn: there is no such field; did you mean pin?" in result.stdout
    assert "models.yaml:4: " in result.stdout


def test_doctor_warns_of_idle_gpus_and_settings(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "detect", lambda: facts(cuda=True))
    monkeypatch.setattr("engines.llamacpp.descriptor._can_offload", lambda: False)
    monkeypatch.setenv("MAX_CONCURENT_REQUESTS", "9")
    lines = invoke("doctor").stdout.splitlines()
    assert any(line.startswith("Warning: an NVIDIA GPU is here, but llama.cpp was built") for line in lines)
    assert (
        "Warning: MAX_CONCURENT_REQUESTS (environment) is no setting: did you mean MAX_CONCURRENT_REQUESTS?"
        in lines
    )


def test_doctor_fails_where_nothing_runs(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "detect", lambda: facts(packages={}))
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "llama-cpp-python is not installed: make serve" in result.stdout


def test_doctor_fails_without_the_model(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "detect", facts)
    monkeypatch.setenv("DEFAULT_MODEL", "no-such-model")
    result = invoke("doctor")
    assert result.exit_code == 1
    assert "no-such-model" in result.stdout


def test_models_lists_what_there_is_and_could_be(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = gguf(tmp_path / "models")
    hf_folder(tmp_path / "models" / "Folder")
    catalog(tmp_path, "models: [{name: tiny, aliases: [gpt-4o]}, {name: far, hub: acme/far}]")
    monkeypatch.setattr(selection, "detect", facts)
    rows = {line.split()[0]: line for line in invoke("models").stdout.splitlines()}
    assert rows["tiny"].split()[1:6] == ["gguf", "llama_cpp", "2", "MB", "gpt-4o"]
    assert str(path.relative_to(tmp_path)) in rows["tiny"]
    assert "enginehouse pull far" in rows["far"]
    assert rows["Folder"].split()[1:3] == ["hf", "none"]
    found = {each["name"]: each for each in json.loads(invoke("models", "--json").stdout)}
    assert (found["tiny"]["engine"], found["tiny"]["size"]) == ("llama_cpp", len(FILE) + 2_000_000)
    assert "gpt-4o" in found["tiny"]["aliases"]
    assert (found["far"]["absent"], found["far"]["hub"]) == (True, "acme/far")
    assert "llama.cpp loads GGUF files" in found["Folder"]["reason"]


def test_models_says_how_to_get_one(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engines.models.survey.BUNDLED_PACKAGES", ())
    assert "GGUF" in invoke("models").stdout
    assert json.loads(invoke("models", "--json").stdout) == []


def test_models_points_to_what_was_skipped(invoke: Invoke, tmp_path: Path) -> None:
    gguf(tmp_path / "models", "split-00001-of-00002.gguf")
    result = invoke("models")
    assert "Left out:" in result.stderr
    assert "split-00002-of-00002.gguf is missing" in result.stderr
    assert "split" not in result.stdout


# -- serve ------------------------------------------------------------------------------------------


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What uvicorn would have been run with; a model and an engine exist."""
    calls: dict[str, Any] = {}
    gguf(tmp_path / "models")
    monkeypatch.setattr(selection, "detect", facts)
    for run in ("uvicorn.run", "app.cli.serve.run_server"):
        monkeypatch.setattr(run, lambda app, *more, **options: calls.update(options, app=app, more=more))
    return calls


def test_serve_passes_options_through_the_environment(
    invoke: Invoke, served: dict[str, Any], closed_port: int
) -> None:
    args = ["--mode", "prod", "--host", "127.0.0.1", "--port", str(closed_port), "--model", "tiny"]
    result = invoke("serve", *args)
    assert result.exit_code == 0, result.output
    names = ("HOST", "PORT", "DEFAULT_MODEL", "LOG_FORMAT")
    assert [os.environ[name] for name in names] == ["127.0.0.1", str(closed_port), "tiny", "json"]
    assert served["app"] == "app.main:create_only_app"
    assert served["factory"] is True
    assert (served["host"], served["port"]) == ("127.0.0.1", closed_port)
    assert served["http"].func is EdgeConnection
    assert served["log_config"] is None
    assert served["access_log"] is False
    assert served["timeout_graceful_shutdown"] == 30
    assert "reload" not in served
    assert result.stdout == ""
    assert result.stderr == "", "in JSON, every line of the log is to be one"


def test_serve_without_options_leaves_the_environment(
    invoke: Invoke, served: dict[str, Any], closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", str(closed_port))
    assert invoke("serve").exit_code == 0
    assert "LOG_FORMAT" not in os.environ
    assert "HOST" not in os.environ
    assert served["host"] == "0.0.0.0"


@pytest.mark.processes
def test_serve_dev_reloads_and_logs_for_people(
    invoke: Invoke, served: dict[str, Any], closed_port: int
) -> None:
    assert invoke("serve", "--mode", "dev", "--port", str(closed_port)).exit_code == 0
    assert os.environ["LOG_FORMAT"] == "text"
    assert served["reload"] is True
    assert [Path(folder).name for folder in served["reload_dirs"]] == ["app", "balancer", "engines"]
    assert all(Path(folder).is_dir() for folder in served["reload_dirs"])


def test_serve_port_0_takes_a_free_one_and_says_which(invoke: Invoke, served: dict[str, Any]) -> None:
    invoke("serve", "--port", "0")
    assert served["port"] > 0
    assert os.environ["PORT"] == str(served["port"])


def test_serve_on_a_used_port(invoke: Invoke, served: dict[str, Any]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = invoke("serve", "--host", "127.0.0.1", "--port", str(port))
    assert result.exit_code == 1
    assert f"Port {port} is in use by {psutil.Process().name()}" in result.stderr
    assert f"(process {os.getpid()})" in result.stderr
    assert re.search(r"choose another: .*enginehouse serve --port \d+$", result.stderr)
    assert served == {}


def test_serve_on_an_address_that_is_not_ours(invoke: Invoke, served: dict[str, Any]) -> None:
    result = invoke("serve", "--host", "192.0.2.1")
    assert result.exit_code == 1
    assert "Cannot listen on 192.0.2.1 port 8000: 192.0.2.1 is no address of this machine" in result.stderr
    assert "Use 127.0.0.1" in result.stderr
    assert served == {}


@pytest.mark.parametrize(
    ("host", "port", "error", "told"),
    [
        ("0.0.0.0", 80, PermissionError(errno.EACCES, "Permission denied"), "serve --port 8080"),
        ("no.such", 8000, socket.gaierror(-2, "unknown"), "HOST=no.such is no address, and no name of one"),
        ("fe80::1", 8000, OSError(errno.EINVAL, "Invalid argument"), "port 8000: Invalid argument"),
    ],
)
def test_why_nobody_can_listen_there(host: str, port: int, error: OSError, told: str) -> None:
    assert told in listening.why_not(host, port, error)


@pytest.mark.parametrize("host", ["::", "::1"])
def test_serve_on_addresses_of_ipv6(invoke: Invoke, served: dict[str, Any], host: str) -> None:
    """Their names look like markup; ``::`` takes clients of IPv4 too."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    result = invoke("serve", "--mode", "dev", "--host", host, "--port", "0")
    assert result.exit_code == 0, result.output
    assert served["host"] == host
    with listening.listener(host, 0) as bound:
        bound.listen()
        address = ("127.0.0.1" if host == "::" else host, bound.getsockname()[1])
        socket.create_connection(address, timeout=5).close()


def test_serve_gives_uvicorn_its_own_socket_for_all_addresses(
    invoke: Invoke, served: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = socket.socket()
    monkeypatch.setattr(serve_module, "listener", lambda host, port: own)
    monkeypatch.setattr(serve_module, "check_port", lambda host, port: 8000)
    invoke("serve", "--host", "::")
    assert served["more"] == ([own],)
    invoke("serve", "--host", "0.0.0.0")
    assert served["more"] == (None,)
    own.close()


def test_the_consoles_take_what_they_print_literally() -> None:
    with common.out.capture() as captured:
        common.out.print("[/b] http://[::1]:8000 [link=x]")
    assert captured.get() == "[/b] http://[::1]:8000 [link=x]\n"


def test_serve_an_unknown_model(invoke: Invoke, served: dict[str, Any]) -> None:
    result = invoke("serve", "--model", "no-such-model", "--port", "0")
    assert result.exit_code == 1
    assert "no-such-model" in result.stderr
    assert served == {}


def test_serve_without_engine(
    invoke: Invoke, served: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "detect", lambda: facts(packages={}))
    result = invoke("serve", "--port", "0")
    assert result.exit_code == 1
    assert "llama-cpp-python is not installed: make serve" in result.stderr
    assert served == {}


def test_serve_a_model_that_no_engine_here_can_load(
    invoke: Invoke, served: dict[str, Any], tmp_path: Path
) -> None:
    folder = hf_folder(tmp_path / "elsewhere")
    result = invoke("serve", "--model", str(folder), "--port", "0")
    assert result.exit_code == 1
    assert "No engine can run elsewhere here" in result.stderr
    assert "install mlx-lm or vLLM" in result.stderr
    assert served == {}


def test_serve_a_folder(
    invoke: Invoke, served: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "detect", lambda: facts(packages={"mlx_lm": ""}))
    folder = hf_folder(tmp_path / "elsewhere")
    result = invoke("serve", "--mode", "dev", "--model", str(folder), "--port", "0")
    assert result.exit_code == 0, result.output
    assert "starts with elsewhere" in result.stderr


def test_serve_a_model_that_is_not_on_disk(invoke: Invoke, served: dict[str, Any], tmp_path: Path) -> None:
    catalog(tmp_path, "models: [{name: far, hub: acme/far}]")
    result = invoke("serve", "--model", "far", "--port", "0")
    assert result.exit_code == 1
    assert "enginehouse pull far" in result.stderr
    assert served == {}


def test_serve_with_a_broken_catalog(invoke: Invoke, served: dict[str, Any], tmp_path: Path) -> None:
    """One mistake keeps no server from starting; it is told."""
    catalog(tmp_path, BROKEN)
    result = invoke("serve", "--port", "0")
    assert result.exit_code == 0, result.output
    for line in ("models.yaml:3: ", "models.yaml:4: "):
        assert line in result.stderr
    assert served != {}


# -- chat -------------------------------------------------------------------------------------------


def test_chat_answers_each_line_and_keeps_the_history(invoke: Invoke, stub: Stub) -> None:
    args = ["--url", stub.url, "--system", "Be brief.", "--max-tokens", "9"]
    result = invoke("chat", *args, stdin="one\n\n  two  \n")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{ANSWER}\n{ANSWER}\n"
    first, second = stub.requests
    assert first["model"] == "stub-model"
    assert first["max_tokens"] == 9
    assert first["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
    ]
    assert second["messages"][1:] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": ANSWER},
        {"role": "user", "content": "two"},
    ]


def test_chat_sends_the_key(invoke: Invoke, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", "own-key")
    invoke("chat", "--url", f"{stub.url}/v1", stdin="hi\n")
    invoke("chat", "--url", stub.url, "--api-key", "given", stdin="hi\n")
    assert [each["authorization"] for each in stub.headers] == ["Bearer own-key"] * 2 + ["Bearer given"] * 2


def test_our_key_stays_on_this_machine() -> None:
    settings = Settings(api_keys=frozenset({"own-key"}), admin_api_keys=frozenset({"admin-key"}))
    assert common.default_key(settings, "http://localhost:9999") == "own-key"
    assert common.default_key(settings, "http://localhost:9999", manages=True) == "admin-key"
    assert common.default_key(settings, "https://api.example.com", manages=True) is None
    assert common.default_key(settings, "https://api.example.com") is None


def test_chat_without_server(invoke: Invoke, closed_port: int) -> None:
    result = invoke("chat", "--url", f"http://127.0.0.1:{closed_port}", stdin="hi\n")
    assert result.exit_code == 1
    assert "start one with" in result.stderr


@pytest.mark.parametrize(
    ("mode", "message"),
    [("refuse", "come back later (HTTP 503)"), ("error", "the engine tripped"), ("cut", "was cut off")],
)
def test_chat_reports_the_servers_errors(invoke: Invoke, stub: Stub, mode: str, message: str) -> None:
    stub.mode = mode
    result = invoke("chat", "--url", stub.url, stdin="hi\n")
    assert result.exit_code == 1
    assert message in result.stderr


def status(state: str, **more: Any) -> tuple[int, dict[str, Any]]:
    return 200, {"id": "m", "state": state, "loading": None, "download": None, "requests": 0, **more}


def test_chat_waits_for_its_model_and_shows_how_far_it_is(
    invoke: Invoke, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "CHAT_POLL_SECONDS", 0.01)
    monkeypatch.setattr(chat_module, "RETRY_SECONDS", 0.1)
    loading = {"phase": "converting", "progress": 0.4, "eta_seconds": 65.0}
    stub.answers["GET /v1/models/org/m/status"] = status("loading", loading=loading)
    stub.mode = "loading"
    result = invoke("chat", "--url", stub.url, "--model", "org/m", stdin="hi\n")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{ANSWER}\n"
    assert result.stderr == "converting m 40% 1 min 05 s left\n"
    assert [request["model"] for request in stub.requests] == ["org/m"] * 2


def test_chat_does_not_wait_for_a_model_that_failed(invoke: Invoke, stub: Stub) -> None:
    stub.answers["GET /v1/models/m/status"] = status("failed")
    stub.mode = "refuse"
    result = invoke("chat", "--url", stub.url, "--model", "m", stdin="hi\n")
    assert result.exit_code == 1
    assert len(stub.requests) == 1


def test_chat_takes_a_model_that_is_loaded(invoke: Invoke, stub: Stub) -> None:
    listed = [{"id": "cold", "state": "stopped"}, {"id": "warm", "state": "ready"}]
    stub.answers["GET /v1/models"] = 200, {"data": listed}
    invoke("chat", "--url", stub.url, stdin="hi\n")
    assert stub.requests[0]["model"] == "warm"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make standard input a terminal at which someone types; an exception stands for a key like Ctrl-C."""

    def types(*inputs: str | type[BaseException]) -> None:
        waiting = iter(inputs)

        def read(prompt: str = "") -> str:
            item = next(waiting)
            if isinstance(item, str):
                return item
            raise item

        monkeypatch.setattr("builtins.input", read)
        monkeypatch.setattr(chat_module, "_is_interactive", lambda: True)

    return types


def test_repl_commands(invoke: Invoke, stub: Stub, terminal: Callable[..., None]) -> None:
    terminal("one", "/reset", "/system Rhyme.", "two", "/nonsense", KeyboardInterrupt, "/exit", "never")
    result = invoke("chat", "--url", stub.url)
    assert result.exit_code == 0, result.output
    assert [request["messages"] for request in stub.requests] == [
        [{"role": "user", "content": "one"}],
        [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "two"}],
    ]
    assert result.stderr.count("/reset forgets") == 2


def test_ctrl_c_twice_at_the_prompt_leaves(invoke: Invoke, stub: Stub, terminal: Callable[..., None]) -> None:
    terminal(KeyboardInterrupt, "one", KeyboardInterrupt, KeyboardInterrupt, "never")
    result = invoke("chat", "--url", stub.url)
    assert result.exit_code == 0, result.output
    assert len(stub.requests) == 1
    assert "Ctrl-C again, Ctrl-D or /exit leaves." in result.stderr


def test_repl_survives_errors_and_forgets_the_question(
    invoke: Invoke, stub: Stub, terminal: Callable[..., None]
) -> None:
    stub.mode = "refuse"
    terminal("one", "two", EOFError)
    result = invoke("chat", "--url", stub.url)
    assert result.exit_code == 0
    assert result.stderr.count("come back later") == 2
    assert stub.requests[1]["messages"] == [{"role": "user", "content": "two"}]


def test_ctrl_c_stops_the_answer_only(
    invoke: Invoke, stub: Stub, terminal: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = client.stream_chat
    closed: list[bool] = []

    def interrupted(http: httpx.Client, request: dict[str, Any]) -> Iterator[str]:
        pieces = whole(http, request)
        try:
            yield next(pieces)
            raise KeyboardInterrupt
        finally:
            closed.append(True)

    monkeypatch.setattr(client, "stream_chat", interrupted)
    terminal("one", "two", "/exit")
    result = invoke("chat", "--url", stub.url)
    assert result.exit_code == 0
    assert result.stdout == f"{WORDS[0]}\n" * 2
    assert len(closed) == 2
    assert stub.requests[1]["messages"][1] == {"role": "assistant", "content": WORDS[0]}


# -- client -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_put_together_again(size: int) -> None:
    text = "data: wörld\r\n\ndata: 2\nrest".encode()
    splitter = answer_bytes.LineSplitter()
    lines = [line for at in range(0, len(text), size) for line in splitter.feed(text[at : at + size])]
    assert lines == ["data: wörld".encode(), b"", b"data: 2"]
    assert splitter.feed(b"!\n") == [b"rest!"]


@pytest.mark.parametrize(
    ("line", "data"),
    [(b"data: x", b"x"), (b"data:x", b"x"), (b"data:  x", b" x"), (b": note", None), (b"event: error", None)],
)
def test_event_data(line: bytes, data: bytes | None) -> None:
    assert answer_bytes.event_data(line) == data


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b'{"error": {"message": "no"}}', 404, "no (HTTP 404)"),
        (b'{"error": {"message": "no"}}', None, "no"),
        (b"Bad Gateway", 502, "Bad Gateway (HTTP 502)"),
        (b"[1]", 500, "[1] (HTTP 500)"),
        (b"", 500, "The server gave no reason (HTTP 500)"),
    ],
)
def test_error_messages(body: bytes, status: int | None, message: str) -> None:
    assert answer_bytes.error_message(body, status) == message


# -- bench ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, None),
        ([3.0], 99, 3.0),
        ([1.0, 2.0, 3.0], 50, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.5),
        ([float(n) for n in range(101)], 99, 99.0),
        ([0.0, 10.0], 99, 9.9),
        ([1.0, 2.0], 0, 1.0),
        ([1.0, 2.0], 100, 2.0),
    ],
)
def test_percentile(values: list[float], percent: float, expected: float | None) -> None:
    assert load.percentile(values, percent) == (expected if expected is None else pytest.approx(expected))


def test_summary_counts_only_what_succeeded() -> None:
    good = StreamedAnswer(5.0, 5.5, [5.1, 5.2, 5.5], prompt_tokens=10, completion_tokens=3)
    slow = StreamedAnswer(6.0, 7.5, [6.3, 6.5], prompt_tokens=20, completion_tokens=2)
    bad = StreamedAnswer(0.0, 9.0, [9.0, 18.0], completion_tokens=99, error="broke")
    report = load.summarise([good, bad, slow], 2.0, server_cpu=0.01)
    assert (report.requests, report.errors, report.first_error) == (3, 1, "broke")
    assert (report.prompt_tokens, report.completion_tokens) == (30, 5)
    assert (report.tokens_per_second, report.requests_per_second) == (2.5, 1.0)
    assert report.ttft.p50 == pytest.approx(0.2)
    assert report.inter_token.p50 == pytest.approx(0.2)
    assert report.end_to_end.p50 == pytest.approx(1.0)
    assert report.cpu_ms_per_request == pytest.approx(5.0)
    assert report.cpu_us_per_token == pytest.approx(2000.0)


def test_summary_of_nothing() -> None:
    report = load.summarise([StreamedAnswer(error="x")], 1.0, server_cpu=1.0)
    assert report.ttft == load.Spread(None, None)
    assert report.cpu_ms_per_request is None


def prompts(plan: load.LoadPlan, count: int) -> list[list[dict[str, str]]]:
    source = load.bodies(plan)
    return [json.loads(next(source))["messages"] for _ in range(count)]


def test_prompts_differ_from_their_first_word_on() -> None:
    plan = load.LoadPlan("http://x", "m", seed=1)
    texts = [messages[0]["content"] for messages in prompts(plan, 200)]
    assert len({text.split()[0] for text in texts}) == 200
    assert prompts(plan, 3) == prompts(plan, 3)
    assert prompts(load.LoadPlan("http://x", "m"), 1) != prompts(load.LoadPlan("http://x", "m"), 1)


def test_a_shared_prefix_is_shared_within_the_run_only() -> None:
    first = prompts(load.LoadPlan("http://x", "m", shared_prefix=50, seed=1), 20)
    second = prompts(load.LoadPlan("http://x", "m", shared_prefix=50, seed=2), 1)
    assert len({messages[0]["content"] for messages in first}) == 1
    assert len({messages[1]["content"] for messages in first}) == 20
    assert len(first[0][0]["content"].split()) >= 50
    assert first[0][0] != second[0][0]


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"choices":[{"delta":{"content":"a"}}]}', True),
        (b'{"choices": [{"delta": {"content": "a"}}]}', True),
        (b'{"choices":[{"delta":{"content":"\\"content\\":\\"\\""}}]}', True),
        (b'{"choices":[{"delta":{"role":"assistant","content":""}}]}', False),
        (b'{"choices": [{"delta": {"content": null}}]}', False),
        (b'{"choices":[{"delta":{},"finish_reason":"stop"}]}', False),
    ],
)
def test_events_with_text(payload: bytes, expected: bool) -> None:
    assert stream.has_text(payload) is expected


def test_bench_measures(invoke: Invoke, stub: Stub) -> None:
    stub.pause = 0.02
    args = ["--url", stub.url, "--connections", "3", "--requests", "6", "--max-tokens", "5", "--ignore-eos"]
    result = invoke("bench", *args, "--pid", str(os.getpid()), "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["requests"], report["errors"]) == (6, 0)
    assert (report["prompt_tokens"], report["completion_tokens"]) == (42, 30)
    # Role and comment come before the first word, each after a pause.
    assert report["ttft"]["p50"] >= 0.06
    assert 0.015 < report["inter_token"]["p50"] < 0.06
    assert report["end_to_end"]["p50"] > report["ttft"]["p50"] + 0.06
    assert report["cpu_ms_per_request"] > 0
    assert len(stub.requests) == 7  # one to warm up
    assert stub.requests[-1]["ignore_eos"] is True
    assert len({json.dumps(request["messages"]) for request in stub.requests}) == 7


def test_bench_keeps_the_connections_busy(invoke: Invoke, stub: Stub) -> None:
    """Six requests of 0.2 s over three connections take two rounds, not six."""
    stub.pause = 0.02
    args = ["--url", stub.url, "--connections", "3", "--requests", "6", "--warmup", "0", "--json"]
    report = json.loads(invoke("bench", *args).stdout)
    assert report["seconds"] < 4 * report["end_to_end"]["p50"]


def test_bench_table(invoke: Invoke, stub: Stub) -> None:
    result = invoke("bench", "--url", stub.url, "--requests", "2", "--warmup", "0")
    assert result.exit_code == 0
    for text in (
        "stub-model",
        "Time to first token",
        "Between tokens",
        "End to end",
        "Tokens/s",
        "14 in, 10 out",
    ):
        assert text in result.stdout
    assert "Server CPU" not in result.stdout


@pytest.mark.parametrize(
    ("mode", "message"),
    [("refuse", "come back later (HTTP 503)"), ("error", "the engine tripped"), ("cut", "without [DONE]")],
)
def test_bench_counts_errors(invoke: Invoke, stub: Stub, mode: str, message: str) -> None:
    stub.mode = mode
    result = invoke("bench", "--url", stub.url, "--requests", "3", "--warmup", "0", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["errors"] == 3
    assert report["completion_tokens"] == 0
    assert message in report["first_error"]
    assert message in result.stderr


def test_bench_without_server(invoke: Invoke, closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}"
    result = invoke("bench", "--url", url)
    assert result.exit_code == 1
    assert "start one with" in result.stderr
    result = invoke("bench", "--url", url, "--model", "m", "--requests", "2", "--warmup", "0", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["errors"] == 2


def test_bench_of_a_process_that_is_gone(invoke: Invoke, stub: Stub) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    result = invoke("bench", "--url", stub.url, "--requests", "1", "--warmup", "0", "--pid", str(gone.pid))
    assert result.exit_code == 1
    assert f"no process {gone.pid}" in result.stderr
