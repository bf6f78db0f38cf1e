"""Host names and origins: how they are written, and which are this machine's own."""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

ANY = "*"
# What a Host header holds: a name or an address, and perhaps a port.
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\s:/?#@\[\]\\]+))(?::\d{0,5})?")
_NAME = re.compile(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def host_of(authority: str) -> str | None:
    """The host in ``name:port``, in lower case and without brackets or a final dot; None if there is none."""
    found = _AUTHORITY.fullmatch(authority.lower())
    return (found[1] or found[2].removesuffix(".")) if found else None


def is_loopback(host: str) -> bool:
    """Whether ``host``, as `host_of` gives it, names this machine, and on no other does."""
    if host == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def is_domain(host: str) -> bool:
    """Whether ``host`` is a name that its owner, whoever that is, can make lead to any machine."""
    if is_loopback(host) or host.endswith(".localhost"):
        return False
    try:
        ip_address(host)
    except ValueError:
        return "." in host
    return False


def is_named(host: str, patterns: Collection[str]) -> bool:
    """Whether one of ``patterns`` (from `parse_host`) is ``host``, or a domain that it is in."""
    if host in patterns or ANY in patterns:
        return True
    return any(each.startswith("*.") and host.endswith(each[1:]) for each in patterns)


def is_same_origin(origin: str, authority: str) -> bool:
    """Whether a page of ``origin`` comes from the server that its request addresses as ``authority``."""
    scheme, separator, theirs = origin.lower().partition("://")
    port = _DEFAULT_PORTS.get(scheme, "")
    return bool(separator) and theirs.removesuffix(port) == authority.lower().removesuffix(port)


def parse_host(text: str) -> str:
    """A name, an address, ``*.domain`` or ``*`` of a setting. Raises `ValueError`."""
    host = text.lower().strip("[]").removesuffix(".")
    if host == ANY or _NAME.fullmatch(host):
        return host
    try:
        return str(ip_address(host))
    except ValueError:
        raise ValueError(
            f"{text!r} is no host: write a name or an address, without scheme and port"
        ) from None


def parse_origin(text: str) -> str:
    """An origin as browsers write it, ``null`` or ``*``, of a setting. Raises `ValueError`."""
    if text in (ANY, "null"):
        return text
    parts = urlsplit(text.lower())
    if not parts.scheme or not parts.netloc or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is no origin: write it like https://chat.example.com")
    return f"{parts.scheme}://{parts.netloc.removesuffix(_DEFAULT_PORTS.get(parts.scheme, ' '))}"
