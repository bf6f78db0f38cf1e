"""``python -m app`` is ``enginehouse``."""

from app.cli import main

if __name__ == "__main__":
    main()
