"""What is measured and logged of one inference request."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from app.telemetry.logs import get_logger
from app.telemetry.metrics import ModelMetrics, Outcome
from engines.base import Chunk, GenerationRequest, Usage

log = get_logger("inference_engine")


class InferenceRecord:
    """Follows a request from its arrival to its end; `end` writes its one log line.

    ``gpu_memory`` says how much GPU memory is in use, in bytes. ``is_logged`` False leaves the line to
    the server that relays the request.
    """

    def __init__(
        self,
        metrics: ModelMetrics,
        *,
        model: str,
        endpoint: str,
        request_id: str,
        gpu_memory: Callable[[], int] = lambda: 0,
        is_logged: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._metrics = metrics
        self._model = model
        self._endpoint = endpoint
        self._request_id = request_id
        self._gpu_memory = gpu_memory
        self._is_logged = is_logged
        self._clock = clock
        self._arrived = clock()
        self._last_token: dict[int, float] = {}
        self._usages: dict[int, Usage] = {}
        self._answers = 1
        self._ended = False

    def started(self, requests: Sequence[GenerationRequest], answers: int = 1) -> None:
        """Note what was queued: ``answers`` sequences for each prompt, in the order of the choices.

        Called again for each further run of the same request.
        """
        self._answers = answers
        for index, request in enumerate(requests):
            # What an earlier run generated is in the request, or is generated anew.
            self._usages[index] = Usage(len(request.prompt.token_ids), len(request.generated))
            if request.generated:
                # Its first token came before, perhaps from a server that did not tell when.
                self._last_token.setdefault(index, self._clock())

    def chunk(self, index: int, chunk: Chunk) -> None:
        """Note that choice ``index`` went on."""
        tokens = len(chunk.token_ids)
        if tokens:
            now = self._clock()
            last = self._last_token.get(index)
            if last is None:
                self._metrics.first_token(now - self._arrived, tokens)
            else:
                self._metrics.inter_token(now - last, tokens)
            self._last_token[index] = now
        sofar = self._usages[index]
        self._usages[index] = chunk.usage or Usage(sofar.prompt_tokens, sofar.completion_tokens + tokens)

    def began(self) -> None:
        """Note that the first bytes of an answer went out: all that is seen of one that is relayed."""
        if not self._usages:
            self._metrics.first_token(self._clock() - self._arrived, 0)

    def told(self, usage: Usage | None) -> None:
        """Note what a relayed answer said of itself."""
        if usage is not None:
            self._answers, self._usages = 1, {0: usage}

    def usage(self) -> Usage:
        """Tokens of all choices so far. A prompt counts once, however many answers it has."""
        usages = [self._usages[index] for index in sorted(self._usages)]
        prompts = usages[:: self._answers]
        return Usage(
            prompt_tokens=sum(u.prompt_tokens for u in prompts),
            completion_tokens=sum(u.completion_tokens for u in usages),
            cached_tokens=sum(u.cached_tokens for u in prompts),
        )

    def end(self, outcome: Outcome, error: str | None = None) -> None:
        """Count and log the request; the first call decides."""
        if self._ended:
            return
        self._ended = True
        seconds = self._clock() - self._arrived
        usage = self.usage()
        self._metrics.finished(self._endpoint, outcome, seconds, usage)
        if self._is_logged:
            self._log(outcome, seconds, usage, error)

    def _log(self, outcome: Outcome, seconds: float, usage: Usage, error: str | None) -> None:
        extra: dict[str, Any] = {} if outcome == "finished" else {"outcome": outcome}
        if error is not None:
            extra["error"] = error
        log.info(
            "model_inference",
            model_name=self._model,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
            inference_time=round(seconds, 3),
            tokens_per_second=round(usage.completion_tokens / seconds, 1) if seconds else 0.0,
            gpu_memory_used=f"{self._gpu_memory() / 2**30:.1f}GB",
            request_id=self._request_id,
            **extra,
        )
