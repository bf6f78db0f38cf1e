"""Guard: the addresses that upstreams may have, by their URL and again by what their name resolves to.

Whoever may add an upstream makes this server send requests to an address of their choice, so that it must not
lead where only the server itself is let in: to the metadata services of clouds, above all.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Sequence

from balancer.errors import BadAnswer
from balancer.proxy.route import Address, Origin, address_of, matches

SETTING = "ALLOWED_UPSTREAMS"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Link-local addresses and those at which clouds serve credentials to the machines of theirs.
_NEVER_MEANT = tuple(
    ipaddress.ip_network(network)
    for network in (
        "169.254.0.0/16",
        "fe80::/10",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "192.0.0.192/32",
        "fd00:ec2::254/128",
        "fd20:ce::254/128",
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_HOST = re.compile(r"\*|(\*?\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*(:[0-9]{1,5})?|\[[0-9a-f:.]+\](:[0-9]{1,5})?")


class NotAllowed(BadAnswer):
    """An upstream is at an address that none may have."""

    def __init__(self, where: str) -> None:
        super().__init__(f"{where} is not allowed as an upstream: {SETTING} says which are")


def parse_allowed(text: str) -> tuple[str, ...]:
    """The entries of ALLOWED_UPSTREAMS, written as those of NO_PROXY. Raises `ValueError`."""
    entries = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for entry in entries:
        if _network(entry) is None and not _HOST.fullmatch(entry):
            raise ValueError(
                f"{entry[:100]!r} is no host (gpu1, *.internal, gpu1:8000), address or network (10.0.0.0/8)"
            )
    return entries


class Guard:
    """``allowed``: the only hosts and networks; empty: all but link-local and metadata addresses.

    Those are let through only by a network that has them in it, as no name tells where it leads.
    """

    def __init__(self, allowed: str = "") -> None:
        self._allowed = parse_allowed(allowed)
        networks = {entry: _network(entry) for entry in self._allowed}
        self._networks = tuple(network for network in networks.values() if network is not None)
        self._hosts = tuple(entry for entry, network in networks.items() if network is None)

    def check(self, origin: Origin) -> None:
        """Raises `NotAllowed` if the URL alone says so: a name that is allowed nowhere, or an address."""
        address = _numeric(origin.host)
        if address is not None:
            self._check_address(origin, address)
        elif self._allowed and not self._networks and not self._has_host(origin):
            raise NotAllowed(str(origin))

    async def addresses(self, origin: Origin) -> list[str]:
        """The addresses of ``origin`` that are allowed, in the order to try them.

        Raises `NotAllowed` if none is, and `OSError` if the name has none.
        """
        self.check(origin)
        addresses = list(dict.fromkeys(await self._look_up(origin)))
        allowed = [each for each in addresses if self._admits(origin, ipaddress.ip_address(each))]
        if not allowed:
            raise NotAllowed(f"{origin} ({', '.join(addresses)})")
        return allowed

    async def _look_up(self, origin: Origin) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        return [str(info[4][0]) for info in found]

    def _check_address(self, origin: Origin, address: Address) -> None:
        if not self._admits(origin, address):
            raise NotAllowed(str(origin) if str(address) == origin.host else f"{origin} ({address})")

    def _admits(self, origin: Origin, address: Address) -> bool:
        if _is_in(address, self._networks):
            return True
        if is_never_meant(address):
            return False
        return not self._allowed or self._has_host(origin)

    def _has_host(self, origin: Origin) -> bool:
        if _numeric(origin.host) is not None:  # not a name, so no end of it is a domain
            return "*" in self._hosts or str(origin) in self._hosts
        return any(matches(entry, origin, None) for entry in self._hosts)


def _network(entry: str) -> Network | None:
    try:
        return ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return None


def _numeric(host: str) -> Address | None:
    """The address that ``host`` is, also in the older forms that resolvers take (0x7f.1, 2130706433)."""
    address = address_of(host)
    if address is None and host[:1].isdigit():
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    return address


def is_never_meant(address: Address) -> bool:
    """Whether ``address`` is link-local, or a metadata service of a cloud."""
    return _is_in(address, _NEVER_MEANT)


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    both = (address, inner_address(address))
    return any(each in network for each in both for network in networks)


def inner_address(address: Address) -> Address:
    """The IPv4 address that an IPv6 one leads to, if it does."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address
