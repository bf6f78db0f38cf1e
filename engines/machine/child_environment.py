"""The environment of child processes: all that is in ours, but its secrets.

An engine or a converter works on files from strangers. What it does not have, nobody can get from it.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Collection, Iterator, Mapping

# By the words of a name: API_KEYS, HF_TOKEN, AWS_SECRET_ACCESS_KEY, PGPASSWORD, SSH_AUTH_SOCK, …
_NAME = re.compile(
    r"(?:^|_)(?:[A-Z0-9]*(?:KEYS?|TOKEN|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|CREDENTIALS?)|PASS|AUTH|COOKIE)"
    r"(?:_|$)"
)
# A password in a URL, or a field with a key, as in UPSTREAMS.
_VALUE = re.compile(r"://[^/\s@]+@|(?:key|token|secret|password)=", re.IGNORECASE)

_lock = threading.Lock()
_hidden: dict[str, str] = {}
_hiders = 0


def is_secret(name: str, value: str) -> bool:
    """Whether a variable may hold a key, token or password. Rather too many count than too few."""
    return bool(_NAME.search(name.upper()) or _VALUE.search(value))


def child_environment(
    added: Mapping[str, str] | None = None, *, needs: Collection[str] = ()
) -> dict[str, str]:
    """The variables of a child: ours without secrets but those that it ``needs``, and what is ``added``."""
    with _lock:
        own = {**os.environ, **_hidden}
    kept = {name: value for name, value in own.items() if name in needs or not is_secret(name, value)}
    return kept | dict(added or {})


@contextlib.contextmanager
def hidden_secrets() -> Iterator[None]:
    """Take secrets out of this process's environment for a while: for libraries that start children."""
    global _hiders
    with _lock:
        _hiders += 1
        found = {name: value for name, value in os.environ.items() if is_secret(name, value)}
        _hidden.update(found)
        for name in found:
            del os.environ[name]
    try:
        yield
    finally:
        with _lock:
            _hiders -= 1
            if not _hiders:
                os.environ.update(_hidden)
                _hidden.clear()
