"""``enginehouse bench``: put load on a running server and measure it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Annotated

import psutil
import typer
from rich.progress import Progress
from rich.table import Table

from app.cli import client, load
from app.cli.common import Json, err, fail, load_settings, out
from app.cli.load import LoadPlan, LoadReport, Spread
from app.cli.server import ServerAddress, errors_told, find_server


def bench(
    url: Annotated[str | None, typer.Option(help="Any OpenAI-compatible server. Default: this one.")] = None,
    model: Annotated[str | None, typer.Option(help="Default: the first the server lists.")] = None,
    connections: Annotated[int, typer.Option(min=1, help="Requests in flight at once.")] = 8,
    requests: Annotated[int, typer.Option(min=1, help="Requests in all.")] = 64,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 64,
    prompt_words: Annotated[int, typer.Option(min=1, help="Words of each question.")] = 32,
    shared_prefix: Annotated[int, typer.Option(min=0, help="Words all prompts start with.")] = 0,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Always generate max-tokens.")] = False,
    warmup: Annotated[int, typer.Option(min=0, help="Requests first that are not counted.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Repeat the same prompts.")] = None,
    api_key: Annotated[str | None, typer.Option(help="Default: one of API_KEYS, for this machine.")] = None,
    pid: Annotated[int | None, typer.Option(help="The server's process: report its CPU time.")] = None,
    as_json: Json = False,
) -> None:
    """Stream chat completions over several connections and report rates and latencies.

    All prompts are different. The exit status is 1 if any request failed.
    """
    server = find_server(load_settings(), url, api_key)
    plan = LoadPlan(
        url=server.url,
        model=model or _first_model(server),
        connections=connections,
        requests=requests,
        max_tokens=max_tokens,
        prompt_words=prompt_words,
        shared_prefix=shared_prefix,
        ignore_eos=ignore_eos,
        api_key=server.key,
        seed=seed,
    )
    try:
        report = _run(plan, warmup, pid)
    except psutil.NoSuchProcess:
        raise fail(f"There is no process {pid}.") from None
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(report), indent=2))
    else:
        out.print(_table(plan, report))
    if report.errors:
        err.print(f"First error: {report.first_error}", style="red", markup=False)
        raise typer.Exit(1)


def _first_model(server: ServerAddress) -> str:
    with errors_told(server), server.client() as http:
        return client.first_model(http)


def _run(plan: LoadPlan, warmup: int, pid: int | None) -> LoadReport:
    with asyncio.Runner(loop_factory=load.event_loop_factory()) as runner, Progress(console=err) as progress:
        if warmup:
            # Another seed: the warm-up must not put the measured prompts into a prefix cache.
            other = None if plan.seed is None else plan.seed + 1
            runner.run(load.run(dataclasses.replace(plan, requests=warmup, seed=other)))
        task = progress.add_task("requests", total=plan.requests)
        return runner.run(load.run(plan, pid, lambda: progress.advance(task)))


def _table(plan: LoadPlan, report: LoadReport) -> Table:
    title = f"{plan.model} at {plan.url}, {plan.connections} connections"
    table = Table("", "p50", "p99", box=None, pad_edge=False, title=title, title_justify="left")
    table.add_row("Time to first token", *_milliseconds(report.ttft))
    table.add_row("Between tokens", *_milliseconds(report.inter_token))
    table.add_row("End to end", *_milliseconds(report.end_to_end))
    table.add_section()
    for label, value in _totals(report):
        table.add_row(label, value)
    return table


def _milliseconds(values: Spread) -> tuple[str, str]:
    p50, p99 = ("-" if value is None else f"{value * 1e3:,.1f} ms" for value in (values.p50, values.p99))
    return p50, p99


def _totals(report: LoadReport) -> list[tuple[str, str]]:
    rows = [
        ("Tokens/s generated", f"{report.tokens_per_second:,.1f}"),
        ("Requests/s", f"{report.requests_per_second:,.2f}"),
        ("Requests", f"{report.requests} in {report.seconds:.1f} s"),
        ("Errors", str(report.errors)),
        ("Tokens", f"{report.prompt_tokens:,} in, {report.completion_tokens:,} out"),
        ("Client's own CPU", f"{report.client_cpu:.0%} of a core"),
    ]
    if report.cpu_ms_per_request is not None:
        rows.append(("Server CPU a request", f"{report.cpu_ms_per_request:,.2f} ms"))
    if report.cpu_us_per_token is not None:
        rows.append(("Server CPU a token", f"{report.cpu_us_per_token:,.1f} µs"))
    return rows
