"""Which rows there are, in few bytes: each row tells it as of its own writing.

A checksum in a row shows that the row is right; only the census shows that no other row is missing and that
none has come back, as happens where part of a write-ahead log is lost.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import NamedTuple

_FORM = struct.Struct(">QIQ")


class Census(NamedTuple):
    """The sum of all rows.

    Attributes:
        floor: no row has a lower serial; 0 where there is none.
        rows: how many there are.
        digest: the hashes of their serials, XORed.
    """

    floor: int
    rows: int
    digest: int

    @classmethod
    def of(cls, serials: Iterable[int]) -> Census:
        """Take the census of rows."""
        floor = rows = digest = 0
        for serial in serials:
            floor = min(floor or serial, serial)
            rows += 1
            digest ^= _hash(serial)
        return cls(floor, rows, digest)

    def pack(self) -> bytes:
        """Return it as a row carries it."""
        return _FORM.pack(*self)

    @classmethod
    def unpack(cls, data: bytes) -> Census:
        """Return the census that a row carries.

        Raises:
            struct.error: it is none.
        """
        return cls(*_FORM.unpack(data))


class Roll:
    """The serials of all rows and their places, with changes that can be taken back until they are committed.

    Args:
        places: of the rows there are, by ascending serial.
    """

    def __init__(self, places: Mapping[int, int] = MappingProxyType({})) -> None:
        self._order = deque(places)  # ascending; those that are gone leave it when they are the first
        self._live = dict(places)
        self._added: dict[int, int] = {}
        self._lowest_added = 0
        self._removed: set[int] = set()
        self.census = self._before = Census.of(self._order)

    def add(self, serial: int, place: int) -> Census:
        """Add a row; return the census with it."""
        self._added[serial] = place
        self._lowest_added = min(serial, self._lowest_added or serial)
        there = (s for s in self._order if s in self._live and s not in self._removed)
        floor = min(next(there, serial), self._lowest_added)
        self.census = Census(floor, self.census.rows + 1, self.census.digest ^ _hash(serial))
        return self.census

    def remove(self, serial: int) -> int | None:
        """Remove a row that was there before; return its place. The next `add` finds the floor."""
        if serial not in self._live or serial in self._removed:
            return None
        self._removed.add(serial)
        self.census = self.census._replace(
            rows=self.census.rows - 1, digest=self.census.digest ^ _hash(serial)
        )
        return self._live[serial]

    def commit(self) -> None:
        """Keep the changes."""
        for serial in self._removed:
            del self._live[serial]
        self._live.update(self._added)
        late = self._added and self._order and self._lowest_added < self._order[-1]
        self._order.extend(self._added)
        if late:  # it was given its serial while the disk was full
            self._order = deque(sorted(self._order))
        while self._order and self._order[0] not in self._live:
            self._order.popleft()
        self._before = self.census
        self._begin_anew()

    def rollback(self) -> None:
        """Take the changes back."""
        self.census = self._before
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._added, self._lowest_added, self._removed = {}, 0, set()


def _hash(serial: int) -> int:
    return int.from_bytes(blake2b(serial.to_bytes(8, "big"), digest_size=8).digest(), "big")
