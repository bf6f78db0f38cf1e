"""Errors of engines, in the engines' own words.

The HTTP edge (``app/errors.py``) maps each class to a status and an OpenAI error code; nothing here
knows of either.
"""

from __future__ import annotations

from typing import ClassVar


class EngineError(Exception):
    """The engine failed; the request was not at fault. ``is_permanent``: waiting alone mends nothing."""

    is_permanent: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ModelLoadError(EngineError):
    """The model could not be loaded; the message says why and what to do."""


class CannotLoad(ModelLoadError):
    """The model cannot be loaded in the way that was asked for: another engine or setting is needed."""

    is_permanent = True


class BadModelFile(ModelLoadError):
    """What lies at the model's path is no model, or one that is damaged or not whole."""

    is_permanent = True


class ModelFileNotFound(ModelLoadError):
    """No file or package provides the model that was asked for."""

    is_permanent = True


class RequestError(EngineError):
    """The request cannot be served as it stands; ``param`` names the field at fault, if one is."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextLengthExceeded(RequestError):
    """The prompt does not fit the model's context, or does not beside a completion that must.

    ``needed`` are the tokens asked for, or as many as were counted (``at_least``); ``completion`` of them are
    for the answer. The message begins as OpenAI's, by which client libraries know this error.
    """

    def __init__(
        self,
        context_length: int,
        needed: int,
        *,
        completion: int = 0,
        at_least: bool = False,
        prompt: str = "prompt",
        help: str = "",
    ) -> None:
        about = f"at least {needed}" if at_least else str(needed)
        if completion:
            parts = f"({needed - completion} in the {prompt}, {completion} in the completion)"
            what, shorten = f"you requested {about} tokens {parts}", f"{prompt} or completion"
        else:
            what, shorten = f"your {prompt} resulted in {about} tokens", prompt
        super().__init__(
            f"This model's maximum context length is {context_length} tokens. However, {what}. "
            f"Please reduce the length of the {shorten}{help}.",
            param=prompt,
        )
        self.context_length = context_length
        self.needed = needed
        self.completion = completion
        self.at_least = at_least

    def told(self, prompt: str, help: str) -> ContextLengthExceeded:
        """The same, of what the request calls ``prompt``; ``help`` is another way out."""
        return ContextLengthExceeded(
            self.context_length,
            self.needed,
            completion=self.completion,
            at_least=self.at_least,
            prompt=prompt,
            help=help,
        )


class UnsupportedFeature(RequestError):
    """This engine or model cannot do what was asked; it is never silently ignored."""
