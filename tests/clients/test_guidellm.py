"""GuideLLM, a load generator: it asks for figures that only complete answers can give."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from clients.expectations import MAX_TOKENS, QUESTION, Answer, Asked, Expectations, Library
from clients.server import API_KEY, SERVER_URL

pytest.importorskip("torch", reason="GuideLLM reads data with PyTorch; the project's environment has none")

from guidellm.backends import OpenAIHTTPBackend
from guidellm.schemas import GenerationRequest, GenerationResponse, RequestInfo
from guidellm.schemas.backends import OpenAIHTTPBackendArgs

COMMAND = """\
# docs: begin
guidellm run \
  --backend kind=openai_http,target=SERVER_URL,model=SmolLM2-135M-Instruct,api_key=API_KEY,max_tokens=64 \
  --data kind=json_file,path=data.jsonl \
  --profile kind=concurrent,streams=2 --constraint kind=max_requests,count=4 \
  --output kind=json,path=benchmark.json
# docs: end
"""


async def respond(asked: Asked, stream: bool) -> tuple[GenerationResponse, RequestInfo]:
    """One request as its workers send it, after the question whether the server is well."""
    arguments = OpenAIHTTPBackendArgs(
        target=SERVER_URL,
        model=asked.model,
        api_key=asked.api_key,
        max_tokens=MAX_TOKENS,
        stream=stream,
        extras={"body": {"temperature": 0, "ignore_eos": False}},
    )
    backend, request = (
        OpenAIHTTPBackend(arguments),
        GenerationRequest(columns={"text_column": [asked.prompt]}),
    )
    await backend.process_startup()
    try:
        await backend.validate()
        *_, last = [each async for each in backend.resolve(request, RequestInfo())]
    finally:
        await backend.process_shutdown()
    return last


class GuideLLM(Library):
    missing_model = wrong_key = long_prompt = httpx.HTTPStatusError
    passes_on_finish_reason = False

    def ask(self, asked: Asked) -> Answer:
        response, _ = asyncio.run(respond(asked, stream=False))
        metrics = response.input_metrics.text_tokens, response.output_metrics.text_tokens
        return Answer(response.text, None, *metrics)

    def stream(self, asked: Asked) -> list[str]:
        raise NotImplementedError("it keeps the times of the pieces only")


class TestGuideLLM(Expectations):
    library = GuideLLM()

    def test_a_stream_brings_the_same_in_pieces(self) -> None:
        response, info = asyncio.run(respond(Asked(), stream=True))
        assert response.text == self.library.ask(Asked()).text
        assert info.timings.token_iterations > 2
        assert 0 < response.output_metrics.text_tokens <= MAX_TOKENS


def test_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUIDELLM__MAX_WORKER_PROCESSES", "1")  # starting ten takes long
    Path("data.jsonl").write_text((json.dumps({"prompt": QUESTION}) + "\n") * 4)
    lines = COMMAND.replace("SERVER_URL", SERVER_URL).replace("API_KEY", API_KEY).splitlines()
    [line] = [line for line in lines if not line.startswith("#")]
    program, *arguments = shlex.split(line)
    command = [Path(sys.executable).with_name(program), *arguments, "--disable-progress"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    [benchmark] = json.loads(Path("benchmark.json").read_text())["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    assert (totals["successful"], totals["errored"]) == (4, 0)
