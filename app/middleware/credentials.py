"""What a request tells of who sent it: keys, and an address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Network, ip_address

from starlette.types import Scope

from app.hosts import host_of, is_domain, is_loopback

_AUTHORIZATION = b"authorization"
# The last two as Anthropic's and Azure's clients send them.
_KEY_HEADERS = frozenset({_AUTHORIZATION, b"x-api-key", b"api-key"})
# Whoever adds one of these passes on what somebody else sent.
_PROXIES_HEADERS = frozenset(
    {
        b"cf-connecting-ip",
        b"forwarded",
        b"true-client-ip",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
    }
)
# What an IPv6 provider gives one customer at least.
_CUSTOMER = 64
# Who has no address, as on a Unix socket, or none that is one.
UNKNOWN = "unknown"


def keys_of(scope: Scope) -> list[bytes]:
    """The keys that the request brings: a Bearer token, and what stands in the headers for bare ones. Of each
    header the first counts."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _KEY_HEADERS:
            found.setdefault(name, value.strip())
    authorization = found.pop(_AUTHORIZATION, b"")
    scheme, _, token = authorization.partition(b" ")
    keys = [token.strip()] if scheme.lower() == b"bearer" else []
    return [key for key in (*keys, *found.values()) if key]


def is_local(scope: Scope, own: str = "") -> bool:
    """Whether a program on this machine sent the request: no proxy for somebody else, and no page in a
    browser whose name was made to lead here. ``own`` is the one address that the server listens on, if it is
    one: who comes from there is here too."""
    client = scope.get("client")
    if not client or not (is_loopback(client[0]) or (own and client[0] == own)):
        return False
    for name, value in scope["headers"]:
        if name in _PROXIES_HEADERS:
            return False
        if name == b"host" and is_domain(host_of(value.decode("latin-1")) or "."):
            return False
    return True


def client_network(scope: Scope) -> str:
    """The address that limits count by: of IPv6 the network, as one client has all of its addresses."""
    client = scope.get("client")
    try:
        address = ip_address(client[0]) if client else None
    except ValueError:
        address = None  # a proxy that is trusted passes on what it does not understand
    if address is None:
        return UNKNOWN
    if isinstance(address, IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Network((int(address), _CUSTOMER), strict=False))
