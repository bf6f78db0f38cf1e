"""A stand-in for Hugging Face and ModelScope: their listings and downloads over real HTTP, no models."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from starlette.types import Receive, Scope, Send

from support import live

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BLOCK = 64 * 1024
SMALL = 1000  # bytes up to which a file is kept in git itself, without LFS


@dataclass
class Hub:
    """Repositories (name → file → content), what was asked for, and how the hub is to misbehave.

    ``cuts``: after so many bytes the next longer answers break off. ``statuses``: what the next requests get
    instead of an answer. ``refusals``: repository → X-Error-Code of its 403. ``damaged``: files that
    arrive with other bytes. ``announced``: sizes that the listing gives instead of the true ones.
    ``pause`` is in seconds, before each block. ``ranges`` False ignores Range headers. ``elsewhere``
    sends downloads on to another host, as Hugging Face does, which is this one by another name.
    """

    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    url: str = ""
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    announced: dict[str, int] = field(default_factory=dict)
    pause: float = 0.0
    ranges: bool = True
    elsewhere: bool = False
    downloads: list[tuple[str, str | None]] = field(default_factory=list)  # file and Range
    tokens: set[tuple[str, str | None]] = field(default_factory=set)  # host and Authorization

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        path, query = unquote(scope["path"]), parse_qs(scope["query_string"].decode())
        if not any(word in path for word in ("/models/", "/resolve/")):
            await _answer(send, 404, b"")  # what the library asks for itself
            return
        host = headers["host"].partition(":")[0]
        self.tokens.add((host, headers.get("authorization")))
        if self.statuses:
            await _answer(send, self.statuses.pop(0), b"not now")
        elif path.startswith("/api/models/"):
            await self._huggingface_listing(send, path.removeprefix("/api/models/"))
        elif path.endswith("/repo/files"):
            await self._modelscope_listing(send, path.split("/models/")[1].removesuffix("/repo/files"))
        elif path.endswith("/repo"):
            repo = path.split("/models/")[1].removesuffix("/repo")
            await self._file(send, repo, query["FilePath"][0], headers.get("range"))
        elif self.elsewhere and host != "localhost":
            location = self.url.replace(host, "localhost") + scope["path"]
            await _answer(send, 302, b"", {"Location": location})
        else:
            repo, _, rest = path.lstrip("/").partition("/resolve/")
            await self._file(send, repo, rest.partition("/")[2], headers.get("range"))

    async def _huggingface_listing(self, send: Send, path: str) -> None:
        repo, _, revision = path.partition("/revision/")
        if code := self.refusals.get(repo):
            await _answer(send, 403, b"", {"X-Error-Code": code})
        elif repo not in self.repos:
            await _answer(send, 404, b"", {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("", "main", COMMIT):
            await _answer(send, 404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            siblings = [self._sibling(name, content) for name, content in self.repos[repo].items()]
            listing = {"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings}
            await _answer(send, 200, json.dumps(listing).encode())

    def _sibling(self, name: str, content: bytes) -> dict[str, Any]:
        size = self.announced.get(name, len(content))
        if size <= SMALL:
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            return {"rfilename": name, "size": size, "blobId": blob}
        lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 130}
        return {"rfilename": name, "size": size, "blobId": "0" * 40, "lfs": lfs}

    async def _modelscope_listing(self, send: Send, repo: str) -> None:
        if repo not in self.repos:
            await _answer(send, 404, json.dumps({"Code": 404, "Message": "no such model"}).encode())
            return
        files = [
            {
                "Path": name,
                "Name": name,
                "Size": len(content),
                "Sha256": hashlib.sha256(content).hexdigest(),
                "Type": "blob",
            }
            for name, content in self.repos[repo].items()
        ]
        body = {"Code": 200, "Success": True, "Data": {"Files": files}}
        await _answer(send, 200, json.dumps(body).encode())

    async def _file(self, send: Send, repo: str, name: str, span: str | None) -> None:
        self.downloads.append((name, span))
        content = self.repos[repo][name]
        if name in self.damaged:
            content = bytes(byte ^ 1 for byte in content)
        start, end = 0, len(content)
        if span and self.ranges:
            first, last = span.removeprefix("bytes=").split("-")
            start, end = int(first), int(last) + 1
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Content-Range": f"bytes {start}-{end - 1}/{len(content)}",
        }
        # Answers shorter than that cannot break off there, in whatever order they are asked for.
        cut = self.cuts.pop(0) if self.cuts and end - start > self.cuts[0] else None
        await _start(send, 206 if span and self.ranges else 200, end - start, headers)
        await self._body(send, content[start:end], cut)

    async def _body(self, send: Send, body: bytes, cut: int | None) -> None:
        for at in range(0, len(body), BLOCK):
            await asyncio.sleep(self.pause)
            if cut is not None and at + BLOCK >= cut:
                await send({"type": "http.response.body", "body": body[at:cut], "more_body": True})
                await asyncio.sleep(0.05)  # let it arrive: closing throws away what was not read
                raise ConnectionAbortedError("as the test wanted")
            await send({"type": "http.response.body", "body": body[at : at + BLOCK], "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _start(send: Send, status: int, length: int, headers: dict[str, str]) -> None:
    fields = {"Content-Type": "application/json", "Content-Length": str(length), **headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def _answer(send: Send, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    await _start(send, status, len(body), headers or {})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that listens on a free port of this machine."""
    hub = Hub()
    with live.running(hub) as hub.url:
        yield hub
