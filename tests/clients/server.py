"""The server that the tests talk to: ``make test-clients`` starts it and tells where it is."""

from __future__ import annotations

import os

SERVER_URL = os.environ.get("ENGINEHOUSE_URL", "http://localhost:8000")
BASE_URL = f"{SERVER_URL}/v1"
API_KEY = os.environ.get("ENGINEHOUSE_KEY", "unused")
MODEL = "SmolLM2-135M-Instruct"
EMBEDDER = "all-MiniLM-L6-v2"
CONTEXT_LENGTH = int(os.environ.get("ENGINEHOUSE_CONTEXT_LENGTH", "2048"))
