"""``python -m benchmarks.chaos``: do to a cluster under load what goes wrong in the field.

Instances are killed, stopped, restarted and scaled under greedy streams; the server is told to end, and
killed; clients do not read, or leave. Every stream must come to its proper end, and differ from that of a
quiet run only where the model found two tokens nearly as likely. Exit status 1 if anything is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.chaos import clients, endings, faults
from benchmarks.chaos.cluster import INSTANCES, Operator, cluster
from benchmarks.chaos.faults import Course, Scene
from benchmarks.chaos.streams import StreamLoad, Transcript, questions
from benchmarks.chaos.ties import Judge
from benchmarks.chaos.upstream import EndlessUpstream
from benchmarks.chaos.verdict import breaches, compare
from benchmarks.harness.processes import BenchError
from benchmarks.harness.servers import Bench, Need, subject

FAULTS: dict[str, Callable[[Scene], Awaitable[Course]]] = {
    "kill": faults.kill,
    "stop": faults.stop,
    "roll": faults.roll,
}
PHASES = (*FAULTS, "terminate", "orphan", "clients")


@dataclass(frozen=True, slots=True)
class ChaosPlan:
    """``inflight`` streams at a time of ``asked`` different ones, of ``shortest`` to ``longest`` tokens;
    instances are killed for ``seconds``."""

    inflight: int = 64
    asked: int = 96
    shortest: int = 40
    longest: int = 200
    seconds: float = 60.0


@dataclass(slots=True)
class ChaosReport:
    """Figures by phase, and what was missed, in words."""

    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    misses: list[str] = field(default_factory=list)

    def add(self, phase: str, figures: Mapping[str, Any], misses: Sequence[str]) -> None:
        self.figures[phase] = dict(figures)
        self.misses += [f"{phase}: {miss}" for miss in misses]
        print(f"{phase}: {json.dumps(dict(figures), default=str)}", *misses, sep="\n  ", flush=True)


async def disturb(bench: Bench, phases: Sequence[str], plan: ChaosPlan, report: ChaosReport) -> None:
    """Streams over instances that come and go, after two quiet runs. Raises `BenchError`."""
    runs: dict[str, list[Transcript]] = {}
    with cluster(bench, {}) as (server, log):
        load = StreamLoad(server.url, "quiet")
        async with Operator.of(server, log) as operator:
            await operator.until_ready(INSTANCES)
            asked = questions(server.model(), plan.asked, shortest=plan.shortest, longest=plan.longest)
            quiet = {each.question.number: each for each in await load.once(asked, plan.inflight)}
            runs["quiet"] = await load.once(asked, plan.inflight)
            report.misses += breaches(list(quiet.values()), {})
            courses: dict[str, Course] = {}
            for phase in phases:
                load = StreamLoad(server.url, phase)
                scene = Scene(operator, load, asked, plan.inflight, plan.seconds)
                courses[phase] = await FAULTS[phase](scene)
                runs[phase] = load.answers
            failovers, seams = await operator.failovers(), operator.seams()
    async with Judge.of(bench.gguf) as judge:
        for phase, answers in runs.items():
            course = courses.get(phase, Course())
            compared = await compare(answers, quiet, seams, judge)
            misses = [*course.misses, *breaches(answers, quiet), *compared.misses]
            report.add(phase, {**faults.figures(course), **compared.figures()}, misses)
    report.add("failovers", failovers, [])


async def end(bench: Bench, phase: str, plan: ChaosPlan, report: ChaosReport) -> None:
    """The end of a server under load. Raises `BenchError`."""
    with cluster(bench, {"SHUTDOWN_GRACE": f"{endings.GRACE:g}"}) as (server, _):
        async with Operator.of(server) as operator:
            await operator.until_ready(INSTANCES)
            longest = (plan.shortest + plan.longest) // 2
            asked = questions(server.model(), plan.inflight, shortest=plan.shortest, longest=longest)
            load = StreamLoad(server.url, phase)
            scene = Scene(operator, load, asked, plan.inflight, plan.seconds)
            if phase == "terminate":
                figures, misses, answers = await endings.terminate(scene)
                misses += breaches(answers, {})
            else:
                figures, misses = await endings.orphan(scene)
    report.add(phase, figures, misses)


async def bad_clients(bench: Bench, report: ChaosReport) -> None:
    """Clients that do not read, or leave. Raises `BenchError`."""
    async with EndlessUpstream.listening() as (upstream, url):
        # In a thread, for the upstream must answer while the server starts.
        starting = subject(bench, Need(env=clients.settings(url)))
        server = await asyncio.to_thread(starting.__enter__)
        try:
            load = StreamLoad(server.url, "clients")
            report.add("slow readers", *await clients.slow(server, upstream, load))
            async with Operator.of(server) as operator:
                report.add("leaving", *await clients.leave(server, upstream, operator))
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)


async def run(bench: Bench, phases: Sequence[str], plan: ChaosPlan) -> ChaosReport:
    """All of ``phases``. A phase that cannot go on is a miss."""
    report = ChaosReport()
    disturbances = [phase for phase in phases if phase in FAULTS]
    work: list[Callable[[], Awaitable[None]]] = []
    if disturbances:
        work.append(lambda: disturb(bench, disturbances, plan, report))
    if "terminate" in phases:
        work.append(lambda: end(bench, "terminate", plan, report))
    if "orphan" in phases:
        work.append(lambda: end(bench, "orphan", plan, report))
    if "clients" in phases:
        work.append(lambda: bad_clients(bench, report))
    for each in work:
        try:
            await each()
        except (BenchError, httpx.HTTPError) as error:
            report.misses.append(f"{type(error).__name__}: {error}")
    return report


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers must end too
    out = args.out.resolve() if args.out else Path(tempfile.mkdtemp(prefix="enginehouse-chaos-"))
    bench = Bench(out=out, model=args.model)
    plan = ChaosPlan(args.streams, args.questions, args.shortest, args.longest, args.seconds)
    report = asyncio.run(run(bench, args.only, plan))
    result = {"plan": vars(args), "figures": report.figures, "misses": report.misses}
    (out / "chaos.json").write_text(json.dumps(result, indent=2, default=str))
    print("\n".join(report.misses) or "nothing was missed", f"figures and logs: {out}", sep="\n")
    return 1 if report.misses else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    add, plan = parser.add_argument, ChaosPlan()
    add("--only", type=_phases, default=list(PHASES), help=f"by comma, of {', '.join(PHASES)}")
    add("--streams", type=int, default=plan.inflight, help="in flight at once")
    add("--questions", type=int, default=plan.asked, help="different ones, asked in turn")
    add("--shortest", type=int, default=plan.shortest, help="max_tokens of the shortest answers")
    add("--longest", type=int, default=plan.longest, help="max_tokens of the longest answers")
    add("--seconds", type=float, default=plan.seconds, help="for which instances are killed")
    add("--model", type=Path, help="GGUF file; default: the bundled model requantised to Q4_0")
    add("--out", type=Path, help="folder for figures and logs; default: a new temporary one")
    return parser


def _phases(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(PHASES):
        raise argparse.ArgumentTypeError(f"no such phase: {', '.join(sorted(unknown))}")
    return names
