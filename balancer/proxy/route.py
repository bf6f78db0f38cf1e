"""Routes: where the connection for a URL goes, to its origin itself or to a forward proxy on the way."""

from __future__ import annotations

import ipaddress
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote_to_bytes, urlsplit

from balancer.errors import BadAnswer


@dataclass(frozen=True, slots=True)
class Origin:
    """A server by its address."""

    host: str
    port: int
    is_tls: bool

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ForwardProxy:
    """An HTTP proxy that requests must pass on their way out of this network.

    ``authorization`` is the value of Proxy-Authorization; empty: none is sent.
    """

    host: str
    port: int
    authorization: bytes = field(default=b"", repr=False)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Route:
    """A URL in the parts that a request needs. ``target`` stands in the request line.

    Through ``proxy`` an https origin is reached by a tunnel (CONNECT), an http origin by a ``target`` that is
    the whole URL (RFC 9112, 3.2.2). ``server_name`` is what the certificate must be for, where that is not
    the origin's host.
    """

    origin: Origin
    host_header: bytes
    target: bytes
    proxy: ForwardProxy | None = None
    server_name: str = ""


class Routes:
    """The route of every URL, by the rules of HTTP_PROXY, HTTPS_PROXY and NO_PROXY.

    ``proxies`` has a proxy's URL by the scheme that it is for, ``http`` or ``https``, and the exceptions as
    ``no``: a comma-separated list of ``*``, domains (with their subdomains), ``host:port``, addresses and
    networks (``10.0.0.0/8``). The loopback address is never behind a proxy.
    """

    def __init__(self, proxies: Mapping[str, str] | None = None) -> None:
        self._proxies = dict(proxies or {})
        self._exceptions = re.split(r"[,\s]+", self._proxies.pop("no", "").lower())
        self.to = lru_cache(256)(self._find)
        """The route to a URL: absolute, http or https, without credentials. Raises `BadAnswer`."""

    def _find(self, url: str) -> Route:
        parts = urlsplit(url)
        origin = origin_of(url)
        proxy_url = self._proxies.get(parts.scheme)
        proxy = forward_proxy(proxy_url) if proxy_url and not self._is_direct(origin) else None
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if proxy is not None and not origin.is_tls:
            target = f"http://{parts.netloc}{target}"
        return Route(origin, parts.netloc.encode("ascii"), target.encode("ascii"), proxy)

    def _is_direct(self, origin: Origin) -> bool:
        host, address = origin.host, address_of(origin.host)
        if host == "localhost" or (address is not None and address.is_loopback):
            return True
        return any(matches(exception, origin, address) for exception in self._exceptions if exception)


def origin_of(url: str) -> Origin:
    """The server that ``url``, which is http or https, leads to."""
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    return Origin(parts.hostname or "", parts.port or (443 if is_tls else 80), is_tls)


def forward_proxy(url: str) -> ForwardProxy:
    """The proxy at ``url``, which may have credentials and lack its scheme. Raises `BadAnswer`."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if parts.scheme != "http" or not host:
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        raise BadAnswer(f"the proxy {shown} is of no use: only http://host:port is supported")
    if parts.username is None:
        return ForwardProxy(host, port)
    credentials = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
    return ForwardProxy(host, port, b"Basic " + b64encode(credentials))


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def address_of(host: str) -> Address | None:
    """The address that ``host`` is; None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def matches(entry: str, origin: Origin, address: Address | None) -> bool:
    """Whether ``entry``, written as in NO_PROXY, is about ``origin``, whose ``address`` may be known."""
    if entry == "*" or entry == str(origin):
        return True
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            return False
    domain = entry.removeprefix("*").removeprefix(".")
    if domain.endswith(f":{origin.port}"):
        domain = domain.removesuffix(f":{origin.port}")
    return origin.host == domain or origin.host.endswith(f".{domain}")
