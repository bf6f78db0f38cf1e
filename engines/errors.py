"""Errors of engines, in the engines' own words.

The HTTP edge (``app/errors.py``) maps each class to a status and an OpenAI error code; nothing here
knows of either.
"""

from __future__ import annotations


class EngineError(Exception):
    """The engine failed; the request was not at fault."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ModelLoadError(EngineError):
    """The model could not be loaded; the message says why and what to do."""


class CannotLoad(ModelLoadError):
    """The model cannot be loaded in the way that was asked for: another engine or setting is needed."""


class BadModelFile(ModelLoadError):
    """What lies at the model's path is no model, or one that is damaged or not whole."""


class ModelFileNotFound(ModelLoadError):
    """No file or package provides the model that was asked for."""


PERMANENT = (CannotLoad, BadModelFile, ModelFileNotFound)
"""Reasons why a model cannot be loaded that only somebody can change: trying again changes nothing."""


class RequestError(EngineError):
    """The request cannot be served as it stands; ``param`` names the field at fault, if one is."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextLengthExceeded(RequestError):
    """Prompt plus requested completion do not fit the model's context."""


class UnsupportedFeature(RequestError):
    """This engine or model cannot do what was asked; it is never silently ignored."""
