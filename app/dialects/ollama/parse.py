"""Parser of Ollama's requests: each becomes one of OpenAI's dialects, with the way of its answer back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.dialects.ollama import options
from app.dialects.ollama.answers import GenerationTranslation, Shape, chat_shape, generate_shape
from app.dialects.ollama.embeddings import EmbeddingsTranslation
from app.dialects.ollama.messages import content, openai_messages
from app.dialects.ollama.names import resolved_name
from app.dialects.ollama.schema import (
    OllamaChatRequest,
    OllamaEmbeddingsRequest,
    OllamaEmbedRequest,
    OllamaFields,
    OllamaGenerateRequest,
    OllamaGeneratingFields,
)
from app.dialects.ollama.timing import Timing
from app.dialects.openai.dialect import CHAT, COMPLETIONS, EMBEDDINGS
from app.inference.dialect import Dialect, Resolve
from app.inference.targets import Resolved
from app.inference.translation import Translated
from app.schemas.unknown_fields import UnknownField, read_body
from engines.errors import RequestError

_PATHS: dict[Dialect[Any], str] = {
    CHAT: "/v1/chat/completions",
    COMPLETIONS: "/v1/completions",
    EMBEDDINGS: "/v1/embeddings",
}
# Of a request that only loads the model: as little as can be asked.
_NOTHING = {"prompt": " ", "max_tokens": 1}


@dataclass(frozen=True, slots=True)
class Unload:
    """A request to unload the ``model``, called ``asked`` by its client; ``shape`` is that of the answer."""

    model: str
    asked: str
    shape: Shape


class OllamaParser:
    """Parses requests. ``load_time`` gives, for the name of a model, the way to learn how many seconds a
    request that comes now has waited for its load."""

    def __init__(self, resolve: Resolve, load_time: Callable[[str], Callable[[], float]]) -> None:
        self._resolve = resolve
        self._load_time = load_time

    def chat(self, document: Any) -> Translated | Unload:
        body, unknown = read_body(OllamaChatRequest, document)
        name, resolved = resolved_name(body.model, self._resolve)
        if not body.messages:
            return self._load(body, name, resolved, chat_shape)
        asked = {"messages": openai_messages(body.messages), **_of_chats(body)}
        if body.tools:
            asked["tools"] = [{"type": "function", **tool} for tool in body.tools]
        return self._generation(body, resolved, CHAT, {"model": name, **asked}, chat_shape, unknown)

    def generate(self, document: Any) -> Translated | Unload:
        body, unknown = read_body(OllamaGenerateRequest, document)
        name, resolved = resolved_name(body.model, self._resolve)
        if not body.prompt and not body.suffix and not body.images:
            return self._load(body, name, resolved, generate_shape)
        _check(body)
        if body.raw or body.suffix or not resolved.can_chat:
            # A base model's prompt is all there is, with the system's text in front.
            text = "\n\n".join(each for each in (body.system, body.prompt) if each)
            suffix = {"suffix": body.suffix} if body.suffix else {}
            asked = {"model": name, "prompt": text, "max_tokens": -1, **suffix, **_structure(body)}
            if body.logprobs:
                asked["logprobs"] = body.top_logprobs or 0
            return self._generation(body, resolved, COMPLETIONS, asked, generate_shape, unknown)
        messages = [{"role": "user", "content": content(body.prompt, body.images)}]
        if body.system:
            messages.insert(0, {"role": "system", "content": body.system})
        asked = {"model": name, "messages": messages, **_of_chats(body)}
        return self._generation(body, resolved, CHAT, asked, generate_shape, unknown)

    def embed(self, document: Any) -> Translated:
        body, unknown = read_body(OllamaEmbedRequest, document)
        inputs = [body.input] if isinstance(body.input, str) else body.input
        asked = {} if body.dimensions is None else {"dimensions": body.dimensions}
        if body.truncate:
            asked["truncate_prompt_tokens"] = -1
        return self._embeddings(body, inputs, asked, unknown)

    def embeddings(self, document: Any) -> Translated:
        body, unknown = read_body(OllamaEmbeddingsRequest, document)
        asked = {"truncate_prompt_tokens": -1}
        return self._embeddings(body, [body.prompt], asked, unknown, is_older=True)

    def _embeddings(
        self,
        body: OllamaFields,
        inputs: list[str],
        asked: dict[str, Any],
        unknown: tuple[UnknownField, ...],
        *,
        is_older: bool = False,
    ) -> Translated:
        name, resolved = resolved_name(body.model, self._resolve)
        texts = [text for text in inputs if text]
        if texts and len(texts) < len(inputs):
            raise RequestError("an empty text has no vector: leave it out", param="input")
        answer = EmbeddingsTranslation(body.model, self._timing(resolved), len(texts), is_older=is_older)
        # Without inputs the model is loaded, as in Ollama.
        document = {"model": name, "input": texts or [" "], **asked, **_served(body)}
        return Translated(EMBEDDINGS, _PATHS[EMBEDDINGS], document, answer, unknown)

    def _generation(
        self,
        body: OllamaGeneratingFields,
        resolved: Resolved,
        dialect: Dialect[Any],
        asked: dict[str, Any],
        shape: Shape,
        unknown: tuple[UnknownField, ...],
    ) -> Translated:
        # Always as a stream: it tells when the answer began, and an instance that dies has a successor.
        stream = {"stream": True, "stream_options": {"include_usage": True}}
        document = {**asked, **options.fields(body.options), **_served(body), **stream}
        answer = GenerationTranslation(body.model, self._timing(resolved), shape, stream=body.stream)
        ignored = (*unknown, *options.untold(body.options))
        return Translated(dialect, _PATHS[dialect], document, answer, ignored)

    def _load(
        self, body: OllamaGeneratingFields, name: str, resolved: Resolved, shape: Shape
    ) -> Translated | Unload:
        if body.keep_alive == 0:
            return Unload(resolved.target.model, body.model, shape)
        asked = {"model": name, **_NOTHING, "stream": True, **_served(body)}
        timing = self._timing(resolved)
        answer = GenerationTranslation(body.model, timing, shape, stream=body.stream, is_load=True)
        return Translated(COMPLETIONS, _PATHS[COMPLETIONS], asked, answer)

    def _timing(self, resolved: Resolved) -> Timing:
        return Timing(self._load_time(resolved.target.model))


def _served(body: OllamaFields) -> dict[str, Any]:
    return {} if body.keep_alive is None else {"keep_alive": body.keep_alive}


def _check(body: OllamaGenerateRequest) -> None:
    """Raise `RequestError` for fields that exclude each other."""
    if body.raw and body.system:
        raise RequestError("raw prompts have no system message: leave one out", param="system")
    if body.images and (body.raw or body.suffix):
        other = "raw" if body.raw else "suffix"
        raise RequestError(f"images need a chat template: leave `{other}` out", param="images")


def _of_chats(body: OllamaGeneratingFields) -> dict[str, Any]:
    """Fields that chats have, and plain texts have not."""
    asked: dict[str, Any] = _structure(body)
    if body.think is not None:
        effort = {True: "medium", False: "none"}
        asked["reasoning_effort"] = effort[body.think] if isinstance(body.think, bool) else body.think
    if body.logprobs:
        asked |= {"logprobs": True, "top_logprobs": body.top_logprobs or 0}
    return asked


def _structure(body: OllamaGeneratingFields) -> dict[str, Any]:
    if not body.format:
        return {}
    if body.format == "json":
        return {"response_format": {"type": "json_object"}}
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "format", "schema": body.format}}
    }
