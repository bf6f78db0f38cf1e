"""The OpenAI API over a real uvicorn, with the fake engine where control matters."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from engines.errors import EngineError
from engines.fake import FakeEngine
from support.server import LiveServer, live_server, wait_until

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "one two three four five"}]
USAGE = {"include_usage": True}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with live_server(inference_engine="fake", context_length=512) as server:
        yield server


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def chat(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post(CHAT, json={"model": "fake", "messages": HELLO, "max_tokens": 6, **fields})


def complete(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/v1/completions", json={"model": "fake", "prompt": "alpha beta gamma", **fields})


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream that ended as it should."""
    frames = response.text.split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]


def error(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    assert set(body) == {"error"}
    assert {"message", "type", "param", "code"} <= set(body["error"])
    return dict(body["error"])


def test_the_path_that_is_counted_and_passed_on_is_the_routes(
    server: LiveServer, client: httpx.Client
) -> None:
    """Routes match in spite of a line end: it must make no series of metrics, nor reach a request line."""
    answer = client.post("/v1/completions%0A", json={"model": "fake", "prompt": "a", "max_tokens": 1})
    assert answer.status_code in (200, 404)
    complete(client, max_tokens=1)
    endpoints = {endpoint for each in server.house.metrics.models() for endpoint, _ in each.requests}
    assert "/v1/completions" in endpoints
    assert endpoints <= {"/v1/chat/completions", "/v1/completions"}


def test_a_whole_answer(client: httpx.Client) -> None:
    response = chat(client)
    assert response.status_code == 200
    body = response.json()
    assert body["object"] == "chat.completion"
    assert body["model"] == "fake"
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "user: one two three four", "refusal": None},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    usage = body["usage"]
    assert usage["completion_tokens"] == 6
    assert usage["total_tokens"] == usage["prompt_tokens"] + 6
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}


def test_streamed_and_whole_say_the_same(client: httpx.Client) -> None:
    whole = chat(client).json()
    streamed = events(chat(client, stream=True))
    assert streamed[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in streamed)
    assert text == whole["choices"][0]["message"]["content"]
    assert [e["choices"][0]["finish_reason"] for e in streamed[-2:]] == [None, "length"]
    assert streamed[-1]["choices"][0]["delta"] == {}
    assert len({event["id"] for event in streamed}) == 1
    assert all("usage" not in event for event in streamed)


def test_include_usage_adds_a_last_event(client: httpx.Client) -> None:
    streamed = events(chat(client, stream=True, stream_options={"include_usage": True}))
    assert all(event["usage"] is None for event in streamed[:-1])
    assert streamed[-1]["choices"] == []
    assert streamed[-1]["usage"]["completion_tokens"] == 6


@pytest.mark.parametrize("stream", [False, True])
def test_n_answers_have_their_indices(client: httpx.Client, stream: bool) -> None:
    response = chat(client, n=3, seed=5, stream=stream)
    if stream:
        texts = ["", "", ""]
        for event in events(response):
            choice = event["choices"][0]
            texts[choice["index"]] += choice["delta"].get("content", "")
    else:
        texts = [choice["message"]["content"] for choice in response.json()["choices"]]
    assert len(set(texts)) == 3  # with a seed, each answer has its own


def test_a_prompt_counts_once_however_many_answers_it_has(client: httpx.Client) -> None:
    one, three = chat(client).json()["usage"], chat(client, n=3).json()["usage"]
    assert three["prompt_tokens"] == one["prompt_tokens"]
    assert three["completion_tokens"] == 3 * one["completion_tokens"]
    two = complete(client, prompt=["one two", "three"], n=2).json()["usage"]
    assert (two["prompt_tokens"], two["completion_tokens"]) == (3, 6)


def test_logprobs(client: httpx.Client) -> None:
    choice = chat(client, logprobs=True, top_logprobs=2).json()["choices"][0]
    content = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content) == choice["message"]["content"]
    assert all(len(entry["top_logprobs"]) == 2 for entry in content)
    assert bytes(content[0]["bytes"]).decode() == content[0]["token"]
    streamed = events(chat(client, logprobs=True, top_logprobs=2, stream=True))
    pieces = [e["choices"][0]["logprobs"] for e in streamed if e["choices"][0]["logprobs"]]
    assert [entry for piece in pieces for entry in piece["content"]] == content


def test_stop(client: httpx.Client) -> None:
    choice = chat(client, stop=["two"], max_tokens=50).json()["choices"][0]
    assert choice["message"]["content"] == "user: one "
    assert choice["finish_reason"] == "stop"


def test_content_parts_and_developer_role(client: httpx.Client) -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]
    body = chat(client, messages=messages, max_tokens=None).json()
    assert body["choices"][0]["message"]["content"] == "system: be brief\nuser: ab\n"


def test_completions_take_every_form_of_prompt(client: httpx.Client, server: LiveServer) -> None:
    assert complete(client).json()["choices"][0]["text"] == "alpha beta gamma"
    two = complete(client, prompt=["one two", "three four"], n=2).json()
    assert [c["text"] for c in two["choices"]] == ["one two", "one two", "three four", "three four"]
    assert [c["index"] for c in two["choices"]] == [0, 1, 2, 3]
    ids = [1 + ord(c) for c in "hi"]
    assert complete(client, prompt=ids).json()["choices"][0]["text"] == "hi"
    assert [c["text"] for c in complete(client, prompt=[ids, ids[:1]]).json()["choices"]] == ["hi", "h"]


def test_a_suffix_is_filled_in_before(client: httpx.Client) -> None:
    """The fake engine says its prompt, marks and all: the marks end an answer."""
    body = complete(client, suffix=" omega", ignore_eos=True).json()
    assert body["choices"][0]["text"] == "alpha beta gamma"
    assert body["usage"]["prompt_tokens"] == 7  # three and one, and the marks
    both = complete(client, suffix=" omega", prompt=[66, 67], max_tokens=2, echo=True).json()
    assert both["choices"][0]["text"] == "ABA"
    assert error(complete(client, suffix=5))["param"] == "suffix"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("max_tokens", [0, 1])
def test_echo_with_logprobs_scores_the_prompt(client: httpx.Client, max_tokens: int, stream: bool) -> None:
    response = complete(client, echo=True, logprobs=1, max_tokens=max_tokens, stream=stream)
    choices = [event["choices"][0] for event in (events(response) if stream else [response.json()])]
    told: dict[str, list[Any]] = {}
    for each in (choice["logprobs"] for choice in choices if choice["logprobs"]):
        told = {name: told.get(name, []) + values for name, values in each.items()}
    assert "".join(choice["text"] for choice in choices) == "alpha beta gamma" + "alpha" * max_tokens
    assert told["tokens"] == ["alpha", " beta", " gamma", "alpha"][: 3 + max_tokens]
    assert told["text_offset"] == [0, 5, 10, 16][: 3 + max_tokens]
    assert told["token_logprobs"] == [None, -0.1, -0.1, -0.1][: 3 + max_tokens]
    assert told["top_logprobs"][:2] == [None, {" beta": -0.1}]
    assert choices[-1]["finish_reason"] == "length"


def test_prompt_logprobs_are_told_apart_from_the_answer(client: httpx.Client) -> None:
    choice = complete(client, prompt_logprobs=1, max_tokens=1).json()["choices"][0]
    assert (choice["text"], choice["logprobs"]) == ("alpha", None)
    first, second, _ = choice["prompt_logprobs"]
    assert first is None
    assert list(second.values()) == [{"logprob": -0.1, "rank": 1, "decoded_token": " beta"}]
    assert len(chat(client, prompt_logprobs=0).json()["prompt_logprobs"]) > 1
    assert error(complete(client, prompt_logprobs=1, stream=True))["code"] == "invalid_request_error"


def test_the_best_of_several_answers(client: httpx.Client) -> None:
    """The fake engine is equally sure of all; what counts is what is told, and what it took."""
    body = complete(client, prompt=["a b", "c d"], best_of=3, max_tokens=2, seed=1).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert {choice["logprobs"] for choice in body["choices"]} == {None}
    assert body["usage"]["completion_tokens"] == 2 * 3 * 2
    assert body["usage"]["prompt_tokens"] == 4
    for wrong in ({"best_of": 1, "n": 2}, {"best_of": 2, "stream": True}, {"best_of": 0}, {"best_of": 129}):
        assert error(complete(client, **wrong))["param"] == "best_of"


def test_echo(client: httpx.Client) -> None:
    assert complete(client, echo=True, max_tokens=1).json()["choices"][0]["text"] == "alpha beta gammaalpha"
    assert complete(client, echo=True, max_tokens=0).json()["choices"][0]["text"] == "alpha beta gamma"
    streamed = events(complete(client, echo=True, max_tokens=1, stream=True))
    assert "".join(e["choices"][0]["text"] for e in streamed) == "alpha beta gammaalpha"


def test_completion_logprobs(client: httpx.Client) -> None:
    choice = complete(client, logprobs=1).json()["choices"][0]
    assert choice["logprobs"]["tokens"] == ["alpha", " beta", " gamma"]
    assert choice["logprobs"]["text_offset"] == [0, 5, 10]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_drawn_token_is_among_a_completions_top_logprobs(client: httpx.Client, count: int) -> None:
    logprobs = complete(client, logprobs=count).json()["choices"][0]["logprobs"]
    drawn = zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
    assert all(top[token] == logprob for token, logprob, top in drawn)
    assert all(1 <= len(top) <= count + 1 for top in logprobs["top_logprobs"])


@pytest.mark.parametrize(
    "text",
    [
        "👩‍👩‍👧‍👦 and 🏳️‍🌈",
        "👍🏽🇩🇪🇫🇷 1️⃣ ❤︎❤️",
        "e\u0301\u200d\u200c\u2028\u2029\x85\ufeff한\U000e0067",
        "  \n\r\n\ttwo  spaces ",
        'quote " back \\ slash \x00 \x7f <b>&amp;',
    ],
)
@pytest.mark.parametrize("stop", [[], ["\u200d👧"], [" \u2028", "never", "  s"]])
def test_streams_and_wholes_agree_on_every_character(
    client: httpx.Client, text: str, stop: list[str]
) -> None:
    fields = {"prompt": text, "stop": stop, "max_tokens": 200}
    whole = complete(client, **fields).json()
    assert not stop or not any(each in whole["choices"][0]["text"] for each in stop)
    for more in ({}, {"logprobs": 1}):
        streamed = events(complete(client, **fields, **more, stream=True, stream_options=USAGE))
        choices = [choice for event in streamed for choice in event["choices"]]
        assert "".join(choice["text"] for choice in choices) == whole["choices"][0]["text"]
        assert choices[-1]["finish_reason"] == whole["choices"][0]["finish_reason"]
        assert streamed[-1]["usage"] == whole["usage"]
    assert whole["choices"][0]["text"] == text or stop


def test_text_is_sent_as_utf_8(client: httpx.Client) -> None:
    response = complete(client, prompt="日本 😀", max_tokens=None)
    assert response.json()["choices"][0]["text"] == "日本 😀"
    assert "日本" in response.text
    streamed = events(complete(client, prompt="日本 😀", stream=True, max_tokens=None))
    assert all("�" not in event["choices"][0]["text"] for event in streamed)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "wizard", "content": "hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": [""]}, "stop.0"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"top_logprobs": 3}, None),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, None),
        ({"min_tokens": 7}, "min_tokens"),
        ({"seed": 2**70}, "seed"),
    ],
)
def test_bad_fields_are_named(client: httpx.Client, fields: dict[str, Any], param: str | None) -> None:
    response = chat(client, **fields)
    assert response.status_code == 400
    found = error(response)
    assert found["code"] == "invalid_request_error"
    if param is not None:
        assert found["param"] == param


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"regex": "a"}},
        {"modalities": ["text", "audio"]},
        {"functions": [{"name": "f"}]},
        {"function_call": {"name": "f"}},
        {"reasoning_effort": "high"},
        {"messages": [{"role": "function", "content": "x", "name": "f"}]},
        {"messages": [{"role": "assistant", "content": "x", "function_call": {"name": "f"}}]},
        {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "x"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "x"}}]}]},
    ],
)
def test_what_is_not_there_yet_is_refused_by_name(client: httpx.Client, fields: dict[str, Any]) -> None:
    response = chat(client, **fields)
    assert (response.status_code, error(response)["code"]) == (400, "unsupported_feature")
    assert error(response)["param"]


def test_harmless_forms_of_unsupported_fields_pass(client: httpx.Client) -> None:
    harmless = {"tools": [], "tool_choice": "none", "response_format": {"type": "text"}, "store": False}
    assert chat(client, **harmless, metadata={"a": "b"}, user="me").status_code == 200
    assert complete(client, suffix="", best_of=1).status_code == 200


def test_unknown_fields_are_ignored_and_told(client: httpx.Client) -> None:
    plain = chat(client)
    assert "x-enginehouse-ignored" not in plain.headers
    messages = [{**HELLO[0], "cache_control": {"type": "ephemeral"}, "name": None}]
    made_up = {"wat": [1], "x" * 500: 1, "é\r\nset-cookie: a": 1, "null": None}
    ignored = chat(client, messages=messages, **made_up)
    assert ignored.json()["choices"] == plain.json()["choices"]
    names = ignored.headers["x-enginehouse-ignored"].split(", ")
    assert names == ["wat", "x" * 64, "___set-cookie__a", "messages.cache_control"]
    streamed = chat(client, stream=True, **{f"x{i}": i for i in range(100)})
    names = streamed.headers["x-enginehouse-ignored"].split(", ")
    assert names == [*(f"x{i}" for i in range(16)), "+16"]
    assert complete(client, messages=HELLO).headers["x-enginehouse-ignored"] == "messages"


@pytest.mark.parametrize("stream", [False, True])
def test_strict_requests_are_refused_what_is_made_to_fit_otherwise(stream: bool) -> None:
    with (
        live_server(inference_engine="fake", context_length=64, strict_requests=True) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        refused = chat(client, stream=stream, messages=[{**HELLO[0], "wat": 1}])
        assert (refused.status_code, error(refused)["code"]) == (400, "invalid_request_error")
        assert error(refused)["param"] == "messages.0.wat"
        assert error(refused)["message"].startswith("messages.0.wat: ")
        refused = chat(client, stream=stream, max_tokens=63)
        assert (refused.status_code, error(refused)["code"]) == (400, "context_length_exceeded")
        assert " in the messages, 63 in the completion)" in error(refused)["message"]
        assert chat(client, stream=stream, metadata={}, wat=None).status_code == 200


def test_too_many_answers_at_once_are_refused(client: httpx.Client) -> None:
    refused = complete(client, prompt=["a"] * 64, n=3)
    assert (refused.status_code, error(refused)["param"]) == (400, "n")
    assert complete(client, prompt=["a"] * 64, n=2, max_tokens=1).status_code == 200


def test_unknown_model(client: httpx.Client) -> None:
    response = chat(client, model="gpt-9")
    assert (response.status_code, error(response)["code"]) == (404, "model_not_found")
    assert client.get("/v1/models/gpt-9").status_code == 404


def test_models(client: httpx.Client) -> None:
    cards = client.get("/v1/models").json()
    # The default model comes first: clients without a wish take it.
    assert cards["data"][0]["id"] == "fake"
    assert client.get("/v1/models/fake").json() == cards["data"][0]
    assert cards["data"][0]["context_length"] == 512


@pytest.mark.parametrize("stream", [False, True])
def test_beyond_the_context(client: httpx.Client, stream: bool) -> None:
    """Only a prompt that does not fit is an error, in the words that client libraries look for."""
    long = [{"role": "user", "content": "word " * 600}]
    for response, prompt in (
        (chat(client, messages=long, stream=stream), "messages"),
        (complete(client, prompt="word " * 600, stream=stream), "prompt"),
    ):
        found = error(response)
        assert (response.status_code, found["code"]) == (400, "context_length_exceeded")
        assert (found["type"], found["param"]) == ("invalid_request_error", prompt)
        assert found["message"].startswith(
            f"This model's maximum context length is 512 tokens. However, your {prompt} resulted in "
        )
        assert "can have up to 8192 tokens (CONTEXT_LENGTH" in found["message"]
    for limit in ({"max_tokens": 512}, {"max_completion_tokens": 2**31 - 1, "min_tokens": 600}):
        response = chat(client, ignore_eos=True, stream=stream, **limit)
        assert response.status_code == 200
        found = events(response)[-1] if stream else response.json()
        assert found["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_before_the_first_token_has_a_status(
    client: httpx.Client, server: LiveServer, stream: bool
) -> None:
    fake(server).fail_next = EngineError("the engine broke")
    response = chat(client, stream=stream)
    assert (response.status_code, error(response)["code"]) == (500, "engine_error")


def test_a_failure_mid_stream_is_an_event_and_no_done(client: httpx.Client, server: LiveServer) -> None:
    engine = fake(server)
    engine._delay = 0.01
    with client.stream("POST", CHAT, json=request(stream=True)) as response:
        lines = response.iter_lines()
        next(lines)
        engine.fail_next = EngineError("the engine broke")
        rest = [line for line in lines if line]
    engine._delay = 0.0
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "engine_error"
    assert "[DONE]" not in "".join(rest)


def test_a_client_that_leaves_frees_everything(client: httpx.Client, server: LiveServer) -> None:
    engine = fake(server)
    engine._delay = 0.005
    for stream in (True, False):
        with httpx.Client(base_url=server.url) as leaving:
            if stream:
                with leaving.stream("POST", CHAT, json=request(stream=True)) as response:
                    pieces = response.iter_bytes()
                    next(pieces)
                    assert engine.stats().running == 1
            else:
                with pytest.raises(httpx.ReadTimeout):
                    leaving.post(CHAT, json=request(), timeout=0.1)
        wait_until(lambda: engine.stats().running == 0 and server.house.balancer.running == 0, seconds=2)
    engine._delay = 0.0
    wait_until(lambda: client.get("/v1/system/metrics").json()["requests"]["aborted"] >= 2)


def test_a_client_that_leaves_the_queue_frees_its_place() -> None:
    with live_server(inference_engine="fake", max_concurrent_requests=1) as server:
        fake(server)._delay = 0.01
        house = server.house
        stop = threading.Event()

        def hold() -> None:
            with httpx.stream("POST", server.url + CHAT, json=request(stream=True)) as response:
                for _ in response.iter_bytes():
                    if stop.is_set():
                        return

        with ThreadPoolExecutor() as pool:
            holding = pool.submit(hold)
            wait_until(lambda: house.balancer.running == 1)
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(server.url + CHAT, json=request(), timeout=0.2)
            wait_until(lambda: house.balancer.queue_depth == 0)
            stop.set()
            holding.result()
        wait_until(lambda: house.balancer.running == 0)


def test_a_full_queue_gets_429_and_a_time_to_retry() -> None:
    limits = {"max_concurrent_requests": 1, "max_queued_requests": 0}
    with live_server(inference_engine="fake", **limits) as server:
        fake(server)._delay = 0.01
        with httpx.stream("POST", server.url + CHAT, json=request(stream=True)) as response:
            pieces = response.iter_bytes()  # dropping the iterator would close the stream
            next(pieces)
            refused = httpx.post(server.url + CHAT, json=request())
        assert (refused.status_code, error(refused)["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1


def test_an_unhealthy_engine_is_restarted_and_serves_again() -> None:
    with live_server(inference_engine="fake", health_check_interval=0.05) as server:
        first = fake(server)
        first.healthy = False
        wait_until(lambda: server.engine() not in (None, first))
        wait_until(lambda: httpx.get(f"{server.url}/readyz").status_code == 200)
        assert httpx.post(server.url + CHAT, json=request(max_tokens=3)).status_code == 200


def test_keys_and_open_paths() -> None:
    with live_server(inference_engine="fake", api_keys="sesame,other") as server:
        with httpx.Client(base_url=server.url) as client:
            refused = client.post(CHAT, json=request())
            assert (refused.status_code, error(refused)["code"]) == (401, "invalid_api_key")
            for key, status in (("sesame", 200), ("other", 200), ("sesam", 401), ("x", 401)):
                headers = {"authorization": f"Bearer {key}"}
                assert client.post(CHAT, json=request(max_tokens=2), headers=headers).status_code == status
            for path in ("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"):
                assert client.get(path).status_code == 200
            assert client.get("/v1/models").status_code == 401


def test_rate_limit() -> None:
    with live_server(inference_engine="fake", rate_limit_rpm=2) as server:
        statuses = [httpx.post(server.url + CHAT, json=request(max_tokens=2)) for _ in range(3)]
        assert [r.status_code for r in statuses] == [200, 200, 429]
        assert statuses[0].headers["x-ratelimit-limit-requests"] == "2"
        assert error(statuses[2])["code"] == "rate_limit_exceeded"
        assert int(statuses[2].headers["retry-after"]) >= 1
        assert httpx.get(f"{server.url}/metrics").status_code == 200


def test_request_ids(client: httpx.Client) -> None:
    given = client.post(CHAT, json=request(max_tokens=2), headers={"x-request-id": "mine-42"})
    assert given.headers["x-request-id"] == "mine-42"
    assert chat(client).headers["x-request-id"].startswith("req_")
    assert client.get("/nowhere").headers["x-request-id"]


@pytest.mark.parametrize("given", ["mine-42", "x" * 128])
def test_one_request_id_is_not_one_answer(client: httpx.Client, given: str) -> None:
    client.headers["x-request-id"] = given
    answers = [
        *(chat(client) for _ in range(2)),
        *(complete(client, max_tokens=1) for _ in range(2)),
        chat(client, stream=True),
    ]
    assert {each.headers["x-request-id"] for each in answers} == {given}
    ids = [each.json()["id"] for each in answers[:4]] + [events(answers[4])[0]["id"]]
    assert len(set(ids)) == 5
    assert all(given[:100] in each and len(each) < 128 for each in ids)
    assert {event["id"] for event in events(answers[4])} == {ids[4]}


def test_one_log_line_a_request(capsys: pytest.CaptureFixture[str]) -> None:
    with live_server(inference_engine="fake") as server:
        httpx.post(server.url + CHAT, json=request(max_tokens=4), headers={"x-request-id": "logged-1"})
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if "logged-1" in line]
    lines = [line for line in lines if line["event"] == "model_inference"]
    assert len(lines) == 1
    assert list(lines[0]) == ["timestamp", "level", "module", "event", "data"]
    assert (lines[0]["level"], lines[0]["module"]) == ("INFO", "inference_engine")
    data = lines[0]["data"]
    assert set(data) == {
        "model_name", "prompt_tokens", "completion_tokens", "total_tokens",
        "inference_time", "tokens_per_second", "gpu_memory_used", "request_id",
    }  # fmt: skip
    assert data["completion_tokens"] == 4
    assert data["gpu_memory_used"] == "0.0GB"


def test_metrics_count_what_happened(client: httpx.Client) -> None:
    def total() -> float:
        for line in client.get("/metrics").text.splitlines():
            if line.startswith("enginehouse_completion_tokens_total{"):
                return float(line.split()[-1])
        return 0.0

    before = total()
    chat(client, max_tokens=5)
    assert total() - before == 5


def request(**fields: Any) -> dict[str, Any]:
    return {"model": "fake", "messages": HELLO, "ignore_eos": True, "max_tokens": 400, **fields}


def fake(server: LiveServer) -> FakeEngine:
    engine = server.engine()
    assert isinstance(engine, FakeEngine)
    return engine
