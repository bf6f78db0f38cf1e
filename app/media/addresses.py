"""Addresses that media may be fetched from: what MEDIA_URLS says.

Whoever may send a request makes this server fetch from an address of their choice. What only the server
itself can reach, such as other machines of its network or the metadata service of its cloud, must stay out
of their reach, whatever name leads there.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address, ip_network
from typing import Literal

from balancer.proxy.guard import Guard, NotAllowed, inner_address, is_never_meant, parse_allowed
from balancer.proxy.route import Address, Origin, address_of

SETTING = "MEDIA_URLS"
Scheme = Literal["https", "http"]

_SCHEMES: tuple[Scheme, ...] = ("https", "http")
# Of IPv6 only this part is routed between networks.
_GLOBAL_UNICAST = ip_network("2000::/3")
# A name whose server never answers holds a thread until the resolver gives up. The event loop's own threads
# are for what all requests need.
_RESOLVERS = ThreadPoolExecutor(16, "media-names")


def parse_sources(text: str) -> tuple[frozenset[Scheme], str]:
    """The schemes whose URLs may lead to any public address, and the hosts and networks that may be fetched
    from besides, as `Guard` takes them. ``none`` is neither. Raises `ValueError`."""
    entries = [part.strip() for part in text.split(",") if part.strip()]
    if [each.lower() for each in entries] == ["none"]:
        return frozenset(), ""
    schemes = frozenset(scheme for scheme in _SCHEMES if scheme in map(str.lower, entries))
    others = ",".join(entry for entry in entries if entry.lower() not in _SCHEMES)
    if "*" in parse_allowed(others):
        raise ValueError(
            "'*' would let clients reach this server's own network: name its hosts, or networks (10.0.0.0/8)"
        )
    return schemes, others


class MediaGuard(Guard):
    """The addresses of URLs in requests: public ones, and what is listed.

    A host that is listed may be at a private address, but at a link-local one, or that of a cloud's metadata
    service, only if its network is listed.
    """

    def __init__(self, sources: str) -> None:
        self._schemes, listed = parse_sources(sources)
        super().__init__(listed)

    @property
    def allows_none(self) -> bool:
        """Whether nothing may be fetched at all."""
        return not self._schemes and not self._allowed

    def check(self, origin: Origin) -> None:
        address = address_of(origin.host)
        if address is not None:
            self._check_address(origin, address)
        elif not self._takes(origin) and not self._networks and not self._has_host(origin):
            raise NotAllowed(str(origin))

    def _admits(self, origin: Origin, address: Address) -> bool:
        if self._allowed and super()._admits(origin, address):
            return True
        return self._takes(origin) and is_public(address)

    def _takes(self, origin: Origin) -> bool:
        return ("https" if origin.is_tls else "http") in self._schemes

    async def _look_up(self, origin: Origin) -> list[str]:
        look_up = partial(socket.getaddrinfo, origin.host, origin.port, type=socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(_RESOLVERS, look_up)
        return [str(info[4][0]) for info in found]


def is_public(address: Address) -> bool:
    """Whether ``address`` is one machine's on the internet, and so is the IPv4 address in it, if there is
    one."""
    if is_never_meant(address):
        return False
    inner = inner_address(address)
    if isinstance(inner, IPv4Address):
        return inner.is_global and not inner.is_multicast and not inner.is_reserved
    return address in _GLOBAL_UNICAST and inner.is_global and not inner.is_multicast
