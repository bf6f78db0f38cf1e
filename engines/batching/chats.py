"""Chats as prompts: the chat template of one model, and all that stands between messages and its tokens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from engines.base import Media, Prompt, Rendering
from engines.batching.vocabulary import ModelVocabulary
from engines.text.answers.examples import call_writer
from engines.text.answers.format import Format
from engines.text.answers.formats import GENERIC
from engines.text.templates.chat_prompt import OpenEnd, variables
from engines.text.templates.content_parts import ContentForm, with_marks
from engines.text.templates.media_marks import MediaMarks
from engines.text.templates.renderer import ChatTemplate, TemplateWorker
from engines.text.templates.tool_template import ToolTemplate
from engines.text.tokens.tokenizer import Tokenizer

MediaIds = Callable[[Media], Awaitable[tuple[int, ...]]]
"""The ids that stand for a medium in a prompt."""


class ChatPrompts:
    """Makes prompts of chats with one model."""

    def __init__(
        self,
        source: str,
        vocabulary: ModelVocabulary,
        tokenizer: Tokenizer,
        templates: TemplateWorker,
        format: Format | None,
        *,
        lacks_special: Callable[[str], bool],
        media_ids: MediaIds,
    ) -> None:
        """``source`` is the template, ``format`` that of the answers, and ``lacks_special`` says whether a
        rendered chat still needs the special tokens around a text."""
        bos, eos = vocabulary.bos_text, vocabulary.eos_text
        self.template = ChatTemplate(source, bos_token=bos, eos_token=eos, worker=templates)
        self._tokenizer = tokenizer
        self._lacks_special = lacks_special
        self._media_ids = media_ids
        self._content = ContentForm(self._render_plainly)
        self._tools = ToolTemplate(self._render_probe, call_writer(format or GENERIC))

    async def prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        rendering: Rendering,
        media: Sequence[Media],
    ) -> Prompt:
        """See `engines.base.Generates.render_chat`."""
        marks = MediaMarks(len(media))
        messages, tools = await self._tools.adapt(with_marks(messages, marks.marks), tools)
        chat = await self._tokenizer.guard(messages, tools, rendering.template_args)
        end = OpenEnd.of(rendering)
        text = await self.template.render(
            await self._content.adapt(chat.messages if end is None else end.mark(chat.messages)),
            tools=chat.tools,
            add_generation_prompt=rendering.add_generation_prompt,
            template_args=variables(rendering, chat.template_args, self.template.source),
        )
        if end is not None:
            text = end.cut(text)
        add_special = self._lacks_special(text)
        if not media:
            return await self._tokenizer.prompt(text, chat, add_special=add_special)
        shown = marks.split(text)
        ids = [await self._media_ids(each) for each in media]
        parts = [each if isinstance(each, str) else ids[each] for each in shown]
        prompt = await self._tokenizer.prompt(parts, chat, add_special=add_special)
        return replace(prompt, media=tuple(media[each] for each in shown if isinstance(each, int)))

    async def _render_probe(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> str:
        return await self._render_plainly(await self._content.adapt(messages), tools)

    async def _render_plainly(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] | None
    ) -> str:
        return await self.template.render(messages, tools=tools, add_generation_prompt=False)
