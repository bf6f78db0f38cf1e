"""A batch whose server is killed goes on with the next one, and does no request twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai

from support.server import wait_until
from support.source import ROOT

LINES = 500


@contextmanager
def server_process(state: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process of its own, ready to answer."""
    env = {**os.environ, "STATE_DIR": str(state), "INFERENCE_ENGINE": "fake", "BATCH_CONCURRENCY": "4"}
    command = [sys.executable, "-m", "app", "serve", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _is_ready(port), seconds=60)
        yield process
    finally:
        process.kill()
        process.wait()


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_batch_outlives_two_kills(tmp_path: Path, unused_tcp_port: int) -> None:
    lines = [
        {
            "custom_id": f"line-{i}",
            "method": "POST",
            "url": "/v1/completions",
            "body": {"model": "fake", "prompt": f"number {i}", "max_tokens": 2},
        }
        for i in range(LINES)
    ]
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{unused_tcp_port}/v1", api_key="-", max_retries=0)

    def done(id: str) -> int:
        counts = client.batches.retrieve(id).request_counts
        return counts.completed if counts is not None else 0

    with client, server_process(tmp_path, unused_tcp_port) as first:
        file = client.files.create(file="\n".join(map(json.dumps, lines)).encode(), purpose="batch")
        batch = client.batches.create(
            input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
        )
        wait_until(lambda: _written(tmp_path) > 20, seconds=60)
        first.send_signal(signal.SIGKILL)
        first.wait()
        after_first = _written(tmp_path)
        assert after_first < LINES
        # What a kill in the middle of a write would leave.
        with next(tmp_path.glob("batches/*/output.jsonl")).open("ab") as output:
            output.write(b'{"id": "batch_req_1", "custom_id": "line-499", "resp')
        with server_process(tmp_path, unused_tcp_port) as second:
            wait_until(lambda: _written(tmp_path) > after_first + 20, seconds=60)
            second.send_signal(signal.SIGKILL)
            second.wait()
        assert _written(tmp_path) < LINES
        with server_process(tmp_path, unused_tcp_port):
            wait_until(lambda: client.batches.retrieve(batch.id).status == "completed", seconds=60)
            assert done(batch.id) == LINES
            output_file = client.batches.retrieve(batch.id).output_file_id
            assert output_file is not None
            results = [json.loads(line) for line in client.files.content(output_file).text.splitlines()]
    assert Counter(each["custom_id"] for each in results) == {f"line-{i}": 1 for i in range(LINES)}
    for each in results:
        number = each["custom_id"].removeprefix("line-")
        assert each["response"]["body"]["choices"][0]["text"].split()[:2] == ["number", number]
    assert not list(tmp_path.glob("batches/*"))


def _written(state: Path) -> int:
    """Lines of output so far."""
    return sum(path.read_bytes().count(b"\n") for path in state.glob("batches/*/output.jsonl"))
