"""What the journal keeps: records with a serial and a checksum, and what is said of those that are gone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

from edged.clock import Stamp
from edged.core.journal.census import Census

Kind = Literal["ask", "answer", "event"]
RowKind = Literal["ask", "answer", "event", "state"]  # state: the journal's own, with the salt as its body

ROW_OVERHEAD_BYTES = 160  # of a row beside its body: hash, stamp, census, checksum and the names


class RecordKey(NamedTuple):
    """What tells requests apart: ids are the requester's own, and so are names on each way in."""

    way: str
    client: str
    id: str


@dataclass(frozen=True, slots=True)
class Record:
    """One fact.

    Attributes:
        serial: its number; every new fact has a higher one.
        kind: ask, answer or event.
        key: whose; None of an event.
        body_hash: of the request's body, by the journal's salt; empty of an event.
        stamp: when it was written.
        run: the start of the daemon that wrote it.
        body: what the core gave.
    """

    serial: int
    kind: Kind
    key: RecordKey | None
    body_hash: bytes
    stamp: Stamp
    run: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Loss:
    """Serials among which rows were lost; some of the range may have been removed in good order before."""

    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Rows that left the outbox unacknowledged, because it was full."""

    serials: list[int]
    kind: Kind
    reason: str


@dataclass
class Recovered:
    """What the journal held when it was opened.

    Attributes:
        asks: requests without an answer, oldest first.
        answers: answers that are still kept, oldest first.
        unacknowledged: serials of the answers and events that still wait for the broker.
        events: events that still wait, oldest first.
        losses: what was lost.
        salt: for the hashes of bodies.
        run: the number of this start.
    """

    asks: list[Record] = field(default_factory=list)
    answers: list[Record] = field(default_factory=list)
    unacknowledged: set[int] = field(default_factory=set)
    events: list[Record] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    salt: bytes = b""
    run: int = 0


class Row(NamedTuple):
    """A record as it lies in the table, in the order of the columns."""

    serial: int
    kind: RowKind
    way: str
    client: str
    id: str
    body_hash: bytes
    stamp: str
    run: int
    body: bytes
    census: bytes
    checksum: bytes

    @classmethod
    def seal(
        cls,
        serial: int,
        kind: RowKind,
        key: RecordKey | None,
        body_hash: bytes,
        stamp: Stamp,
        run: int,
        body: bytes,
        census: Census,
    ) -> Row:
        """Return the row with its checksum."""
        way, client, id_ = key or ("", "", "")
        moment = json.dumps(list(stamp.as_fields().values()), separators=(",", ":"))
        unsealed = (serial, kind, way, client, id_, body_hash, moment, run, body, census.pack())
        return cls(*unsealed, checksum(unsealed))

    @classmethod
    def verified(cls, values: Sequence[Any]) -> Row:
        """Return the row if its checksum is right.

        Raises:
            ValueError: it is not.
        """
        if len(values) != len(cls._fields) or checksum(values[:-1]) != values[-1]:
            raise ValueError("the checksum is wrong")
        return cls(*values)

    @property
    def size(self) -> int:
        """Return about how many bytes of the file it takes."""
        return len(self.body) + len(self.way) + len(self.client) + len(self.id) + ROW_OVERHEAD_BYTES

    def moment(self) -> Stamp:
        """Return when it was written."""
        boot_id, boottime, wall, synchronised = json.loads(self.stamp)
        return Stamp(boot_id, boottime, wall, synchronised)

    def record(self) -> Record:
        """Return the record that the row holds; not for the journal's own rows."""
        assert self.kind != "state"
        key = None if self.kind == "event" else RecordKey(self.way, self.client, self.id)
        return Record(self.serial, self.kind, key, self.body_hash, self.moment(), self.run, self.body)


def checksum(values: Iterable[Any]) -> bytes:
    """Return the checksum of a row's values, each with its type and length."""
    digest = blake2b(digest_size=16, person=b"edged journal")
    for value in values:
        if isinstance(value, int):
            data, kind = value.to_bytes(8, "big", signed=True), b"i"
        elif isinstance(value, str):
            data, kind = value.encode(errors="surrogatepass"), b"s"
        elif isinstance(value, bytes):
            data, kind = value, b"b"
        else:
            data, kind = repr(value).encode(), b"?"
        digest.update(kind + len(data).to_bytes(4, "big") + data)
    return digest.digest()
