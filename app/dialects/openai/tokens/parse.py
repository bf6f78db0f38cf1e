"""Parser of requests for tokens: their JSON to tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.dialects.openai.chat import parse as chat
from app.dialects.openai.tokens.schema import DetokenizeRequest, TokenizeRequest, ToldTexts
from app.inference.dialect import Resolve
from app.inference.tokens import TextTask, TokensTask, tokens_of
from app.schemas.unknown_fields import read_body
from engines.errors import RequestError, UnsupportedFeature


def tokenize(document: Any, resolve: Resolve) -> TokensTask:
    """Raises pydantic's `ValidationError`, or `EngineError` for what cannot be met; so do all of these."""
    if isinstance(document, dict) and document.get("messages") is not None:
        own = {name: value for name, value in document.items() if name in ToldTexts.model_fields}
        told, _ = read_body(ToldTexts, own)
        others = {name: value for name, value in document.items() if name not in own}
        return _told(of_chat(others, resolve), told)
    text, unknown = read_body(TokenizeRequest, document)
    if not text.parse_special:
        raise UnsupportedFeature(
            "special tokens in a text always count as such: leave `parse_special` out", param="parse_special"
        )
    if (text.prompt is None) == (text.content is None):
        raise RequestError("give one of prompt, content and messages", param="prompt")
    given = [each for each in (text.add_special_tokens, text.add_special) if each is not None]
    parts: tuple[str | int, ...]
    if text.prompt is not None:
        parts = (text.prompt,)
    else:
        parts = (text.content,) if isinstance(text.content, str) else tuple(text.content or ())
    task = TokensTask(
        target=resolve(text.model).target,
        parts=parts,
        add_special=given[0] if given else text.prompt is not None,
        keep_alive=text.keep_alive,
        unknown=unknown,
    )
    return _told(task, text)


def detokenize(document: Any, resolve: Resolve) -> TextTask:
    body, unknown = read_body(DetokenizeRequest, document)
    target = resolve(body.model).target
    tokens = tuple(body.tokens)
    return TextTask(target=target, token_ids=tokens, keep_alive=body.keep_alive, unknown=unknown)


def of_chat(document: Any, resolve: Resolve) -> TokensTask:
    """The tokens that a chat completion would take."""
    return tokens_of(chat.parse(document, resolve))


def _told(task: TokensTask, body: ToldTexts) -> TokensTask:
    tells = body.return_token_strs or body.with_pieces
    return replace(task, tell_texts=tells, as_pieces=body.with_pieces)
