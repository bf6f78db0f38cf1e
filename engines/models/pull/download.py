"""Fetches one file, going on where an earlier attempt stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import get_session

from engines.machine.job_process import JobFailed
from engines.models.pull.sources import RemoteFile, http_failure, status_failure

RETRIES = 5
TIMEOUT = 20.0  # seconds without a byte
BLOCK = 2**18
# Content networks refuse to send more than about 50 GB in one answer.
LONGEST_ANSWER = 32 * 10**9

T = TypeVar("T")


def retried(attempt: Callable[[], T], *, backoff: float, retries: int = RETRIES) -> T:
    """What ``attempt`` returns; failures that are retryable are tried again after a growing pause."""
    for retry in range(retries):
        try:
            return attempt()
        except JobFailed as failure:
            if not failure.retryable:
                raise
        time.sleep(backoff * 2**retry)
    return attempt()


class Fetcher:
    """Downloads into partial files. ``on_bytes`` gets what arrived: a count and the file's path."""

    def __init__(self, on_bytes: Callable[[int, str], None], access_hint: str, backoff: float) -> None:
        self._on_bytes = on_bytes
        self._access_hint = access_hint
        self._backoff = backoff

    def fetch(self, file: RemoteFile, part: Path) -> None:
        """Complete ``part``. Raises `JobFailed` after too many attempts that brought nothing."""
        part.touch()
        while part.stat().st_size < file.size:
            retried(lambda: self._append(file, part), backoff=self._backoff)

    def _append(self, file: RemoteFile, part: Path) -> None:
        """Add what one answer brings: perhaps all, perhaps, if it breaks off, only some."""
        have = part.stat().st_size
        end = min(file.size, have + LONGEST_ANSWER)
        headers = {**file.headers, "Accept-Encoding": "identity"}
        if have or end < file.size:
            headers["Range"] = f"bytes={have}-{end - 1}"
        try:
            with get_session().stream("GET", file.url, headers=headers, timeout=TIMEOUT) as response:
                self._receive(file, part, have, response)
        except Exception as error:
            failure = http_failure(error, file.path, self._access_hint)
            if failure is None:
                raise
            if part.stat().st_size <= have:
                raise failure from error
        else:
            if part.stat().st_size <= have:
                raise JobFailed(f"the hub sends nothing of {file.path}: try again later", retryable=True)

    def _receive(self, file: RemoteFile, part: Path, have: int, response: Any) -> None:
        if response.status_code == 416 or (have and response.status_code == 200):
            self._start_over(file, part, have)
            have = 0
        if response.status_code not in (200, 206):
            retryable = response.status_code == 416
            failure = status_failure(response.status_code, file.path, self._access_hint)
            raise JobFailed(failure.message, retryable=failure.retryable or retryable)
        with part.open("ab", buffering=0) as out:
            for block in response.iter_bytes(BLOCK):
                have += len(block)
                if have > file.size:
                    raise JobFailed(f"the hub sends more of {file.path} than the {file.size} bytes it has")
                _write(out, block)
                self._on_bytes(len(block), file.path)
            os.fsync(out.fileno())

    def _start_over(self, file: RemoteFile, part: Path, have: int) -> None:
        """The hub does not continue the file: what was there is of no use."""
        part.write_bytes(b"")
        self._on_bytes(-have, file.path)


def _write(out: Any, block: bytes) -> None:
    """Write all of ``block``: a raw file may take less, for one just before the disk is full."""
    rest = memoryview(block)
    while rest:
        rest = rest[out.write(rest) :]
