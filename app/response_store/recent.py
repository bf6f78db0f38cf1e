"""Recent responses: those in memory, of which the ones that nobody used for longest go first."""

from __future__ import annotations

from collections import OrderedDict

from app.response_store.record import StoredResponse

Key = tuple[str, str]


class RecentResponses:
    """At most ``count`` records, of ``size`` bytes together, none unused for more than ``age`` seconds.

    To look at one is no use of it, but it goes later then."""

    def __init__(self, count: int, size: int, age: float) -> None:
        self.count = count
        self._size = size
        self._age = age
        self._records: OrderedDict[Key, tuple[StoredResponse, float]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    def put(self, record: StoredResponse, now: float) -> None:
        self.drop(record.key)
        if record.size > self._size:
            return
        self._records[record.key] = record, now
        self.bytes += record.size
        while len(self._records) > self.count or self.bytes > self._size or self._is_old(now):
            self.drop(next(iter(self._records)))

    def get(self, key: Key, now: float) -> StoredResponse | None:
        found = self._records.get(key)
        if found is None:
            return None
        if now - found[1] > self._age:
            self.drop(key)
            return None
        self._records.move_to_end(key)
        return found[0]

    def use(self, key: Key, now: float) -> None:
        """Note that a record goes on to be of use: its age counts from now."""
        if found := self._records.get(key):
            self._records[key] = found[0], now

    def drop(self, key: Key) -> bool:
        """Forget a record; whether there was one."""
        found = self._records.pop(key, None)
        if found is None:
            return False
        self.bytes -= found[0].size
        return True

    def _is_old(self, now: float) -> bool:
        """Whether the one that is unused for longest is so for too long."""
        _, used = next(iter(self._records.values()))
        return now - used > self._age
