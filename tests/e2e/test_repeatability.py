"""The same question, the same answer, from a server that others used before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from support.server import LiveServer

pytestmark = pytest.mark.real


def test_an_idle_server_repeats_itself(server: LiveServer, model: str) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as client:

        def ask(content: str) -> Any:
            body = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 6}
            answer = client.post(
                "/v1/chat/completions", json={**body, "temperature": 0, "logprobs": True, "top_logprobs": 2}
            ).json()
            return answer["choices"][0]

        questions = [
            f"What can be said about the number {i}?" + " Say more." * (i % 4 * 8) for i in range(20)
        ]
        with ThreadPoolExecutor(8) as clients:
            list(clients.map(ask, [f"A story: {question}" for question in questions[:8]]))
        first = [ask(question) for question in questions]
        assert [ask(question) for question in questions] == first
