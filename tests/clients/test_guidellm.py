"""GuideLLM, a load generator: it asks for figures that only complete answers can give."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clients.server import API_KEY, BASE_URL

pytest.importorskip(
    "torch", reason="GuideLLM reads data with PyTorch, and the project's environment has none"
)

# data.jsonl has a line like {"prompt": "What is the capital of France?"} for each request.
COMMAND = """\
# docs: begin
guidellm run \
  --backend kind=openai_http,target=SERVER_URL,model=SmolLM2-135M-Instruct,api_key=API_KEY,max_tokens=64 \
  --data kind=json_file,path=data.jsonl \
  --profile kind=concurrent,streams=2 --constraint kind=max_requests,count=4 \
  --output kind=json,path=benchmark.json
# docs: end
"""
OUTPUT, INPUT = "benchmark.json", "data.jsonl"


def run(changes: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command with ``changes`` to its text, in the current folder."""
    lines = [json.dumps({"prompt": f"What is the capital of {name}?"}) for name in ("France", "Spain")]
    Path(INPUT).write_text("\n".join(lines * 2) + "\n")
    command = COMMAND
    for old, new in (changes | {"SERVER_URL": BASE_URL.removesuffix("/v1"), "API_KEY": API_KEY}).items():
        assert old in command
        command = command.replace(old, new)
    [line] = [line for line in command.splitlines() if not line.startswith("#")]
    program, *arguments = shlex.split(line)
    return subprocess.run(
        [Path(sys.executable).with_name(program), *arguments, "--disable-progress"],
        capture_output=True,
        text=True,
        timeout=100,
    )


def metrics() -> dict[str, Any]:
    [benchmark] = json.loads(Path(OUTPUT).read_text())["benchmarks"]
    return benchmark["metrics"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("stream", ["true", "false"])
def test_the_example(stream: str) -> None:
    done = run({"max_tokens=64": f"max_tokens=8,stream={stream}"})
    assert done.returncode == 0, done.stderr[-2000:]
    totals = metrics()["request_totals"]
    assert (totals["successful"], totals["errored"]) == (4, 0)
    assert metrics()["output_token_count"]["successful"]["mean"] > 0


def test_refusals_are_counted_as_errors() -> None:
    run({"model=SmolLM2-135M-Instruct": "model=no-such-model"})
    totals = metrics()["request_totals"]
    assert (totals["successful"], totals["errored"]) == (0, 4)


def test_a_wrong_key_ends_it_at_once() -> None:
    done = run({"api_key=API_KEY": "api_key=wrong", "count=4": "count=1"})
    assert done.returncode != 0 or metrics()["request_totals"]["successful"] == 0
