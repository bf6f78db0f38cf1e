"""Running a scenario: each case on each of its servers, failures noted and not raised."""

from __future__ import annotations

import datetime
import subprocess
import time
from collections.abc import Sequence

import httpx

from benchmarks.harness import machine, results
from benchmarks.harness.case import Case, Run
from benchmarks.harness.processes import BenchError, NotInstalled, say
from benchmarks.harness.report import Measurement
from benchmarks.harness.results import Result
from benchmarks.harness.servers import Bench


def measure(bench: Bench, scenario: str, cases: Sequence[Case], repeat: int) -> Result:
    """Run the ``cases`` of ``scenario`` ``repeat`` times, servers side by side; saved as far as it is."""
    runs: list[Measurement] = []
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    facts = machine.describe(bench, scenario)
    result = Result(scenario, date, facts, [(case.name, case.metrics) for case in cases], runs)
    for number in range(repeat):
        for case in cases:
            say(f"{case.name}" + (f" ({number + 1} of {repeat})" if repeat > 1 else ""))
            for server, run in case.runs.items():
                if (done := attempt(case, server, run)) is not None:
                    runs.append(done)
                    results.save(result, bench.out)
    return result


def attempt(case: Case, server: str, run: Run) -> Measurement | None:
    """One run of ``case`` on ``server``; None for a peer that cannot be had here."""
    started = time.monotonic()
    try:
        values = run()
    except NotInstalled as error:
        say(f"  {server}: left out: {error}")
        return None
    except (BenchError, httpx.HTTPError, subprocess.SubprocessError) as error:
        say(f"  {server}: failed: {error}")
        return Measurement(case.name, server, error=str(error))
    keys = dict.fromkeys(metric.key for metric in case.metrics if metric.key in values)
    shown = "  ".join(f"{key}={values[key]:.4g}" for key in keys)
    failed = f"  errors={values['errors']:.0f}" if values.get("errors") else ""
    say(f"  {server}: {shown}{failed}  ({time.monotonic() - started:.0f} s)")
    return Measurement(case.name, server, values)
