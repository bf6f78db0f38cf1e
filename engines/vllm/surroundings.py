"""Process-wide changes that vLLM makes when started (environment, logging), and their undoing."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping

from engines.machine.child_environment import hidden_secrets


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a child and hide our secrets; then undo these and whatever vLLM itself has set."""
    with hidden_secrets():
        before = dict(os.environ)
        os.environ.update(variables)
        try:
            yield
        finally:
            for name in os.environ.keys() - before.keys():
                del os.environ[name]
            changed = {name: value for name, value in before.items() if os.environ.get(name) != value}
            os.environ.update(changed)


@contextlib.contextmanager
def quiet_logging() -> Iterator[None]:
    """vLLM configures logging when imported and when started: let its records reach our handlers instead."""
    factory = logging.getLogRecordFactory()
    _adopt_logger(factory)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from vllm.config.logging import LoggingConfig
            from vllm.logger import configure_logging_if_needed

            configure_logging_if_needed(LoggingConfig())  # now the start will not do it again
            _adopt_logger(factory)
            yield
        finally:
            _adopt_logger(factory)


def _adopt_logger(factory: Callable[..., logging.LogRecord]) -> None:
    theirs = logging.getLogger("vllm")
    theirs.handlers.clear()
    theirs.propagate = True
    theirs.setLevel(logging.WARNING)
    logging.setLogRecordFactory(factory)
