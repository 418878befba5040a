"""What the asyncio side hands over to the journal's thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from edged.clock import Stamp
from edged.core.journal.records import ROW_OVERHEAD_BYTES, Kind, RecordKey

GROUP_BYTES = 512 << 10  # most of one transaction

Done = Callable[[int | Exception], None]


class Bounds(Protocol):
    """The table [journal] of the settings."""

    @property
    def max_bytes(self) -> int:
        """Most bytes of database and log."""

    @property
    def keep_results_seconds(self) -> float:
        """How long an answer is kept."""

    @property
    def outbox_max_bytes(self) -> int:
        """Most bytes of what waits for the broker."""


@dataclass(eq=False, slots=True)
class Write:
    """A record to be written.

    Attributes:
        kind: ask, answer or event.
        key: whose; None of an event.
        body_hash: of the request's body.
        body: what the core gave.
        stamp: when it was handed over.
        replaces: the serial of the ask that it answers.
        done: told its serial or an error, in the journal's thread.
        serial: 0 until the first attempt; then it stays.
        settled: whether it is durable, or was refused.
    """

    kind: Kind
    key: RecordKey | None
    body_hash: bytes
    body: bytes
    stamp: Stamp
    replaces: int | None
    done: Done
    serial: int = 0
    settled: bool = False

    @property
    def size(self) -> int:
        """Return about how many bytes of the file it takes."""
        return len(self.body) + sum(map(len, self.key or ())) + ROW_OVERHEAD_BYTES


@dataclass(slots=True)
class Inbox:
    """What has come since the last round.

    Attributes:
        writes: records, in order.
        acknowledged: serials that the broker has.
        forgotten: serials of asks that are given up.
        settle: who waits for everything that is due.
        rebound: whether other bounds hold, by which more may be due.
    """

    writes: list[Write] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    settle: list[Done] = field(default_factory=list)
    rebound: bool = False

    def __bool__(self) -> bool:
        return bool(self.writes or self.acknowledged or self.forgotten or self.settle or self.rebound)


def grouped(writes: Iterable[Write]) -> list[list[Write]]:
    """Cut a long line of writes into transactions of bounded size."""
    groups: list[list[Write]] = []
    size = GROUP_BYTES
    for write in writes:
        if size + write.size > GROUP_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(write)
        size += write.size
    return groups
