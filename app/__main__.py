"""``python -m app`` is ``enginehouse``."""

from app.cli.app import cli

if __name__ == "__main__":
    cli()
