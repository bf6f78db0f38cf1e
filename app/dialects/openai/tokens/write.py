"""Writers of tokens: documents in pieces, as there may be a million."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from app.dialects.openai.events import printable
from app.inference.task import Task
from app.inference.tokens import Tokens, TokensTask
from app.sse import to_json

# Values that are written at once.
STEP = 1024


def tokenized(task: TokensTask, tokens: Tokens, request_id: str) -> Iterator[bytes]:
    """vLLM's answer to `/tokenize`, which llama-server's is a part of."""
    ids, texts = tokens.token_ids, tokens.texts
    yield b'{"count":%d,"max_model_len":%d,"tokens":' % (len(ids), tokens.context_length)
    if task.as_pieces and texts is not None:
        yield from _array({"id": i, "piece": _piece(raw)} for i, raw in zip(ids, texts, strict=True))
    else:
        yield from _array(ids)
    yield b',"token_strs":'
    yield from [b"null"] if texts is None else _array(map(printable, texts))
    yield b"}"


def detokenized(text: str) -> bytes:
    return to_json({"prompt": text, "content": text})


def rendered(task: TokensTask, tokens: Tokens, request_id: str) -> Iterator[bytes]:
    """vLLM's answer to `/v1/chat/completions/render`."""
    yield b'{"request_id":%b,"model":%b,"token_ids":' % (to_json(request_id), to_json(task.target.name))
    yield from _array(tokens.token_ids)
    params = _sampling_params(task.chat) if task.chat is not None else {}
    yield b',"prompt":%b,"sampling_params":%b}' % (to_json(tokens.text), to_json(params))


def applied(task: TokensTask, tokens: Tokens, request_id: str) -> Iterator[bytes]:
    """llama-server's answer to `/apply-template`."""
    yield to_json({"prompt": tokens.text})


def counted(task: TokensTask, tokens: Tokens, request_id: str) -> Iterator[bytes]:
    """llama-server's answer to `/v1/chat/completions/input_tokens`."""
    yield to_json({"input_tokens": len(tokens.token_ids)})


def _array(values: Iterable[Any]) -> Iterator[bytes]:
    values, comma = iter(values), b"["
    while step := list(islice(values, STEP)):
        yield comma + to_json(step)[1:-1]
        comma = b","
    yield b"[]" if comma == b"[" else b"]"


def _piece(raw: bytes) -> str | list[int]:
    """A token's text, or its bytes if they are none by themselves."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return list(raw)


def _sampling_params(task: Task) -> dict[str, Any]:
    sampling = task.sampling
    return {
        "n": task.n,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": sampling.seed,
        "max_tokens": task.max_tokens,
        "min_tokens": task.min_tokens,
        "stop": list(task.stop),
        "stop_token_ids": list(task.stop_token_ids),
        "ignore_eos": task.ignore_eos,
    }
