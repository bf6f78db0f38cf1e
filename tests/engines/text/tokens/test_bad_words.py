from __future__ import annotations

from engines.text.tokens.bad_words import BadWords, token_runs


class Letters:
    """A token a letter, and one for a space with the letter behind it."""

    def tokenize(self, text: str, *, add_special: bool) -> tuple[int, ...]:
        assert not add_special
        found = [ord(c) for c in text if c != " "]
        return (found[0] + 1000, *found[1:]) if text.startswith(" ") else tuple(found)


def test_a_word_counts_at_the_beginning_and_behind_a_space() -> None:
    assert token_runs(("ab", " ab", "c"), Letters()) == ((97, 98), (1097, 98), (99,), (1099,))
    assert token_runs((), Letters()) == ()


def test_only_the_last_token_of_a_run_is_banned() -> None:
    words = BadWords([(1,), (2, 3), (2, 2, 4)], generated=(9,))
    assert words.banned() == [1]
    words.add(2)
    assert words.banned() == [1, 3]
    words.add(2)
    assert words.banned() == [1, 3, 4]
    words.add(5)
    assert words.banned() == [1]
    assert BadWords([(2, 3)], generated=(2,)).banned() == [3]
