"""The prefix index: which backends were sent the beginning of a conversation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

BLOCK_CHARS = 256
MAX_BLOCKS = 256  # of one prompt: what is longer is told apart, or not, by its first 65,536 characters
INDEX_ENTRIES = 10_000  # (block, backend) pairs that prefix_aware remembers
NOBODY: Set[str] = frozenset()


class PrefixIndex:
    """An index from blocks of conversations to the backends that were sent them of late.

    An approximate LRU of two generations: what is used moves to the young one, and when that is full it
    becomes the old one, whose entries are dropped. A conversation's first blocks so never go before its
    later ones: whoever has a block has all that precede it.
    """

    def __init__(self, entries: int = INDEX_ENTRIES) -> None:
        self._room = entries // 2
        self._young: dict[int, set[str]] = {}
        self._old: dict[int, set[str]] = {}
        self._entries = 0  # of the young generation

    def depths(self, prefix: Sequence[int]) -> Iterator[int]:
        """The lengths, in leading blocks, at which the backends' matches end, longest first.

        Only who has a block can have the next one. So the holders get fewer, and the ends can be bisected.
        """
        young, old = self._young.get, self._old.get
        end, seen_young, seen_old = len(prefix), 0, 0

        while end:
            low, high = 0, end
            while low < high:  # `bisect` would call a function for each block, which takes twice as long
                middle = (low + high) // 2
                block = prefix[middle]
                if len(young(block, NOBODY)) > seen_young or len(old(block, NOBODY)) > seen_old:
                    low = middle + 1
                else:
                    high = middle
            end = low
            if end:
                yield end
                block = prefix[end - 1]
                seen_young, seen_old = len(young(block, NOBODY)), len(old(block, NOBODY))

    def holders(self, block: int) -> Set[str]:
        """The backends that were sent ``block``, also those that were sent more of the conversation."""
        return self._young.get(block, NOBODY) | self._old.get(block, NOBODY)

    def add(self, prefix: Sequence[int], name: str) -> None:
        # From the end, for the beginning is there already in all but a conversation's first turn.
        for block in reversed(prefix):
            names = self._young.get(block)
            if names is None:
                self._young[block] = {name}
            elif name in names:
                break
            else:
                names.add(name)
            self._entries += 1
        if self._entries >= self._room:
            self._young, self._old, self._entries = {}, self._young, 0

    def __len__(self) -> int:
        return sum(map(len, self._young.values())) + sum(map(len, self._old.values()))


def prefix_blocks(text: str) -> tuple[int, ...]:
    """Hashes of the leading whole blocks of ``text``, each of all characters up to its block's end.

    They are comparable within this process only.
    """
    blocks: list[int] = []
    chained = 0
    for end in range(BLOCK_CHARS, min(len(text), BLOCK_CHARS * MAX_BLOCKS) + 1, BLOCK_CHARS):
        chained = hash((chained, text[end - BLOCK_CHARS : end]))
        blocks.append(chained)
    return tuple(blocks)
