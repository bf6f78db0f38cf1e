"""Chat templates through vLLM's renderer, which runs them sandboxed, in a thread, with a time-out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engines.base import Media, Prompt, Rendering
from engines.errors import RequestError, UnsupportedFeature
from engines.vllm.media import Rendered, expanded
from engines.vllm.sampling import is_request_fault, request_error

# The fields of vLLM's prompts that have media.
_MEDIA_FIELDS = ("multi_modal_data", "multi_modal_uuids")


class ChatRenderer:
    """One model's chat template."""

    def __init__(self, llm: Any, chat_template: str | None) -> None:
        """``chat_template`` (Jinja source or a file's path) replaces the model's own."""
        from vllm.renderers.chat_utils import load_chat_template

        self._renderer = llm.renderer
        self._model_config = llm.model_config
        self._template = load_chat_template(chat_template)
        self.tokenizer = llm.renderer.get_tokenizer()

    def source(self, tools: Sequence[Mapping[str, Any]] | None = None) -> str | None:
        """The template's source; None if there is none."""
        from vllm.renderers.hf import resolve_chat_template

        found = resolve_chat_template(
            self.tokenizer, chat_template=self._template, tools=tools, model_config=self._model_config
        )
        return None if found is None else str(found)

    async def render_probe(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> str | None:
        """As `ToolTemplate` needs it: a tokenizer that renders chats itself takes whatever there is."""
        rendered = await self.render(messages, tools, Rendering(add_generation_prompt=False), {})
        return rendered.prompt if isinstance(rendered.prompt, str) else None

    async def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        rendering: Rendering,
        given: Mapping[str, Any],
    ) -> Rendered:
        """The prompt. ``given`` are the variables of `chat_prompt.variables`; pictures in ``messages`` are
        parts as `with_pictures` makes them.

        Raises `RequestError` if the template refuses, `UnsupportedFeature` for more than text.
        """
        from vllm.renderers.params import ChatParams

        args = {
            **given,
            "add_generation_prompt": rendering.add_generation_prompt,
            "tools": [dict(tool) for tool in tools] if tools else None,
            "tokenize": False,
        }
        params = ChatParams(chat_template=self._template, chat_template_kwargs=args)
        try:
            _, prompt = await self._renderer.render_messages_async([dict(m) for m in messages], params)
        except TimeoutError as error:
            raise RequestError(f"the model's chat template was stopped: {error}", param="messages") from error
        except Exception as error:
            if not is_request_fault(error) and not isinstance(error, (TypeError, KeyError)):
                raise
            raise RequestError(str(request_error(error)), param="messages") from error
        data = {name: prompt[name] for name in _MEDIA_FIELDS if name in prompt}
        if "prompt_token_ids" in prompt:
            if rendering.continue_final:
                raise UnsupportedFeature(
                    "this model's tokenizer renders chats itself: a last message cannot be continued",
                    param="continue_final_message",
                )
            return Rendered(tuple(prompt["prompt_token_ids"]), data)
        return Rendered(str(prompt["prompt"]), data)

    async def expanded(self, prompt: Prompt, rendered: Rendered, media: Sequence[Media]) -> Prompt:
        """``prompt``, which ``rendered`` became, with the media in it."""
        return await expanded(self._renderer, prompt, rendered, media) if media else prompt
