"""The address to listen on: tried before anything is loaded, and explained where it cannot be had."""

from __future__ import annotations

import errno
import os
import socket

import psutil

from app.cli.common import fail
from app.first_steps import command, lan_addresses

ALL_OF_IPV6 = "::"
# Ports below belong to the administrator, on most systems.
FIRST_FREE_PORT = 1024


def check_port(host: str, port: int) -> int:
    """The port to listen on (a free one for 0); exit with status 1 if it cannot be listened on.

    uvicorn would find out only after it has loaded the application.
    """
    try:
        with listener(host, port) as probe:
            return int(probe.getsockname()[1])
    except OSError as error:
        raise fail(why_not(host, port, error)) from None
    except UnicodeError:
        raise fail(f"HOST={host} is no address, and no name of one") from None


def listener(host: str, port: int) -> socket.socket:
    """A socket bound there. For ``::`` it takes IPv4 too, which asyncio's own does not. Raises `OSError`."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere this option lets two servers share a port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == ALL_OF_IPV6 and socket.has_dualstack_ipv6():
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


def why_not(host: str, port: int, error: OSError) -> str:
    """Why nobody can listen there, and what to do about it."""
    if isinstance(error, socket.gaierror):
        return f"HOST={host} is no address, and no name of one: {_HERE.format(_addresses(host))}"
    if error.errno == errno.EADDRINUSE:
        owner = port_owner(port)
        by = f" by {owner}" if owner else ""
        free = free_port_near(host, port)
        return f"Port {port} is in use{by}. End that, or choose another: {command()} serve --port {free}"
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"Cannot listen on {host} port {port}: {host} is no address of this machine. "
            f"{_HERE.format(_addresses(host))}"
        )
    if error.errno == errno.EACCES and port < FIRST_FREE_PORT:
        return (
            f"Cannot listen on {host} port {port}: ports below {FIRST_FREE_PORT} need an administrator's "
            f"rights. Choose another: {command()} serve --port {port + 8000}"
        )
    return f"Cannot listen on {host} port {port}: {error.strerror or error}"


_HERE = "Use {}, or 0.0.0.0 for all"


def _addresses(host: str) -> str:
    loopback = "::1" if ":" in host else "127.0.0.1"
    return ", ".join([loopback, *lan_addresses("::" if ":" in host else "")])


def port_owner(port: int) -> str:
    """The process that listens on ``port``, if this one may know."""
    try:
        pids = {
            each.pid
            for each in psutil.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid
        }
        return ", ".join(f"{psutil.Process(pid).name()} (process {pid})" for pid in sorted(pids))
    except (psutil.Error, OSError):
        return ""


def free_port_near(host: str, port: int) -> int:
    """The first port after ``port`` that can be listened on."""
    for candidate in range(port + 1, min(port + 20, 65536)):
        try:
            listener(host, candidate).close()
        except OSError:
            continue
        return candidate
    return 0
