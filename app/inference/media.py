"""Media of requests: where the images and sounds of a task are, before anybody has looked at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engines.base.media import SENSES, MediaKind
from engines.errors import RequestError
from engines.media import MOST_MEDIA


@dataclass(frozen=True, slots=True)
class MediaReference:
    """The place of an image or a sound: ``source`` is a data URL or a URL.

    ``param`` is the field of the request that has it, which errors name, for example
    ``messages.0.content.1.image_url.url``.
    """

    kind: MediaKind
    source: str
    param: str


@dataclass(slots=True)
class MediaList:
    """The media of one request, collected while it is parsed: each becomes a part that stands for it."""

    most: int = MOST_MEDIA
    _found: list[MediaReference] = field(default_factory=list)

    def image(self, url: str, param: str) -> dict[str, Any]:
        """The content part for the image at ``url``, a data URL or a URL, in the field ``param``."""
        return self._part("image", url, param)

    def audio(self, data: str, format: str, param: str) -> dict[str, Any]:
        """The content part for a sound, in base64 or at a URL. What it is says its content; ``format`` is
        what the client takes it for."""
        is_url = data[:5].lower() == "data:" or "://" in data[:16]
        return self._part("audio", data if is_url else f"data:audio/{format};base64,{data}", param)

    @property
    def references(self) -> tuple[MediaReference, ...]:
        return tuple(self._found)

    @property
    def needs(self) -> Mapping[str, str]:
        """The capabilities that they need, each with the field that asks for it (`BaseTask.needs`)."""
        needs: dict[str, str] = {}
        for each in self._found:
            needs.setdefault(SENSES[each.kind], each.param)
        return needs

    def _part(self, kind: MediaKind, source: str, param: str) -> dict[str, Any]:
        if len(self._found) >= self.most:
            raise RequestError(
                f"a request may have {self.most} images and sounds at most: leave the oldest out", param=param
            )
        self._found.append(MediaReference(kind, source, param))
        return {"type": kind, "index": len(self._found) - 1}
