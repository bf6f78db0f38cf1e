"""Other OpenAI-compatible servers that calls may go to, as the settings and the catalog name them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from balancer.proxy.headers import is_sendable
from balancer.proxy.route import address_of
from engines.models.catalog import MAX_RENAMED, MAX_WEIGHT, UpstreamEntry, check_name

# What the ids of our own instances begin with.
OF_INSTANCES = "instance_"
OPTIONS = ("name", "key", "weight", "model", "max_concurrent")
MAX_URL = 2048
MAX_KEY = 4096
MAX_CONCURRENT = 1_000_000

_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Upstream:
    """A server's base ``url`` (as in ``http://gpu1:8000/v1``), and what it gets.

    ``models`` are our names of models and its own; empty: all that it lists, by its names.
    ``max_concurrent``: the most calls at once; None: no limit.
    """

    name: str
    url: str
    api_key: str | None = field(default=None, repr=False)
    weight: float = 1.0
    models: Mapping[str, str] = field(default_factory=dict)
    max_concurrent: int | None = None

    def __post_init__(self) -> None:
        """Raises `ValueError`, which never has the key in it."""
        _check_url(self.url)
        check_name(self.name)
        if self.name.startswith(OF_INSTANCES):
            raise ValueError(f"names that begin with {OF_INSTANCES} are those of instances")
        if len(self.models) > MAX_RENAMED:
            raise ValueError(f"at most {MAX_RENAMED} models may be named")
        for model in (*self.models.keys(), *self.models.values()):
            check_name(model)
        key = self.api_key
        if key is not None and not (0 < len(key) <= MAX_KEY and is_sendable(key)):
            raise ValueError("the key is empty, too long, or has characters that a header cannot have")
        if not 0 < self.weight <= MAX_WEIGHT:  # which is no number neither
            raise ValueError(f"weight must be a number above 0, at most {MAX_WEIGHT}")
        if self.max_concurrent is not None and not 1 <= self.max_concurrent <= MAX_CONCURRENT:
            raise ValueError(f"max_concurrent must be at least 1, at most {MAX_CONCURRENT}")


def parse_upstreams(text: str) -> tuple[Upstream, ...]:
    """Those of the setting UPSTREAMS: URLs with commas between them, and options after ``#``.

    ``http://gpu1:8000/v1#weight=2&key=sk-1&model=ours:theirs&model=x&max_concurrent=64&name=gpu1``.
    What would end a value is percent-encoded. Raises `ValueError`, which says what is wrong with which URL.
    """
    upstreams: list[Upstream] = []
    for number, part in enumerate(text.split(","), 1):
        url, _, options = part.strip().partition("#")
        if not part.strip():
            continue
        if "://" not in url:  # perhaps the second half of a key: it is not shown
            raise ValueError(f"entry {number} is no URL; a comma in an option is written %2C")
        try:
            upstreams.append(_upstream(url, _options(options)))
        except ValueError as error:
            raise ValueError(f"{_without_credentials(url)}: {error}") from None
    check_names(upstreams)
    return tuple(upstreams)


def upstream_at(
    url: str,
    *,
    name: str | None = None,
    api_key: str | None = None,
    weight: float = 1.0,
    models: Mapping[str, str] | None = None,
    max_concurrent: int | None = None,
) -> Upstream:
    """The upstream at ``url``, with the path and the name that it goes without saying has.

    Raises `ValueError`.
    """
    url = _complete(url)
    return Upstream(name or _default_name(url), url, api_key, weight, models or {}, max_concurrent)


def from_catalog(entry: UpstreamEntry, base: Path) -> Upstream:
    """The upstream of a catalog whose relative paths start at ``base``. Raises `ValueError`."""
    key = entry.api_key
    try:
        if entry.api_key_file is not None:
            key = _read_key(base / entry.api_key_file)
        return upstream_at(
            entry.url,
            name=entry.name,
            api_key=key,
            weight=entry.weight,
            models=entry.models,
            max_concurrent=entry.max_concurrent,
        )
    except ValueError as error:
        raise ValueError(f"{_without_credentials(entry.url)}: {error}") from None


def check_names(upstreams: Iterable[Upstream]) -> None:
    """Raises `ValueError` if two have one name, as two of one host and port do that were not given any."""
    urls: dict[str, str] = {}
    for upstream in upstreams:
        if upstream.name in urls:
            both = f"{urls[upstream.name]} and {upstream.url}"
            raise ValueError(f"{both} are both called {upstream.name}: give one another name")
        urls[upstream.name] = upstream.url


def _upstream(url: str, options: list[tuple[str, str]]) -> Upstream:
    given = {name: unquote(value) for name, value in options if name != "model"}
    models = dict(_renamed(value) for name, value in options if name == "model")
    limit = given.get("max_concurrent")
    return upstream_at(
        url,
        name=given.get("name"),
        api_key=given.get("key"),
        weight=_number("weight", given.get("weight", "1")),
        models=models,
        max_concurrent=None if limit is None else _whole_number("max_concurrent", limit),
    )


def _options(text: str) -> list[tuple[str, str]]:
    """Names and values; the values still have their percent signs."""
    parts = [(name, value) for name, _, value in (part.partition("=") for part in text.split("&") if part)]
    for index, (name, _) in enumerate(parts):
        if name not in OPTIONS:
            raise ValueError(f"option {index + 1} is none of {', '.join(OPTIONS)}")
        if name != "model" and name in (other for other, _ in parts[:index]):
            raise ValueError(f"the option {name} is given twice")
    return parts


def _renamed(value: str) -> tuple[str, str]:
    """``ours:theirs``, or one name that both sides use."""
    ours, *theirs = map(unquote, value.split(":"))
    if len(theirs) > 1:
        raise ValueError(f"model={value}: a colon that belongs to a name is written %3A")
    return ours, theirs[0] if theirs else ours


def _number(name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{name} must be a number") from None


def _whole_number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= len(str(MAX_CONCURRENT))):
        raise ValueError(f"{name} must be a whole number")
    return int(value)


def _complete(url: str) -> str:
    """``url`` with the path that it goes without saying has."""
    url = url.strip().rstrip("/")
    return url if urlsplit(url).path else f"{url}/v1"


def _check_url(url: str) -> None:
    if len(url) > MAX_URL:
        raise ValueError(f"the URL has more than {MAX_URL} characters")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("this is no URL such as http://host:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("put the key after #key=, not into the address")
    if parts.query:
        raise ValueError("the URL cannot have a query: options come after #")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("the URL has characters that must be escaped")
    try:
        is_port = parts.port != 0
    except ValueError:
        is_port = False
    if not is_port:
        raise ValueError("the port must be a number from 1 to 65535")
    if not _HOST.fullmatch(parts.hostname) and address_of(parts.hostname) is None:
        raise ValueError("the host has characters that none can have")


def _default_name(url: str) -> str:
    """``host:port``."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _without_credentials(url: str) -> str:
    """``url``, which may not be one, as far as it cannot have a key in it."""
    scheme, separator, rest = url.partition("?")[0].partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _read_key(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not plain text"
        raise ValueError(f"the key cannot be read from {path}: {reason}") from None
