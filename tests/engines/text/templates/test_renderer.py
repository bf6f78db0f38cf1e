"""Chat templates in a child process: limits, crashes, cancellation, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from engines.errors import EngineError, RequestError, UnsupportedFeature
from engines.text.templates import child as template_child
from engines.text.templates.renderer import ChatTemplate, TemplateWorker

pytestmark = pytest.mark.processes

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    r"{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    r"<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    r"{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
ECHO = "{{ messages[0].content }}"
HELLO = [{"role": "user", "content": "hello"}]
SHORT = 0.5
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
async def worker() -> AsyncIterator[TemplateWorker]:
    worker = TemplateWorker()
    yield worker
    await worker.close()


def template(source: str, worker: TemplateWorker, timeout: float = 20.0) -> ChatTemplate:
    """Patient by default: only a test of the clock may depend on one."""
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>", timeout=timeout, worker=worker)


def proc(worker: TemplateWorker, name: str) -> bytes:
    return Path(f"/proc/{worker.pid}/{name}").read_bytes()


def is_gone(pid: int) -> bool:
    """Neither running nor a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_a_real_template(worker: TemplateWorker) -> None:
    assert await template(SMOLLM2, worker).render(HELLO) == (
        "<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nhello<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    messages = [{"role": "system", "content": "Be terse."}, *HELLO]
    assert await template(SMOLLM2, worker).render(messages, add_generation_prompt=False) == (
        "<|im_start|>system\nBe terse.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n"
    )


async def test_what_a_template_is_given(worker: TemplateWorker) -> None:
    source = "{{ bos_token }}{{ eos_token }}{{ tools is none }}{{ documents is none }}{{ thinking }}"
    assert await template(source, worker).render(HELLO, template_args={"thinking": 3}) == "<s></s>TrueTrue3"
    assert await template("{{ tools }}", worker).render(HELLO, tools=[{}]) == "[{}]"


@pytest.mark.parametrize("content", ["", "é€😀", "\ud800", '"}\n\\', "x" * 3_000_000])
async def test_any_text_survives_the_trip(worker: TemplateWorker, content: str) -> None:
    assert await template(ECHO, worker).render([{"role": "user", "content": content}]) == content


async def test_messages_may_be_any_mapping(worker: TemplateWorker) -> None:
    assert await template(ECHO, worker).render([MappingProxyType({"content": "hi"})]) == "hi"


async def test_arguments_cannot_replace_the_servers_own(worker: TemplateWorker) -> None:
    with pytest.raises(RequestError, match="'messages'"):
        await template(ECHO, worker).render(HELLO, template_args={"messages": []})


async def test_messages_that_are_no_json(worker: TemplateWorker) -> None:
    with pytest.raises(RequestError, match="object is no JSON value") as caught:
        await template(ECHO, worker).render([{"content": object()}])
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("{% for %}", UnsupportedFeature, "the model's chat template cannot be compiled: Expected"),
        ("{{ raise_exception('only user!') }}", RequestError, "refused the messages: only user!"),
        ("{{ messages[0].none.at_all }}", RequestError, "has no attribute 'none'"),
        ("{{ ''.__class__.__mro__ }}", RequestError, "access to attribute '__class__'"),
        ("{{ messages.append(1) }}", RequestError, "'append' of 'list' object is unsafe"),
        ("{{ 1 / 0 }}", RequestError, "ZeroDivisionError"),
    ],
)
async def test_errors_name_their_cause(
    worker: TemplateWorker, source: str, error: type[RequestError], message: str
) -> None:
    for _ in range(2):  # the second time, the child may know the template
        with pytest.raises(error, match=message) as caught:
            await template(source, worker).render(HELLO)
        assert caught.value.param == "messages"
    pid = worker.pid
    assert await template(ECHO, worker).render(HELLO) == "hello"
    assert worker.pid == pid, "an error must not cost the child"


async def test_one_child_serves_all_templates_and_gets_each_source_once(
    worker: TemplateWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    encode = template_child.TemplateJob.encode

    def spy(job: Any, number: int, with_source: bool) -> bytes:
        sent.append(with_source)
        return encode(job, number, with_source)

    monkeypatch.setattr(template_child.TemplateJob, "encode", spy)
    pids = set()
    for _ in range(2):
        for source, text in (("a", "a"), ("b{{ messages|length }}", "b1")):
            assert await template(source, worker).render(HELLO) == text
            pids.add(worker.pid)
    assert sent == [True, True, False, False]
    assert len(pids) == 1


@pytest.mark.parametrize("source", [LOOP, "{{ 10**(10**8) }}"])
async def test_the_clock_ends_a_loop(worker: TemplateWorker, source: str) -> None:
    await template(ECHO, worker).render(HELLO)  # so that starting the child is not measured
    pid = worker.pid
    assert pid is not None
    began = asyncio.get_running_loop().time()
    with pytest.raises(RequestError, match=r"longer than 0\.5 s") as caught:
        await template(source, worker, timeout=SHORT).render(HELLO)
    assert asyncio.get_running_loop().time() - began < SHORT + 2
    assert caught.value.param == "messages"
    assert is_gone(pid)
    assert await template(ECHO, worker).render(HELLO) == "hello"


@linux
@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10**9 }}",
        "{{ 'a' * (messages|length) * 10**9 }}",  # not a constant
        "{% set ns = namespace(s='a') %}{% for i in range(40) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{{ [[0]] * 10**9 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ messages|map('string')|list * 10**9 }}",
    ],
)
async def test_memory_bombs(worker: TemplateWorker, source: str) -> None:
    with pytest.raises(RequestError, match="needs more than the 512 MiB") as caught:
        await template(source, worker).render(HELLO)
    assert caught.value.param == "messages"
    assert await template(ECHO, worker).render(HELLO) == "hello"


async def test_an_endless_answer_never_reaches_the_server(worker: TemplateWorker) -> None:
    with pytest.raises(RequestError, match="wrote more than 16 MiB"):
        await template("{% for i in range(2000) %}{{ 'a' * 10000 }}{% endfor %}", worker).render(HELLO)
    assert await template(ECHO, worker).render(HELLO) == "hello"


async def test_a_loop_does_not_harm_those_who_wait(worker: TemplateWorker) -> None:
    renders = [template(LOOP, worker, timeout=SHORT).render(HELLO)]
    renders += [template(ECHO, worker).render([{"content": str(i)}]) for i in range(5)]
    first, *others = await asyncio.gather(*renders, return_exceptions=True)
    assert isinstance(first, RequestError)
    assert others == ["0", "1", "2", "3", "4"]


async def test_concurrent_renders_do_not_mix(worker: TemplateWorker) -> None:
    echo = template(ECHO, worker)
    texts = [f"{i}" * (1 + i * 300) for i in range(100)]
    answers = await asyncio.gather(*(echo.render([{"content": text}]) for text in texts))
    assert answers == texts


async def test_a_child_killed_while_idle_is_replaced(worker: TemplateWorker) -> None:
    echo = template(ECHO, worker)
    await echo.render(HELLO)
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert await echo.render(HELLO) == "hello"
    assert worker.pid != pid
    assert is_gone(pid)


async def test_a_child_that_dies_on_its_first_request_fails_it(
    worker: TemplateWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = []
    exchange = template_child.TemplateChild.exchange

    async def kill_first(child: Any, job: Any) -> dict[str, Any]:
        if job.source == "deadly":
            killed.append(child.pid)
            os.kill(child.pid, signal.SIGKILL)
        return await exchange(child, job)

    monkeypatch.setattr(template_child.TemplateChild, "exchange", kill_first)
    deadly, echo = template("deadly", worker).render(HELLO), template(ECHO, worker).render(HELLO)
    died, echoed = await asyncio.gather(deadly, echo, return_exceptions=True)
    assert isinstance(died, RequestError)
    assert "died" in died.message
    assert echoed == "hello"
    assert len(killed) == 1

    # The child now in use is not new: it is given one more chance, and no third.
    with pytest.raises(RequestError, match="died"):
        await template("deadly", worker).render(HELLO)
    assert len(killed) == 3
    assert all(is_gone(pid) for pid in killed)


async def test_a_child_that_does_not_start(worker: TemplateWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        template_child, "child_command", lambda memory: [sys.executable, "-I", "-S", "-c", ""]
    )
    with pytest.raises(EngineError, match="did not start") as caught:
        await template(ECHO, worker).render(HELLO)
    assert not isinstance(caught.value, RequestError)
    monkeypatch.setattr(template_child, "child_command", lambda memory: ["/nonexistent/python"])
    with pytest.raises(EngineError, match="did not start"):
        await template(ECHO, worker).render(HELLO)
    monkeypatch.undo()
    assert await template(ECHO, worker).render(HELLO) == "hello"


@pytest.mark.parametrize(
    "reply",
    [r"b'\xff\xff\xff\xff'", r"b'\0\0\0\1x'", r"b'\0\0\0\2[]'", r"b'\0\1\x86\xa0' + b'[' * 100_000"],
    ids=["too long", "no JSON", "no object", "too deep"],
)
async def test_a_child_that_talks_nonsense_is_not_believed(
    worker: TemplateWorker, monkeypatch: pytest.MonkeyPatch, reply: str
) -> None:
    script = f"import sys; sys.stdout.buffer.write({reply}); sys.stdout.flush(); sys.stdin.read()"
    monkeypatch.setattr(
        template_child, "child_command", lambda memory: [sys.executable, "-I", "-S", "-c", script]
    )
    with pytest.raises(EngineError, match="did not start"):
        await template(ECHO, worker).render(HELLO)


@pytest.mark.parametrize("steps", range(8))
async def test_a_cancelled_render_does_not_shift_the_answers(worker: TemplateWorker, steps: int) -> None:
    echo = template(ECHO, worker)
    await echo.render(HELLO)
    for number in range(10):
        leaving = asyncio.create_task(echo.render([{"content": "stale"}]))
        for _ in range(steps):
            await asyncio.sleep(0)
        leaving.cancel()
        assert await echo.render([{"content": str(number)}]) == str(number)
    await asyncio.wait([leaving])


async def test_a_render_cancelled_in_the_queue_is_never_sent(
    worker: TemplateWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []
    exchange = template_child.TemplateChild.exchange

    async def spy(child: Any, job: Any) -> dict[str, Any]:
        sent.append(job.source)
        return await exchange(child, job)

    monkeypatch.setattr(template_child.TemplateChild, "exchange", spy)
    tasks = [asyncio.create_task(template(source, worker).render(HELLO)) for source in "abc"]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.wait(tasks)
    assert sent == ["a", "c"]


async def test_cancelling_a_looping_render_leaves_the_next_one_correct(worker: TemplateWorker) -> None:
    looping = asyncio.create_task(template(LOOP, worker, timeout=SHORT).render(HELLO))
    waiting = asyncio.create_task(template(ECHO, worker).render(HELLO))
    await asyncio.sleep(0)
    looping.cancel()
    assert await waiting == "hello"


async def test_close_leaves_no_process_and_refuses_more() -> None:
    own = ChatTemplate(ECHO, bos_token="", eos_token="", timeout=20.0)
    await own.render(HELLO)
    pid = own._worker.pid
    assert pid is not None
    await own.close()
    await own.close()
    assert is_gone(pid)
    with pytest.raises(EngineError, match="closed"):
        await own.render(HELLO)


async def test_a_shared_worker_outlives_its_templates(worker: TemplateWorker) -> None:
    await template(ECHO, worker).close()
    assert await template(ECHO, worker).render(HELLO) == "hello"


@pytest.mark.parametrize("steps", [0, 1, 2, 4, 8, 16, 64])
async def test_close_while_starting_or_rendering(steps: int) -> None:
    worker = TemplateWorker()
    renders = [asyncio.create_task(template(LOOP, worker).render(HELLO)) for _ in range(3)]
    for _ in range(steps):
        await asyncio.sleep(0)
    await worker.close()
    assert worker.pid is None
    for error in await asyncio.gather(*renders, return_exceptions=True):
        assert isinstance(error, EngineError)
        assert "closed" in error.message


@linux
async def test_the_child_sees_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", "sk-secret")
    worker = TemplateWorker(environment={"TZ": "Asia/Tokyo"})
    try:
        await template(ECHO, worker).render(HELLO)
        environ = proc(worker, "environ")
    finally:
        await worker.close()
    assert environ == b"TZ=Asia/Tokyo\0"


@linux
async def test_the_childs_limits(worker: TemplateWorker) -> None:
    await template(ECHO, worker).render(HELLO)
    limits = proc(worker, "limits").decode().splitlines()
    values = {line[:26].strip(): line[26:].split()[1] for line in limits}
    assert values["Max core file size"] == "0"
    assert 512 * 2**20 < int(values["Max address space"]) < 700 * 2**20


@linux
@pytest.mark.parametrize("module", ["asyncio", "uvloop"])
def test_on_either_loop_the_child_inherits_no_file(module: str) -> None:
    loops = pytest.importorskip(module)

    async def main() -> set[str]:
        worker = TemplateWorker()
        try:
            with pytest.raises(RequestError, match="longer than"):
                await template(LOOP, worker, timeout=SHORT).render(HELLO)
            assert await template(ECHO, worker).render(HELLO) == "hello"
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            assert await template(ECHO, worker).render(HELLO) == "hello"
            return set(os.listdir(f"/proc/{worker.pid}/fd"))
        finally:
            await worker.close()

    with open(os.devnull) as file:
        os.set_inheritable(file.fileno(), True)
        assert loops.run(main()) == {"0", "1", "2"}
