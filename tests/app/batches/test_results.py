"""Results of a batch: what is there after a crash counts, what is half there does not."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from app.batches import results as results_module
from app.batches.results import BatchResults

GOOD = {
    "status_code": 200,
    "request_id": "r",
    "body": {"usage": {"prompt_tokens": 3, "completion_tokens": 2}},
}
BAD = {"status_code": 400, "request_id": "r", "body": {}}


async def test_what_was_written_whole_is_done(tmp_path: Path) -> None:
    async with BatchResults(tmp_path) as results:
        await asyncio.gather(*(results.add(f"{i} ü\u2028", GOOD) for i in range(9)), results.add("bad", BAD))
        assert (results.completed, results.failed) == (9, 1)
    with results.output.open("ab") as file:
        file.write(json.dumps({"custom_id": "half"}).encode())
    async with BatchResults(tmp_path) as again:
        assert (again.completed, again.failed) == (9, 1)
        assert again.done == {*(f"{i} ü\u2028" for i in range(9)), "bad"}
        assert again.usage.document()["total_tokens"] == 9 * 5
        await again.add("half", GOOD)
    lines = results.output.read_bytes().splitlines()
    assert [json.loads(line)["custom_id"] for line in lines][-1] == "half"
    assert len(lines) == 10


async def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with BatchResults(tmp_path) as results:
        await results.add("a", GOOD)
        whole = results.output.read_bytes()

        class Full:
            """A disk that takes a part of what is written."""

            def __getattr__(self, name: str) -> object:
                return getattr(real, name)

            def write(self, data: bytes) -> int:
                real.write(data[:10])
                real.flush()
                raise OSError(28, "No space left on device")

        real = results._files[results.output]
        monkeypatch.setitem(results._files, results.output, Full())  # type: ignore[arg-type]
        with pytest.raises(OSError, match="No space"):
            await results.add("b", GOOD)
        assert results.done == {"a"}
        assert results.output.read_bytes() == whole


async def test_a_write_that_is_cancelled_is_whole_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()
    real = asyncio.to_thread

    async def slowly(*arguments: object) -> object:
        began.set()
        await go_on.wait()
        return await real(*arguments)  # type: ignore[arg-type]

    async with BatchResults(tmp_path) as results:
        monkeypatch.setattr(results_module.asyncio, "to_thread", slowly)
        adding = asyncio.create_task(results.add("a", GOOD))
        await began.wait()
        adding.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await adding
        assert results.done == {"a"}
        assert results.output.read_bytes().count(b"\n") == 1
