"""Media in rendered chats: marks that stand for them until the text around them is tokenised."""

from __future__ import annotations

import re
import secrets

from engines.errors import RequestError


class MediaMarks:
    """A mark for each medium of one chat, which no client can guess."""

    def __init__(self, count: int) -> None:
        name = secrets.token_hex(8)
        self.marks = [f"<media-{name}-{index}>" for index in range(count)]
        self._any = re.compile(f"<media-{name}-([0-9]+)>")

    def split(self, text: str) -> list[str | int]:
        """``text`` around the marks, and the places of the media that these stand for.

        Raises `RequestError` if some medium is not in it.
        """
        parts = self.parts(text)
        if set(parts[1::2]) != set(range(len(self.marks))):
            raise RequestError(
                "the model's chat template leaves out an image or sound of the messages: put it into a "
                "message of the user",
                param="messages",
            )
        return parts

    def parts(self, text: str) -> list[str | int]:
        """``text`` as `split` gives it, whatever media are in it."""
        parts: list[str | int] = [*self._any.split(text)]
        parts[1::2] = [int(str(index)) for index in parts[1::2]]
        return parts
