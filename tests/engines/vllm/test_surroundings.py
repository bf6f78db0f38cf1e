from __future__ import annotations

import os

import pytest

from engines.vllm.surroundings import environment


def test_children_of_vllm_have_what_is_set_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", "sesame")
    monkeypatch.setenv("VLLM_TARGET", "cpu")
    before = dict(os.environ)
    with environment({"VLLM_NO_USAGE_STATS": "1"}):
        os.environ["VLLM_TARGET"] = "theirs"
        assert "sesame" not in os.environ.values()
        assert os.environ["VLLM_NO_USAGE_STATS"] == "1"
    assert dict(os.environ) == before


def test_a_start_that_fails_gives_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEYS", "sesame")
    with pytest.raises(OSError, match="no"), environment({}):
        raise OSError("no")
    assert os.environ["API_KEYS"] == "sesame"
