"""``python -m benchmarks.run``: measure, print a table, and if asked write it into README.md."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cases.scenarios import SCENARIOS, missing
from benchmarks.harness import results
from benchmarks.harness.measure import measure
from benchmarks.harness.processes import BenchError, say
from benchmarks.harness.report import with_results
from benchmarks.harness.results import Result
from benchmarks.harness.servers import Bench

README = Path(__file__).with_name("README.md")


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    if args.quick and args.write:
        parser.error("--quick sizes are no results to --write")
    # Ended from outside, the servers must end too: let the context managers run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        found = _saved(args.from_saved) if args.from_saved else _measured(args)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    text = results.markdown(found)
    print(text)
    if args.write:
        README.write_text(with_results(README.read_text(encoding="utf-8"), text), encoding="utf-8")
        say(f"written to {README.name}")
    return 1 if any(run.error for result in found for run in result.measurements) else 0


def _measured(args: argparse.Namespace) -> list[Result]:
    bench = _bench(args)
    return [measure(bench, name, SCENARIOS[name](bench), args.repeat) for name in _wanted(args.only)]


def _wanted(only: Sequence[str] | None) -> list[str]:
    """Raises `BenchError` for a scenario that was asked for and cannot be measured here."""
    wanted = []
    for name in SCENARIOS if only is None else only:
        if (module := missing(name)) is None:
            wanted.append(name)
        elif only is None:
            say(f"{name}: left out, as {module} is not installed")
        else:
            raise BenchError(f"{name} needs {module}, which is not installed")
    return wanted


def _saved(folder: Path) -> list[Result]:
    """What earlier runs left in ``folder``."""
    paths = [folder / f"{name}.json" for name in SCENARIOS]
    found = [results.load(path) for path in paths if path.exists()]
    if not found:
        raise BenchError(f"there are no results in {folder}")
    return found


def _bench(args: argparse.Namespace) -> Bench:
    return Bench(
        model=args.model.resolve() if args.model else None,
        folder=args.folder.resolve() if args.folder else None,
        out=args.out.resolve() if args.out else Path(tempfile.mkdtemp(prefix="enginehouse-bench-")),
        peer=args.peer.resolve() if args.peer else None,
        peer_threads=args.peer_threads,
        peer_args=tuple(shlex.split(args.peer_args)),
        environments=args.environments.resolve() if args.environments else None,
        load_tool=tuple(shlex.split(args.load_tool)),
        env=dict(args.env),
        ignore_eos=args.ignore_eos,
        quick=args.quick,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    add = parser.add_argument
    add("--only", type=_names, help=f"scenarios, by comma: {', '.join(SCENARIOS)}")
    add("--model", type=_file, help="GGUF file; default: the bundled model requantised to Q4_0")
    add("--folder", type=_folder, help="for MLX and vLLM; default: made of the bundled model, in bfloat16")
    add("--peer", type=_file, help="llama-server to compare with")
    add("--peer-threads", type=_counts, default=(1, 2), help="threads the peer is tried with (1,2)")
    add("--peer-args", default="", help="more options for the peer")
    add("--environments", type=Path, help="folder for vllm-router and LiteLLM; default: in this environment")
    add("--load-tool", default="", help="command of another load generator; see README.md")
    add("--env", type=_assignment, action="append", default=[], help="NAME=VALUE for our server")
    add("--ignore-eos", action=argparse.BooleanOptionalAction, default=True, help="answers of equal length")
    add("--repeat", type=int, default=1, help="measure so often and take medians")
    add("--quick", action="store_true", help="tiny sizes, to see that everything works")
    add("--out", type=Path, help="folder for raw results and logs; default: a new temporary one")
    add("--from-saved", type=Path, help="measure nothing: report what a former run saved with --out")
    add("--write", action="store_true", help="write the table into benchmarks/README.md")
    return parser


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(SCENARIOS):
        raise argparse.ArgumentTypeError(f"no such scenario: {', '.join(sorted(unknown))}")
    return names


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _file(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return path


def _folder(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return path


def _assignment(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError("it must be NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
