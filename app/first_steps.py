"""First steps: where a server that is ready is reached, and commands to try it, which work as printed."""

from __future__ import annotations

import json
import os.path
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psutil

from app.settings import Settings

ANY_ADDRESS = ("0.0.0.0", "::", "")
MAX_TOKENS = 100
# Networks of this machine's own: other machines do not reach it there.
_VIRTUAL = ("docker", "br-", "veth", "virbr", "cni", "flannel", "podman", "utun", "lxc")


def public_url(settings: Settings) -> str:
    """Where a server with these settings is reached from this machine."""
    return _url("localhost" if settings.host in ANY_ADDRESS else settings.host, settings.port)


def urls(settings: Settings) -> list[str]:
    """Where it is reached: from this machine, then from others, if it listens on all addresses."""
    others = lan_addresses(settings.host) if settings.host in ANY_ADDRESS else ()
    return [public_url(settings), *(_url(address, settings.port) for address in others)]


def lan_addresses(host: str) -> list[str]:
    """This machine's addresses in networks that others are in, those of IPv4 unless ``host`` is ``::``."""
    states = psutil.net_if_stats()
    families = (socket.AF_INET, socket.AF_INET6) if host == "::" else (socket.AF_INET,)
    found = [
        (each.family, each.address)
        for name, addresses in psutil.net_if_addrs().items()
        if name in states and states[name].isup and not name.startswith(_VIRTUAL)
        for each in addresses
        if each.family in families and _is_reachable(each.address)
    ]
    return [address for _, address in sorted(found, key=lambda each: each[0] != socket.AF_INET)]


def _is_reachable(address: str) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return not (parsed.is_loopback or parsed.is_link_local)


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def command() -> str:
    """How this environment's ``enginehouse`` is called from the current folder."""
    script = Path(sys.executable).parent / ("enginehouse.exe" if sys.platform == "win32" else "enginehouse")
    if not script.is_file():
        return f"{shlex.quote(sys.executable)} -m app"
    near = os.path.relpath(script)
    return shlex.quote(str(script) if near.startswith("..") else near)


def curl_example(url: str, model: str, *, with_key: bool, between: str = " ") -> str:
    """A command to paste into a shell, with ``between`` its options. It shows no key, only where one goes."""
    key = ['-H "Authorization: Bearer $API_KEY"'] if with_key else []
    question = [{"role": "user", "content": "What is the capital of France?"}]
    body = shlex.quote(json.dumps({"model": model, "messages": question, "max_tokens": MAX_TOKENS}))
    # Brackets are a pattern for curl.
    globbing = " -g" if "[" in url else ""
    target = shlex.quote(f"{url}/v1/chat/completions")
    return between.join(
        [f"curl{globbing} {target}", *key, "-H 'Content-Type: application/json'", f"-d {body}"]
    )


def ready_fields(settings: Settings, model: str) -> dict[str, Any]:
    """The addresses and commands for a server that has ``model`` loaded."""
    url = public_url(settings)
    return {
        "urls": urls(settings),
        "docs": f"{url}/docs",
        "chat": f"{command()} chat --url {shlex.quote(url)}",
        "curl": curl_example(url, model, with_key=bool(settings.api_keys)),
    }


def ready_text(fields: Mapping[str, Any]) -> str:
    """The block that people see, of the ready line's fields."""
    return "\n".join(["", *_block(fields), ""])


def _block(fields: Mapping[str, Any]) -> Iterator[str]:
    first, *others = fields["urls"]
    yield f"Enginehouse {fields['version']} is ready: {fields['model']} ({about(fields)})"
    yield f"  open   {first}"
    yield from (f"         {url} (from other machines)" for url in others)
    yield f"  API    {first}/v1"
    yield f"  docs   {fields['docs']}"
    yield f"  chat   {fields['chat']}"
    yield f"  curl   {fields['curl']}"


def about(fields: Mapping[str, Any]) -> str:
    devices = ", ".join(fields["devices"])
    parts = [f"{fields['engine']} on {devices}" if devices else str(fields["engine"])]
    parts.append(f"context {fields['context_length']:,} tokens")
    return ", ".join([*parts, fields["memory"]])
