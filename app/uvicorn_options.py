"""Options of uvicorn, for the server and for its workers, and how it is run."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_network
from types import FrameType
from typing import Any, NoReturn

import uvicorn

from app import connections
from app.settings import Settings
from app.telemetry import logs
from engines.machine import dedicated_thread

MOST_FILES = 65536
# What a server that was told to end gets beyond the grace of its requests, to free its models.
CLOSING_SECONDS = 5.0
_STARTUP_FAILED = 3  # as uvicorn's own exit status
# What shells report for a command that Ctrl-C ended.
INTERRUPTED = 130
_STDERR = 2

logger = logging.getLogger("server")


class BoundedServer(uvicorn.Server):
    """uvicorn's server, which ends in time once it was told to, even if its event loop hangs.

    The clock is faulthandler's: it needs neither the loop nor the interpreter, and shows what hangs. Who
    presses Ctrl-C again wants no end in order: child processes end by themselves when this one is gone.
    """

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            grace = self.config.timeout_graceful_shutdown or 0
            faulthandler.dump_traceback_later(grace + CLOSING_SECONDS, exit=True, file=_STDERR)
        elif sig == signal.SIGINT:
            os._exit(INTERRUPTED)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        count, grace = len(self.server_state.tasks), self.config.timeout_graceful_shutdown
        waiting = f": {count} requests get {grace} s to end; Ctrl-C again ends at once" if count else ""
        logger.info("stopping%s", waiting)
        await super().shutdown(sockets)


def run_server(app: str, sockets: list[socket.socket] | None = None, **options: Any) -> None:
    """As `uvicorn.run`, with a `BoundedServer`; on ``sockets``, if there are any."""
    server = BoundedServer(uvicorn.Config(app, **options))
    status = run_to_end(server, sockets)
    if not server.started:
        sys.exit(status or _STARTUP_FAILED)


def run_to_end(server: uvicorn.Server, sockets: list[socket.socket] | None) -> int:
    """Run ``server`` to its end; the exit status is what told it to end.

    A load that was given up may still compute then, and nothing can end it: an interpreter that went on to
    its own end would have the libraries' clean-up take away under it what it computes with, and crash.
    """
    try:
        server.run(sockets)
        status = 0
    except KeyboardInterrupt:
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 0
    if dedicated_thread.is_busy():
        logs.flush()
        os._exit(status)
    return status


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for `uvicorn.Config`. Logs are the application's own."""
    return {
        "http": connections.protocol(settings),
        "loop": "auto",
        "ws": "none",
        "log_config": None,
        "access_log": False,
        "timeout_keep_alive": settings.http_keep_alive,
        "timeout_graceful_shutdown": int(settings.shutdown_grace),
        # Otherwise uvicorn believes every process of this machine, and what FORWARDED_ALLOW_IPS says.
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": _networks(settings.trusted_proxies),
    }


def _networks(proxies: Iterable[str]) -> list[str]:
    """The networks, those of IPv4 also as a socket that takes both sees their addresses."""
    networks = [ip_network(proxy) for proxy in proxies]
    mapped = (f"::ffff:{each[0]}/{96 + each.prefixlen}" for each in networks if each.version == 4)
    return [*map(str, networks), *mapped]


def allow_open_files() -> None:
    """Raise the limit of open files as far as is allowed: a stream that is relayed takes two, and many
    systems start programs with 1,024."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # macOS has a lower limit, which it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def end_well_on_sigterm() -> None:
    """uvicorn raises the signal again once it has shut down; to have been told to end is no failure."""
    signal.signal(signal.SIGTERM, _end)


def _end(signum: int, frame: object) -> NoReturn:
    raise SystemExit(0)
