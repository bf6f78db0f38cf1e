"""Which upstreams the settings and the catalog may name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from app.cluster import configured_upstreams
from app.settings import Settings
from engines.models.catalog import CatalogError
from engines.models.library import Library


def names(base: Path, **settings: Any) -> list[str]:
    library = Library(base, base / "models.yaml")
    library.reload()
    return [each.name for each in configured_upstreams(Settings(_env_file=None, **settings), library)]


def test_who_starts_the_server_may_name_any_address(tmp_path: Path) -> None:
    assert names(tmp_path, upstreams="http://169.254.1.1/v1,http://gpu1") == ["169.254.1.1", "gpu1"]


@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        ("gpu1", "http://gpu2"),
        ("gpu1:8000", "http://gpu1:8001"),
        ("10.0.0.0/8, gpu1", "http://11.0.0.1"),
        ("*", "http://169.254.1.1"),
    ],
)
def test_what_contradicts_allowed_upstreams_is_told_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, allowed: str, refused: str
) -> None:
    with pytest.raises(CatalogError, match="is not allowed as an upstream: ALLOWED_UPSTREAMS says which"):
        names(tmp_path, upstreams=f"{refused}#key=secret", allowed_upstreams=allowed)
    # A mistake in the catalog costs only what is wrong.
    (tmp_path / "models.yaml").write_text(f"upstreams: [{{url: '{refused}'}}]")
    assert names(tmp_path, allowed_upstreams=allowed) == []
    assert "is not allowed as an upstream" in caplog.text


def test_what_a_name_leads_to_is_seen_with_the_connection(tmp_path: Path) -> None:
    allowed = "10.0.0.0/8, *.gpu.test:80"
    assert names(tmp_path, upstreams="http://gpu1,http://a.gpu.test", allowed_upstreams=allowed) == [
        "gpu1",
        "a.gpu.test",
    ]


@pytest.mark.parametrize(("field", "value"), [("weight", 1000.5), ("weight", 0), ("max_concurrent", 10**9)])
def test_numbers_of_the_catalog_are_bounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, field: str, value: float
) -> None:
    wrong, right = f"{{url: 'http://gpu1', {field}: {value}}}", "{url: 'http://gpu2'}"
    (tmp_path / "models.yaml").write_text(f"upstreams: [{wrong}, {right}]")
    assert names(tmp_path) == ["gpu2"]
    assert re.search(r"1000|above 0|greater than 0", caplog.text)
