"""Numbers of answers by which tests with real models prove what always holds."""

from __future__ import annotations

import os

# By engine. On a CPU MLX takes a minute for what llama.cpp does in seconds: MLX_ANSWERS asks for more of it.
ANSWERS = {"llama_cpp": 100, "mlx": int(os.environ.get("MLX_ANSWERS", "4"))}
TIMEOUT = 20 * max(ANSWERS["mlx"], 15)
