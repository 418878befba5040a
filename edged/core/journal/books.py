"""What the journal must remember of its rows: what waits for the broker, what is kept and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from edged.clock import Stamp, elapsed
from edged.core.journal.records import Drop, Kind


@dataclass(slots=True)
class Entry:
    """A row, without its texts."""

    kind: Kind
    size: int
    stamp: Stamp


class Books:
    """The entries of all asks, answers and events.

    Attributes:
        asks: how many requests wait for their answer.
        answers: how many answers are kept.
        outbox_bytes: size of the answers and events that wait for the broker.
    """

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}  # ascending serials
        self._outbox: dict[int, Entry] = {}  # likewise
        self.asks = 0
        self.answers = 0
        self.outbox_bytes = 0

    @property
    def outbox(self) -> int:
        """Return how many answers and events wait for the broker."""
        return len(self._outbox)

    @property
    def floor(self) -> int:
        """Return the lowest serial there is; 0 without any."""
        return next(iter(self._entries), 0)

    @property
    def past(self) -> int:
        """Return how many answers and events there are."""
        return len(self._entries) - self.asks

    def waiting(self) -> set[int]:
        """Return the serials of the answers and events that wait for the broker."""
        return set(self._outbox)

    def enter(self, serial: int, kind: Kind, size: int, stamp: Stamp) -> None:
        """Enter a row; an answer or event waits for the broker from now on."""
        entry = self._entries[serial] = Entry(kind, size, stamp)
        self.asks += kind == "ask"
        self.answers += kind == "answer"
        if kind != "ask":
            self._outbox[serial] = entry
            self.outbox_bytes += size

    def strike(self, serial: int) -> None:
        """Forget a row, if it is known."""
        entry = self._entries.pop(serial, None)
        if entry is not None:
            self.acknowledge(serial)
            self.asks -= entry.kind == "ask"
            self.answers -= entry.kind == "answer"

    def acknowledge(self, serial: int) -> None:
        """Note that an answer or event waits no longer; unknown serials don't matter."""
        entry = self._outbox.pop(serial, None)
        if entry is not None:
            self.outbox_bytes -= entry.size

    def low_water(self, highest: int) -> int:
        """Return the serial up to which nothing waits, given the highest there is."""
        return next(iter(self._outbox), highest + 1) - 1

    def due(self, now: Stamp, keep_seconds: float) -> list[int]:
        """Return what may go: events, and answers whose time is over, once they wait for nobody."""
        return [
            serial
            for serial, entry in self._entries.items()
            if entry.kind != "ask"
            and serial not in self._outbox
            and (entry.kind == "event" or elapsed(entry.stamp, now) >= keep_seconds)
        ]

    def bound(self, most_bytes: int) -> list[Drop]:
        """Let the oldest leave the outbox until it fits, events before answers; say which."""
        drops = []
        kinds: tuple[Kind, ...] = ("event", "answer")
        for kind in kinds:
            held, serials = self.outbox_bytes, []
            for serial, entry in list(self._outbox.items()) if held > most_bytes else ():
                if self.outbox_bytes > most_bytes and entry.kind == kind:
                    self.acknowledge(serial)
                    serials.append(serial)
            if serials:
                reason = (
                    f"the outbox held {held:,} B, more than its {most_bytes:,} B (journal.outbox_max_bytes): "
                    f"the oldest {len(serials)} of its {kind}s left it unsent"
                )
                drops.append(Drop(serials, kind, reason))
        return drops
