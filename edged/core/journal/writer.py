"""The journal's thread: commits all that waits in one transaction, and keeps on when the disk fails."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from edged.clock import Clock, Stamp
from edged.core.journal.books import Books
from edged.core.journal.mark import Mark, MarkState
from edged.core.journal.opening import open_store
from edged.core.journal.records import ROW_OVERHEAD_BYTES, Drop, Kind, Loss, RecordKey, Recovered
from edged.core.journal.store import Store
from edged.errors import EdgedError, ErrorCode

_log = structlog.get_logger(__name__)

DATABASE, MARK = "journal.sqlite", "journal.mark"
WAL_BYTES = 512 << 10  # the log is taken over into the file when it is longer
GROUP_BYTES = 512 << 10  # most of one transaction
RESERVED_BYTES = 8 << 10  # room kept for the answer of each request that was accepted
REMOVAL_SECONDS = 60.0  # between batches of removals
MARK_SECONDS = 10.0  # between flushes of the mark
RETRY_SECONDS = (1.0, 2.0, 4.0, 5.0)
SALT_BYTES = 16


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


@dataclass(eq=False)
class Write:
    """A record to be written.

    Attributes:
        replaces: the serial of the ask that it answers.
        done: told its serial or an error, once, in the journal's thread.
        serial: given at the first attempt; then it stays.
    """

    kind: Kind
    key: RecordKey | None
    body_hash: bytes
    body: bytes
    stamp: Stamp
    replaces: int | None
    done: Callable[[int | Exception], None]
    serial: int = 0

    @property
    def size(self) -> int:
        """Return about how many bytes of the file it takes."""
        return len(self.body) + sum(map(len, self.key or ())) + ROW_OVERHEAD_BYTES


@dataclass
class Inbox:
    """What the asyncio side has handed over since the last round."""

    writes: list[Write] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    settle: list[Callable[[int | Exception], None]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.writes or self.acknowledged or self.forgotten or self.settle)


class Writer:
    """Owns files and books; all but `hand_over`, `stop` and the figures runs in its thread.

    Attributes:
        problem: why nothing can be written; None while it can.
        losses: what was lost since the start.
        commits: how many transactions were committed.
        wal_bytes: of the log that are in use.
    """

    def __init__(
        self, directory: Path, bounds: Bounds, clock: Clock, on_drop: Callable[[Drop], None]
    ) -> None:
        self._directory = directory
        self._bounds = bounds
        self._clock = clock
        self._on_drop = on_drop
        self.books = Books()
        self.problem: str | None = "it has not been opened yet"
        self.losses: list[Loss] = []
        self.commits = 0
        self.file_bytes = 0
        self._store: Store | None = None
        self._mark: Mark | None = None
        self._salt = b""
        self._run = 0
        self._serial = 0
        self._state_serial = 0
        self._unwritten: list[Write] = []
        self._removals: set[int] = set()
        self._failures = 0
        self._retry_at = self._remove_at = self._mark_at = 0.0
        self._wake = threading.Condition()
        self._inbox = Inbox()
        self._stopping = False
        self._thread: threading.Thread | None = None

    # -- the asyncio side

    def start(self, opened: Callable[[Recovered | Exception], None]) -> None:
        """Start the thread; it opens the files first and tells `opened` what it found."""
        self._thread = threading.Thread(target=self._run_thread, args=(opened,), name="journal", daemon=True)
        self._thread.start()

    def hand_over(self, change: Callable[[Inbox], None]) -> None:
        """Let `change` put something into the inbox, and wake the thread."""
        with self._wake:
            change(self._inbox)
            self._wake.notify()

    def stop(self) -> None:
        """Let the thread end when it has done what is there."""
        with self._wake:
            self._stopping = True
            self._wake.notify()

    def join(self) -> None:
        """Wait for the thread's end."""
        if self._thread is not None:
            self._thread.join()

    # -- the thread

    def _run_thread(self, opened: Callable[[Recovered | Exception], None]) -> None:
        try:
            recovered = self._open()
        except Exception as error:
            _log.exception("the journal could not be opened")
            opened(error)
            return
        opened(recovered)
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._inbox or self._stopping, self._seconds_to_wait())
                inbox, self._inbox = self._inbox, Inbox()
                stopping = self._stopping
            try:
                self._round(inbox)
            except Exception as error:
                self._survive(error, inbox)
            if stopping and not self._inbox:
                self._close()
                return

    def _open(self) -> Recovered:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._mark = Mark(self._directory / MARK)
        marked = self._mark.state
        opened = open_store(self._directory / DATABASE, marked)
        self._store = opened.store
        self.losses = opened.losses
        states = [row for row in opened.rows if row.kind == "state"]
        self._salt = states[-1].body if states else marked.salt if marked else os.urandom(SALT_BYTES)
        self._run = 1 + max(marked.run if marked else 0, *(row.run for row in opened.rows), 0)
        self._serial = max(marked.highest if marked else 0, *(row.serial for row in opened.rows), 0)
        self._state_serial = states[-1].serial if states else 0
        records = [row.record() for row in opened.rows if row.kind != "state"]
        acknowledged = marked.acknowledged if marked else 0
        for row in opened.rows:
            if row.kind != "state":
                self.books.enter(row.serial, row.kind, row.size, row.moment())
                if row.serial <= acknowledged:
                    self.books.acknowledge(row.serial)
        waiting = self.books.waiting()
        gone = set(self.books.due(self._clock.now(), self._bounds.keep_results_seconds))
        self._removals |= gone
        self.problem = None
        self._commit([])
        return Recovered(
            asks=[r for r in records if r.kind == "ask"],
            answers=[r for r in records if r.kind == "answer" and r.serial not in gone],
            unacknowledged=waiting,
            events=[r for r in records if r.kind == "event" and r.serial in waiting],
            losses=list(self.losses),
            salt=self._salt,
            run=self._run,
        )

    def _round(self, inbox: Inbox) -> None:
        for serial in inbox.acknowledged:
            self.books.acknowledge(serial)
        self._removals.update(inbox.forgotten)
        now = time.monotonic()
        if now >= self._remove_at or inbox.settle:
            self._remove_at = now + REMOVAL_SECONDS
            self._removals.update(self.books.due(self._clock.now(), self._bounds.keep_results_seconds))
        writes = self._unwritten + inbox.writes
        self._unwritten = []
        if writes or (self._removals and (inbox.settle or now >= self._retry_at)):
            self._commit(writes)
        self._write_mark()
        if self._store is not None and self._store.wal_bytes > WAL_BYTES:
            self._store.checkpoint()
        for done in inbox.settle:
            if self._store is not None:
                self._store.checkpoint(truncate=True)
            done(0)

    def _commit(self, writes: list[Write]) -> None:
        """Write everything in one transaction and tell who waits."""
        assert self._store is not None
        refused: list[tuple[Write, EdgedError]] = []
        accepted: list[Write] = []
        for write in writes:
            if not write.serial:
                self._serial += 1
                write.serial = self._serial
            accepted.append(write)
        removals = self._removals | {w.replaces for w in accepted if w.replaces is not None}
        state_serial = self._state_serial
        try:
            with self._store.transaction():
                self._store.remove(removals)
                for w in accepted:
                    self._store.insert(w.serial, w.kind, w.key, w.body_hash, w.stamp, self._run, w.body)
                if not accepted:
                    self._store.remove([self._state_serial])
                    self._serial += 1
                    state_serial = self._serial
                    self._store.insert(
                        state_serial, "state", None, b"", self._clock.now(), self._run, self._salt
                    )
        except Exception as error:
            for w in accepted:
                w.done(EdgedError(ErrorCode.JOURNAL_FULL, f"the journal can't be written: {error}"))
            return
        self._state_serial = state_serial
        self._removals = set()
        self.commits += 1
        for serial in removals:
            self.books.strike(serial)
        for w in accepted:
            self.books.enter(w.serial, w.kind, w.size, w.stamp)
        self.file_bytes = self._store.file_bytes()
        self._write_mark()
        for w in accepted:
            w.done(w.serial)
        for drop in self.books.bound(self._bounds.outbox_max_bytes):
            self._on_drop(drop)

    def _write_mark(self) -> None:
        if self._mark is None or self._store is None:
            return
        highest = self._store.highest
        self._mark.write(MarkState(highest, self.books.low_water(highest), self._run, self._salt))

    def _seconds_to_wait(self) -> float:
        return max(0.0, self._remove_at - time.monotonic())

    def _survive(self, error: Exception, inbox: Inbox) -> None:
        _log.exception("the journal met an unexpected error")
        self.problem = f"an unexpected error: {error!r}"
        for write in inbox.writes:
            write.done(EdgedError(ErrorCode.INTERNAL, "the journal failed unexpectedly; the log says more"))

    def _close(self) -> None:
        if self._store is not None:
            self._store.checkpoint(truncate=True)
            self._store.close()
        if self._mark is not None:
            self._mark.sync()
            self._mark.close()
