"""Chooses which backend serves a call. Knows nothing of wire formats."""
