"""The process that downloads: resolve, choose, download, verify, move into place."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from engines.machine.job_process import JobFailed, Message, Send, serve_job
from engines.models.pull.download import Fetcher, retried
from engines.models.pull.progress import TransferMeter
from engines.models.pull.selection import WEIGHTS, check_path, choose
from engines.models.pull.sources import RemoteFile, Source, source_named
from engines.models.pull.staging import Staging

CONNECTIONS = 4
LISTING_RETRIES = 2
BLOCK = 2**20


def pull(order: Message, send: Send) -> Message:
    """Do what `engines.models.pull.puller.Puller` ordered. Raises `JobFailed`."""
    meter = TransferMeter(send)
    meter.start("resolving")
    target = Path(order["target"])
    staging = Staging(target)
    try:
        with staging.held():
            files = _resolve(order, source := source_named(order["source"]), send)
            if (refusal := _refusal(files, order)) is not None:
                raise _Refused(refusal)
            missing = _missing(files, staging, meter)
            _download(missing, staging, meter, source, order["backoff"])
            _verify(missing, staging, meter)
            staging.publish(missing)
    except _Refused as refused:
        return {"refused": str(refused)}
    except OSError as error:
        raise _explain(error, target) from error
    total = sum(file.size for file in files)
    meter.start("done", total, total)
    return {"size": total, "files": [file.path for file in files]}


class _Refused(Exception):
    """What is to be downloaded could not be served here; what an earlier pull left is kept."""


def _resolve(order: Message, source: Source, send: Send) -> list[RemoteFile]:
    listed = retried(
        lambda: source.list_files(order["repo"], order["revision"]),
        backoff=order["backoff"],
        retries=LISTING_RETRIES,
    )
    by_path = {file.path: file for file in listed}
    chosen, reason = choose(list(by_path), order["include"], order["quantization"])
    for path in chosen:
        check_path(path)
    send({"notice": reason})
    return [by_path[path] for path in chosen]


def _refusal(files: Sequence[RemoteFile], order: Message) -> str | None:
    """Why ``files`` could not be served here, if they could not."""
    weights = [file for file in files if file.path.lower().endswith(WEIGHTS)]
    if not weights:
        return None
    total = sum(file.size for file in weights)
    size = f"{order['repo']} has {total / 1e9:.1f} GB to download"
    format = "gguf" if weights[0].path.lower().endswith(".gguf") else "hf"
    if (reason := order["unusable"].get(format)) is not None:
        return f"{size}, which no engine can run here: {reason}"
    if order["largest"] is not None and total > order["largest"]:
        return f"{size}, and models may take {order['largest'] / 1e9:.1f} GB of memory here"
    return None


def _missing(files: Sequence[RemoteFile], staging: Staging, meter: TransferMeter) -> list[RemoteFile]:
    """The files that the target does not have, or has in another version."""
    candidates = [file for file in files if _has_size(staging.installed(file), file.size)]
    if not candidates:
        return list(files)
    meter.start("verifying", sum(file.size for file in candidates))
    present = {file.path for file in candidates if _is_intact(file, staging.installed(file), meter)}
    meter.finish()
    return [file for file in files if file.path not in present]


def _download(
    files: Sequence[RemoteFile], staging: Staging, meter: TransferMeter, source: Source, backoff: float
) -> None:
    staging.drop_others(files)
    total = sum(file.size for file in files)
    have = sum(staging.downloaded(file) for file in files)
    staging.check_space(total - have)
    meter.start("downloading", total, have)
    fetcher = Fetcher(meter.add, source.access_hint, backoff)
    pool = ThreadPoolExecutor(CONNECTIONS)
    downloads = [pool.submit(fetcher.fetch, file, staging.part(file)) for file in files]
    try:
        for download in as_completed(downloads):
            download.result()
    finally:
        # After a failure the others are not waited for: the process ends, and what they have is kept.
        pool.shutdown(wait=False, cancel_futures=True)
    meter.finish()


def _verify(files: Sequence[RemoteFile], staging: Staging, meter: TransferMeter) -> None:
    """Raises `JobFailed` if a file is not what the hub has; it is removed."""
    meter.start("verifying", sum(file.size for file in files))
    broken = [file for file in files if not _is_intact(file, staging.part(file), meter)]
    for file in broken:
        staging.part(file).unlink()
    if broken:
        names = ", ".join(file.path for file in broken)
        raise JobFailed(
            f"wrong checksum: {names} arrived damaged and was removed; pull again to fetch it anew",
            retryable=True,
        )
    meter.finish()


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _is_intact(file: RemoteFile, path: Path, meter: TransferMeter) -> bool:
    """Whether ``path`` has the size and, where the hub tells it, the checksum of ``file``."""
    if not _has_size(path, file.size):
        return False
    if file.sha256:
        digest, expected = hashlib.sha256(), file.sha256
    elif file.git_sha1:
        digest, expected = hashlib.sha1(b"blob %d\0" % file.size), file.git_sha1
    else:
        meter.add(file.size, file.path)
        return True
    with path.open("rb") as content:
        while block := content.read(BLOCK):
            digest.update(block)
            meter.add(len(block), file.path)
    return digest.hexdigest() == expected.lower()


def _explain(error: OSError, target: Path) -> JobFailed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return JobFailed(
            f"the disk of {target.parent} is full: make room and pull again; what was downloaded is kept"
        )
    return JobFailed(f"the files cannot be written: {error}")


if __name__ == "__main__":
    serve_job(pull)
