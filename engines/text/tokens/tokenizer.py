"""Tokenizer of an engine: text to token ids and back, bounded, and off the event loop where it is long.

What cannot fit the model's context is refused before it is tokenised, or while it is: llama.cpp takes time
with the square of the special tokens in a text, and some of its pre-tokenisers stack with a word's length.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from engines.base import Prompt, SourceFile
from engines.errors import ContextLengthExceeded, RequestError, UnsupportedFeature
from engines.limits import check_prompt_length, check_token_ids
from engines.text.claims import Check, Claims
from engines.text.json_values import size_of, texts_of
from engines.text.tokens.fim import FimTokens, Part
from engines.text.tokens.guarded_chat import GuardedChat
from engines.text.tokens.special_tokens import SpecialTokens, unbroken_runs

T = TypeVar("T")

# Reading more characters, or writing more tokens, would hold up the loop.
INLINE = 4096
# A text is cut in front of the first special token after so many characters.
SLICE = 16 * 1024
# Plain text that is longer is first counted, in pieces of this length: some ten milliseconds each.
COUNTED = 32 * 1024
IN_TEXT = "<media>"
# Tokens that a cut inside a word may add.
_SEAM = 64


class TextVocabulary(Protocol):
    """A vocabulary that any thread may use. ``splits_runs``: see `unbroken_runs`."""

    @property
    def n_vocab(self) -> int: ...

    @property
    def special_tokens(self) -> SpecialTokens: ...

    @property
    def splits_runs(self) -> bool: ...

    def tokenize(self, text: str, *, add_special: bool) -> tuple[int, ...]: ...

    def detokenize(self, token_ids: Sequence[int]) -> str: ...


class Tokenizer:
    """Tokenises for one engine, which closes it before it frees the vocabulary."""

    def __init__(
        self,
        vocabulary: TextVocabulary,
        context_length: int,
        *,
        allow_special_tokens: bool = False,
        ends_texts: bool = False,
    ) -> None:
        """``allow_special_tokens``: those in messages count as the template's own. ``ends_texts``: a text
        gets the special tokens that the vocabulary puts behind it too, as it is not to be continued."""
        self._vocabulary = vocabulary
        self._context = context_length
        self._allows = allow_special_tokens
        self._claims = Claims()
        self._ends = ends_texts
        self._around: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    async def tokenize(self, text: str, *, add_special: bool, most: int | None = None) -> tuple[int, ...]:
        """Raises `ContextLengthExceeded`, and `EngineError` once this is closed, as all methods do.

        With ``most`` a text of more tokens, special ones included, is cut at its end.
        """
        if most is not None:
            return await self._run(len(text), lambda check: self._read_most(text, add_special, most, check))
        self._check_characters(len(text))
        return await self._run(len(text), lambda check: self._read([text], add_special, check))

    async def infill(
        self, fim: FimTokens | None, prefix: str | Sequence[int], suffix: str, files: Sequence[SourceFile]
    ) -> Prompt:
        """The prompt for what is between ``prefix`` and ``suffix``.

        Raises `UnsupportedFeature` without ``fim``.
        """
        if fim is None:
            raise UnsupportedFeature("this model's vocabulary cannot fill in the middle", param="suffix")
        parts = fim.parts(prefix, suffix, files)
        size = sum(len(part) for part in parts if not isinstance(part, int))
        self._check_characters(size)
        token_ids = await self._run(size, lambda check: self._join(parts, check))
        text = prefix if isinstance(prefix, str) else await self.detokenize(prefix)
        return Prompt(token_ids, text, ends=fim.ends)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Raises `RequestError` for what is no token."""
        check_prompt_length(len(token_ids), self._context)
        check_token_ids(token_ids, self._vocabulary.n_vocab)
        return await self._run(len(token_ids), lambda check: self._vocabulary.detokenize(token_ids))

    async def guard(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_args: Mapping[str, Any] | None = None,
    ) -> GuardedChat:
        """The chat in which no client has written a control token."""
        chat = GuardedChat(messages, tools, template_args or {})
        try:
            texts = texts_of([messages, tools, chat.template_args], INLINE)
            size = size_of(texts)
            if size > INLINE:  # there are more
                return await self._run(size, lambda check: self._guard(chat, check))
            return await self._run(size, lambda check: self._guard(chat, check, texts))
        except RecursionError as error:
            raise RequestError("the messages nest too deep", param="messages") from error

    async def prompt(
        self, text: str | Sequence[str | tuple[int, ...]], chat: GuardedChat, *, add_special: bool
    ) -> Prompt:
        """The prompt that the template made of ``chat``: text, perhaps with tokens in between, for which
        `IN_TEXT` stands in the prompt's text."""
        given = [text] if isinstance(text, str) else text
        size = sum(len(part) for part in given if isinstance(part, str))
        self._check_characters(size)

        def read(check: Check) -> Prompt:
            parts: list[str | tuple[int, ...]] = []
            for part in given:
                parts += part.split(chat.mark) if chat.mark and isinstance(part, str) else [part]
            token_ids = self._read(parts, add_special, check)
            return Prompt(token_ids, "".join(part if isinstance(part, str) else IN_TEXT for part in parts))

        return await self._run(size, read)

    async def close(self) -> None:
        """Return when nothing here touches the vocabulary any more, and nothing will."""
        await self._claims.close()

    async def _run(self, size: int, work: Callable[[Check], T]) -> T:
        if size > INLINE:
            return await self._claims.run(work)
        self._claims.check()
        return work(_go_on)

    # -- perhaps in a thread -----------------------------------------------------------------------

    def _guard(self, chat: GuardedChat, check: Check, texts: list[str] | None = None) -> GuardedChat:
        messages, tools, args = chat.messages, chat.tools, chat.template_args
        texts = texts_of([messages, tools, args]) if texts is None else texts
        # A template may leave much of it out, but not nearly all.
        self._check_characters(size_of(texts))
        special = self._vocabulary.special_tokens
        if self._allows:
            return chat
        count = special.count_controls(texts, self._context)
        check_prompt_length(count, self._context)
        if not count:
            return chat
        mark = _mark()

        def hidden(items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
            found = []
            for item in items:
                check()
                found.append(special.hide(item, mark))
            return found

        return GuardedChat(
            hidden(messages), None if tools is None else hidden(tools), special.hide(args, mark), mark
        )

    def _check_characters(self, characters: int) -> None:
        check_prompt_length(characters // self._vocabulary.special_tokens.longest, self._context)

    def _read(
        self, parts: Sequence[str | tuple[int, ...]], add_special: bool, check: Check
    ) -> tuple[int, ...]:
        tokenize = self._vocabulary.tokenize
        slices: list[str | tuple[int, ...]] = []
        for part in parts:
            slices += self._slices(part, check) if isinstance(part, str) else [part]
        found: list[int] = []
        for each in slices:
            if not isinstance(each, str):
                found += each
                check_prompt_length(len(found), self._context)
                continue
            self._count(each, len(found), check)
            check()
            found += tokenize(each, add_special=False)
            if len(slices) > 1:
                check_prompt_length(len(found), self._context)
        before, after = self._frame() if add_special else ((), ())
        return (*before, *found, *after)

    def _read_most(self, text: str, add_special: bool, most: int, check: Check) -> tuple[int, ...]:
        """The beginning of ``text``, read piece by piece, as no text is too long to be cut."""
        before, after = self._frame() if add_special else ((), ())
        room = max(0, most - len(before) - len(after))
        found: list[int] = []
        start, size = 0, SLICE
        while start < len(text) and len(found) < room:
            check()
            try:
                found += self._read([text[start : start + size]], False, check)
                start += size
            except ContextLengthExceeded:
                size //= 2
        return (*before, *found[:room], *after)

    def _join(self, parts: Sequence[Part], check: Check) -> tuple[int, ...]:
        """The tokens of ``parts``, in whose texts no special token counts."""
        found = list(self._frame()[0])
        for part in parts:
            if isinstance(part, str):
                found += self._read(self._plain(part, check), False, check)
            else:
                found += [part] if isinstance(part, int) else part
            check_prompt_length(len(found), self._context)
        return tuple(found)

    def _plain(self, text: str, check: Check) -> list[str]:
        """``text`` in pieces that hold no control token."""
        special = self._vocabulary.special_tokens
        check_prompt_length(special.count_controls([text], self._context), self._context)
        check()
        mark = _mark()
        return special.hide(text, mark).split(mark) if special.controls else [text]

    def _slices(self, text: str, check: Check) -> Iterator[str]:
        """``text`` in slices that give the same tokens as the whole, as far as that can be."""
        if len(text) <= SLICE and (len(text) <= INLINE or not self._vocabulary.splits_runs):
            if text:
                yield text
            return
        start = 0
        for cut in self._cuts(text, check):
            if cut > start:
                yield text[start:cut]
                start = cut
        yield text[start:]

    def _cuts(self, text: str, check: Check) -> Iterator[int]:
        """Where to cut, in order."""
        last = 0
        for count, (place, may_cut) in enumerate(self._vocabulary.special_tokens.places(text), 1):
            check_prompt_length(count, self._context)  # each is at least one token
            if may_cut and place - last >= SLICE:
                check()
                yield from self._broken(text, last, place)
                last = place
        yield from self._broken(text, last, len(text))

    def _broken(self, text: str, start: int, end: int) -> Iterator[int]:
        if self._vocabulary.splits_runs:
            for cut in unbroken_runs(text[start:end]):
                yield start + cut
        if end < len(text):
            yield end

    def _count(self, text: str, before: int, check: Check) -> None:
        """Refuse a long text without a place to cut it at, before it is tokenised as a whole."""
        if len(text) <= COUNTED:
            return
        count = before
        for start in range(0, len(text), COUNTED):
            check()
            piece = text[start : start + COUNTED]
            count += max(1, len(self._vocabulary.tokenize(piece, add_special=False)) - _SEAM)
            check_prompt_length(count, self._context)

    def _frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens that the vocabulary puts in front of a text, and behind it. These would end it, and
        prompts are to be continued."""
        if self._around is None:
            plain = self._vocabulary.tokenize("a", add_special=False)
            framed = self._vocabulary.tokenize("a", add_special=True)
            extra = range(len(framed) - len(plain) + 1)
            at = next((i for i in extra if plain and framed[i : i + len(plain)] == plain), 0)
            self._around = framed[:at], framed[at + len(plain) :] if self._ends else ()
        return self._around


def _mark() -> str:
    """A character that takes control tokens apart. Whoever guessed it would take apart what they wrote."""
    return chr(0xF0000 + secrets.randbelow(0xFFFE))


def _go_on() -> None:
    """For work that is over before anybody could leave."""
