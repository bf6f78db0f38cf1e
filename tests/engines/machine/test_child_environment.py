from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings
from engines.machine.child_environment import child_environment, hidden_secrets, is_secret
from engines.machine.job_process import run_child

JOB = """
import os
from engines.machine.job_process import serve_job
serve_job(lambda request, send: {"environment": dict(os.environ)})
"""


@pytest.mark.parametrize(
    "name",
    [
        "API_KEYS",
        "ADMIN_API_KEYS",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "MODELSCOPE_API_TOKEN",
        "OPENAI_API_KEY",
        "VLLM_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "PGPASSWORD",
        "db_password",
        "SSH_AUTH_SOCK",
        "APIKEY",
    ],
)
def test_secrets_by_name(name: str) -> None:
    assert is_secret(name, "x")


@pytest.mark.parametrize(
    "value",
    [
        "http://gpu1:8000/v1#weight=2&key=sk-1",
        "http://gpu1:8000/v1#KEY=sk-1",
        "https://me:word@proxy:3128",
        "postgres://word@db/x",
        "host=db password=word",
    ],
)
def test_secrets_by_value(value: str) -> None:
    assert is_secret("ANYTHING", value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/usr/bin:/bin"),
        ("PWD", "/srv"),
        ("LD_LIBRARY_PATH", "/usr/lib"),
        ("CUDA_VISIBLE_DEVICES", "0,1"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("KV_CACHE_TOKENS", "4096"),
        ("VLLM_FUSED_MOE_MAX_TOKENS", "8192"),
        ("OMP_NUM_THREADS", "4"),
        ("HF_HOME", "/cache"),
        ("HTTPS_PROXY", "http://proxy:3128"),
        ("UPSTREAMS", "http://gpu1:8000/v1#weight=2"),
        ("HF_ENDPOINT", "https://mirror.example"),
    ],
)
def test_what_is_no_secret(name: str, value: str) -> None:
    assert not is_secret(name, value)


def test_of_the_settings_the_keys_are_secret() -> None:
    secret = {name for name in Settings.model_fields if is_secret(name, "x")}
    assert secret == {"api_keys", "admin_api_keys", "rate_limit_wrong_keys"}  # the last by its name alone


def test_what_is_needed_or_added_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "a")
    monkeypatch.setenv("API_KEYS", "b")
    found = child_environment({"MORE_KEYS": "c"}, needs={"HF_TOKEN"})
    assert (found.get("HF_TOKEN"), found.get("API_KEYS"), found["MORE_KEYS"]) == ("a", None, "c")
    assert found["PATH"] == os.environ["PATH"]


def test_secrets_are_hidden_from_children_of_libraries_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "sesame")
    before = dict(os.environ)
    command = [sys.executable, "-S", "-c", "import os; print(os.environ.get('HF_TOKEN'))"]
    with hidden_secrets():
        with hidden_secrets():
            pass
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "None\n"
        assert child_environment(needs={"HF_TOKEN"})["HF_TOKEN"] == "sesame"
    assert dict(os.environ) == before


async def test_a_job_has_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "some_job.py").write_text(JOB)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    for name in ("API_KEYS", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "sesame")
    result = await run_child("some_job", {}, lambda message: None, needs={"HF_TOKEN"})
    assert {name for name, value in result["environment"].items() if value == "sesame"} == {"HF_TOKEN"}
