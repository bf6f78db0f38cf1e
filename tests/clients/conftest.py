"""The surroundings of the client libraries: nothing of a developer's own set-up, and no calls home."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# `make test-clients` starts the server and says where; without it there is nothing to talk to.
if "ENGINEHOUSE_URL" not in os.environ:
    collect_ignore_glob = ["test_*.py"]

for name in [name for name in os.environ if name.startswith("OPENAI_") or name.upper().endswith("_PROXY")]:
    del os.environ[name]

# Read when the libraries are imported, hence here.
os.environ |= {
    "ANONYMIZED_TELEMETRY": "False",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LANGCHAIN_TRACING_V2": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "DSPY_CACHEDIR": os.path.join(os.environ.get("TMPDIR", "/tmp"), f"enginehouse-dspy-{os.getuid()}"),
}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a library writes or reads beside itself is in a fresh folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path / "llm"))
