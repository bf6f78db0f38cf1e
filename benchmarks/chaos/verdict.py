"""What the streams of a phase came to, compared with those of a quiet run."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.cli.load import percentile
from benchmarks.chaos.streams import Transcript
from benchmarks.chaos.ties import Judge, Parting

# Nats within which two tokens are a near-tie. SmolLM2 in Q4_0, decoded in a batch of 24 and not alone, sees
# the gap between its best two tokens move by 0.30 at one place in a hundred, and by 0.41 at most of 240: and
# each of two answers may be off as far. What is lost or doubled shows as several nats, or as no candidate.
NEAR_TIE = 1.0
# The token at which an answer goes on elsewhere, and the one after it.
SEAM_TOKENS = 2


@dataclass(frozen=True, slots=True)
class Compared:
    """Answers held against those of a quiet run.

    ``tokens`` are those before texts part, of which ``seam_tokens`` lie at seams; ``gaps`` are the
    seconds in which a client got nothing, at seams. Of those in a form, and their seams, only the number is
    told: a mask is no part of the model's own likelihoods.
    """

    answers: int
    formed: int
    formed_seams: int
    partings: list[Parting]
    at_seams: int
    seams: int
    tokens: int
    seam_tokens: int
    gaps: list[float]
    misses: list[str]

    def figures(self) -> dict[str, Any]:
        margins = [parting.margin for parting in self.partings]
        return {
            "requests": self.answers,
            "formed": self.formed,
            "formed_seams": self.formed_seams,
            "seams": self.seams,
            "differ": len(self.partings),
            "differ_at_seams": self.at_seams,
            "differ_at_seams_expected": self.expected_at_seams,
            "margin_p50": percentile(margins, 50),
            "margin_p99": percentile(margins, 99),
            "margin_max": max(margins, default=None),
            "seam_gap_p50_s": percentile(self.gaps, 50),
            "seam_gap_p99_s": percentile(self.gaps, 99),
        }

    @property
    def expected_at_seams(self) -> float:
        """Partings there would be at seams if they were like all other places."""
        return len(self.partings) * self.seam_tokens / self.tokens if self.tokens else 0.0


def breaches(answers: Sequence[Transcript], quiet: Mapping[int, Transcript]) -> list[str]:
    """Every breach of what a stream keeps to, with its request's id."""
    found = [f"{answer.request_id}: {fault}" for answer in answers for fault in answer.faults]
    for answer in answers:
        reference = quiet.get(answer.question.number)
        if answer.faults or reference is None or answer.text != reference.text:
            continue
        same = (answer.finish_reason, answer.tokens) == (reference.finish_reason, reference.tokens)
        if not same or answer.usage["prompt_tokens"] != reference.usage["prompt_tokens"]:
            found.append(f"{answer.request_id}: the same text, but {answer.usage} and not {reference.usage}")
    return found


async def compare(
    answers: Sequence[Transcript],
    quiet: Mapping[int, Transcript],
    seams: Mapping[str, Sequence[int]],
    judge: Judge,
) -> Compared:
    """Look at every difference from the ``quiet`` run; ``seams`` by request id, in tokens."""
    partings: list[Parting] = []
    gaps: list[float] = []
    at_seams = all_seams = tokens = seam_tokens = formed = formed_seams = 0
    for answer in answers:
        if answer.faults:
            continue
        own, compared = seams.get(answer.request_id, ()), answer.tokens
        all_seams += len(own)
        if answer.question.form is not None:
            formed, formed_seams = formed + 1, formed_seams + len(own)
            continue
        gaps += [gap for seam in own if (gap := await _gap(answer, seam, judge)) is not None]
        reference = quiet[answer.question.number]
        if answer.text != reference.text:
            parting = await judge.parting(reference, answer)
            partings.append(parting)
            compared = parting.tokens + 1
            at_seams += any(seam <= parting.tokens < seam + SEAM_TOKENS for seam in own)
        tokens += compared
        seam_tokens += sum(min(SEAM_TOKENS, max(0, compared - seam)) for seam in own)
    result = Compared(
        len(answers), formed, formed_seams, partings, at_seams, all_seams, tokens, seam_tokens, gaps, []
    )
    result.misses.extend(_misses(result))
    return result


def _misses(compared: Compared) -> list[str]:
    found = [f"no near-tie: {parting}" for parting in compared.partings if not parting.margin < NEAR_TIE]
    expected = compared.expected_at_seams
    if compared.at_seams > expected + 3 * math.sqrt(expected) + 3:
        found.append(f"{compared.at_seams} answers differ at seams, where {expected:.1f} would be by chance")
    return found


async def _gap(answer: Transcript, seam: int, judge: Judge) -> float | None:
    """Seconds between the text before ``seam`` and the text after it; None if either is missing."""
    length = await judge.length(answer.text, seam)
    place = bisect_left(answer.arrivals, length + 1, key=lambda arrival: arrival[1])
    if not 0 < place < len(answer.arrivals):
        return None
    return answer.arrivals[place][0] - answer.arrivals[place - 1][0]
