"""The records of all models that were ever wanted."""

from __future__ import annotations

from collections.abc import Iterator

from engines.lifecycle.record import Record
from engines.lifecycle.transitions import Loader
from engines.machine.footprint import Footprint


class Records:
    """Records by the model's name, in the order in which they were first wanted."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._by_name: dict[str, Record] = {}

    def __iter__(self) -> Iterator[Record]:
        """Over those there are now, whatever happens to them meanwhile."""
        return iter(list(self._by_name.values()))

    def __getitem__(self, name: str) -> Record:
        return self._by_name[name]

    def get(self, name: str) -> Record | None:
        return self._by_name.get(name)

    def ensure(self, name: str) -> Record:
        """The model's record, made if need be. Raises `ModelFileNotFound`."""
        record = self._by_name.get(name)
        if record is None:
            record = self._by_name[name] = self.blank(name)
        return record

    def blank(self, name: str) -> Record:
        """A new record of a model, which is not kept. Raises `ModelFileNotFound`."""
        retention = self._loader.retention(name)
        return Record(
            name,
            pinned=retention.pin,
            keep_alive=retention.keep_alive,
            replica_of=retention.replica_of,
        )

    def remove(self, name: str) -> None:
        del self._by_name[name]

    def original(self, record: Record) -> Record | None:
        """The record of the model that ``record`` is a replica of."""
        return None if record.replica_of is None else self.ensure(record.replica_of)

    def holders(self) -> list[Record]:
        """Those of models that hold memory, or are about to."""
        return [record for record in self if record.engine is not None or record.task is not None]

    @property
    def used(self) -> Footprint:
        """Memory of all models that are loaded or asleep, or on their way in or out."""
        return sum((record.footprint for record in self.holders()), Footprint())
