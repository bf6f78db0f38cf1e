"""A cluster's status, as a table."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import httpx
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app.cli import client
from app.cli.common import out
from app.cli.text import duration_text, size_text

STATUS_PATH = "/v1/cluster/status"
REFRESH_SECONDS = 1.0
# Decisions of the autoscaler that are shown.
DECISIONS = 3

Report = Mapping[str, Any]

_INSTANCES = (
    "INSTANCE", "MODEL", "KIND", "STATE", "IN FLIGHT", "REQUESTS", "SUCCESS", "TTFT", "CPU", "MEMORY",
)  # fmt: skip
_UPSTREAMS = ("UPSTREAM", "URL", "MODELS", "STATE", "IN FLIGHT", "REQUESTS", "SUCCESS", "TTFT")


def show(http: httpx.Client, *, as_json: bool) -> None:
    """Raises `ServerError`."""
    report = _ask(http)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        out.print(_view(report))


def keep_watch(http: httpx.Client) -> None:
    """Until Ctrl-C. Raises `ServerError`."""
    try:
        with Live(_view(_ask(http)), console=out, auto_refresh=False, screen=out.is_terminal) as live:
            while True:
                time.sleep(REFRESH_SECONDS)
                live.update(_view(_ask(http)), refresh=True)
    except KeyboardInterrupt:
        return


def _ask(http: httpx.Client) -> Report:
    report: Report = client.answer(http.get(STATUS_PATH))
    return report


def _view(report: Report) -> Group:
    instances, upstreams = report["instances"], report["upstreams"]
    parts: list[RenderableType] = [Text(line) for line in _summary(report)]
    if instances:
        parts += ["", _table(_INSTANCES, (_instance(*each) for each in instances.items()))]
    if upstreams:
        parts += ["", _table(_UPSTREAMS, (_upstream(*each) for each in upstreams.items()))]
    troubles = [(name, each) for name, each in (*instances.items(), *upstreams.items()) if each["detail"]]
    parts += [Text(f"{name}: {each['detail']}", "red") for name, each in troubles]
    return Group(*parts)


def _summary(report: Report) -> Iterator[str]:
    scaling, failovers = report["auto_scaling"], report["failovers"]
    yield (
        f"{report['running_instances']} of {report['total_instances']} instances run, "
        f"balanced by {report['load_balancer_strategy']}, {report['queue_depth']} calls wait"
    )
    if scaling["enabled"]:
        limits = f"{scaling['min_instances']} to {scaling['max_instances']} instances"
        yield f"Auto-scaling: {limits}, {scaling['target']} calls each"
        yield from map(_decision, scaling["decisions"][:DECISIONS])
    if any(failovers.values()):
        yield "Calls " + ", ".join(f"{name}: {count}" for name, count in failovers.items())


def _decision(decision: Report) -> str:
    ago = duration_text(decision["seconds_ago"])
    return f"  {ago} ago: {decision['model']} to {decision['instances']}, as {decision['reason']}"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        wraps = heading in ("MODEL", "MODELS", "URL", "STATE")
        table.add_column(heading, no_wrap=not wraps, overflow="fold")
    for row in rows:
        # Text, because a model's name may look like markup.
        table.add_row(*map(Text, row))
    return table


def _instance(name: str, report: Report) -> tuple[str, ...]:
    kind = report["kind"] if report["port"] is None else f"{report['kind']} :{report['port']}"
    cpu, memory = report["cpu_percent"], report["memory_mb"]
    return (
        name,
        report["model"],
        kind,
        *_fares(report),
        "-" if cpu is None else f"{cpu:.0f} %",
        size_text(memory * 2**20) if memory else "-",
    )


def _upstream(name: str, report: Report) -> tuple[str, ...]:
    models = report["models"]
    shown = ", ".join(models[:3]) + (f" and {len(models) - 3} more" if len(models) > 3 else "")
    return (name, report["url"], shown or "-", *_fares(report))


def _fares(report: Report) -> tuple[str, ...]:
    rate, ttft = report["success_rate"], report["ttft_ewma"]
    return (
        _state(report),
        str(report["inflight"]),
        str(report["requests"]),
        "-" if rate is None else f"{rate:.1%}",
        "-" if ttft is None else f"{ttft * 1e3:,.0f} ms",
    )


def _state(report: Report) -> str:
    state: str = report["state"]
    if state == "starting" and report.get("progress"):
        return f"{state} {report['progress']:.0%}"
    return state if report["breaker"] == "closed" else f"{state}, breaker {report['breaker']}"
