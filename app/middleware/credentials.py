"""What a request tells of who sent it: a Bearer key, and an address."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Network, ip_address

from starlette.types import Scope

# What an IPv6 provider gives one customer at least.
_CUSTOMER = 64
# Who has no address, as on a Unix socket, or none that is one.
UNKNOWN = "unknown"


def bearer_token(scope: Scope) -> bytes | None:
    """The token of the Authorization header; None without one, or in another scheme."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.strip().partition(b" ")
            return token.strip() if scheme.lower() == b"bearer" else None
    return None


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
