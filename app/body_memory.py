"""Memory of bodies: how many bytes of them are held at once."""

from __future__ import annotations

from dataclasses import dataclass

from app.errors import DEFAULT_RETRY_AFTER, ApiError

# Bodies of the largest size that are held at once.
MOST_LARGEST_BODIES = 32


@dataclass(slots=True)
class BodyMemory:
    """The bytes of bodies that all requests hold together, from their arrival to their answer."""

    most: int
    held: int = 0

    @classmethod
    def for_bodies_of(cls, max_bytes: int) -> BodyMemory:
        return cls(MOST_LARGEST_BODIES * max_bytes)

    def take(self, size: int) -> None:
        """Raises `ApiError` if that is more than there is; the bytes are held nevertheless."""
        self.held += size
        if self.held > self.most:
            message = "Too many large bodies are being read or served. Try again later."
            raise ApiError(503, "insufficient_memory", message, retry_after=DEFAULT_RETRY_AFTER)

    def give_back(self, size: int) -> None:
        self.held -= size
