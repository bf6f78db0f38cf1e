"""What a user's request may ask of the server, beside its answer: as much as the settings grant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from balancer.call import Call
from support.server import LiveServer, live_server, wait_until

CHAT = "/v1/chat/completions"
KEYS = {"api_keys": "user", "admin_api_keys": "boss"}
IGNORED = "x-enginehouse-ignored"


class Asking:
    """A server whose calls are noted on their way to the balancer."""

    def __init__(self, server: LiveServer, calls: list[Call]) -> None:
        self.url = server.url
        self._server = server
        self._calls = calls

    def post(self, key: str | None, model: str = "fake", **fields: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "a b"}], "max_tokens": 2, **fields}
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.post(self.url + CHAT, json=body, headers=headers, timeout=20)

    def counted(self, key: str | None, **fields: Any) -> tuple[float | None, int, str | None]:
        """What counts of a request, and what the answer says is ignored."""
        answer = self.post(key, **fields)
        assert answer.status_code == 200
        call = self._calls.pop()
        return call.keep_alive, call.priority, answer.headers.get(IGNORED)

    @property
    def state(self) -> str:
        return str(self._server.house.manager.state("fake"))


@contextmanager
def asking(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Iterator[Asking]:
    calls: list[Call] = []
    with live_server(inference_engine="fake", **settings) as server:
        balancer = server.house.balancer
        acquire = balancer.acquire

        def noting(call: Call, *args: Any, **options: Any) -> Any:
            calls.append(call)
            return acquire(call, *args, **options)

        monkeypatch.setattr(balancer, "acquire", noting)
        yield Asking(server, calls)


def test_a_user_unloads_nothing_and_goes_before_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with asking(monkeypatch, **KEYS) as server:
        assert server.counted("user", keep_alive=0, priority=-5) == (None, 0, "keep_alive, priority")
        assert server.counted("user", keep_alive="5m", stream=True) == (None, 0, "keep_alive")
        assert server.counted("user", priority=7) == (None, 7, None)
        assert server.counted("user", keep_alive=None) == (None, 0, None)
        assert server.state == "ready"
        wrong = server.post("user", keep_alive="soon")
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "keep_alive")
        assert server.counted("boss", keep_alive=0, priority=-5) == (0, -5, None)
        wait_until(lambda: server.state == "stopped")


def test_the_settings_grant_more_or_less(monkeypatch: pytest.MonkeyPatch) -> None:
    with asking(monkeypatch, **KEYS, user_keep_alive=True, user_priority=-3) as server:
        assert server.counted("user", keep_alive=60, priority=-3) == (60, -3, None)
        assert server.counted("user", priority=-4) == (None, -3, "priority")
    with asking(monkeypatch, admin_api_keys="boss", user_priority=2) as server:
        assert server.counted(None, keep_alive=60, priority=1) == (None, 2, "keep_alive, priority")
        assert server.counted(None) == (None, 2, None)


@pytest.mark.parametrize(("key", "keys"), [(None, {}), ("user", {"api_keys": "user"})])
def test_without_administrators_everybody_is_one(
    monkeypatch: pytest.MonkeyPatch, key: str | None, keys: dict[str, str]
) -> None:
    with asking(monkeypatch, **keys) as server:
        assert server.counted(key, keep_alive=60, priority=-5) == (60, -5, None)


@pytest.mark.parametrize("model", ["shared", "theirs"])
def test_an_upstream_is_not_asked_for_it_either(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: str
) -> None:
    """It knows this server's key, with which more may be granted; whether or not the body is read here."""
    catalog = "models: [{name: other, engine: fake}, {name: shared, hub: org/shared}]"
    (tmp_path / "models.yaml").write_text(catalog)
    with asking(monkeypatch) as behind:
        upstream = f"{behind.url}/v1#model={model}:fake"
        with live_server(
            model_base_path=tmp_path, default_model="other", upstreams=upstream, **KEYS
        ) as server:
            front = Asking(server, [])
            answer = front.post("user", model=model, keep_alive=0, priority=-5)
            assert (answer.status_code, answer.headers[IGNORED]) == (200, "keep_alive, priority")
            call = behind._calls.pop()
            assert (call.keep_alive, call.priority) == (None, 0)
            assert front.post("boss", model=model, keep_alive=60).status_code == 200
            assert behind._calls.pop().keep_alive == 60
            told = front.post("user", model=model, keep_alive=0, wat=1).headers[IGNORED]
            assert sorted(told.split(", ")) == ["keep_alive", "wat"]  # whichever of both servers read it
            assert front.post("boss", model=model, wat=1).headers[IGNORED] == "wat"
