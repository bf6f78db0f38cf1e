"""Listening on free ports."""

from __future__ import annotations

import socket

import pytest

from balancer.workers.ports import listen


def test_no_port_is_left() -> None:
    with pytest.raises(OSError, match="no port from 65535 up is free"):
        listen(65535, taken={65535})


def test_listening_excludes_others() -> None:
    with listen(18400) as listener, pytest.raises(OSError, match="in use"):
        socket.create_server(listener.getsockname())
