"""The command line: one module a command, put together in `app.cli.app`."""

from __future__ import annotations


def main() -> None:
    """The entry point of the ``enginehouse`` command."""
    # Imported here: every command's module imports from this package.
    from app.cli.app import cli

    cli()
