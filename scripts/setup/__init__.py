"""The parts of ``scripts/setup_env.py``. Standard library alone: nothing is installed yet."""
