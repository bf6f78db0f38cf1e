"""The log of inference requests: one line each, when it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.inference.outcome import RequestOutcome
from app.telemetry.logs import get_logger

log = get_logger("inference_engine")


class RequestLog:
    """A sink of request outcomes. ``gpu_memory`` says how much GPU memory is in use, in bytes."""

    def __init__(self, gpu_memory: Callable[[], int] = lambda: 0) -> None:
        self._gpu_memory = gpu_memory

    def __call__(self, outcome: RequestOutcome) -> None:
        usage, seconds = outcome.usage, outcome.duration
        extra: dict[str, Any] = {} if outcome.status == "finished" else {"outcome": outcome.status}
        if outcome.error is not None:
            extra["error"] = outcome.error
        log.info(
            "model_inference",
            model_name=outcome.target.model,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
            inference_time=round(seconds, 3),
            tokens_per_second=round(usage.completion_tokens / seconds, 1) if seconds else 0.0,
            gpu_memory_used=f"{self._gpu_memory() / 2**30:.1f}GB",
            request_id=outcome.request_id,
            **extra,
        )
