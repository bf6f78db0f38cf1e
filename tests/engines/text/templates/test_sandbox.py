"""What chat templates may do, and what they may not."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import engines.text
import engines.text.templates
from engines.text.templates.child import child_command
from engines.text.templates.sandbox import Failure, TemplateServer, compile_template, make_environment, render

MESSAGES = [{"role": "user", "content": "hi"}]


def apply(source: str, **context: Any) -> str:
    return render(compile_template(make_environment(), source), {"messages": MESSAGES, **context})


REFUSED = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__']['__mro__'] }}",
    "{{ (''|attr('__class__')).__mro__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.system('touch ' ~ canary) }}",
    "{{ lipsum.__globals__['os'].popen('touch ' ~ canary).read() }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ raise_exception.__globals__['sys'] }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{% set x = messages.pop() %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{{ range(10**9)|list }}",
    "{{ undefined.attribute }}",
]
# Jinja lets a template ask for these, but what it gets is empty and fails when used.
HIDDEN = [
    "{{ messages.__class__ }}",
    "{{ ''|attr('__class__') }}",
    "{{ '{0.__class__}'.format('') }}",
    "{{ '{0.__class__.__init__}'.format('') }}",
    "{{ ('{0.__class__.__init__}'|attr('format'))('') }}",
    "{{ ''['for' ~ 'mat'].__self__ }}",
    "{{ strftime_now.__code__ }}",
    "{{ range.__class__ }}",
    "{{ namespace.__init__ }}",
]


@pytest.mark.parametrize("source", REFUSED)
def test_escapes_are_refused(source: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    messages = [{"role": "user", "content": "hi"}]
    with pytest.raises(Failure) as caught:
        apply(source, messages=messages, canary=str(canary))
    assert caught.value.kind == "failed"
    assert messages == MESSAGES
    assert not canary.exists()


@pytest.mark.parametrize("source", HIDDEN)
def test_pythons_inner_attributes_are_empty(source: str) -> None:
    assert apply(source) == ""


@pytest.mark.parametrize("name", ["open", "eval", "exec", "__import__", "getattr", "type", "print", "os"])
def test_builtins_are_undefined(name: str) -> None:
    assert apply("{{ " + name + " is defined }}") == "False"


def test_blocks_leave_no_lines_behind() -> None:
    assert apply("{% if true %}\n    {% set x = 1 %}\nx={{ x }}\n{% endif %}\n") == "x=1\n"


def test_loop_controls() -> None:
    skip = "{% if i == 1 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}"
    assert apply("{% for i in range(9) %}" + skip + "{{ i }}{% endfor %}") == "023"


def test_generation_tags_are_tolerated() -> None:
    source = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    assert apply(source) == "hi"


def test_tojson_is_plain_json() -> None:
    value = {"b": "<é>", "a": [1]}
    assert apply("{{ value|tojson }}", value=value) == '{"b": "<é>", "a": [1]}'
    assert apply("{{ value|tojson(indent=2) }}", value=value) == json.dumps(
        value, ensure_ascii=False, indent=2
    )
    assert apply("{{ value|tojson(ensure_ascii=true) }}", value="é") == '"\\u00e9"'


def test_strftime_now() -> None:
    before = datetime.now().strftime("%d %b %Y")
    text = apply("{{ strftime_now('%d %b %Y') }}")
    assert text in (before, datetime.now().strftime("%d %b %Y"))


def test_the_templates_own_message_is_kept() -> None:
    with pytest.raises(Failure, match="roles must alternate") as caught:
        apply("{{ raise_exception('roles must alternate') }}")
    assert caught.value.kind == "refused"


@pytest.mark.parametrize(
    "source",
    ["{% for %}", "{{ x | nofilter }}", "{% generation %}", "{{ " + "(" * 9999, "{% if x %}" * 200],
)
def test_what_cannot_be_compiled(source: str) -> None:
    with pytest.raises(Failure) as caught:
        compile_template(make_environment(), source)
    assert caught.value.kind == "compile"


@pytest.mark.parametrize(
    "source", ["{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"]
)
def test_pythons_own_errors_are_failures(source: str) -> None:
    with pytest.raises(Failure, match=r"\w+Error: ") as caught:
        apply(source)
    assert caught.value.kind == "failed"


def test_a_long_message_is_cut() -> None:
    server = TemplateServer(None)
    source = "{{ raise_exception('x' * 100000) }}"
    reply = json.loads(server.answer({"template": 0, "source": source, "context": {}}))
    assert reply == {"error": "refused", "message": "x" * 500}


def test_the_server_remembers_templates_but_nothing_else() -> None:
    server = TemplateServer(None)
    source = "{% set ns = namespace(seen=seen|default('nothing')) %}{{ ns.seen }}{% set seen = 'x' %}"
    first = server.answer({"template": 0, "source": source, "context": {"seen": "secret"}})
    assert json.loads(first) == {"text": "secret"}
    second = server.answer({"template": 0, "source": None, "context": {}})
    assert json.loads(second) == {"text": "nothing"}


def frame(request: dict[str, Any]) -> bytes:
    body = json.dumps(request).encode()
    return struct.pack(">I", len(body)) + body


def test_the_child_ends_when_stdin_closes() -> None:
    request = frame({"template": 0, "source": "{{ 1 + 1 }}", "seconds": 1, "context": {}})
    done = subprocess.run(child_command(None), input=request, capture_output=True, timeout=30, check=True)
    assert done.stdout == frame({"ready": True}) + frame({"text": "2"})
    assert done.stderr == b""


def test_the_child_imports_little_and_runs_from_anywhere(tmp_path: Path) -> None:
    request = frame({"template": 0, "source": "{{ 1 }}", "seconds": 1, "context": {}})
    done = subprocess.run(
        child_command(None), input=request, capture_output=True, timeout=30, check=True, cwd=tmp_path, env={}
    )
    assert done.stdout.endswith(frame({"text": "1"}))
    for package in (engines.text, engines.text.templates):
        assert "import " not in Path(str(package.__file__)).read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="no alarm clock")
def test_a_looping_child_without_a_parent_ends_by_its_own_alarm() -> None:
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    request = frame({"template": 0, "source": loop, "seconds": 0, "context": {}})
    done = subprocess.run(child_command(None), input=request, capture_output=True, timeout=30)
    assert done.returncode == -signal.SIGALRM
