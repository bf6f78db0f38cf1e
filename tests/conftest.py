from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import certifi
import pytest

from app.settings import Settings

_NUMBERS = count()
END_TO_END = Path(__file__).parent / "e2e"
# They have environments of their own (`make test-clients`).
collect_ignore = ["clients"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is tested from end to end runs real models; elsewhere tests say so themselves."""
    for item in items:
        if item.path.is_relative_to(END_TO_END):
            item.add_marker(pytest.mark.real)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own settings must not decide whether tests pass."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)
    os.environ.pop("OPENAI_API_KEY", None)


@pytest.fixture(autouse=True, scope="session")
def _no_state_of_others(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The same for servers that several tests share, which begin before any test's own fixtures."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.getbasetemp() / "state-shared")


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a developer's own server has kept is left alone, and each test begins with nothing kept."""
    # A folder that is not made until something is kept, which hardly any test does.
    place = tmp_path_factory.getbasetemp() / f"state-{os.getpid()}-{next(_NUMBERS)}"
    monkeypatch.setenv("XDG_STATE_HOME", str(place))


@pytest.fixture(autouse=True, scope="session")
def _public_certificates_are_read_once() -> Iterator[None]:
    """httpx reads them for every client, in 30 ms: as long as most tests take."""
    make = ssl.create_default_context
    public = {certifi.where(), os.environ.get("SSL_CERT_FILE")}

    @cache
    def read(cafile: str) -> ssl.SSLContext:
        return make(cafile=cafile)

    def shared(*args: Any, **options: Any) -> ssl.SSLContext:
        if not args and options.keys() == {"cafile"} and options["cafile"] in public:
            return read(options["cafile"])
        return make(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", shared)
        yield
