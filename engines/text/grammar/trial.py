"""Trial of a grammar in a child process, which can be killed: llguidance has no time limit of its own.

It is made for a vocabulary of bytes there. Whether it can be followed is not asked, only whether that is
known within the limits.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from engines.machine.job_process import ChildDied, JobFailed, Message, Send, run_child, serve_job
from engines.text.grammar.library import matcher

# Of the processor, and of memory.
SECONDS = 5
BYTES = 4 * 2**30


async def passes(grammars: Iterable[str], *, seconds: int = SECONDS) -> bool:
    """Whether each of ``grammars``, llguidance's own texts, is compiled within the limits. Cancelling this
    ends it."""
    try:
        for text in grammars:
            request = {"grammar": text, "seconds": seconds}
            await run_child(__spec__.name, request, lambda message: None)
    except (ChildDied, JobFailed):
        return False
    return True


def _try(request: Message, send: Send) -> Message:
    from llguidance import LLTokenizer

    if sys.platform != "win32":  # there the caller's clock is all that ends it
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (request["seconds"],) * 2)
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    made = matcher(LLTokenizer("byte"), request["grammar"])
    if not made.is_error():
        made.compute_bitmask()
    return {}


if __name__ == "__main__":
    serve_job(_try)
