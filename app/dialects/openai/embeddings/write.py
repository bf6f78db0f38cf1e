"""Writer of embeddings: a document in pieces, as its numbers may be millions."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator

from app.inference.embedding import EmbeddingTask
from app.sse import to_json
from engines.base import Embeddings, Vectors

# So many digits tell any two 32-bit numbers apart: read as such, they are what base64 gives.
_NUMBER = "%.9g"


def pieces(task: EmbeddingTask, embeddings: Embeddings) -> Iterator[bytes]:
    """The pieces of the document, a vector each."""
    write = _as_base64 if task.as_base64 else _as_numbers(embeddings.vectors.shape[1])
    yield b'{"object":"list","data":['
    for index, vector in enumerate(embeddings.vectors):
        comma = b"," if index else b""
        yield b'%b{"object":"embedding","index":%d,"embedding":%b}' % (comma, index, write(vector))
    tokens = sum(embeddings.prompt_tokens)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    yield b'],"model":%b,"usage":%b}' % (to_json(task.target.name), to_json(usage))


def _as_base64(vector: Vectors) -> bytes:
    return b'"%b"' % base64.b64encode(vector.astype("<f4").tobytes())


def _as_numbers(length: int) -> Callable[[Vectors], bytes]:
    """The way to write vectors of one length: a format for all of its numbers is the quickest."""
    form = f"[{','.join([_NUMBER] * length)}]"
    return lambda vector: (form % tuple(vector.tolist())).encode()
