"""What the journal's thread does: commit all that waits in one transaction, and go on when the disk fails."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import cast

import structlog

from edged.clock import Clock
from edged.core.journal.books import Books
from edged.core.journal.files import Files
from edged.core.journal.mark import MarkState
from edged.core.journal.opening import new_salt
from edged.core.journal.records import Drop, Kind, Loss, Recovered, Row
from edged.core.journal.store import WAL_BYTES, DamagedError, Store
from edged.core.journal.trouble import describe, is_full, no_room, refusal
from edged.core.journal.work import Bounds, Inbox, Write, grouped
from edged.errors import EdgedError

_log = structlog.get_logger(__name__)

RESERVED_BYTES = 8 << 10  # room kept for the answer of each request that was accepted
REMOVAL_SECONDS = 60.0  # between batches of removals
RETRY_SECONDS = (1.0, 2.0, 4.0, 5.0)
REST_SECONDS = 2.0  # between looks at what is due

_FORESEEN = (sqlite3.Error, OSError, DamagedError, EdgedError)


class Writer:
    """The line of writes, books and files; all but the figures belong to the journal's thread.

    Attributes:
        books: what the journal holds.
        files: where it lies.
        problem: why nothing can be written; None while it can.
        commits: how many transactions were committed.
        file_bytes: of database and log.

    Args:
        directory: where the files lie.
        bounds: the settings.
        clock: gives stamps, and the time by which answers are removed.
        on_drop: told of what left the outbox because it was full.
        on_loss: told of what was found lost after the opening.
    """

    def __init__(
        self,
        directory: Path,
        bounds: Bounds,
        clock: Clock,
        on_drop: Callable[[Drop], None],
        on_loss: Callable[[Loss], None],
    ) -> None:
        self._directory = directory
        self._bounds = bounds
        self._clock = clock
        self._on_drop = on_drop
        self.books = Books()
        self.files = Files(directory, clock, on_loss)
        self.problem: str | None = None
        self.commits = 0
        self.file_bytes = 0
        self._salt = b""
        self._run = 0
        self._serial = 0  # the highest that was given out
        self._states: list[int] = []  # the journal's own rows
        self._line: list[Write] = []  # what is not settled, in order
        self._removals: set[int] = set()  # what must go with the next transaction
        self._leaving: set[int] = set()  # what may give its place to what comes, until the next look
        self._failures = 0
        self._retry_at = 0.0  # of the monotonic clock
        self._remove_at = 0.0  # of the time since the boot

    def take(self, bounds: Bounds) -> None:
        """Go by other bounds from the next round on; from any thread."""
        self._bounds = bounds

    def open(self) -> Recovered:
        """Open the files and return what they hold.

        Raises:
            EdgedError: another process has them open.
        """
        rows = self._open_files()
        marked = self.files.marked
        self._salt = new_salt(rows, marked)
        self._run = 1 + max([marked.run if marked else 0, *(row.run for row in rows)])
        kept = [row for row in rows if row.kind != "state"]
        for row in kept:
            self.books.enter(row.serial, cast(Kind, row.kind), row.size, row.moment())
            if marked and row.serial <= marked.acknowledged:
                self.books.acknowledge(row.serial)
        self._find_what_is_due(at_once=True)
        records = [row.record() for row in kept if row.serial not in self._removals]
        self._commit([])
        return Recovered(
            asks=[record for record in records if record.kind == "ask"],
            answers=[record for record in records if record.kind == "answer"],
            unacknowledged=self.books.waiting(),
            events=[record for record in records if record.kind == "event"],
            losses=list(self.files.losses),
            salt=self._salt,
            run=self._run,
        )

    def round(self, inbox: Inbox) -> None:
        """Do what was handed over and what is due."""
        self._line += inbox.writes
        self._removals.update(inbox.forgotten)
        for serial in inbox.acknowledged:
            self.books.acknowledge(serial)
        self._find_what_is_due(at_once=bool(inbox.settle) or inbox.rebound)
        if inbox.rebound:
            self._bound_outbox()
        groups = grouped(self._line)
        if not groups and (self._removals if self.problem is None else time.monotonic() >= self._retry_at):
            groups = [[]]
        failure: Exception | None = None
        for group in groups:
            failure = self._commit(group, failure)
        self._line = [write for write in self._line if not write.settled]
        self._write_mark()
        self._tend(scrub=bool(inbox.settle) or not self.books.floor)
        for done in inbox.settle:
            done(0)

    def survive(self, error: Exception, inbox: Inbox) -> None:
        """Go on after an error that nobody foresaw: refuse the requests, keep the rest to try it again."""
        self._fail(error, [write for write in self._line if not write.settled])
        self._line = [write for write in self._line if not write.settled]
        for done in inbox.settle:
            done(refusal(error, self._directory))

    def seconds_to_wait(self) -> float | None:
        """Return how long nothing is due; None: until something comes."""
        if self.problem is not None:
            return max(0.0, self._retry_at - time.monotonic())
        return REST_SECONDS if self.books.past or self.files.unscrubbed else None

    def close(self) -> None:
        """Write what can be written, and close the files."""
        if self._line:
            self._commit(self._line)
        self.files.close()
        if unwritten := sum(not write.settled for write in self._line):
            _log.error("the journal could not be written to the end", unwritten=unwritten)

    def _find_what_is_due(self, *, at_once: bool) -> None:
        now = self._clock.now()
        if now.boottime >= self._remove_at or at_once:
            self._remove_at = now.boottime + REMOVAL_SECONDS
            due = set(self.books.due(now, self._bounds.keep_results_seconds))
            due -= {write.serial for write in self._line}
            self._removals |= due if at_once else due & self._leaving
            self._leaving = due - self._removals

    def _commit(self, writes: list[Write], failure: Exception | None = None) -> Exception | None:
        """Write everything in one transaction and tell who waits; return why not, if it fails.

        Args:
            writes: the records.
            failure: of the transaction before, in which case this one is not tried.
        """
        admitted = self._admit(writes)
        if writes and not admitted and not self._removals:
            return failure
        try:
            if failure is not None:
                raise failure
            if self.files.store is None and self._failures:
                self._open_files()
            self._transact(self.files.writable(), admitted)
        except Exception as error:
            self._fail(error, admitted)
            return error
        mended, self.problem, self._failures = self.problem is not None, None, 0
        for write in admitted:
            if write.kind == "ask":
                self.books.enter(write.serial, write.kind, write.size, write.stamp)
            write.settled = True
            write.done(write.serial)
        if mended:
            _log.info("the journal can be written again")
        return None

    def _admit(self, writes: list[Write]) -> list[Write]:
        """Give serials to those that have none yet; refuse requests for which there is no room."""
        admitted = []
        promised = self.books.asks * RESERVED_BYTES
        for write in writes:
            if not write.serial and write.kind == "ask":
                refused = self._no_room_for(write, promised)
                if refused is not None:
                    self._removals |= self._leaving
                    write.settled = True
                    write.done(refused)
                    continue
                promised += write.size + RESERVED_BYTES
            self._number(write)
            admitted.append(write)
        self._bound_outbox()
        return admitted

    def _bound_outbox(self) -> None:
        for drop in self.books.bound(self._bounds.outbox_max_bytes):
            self._on_drop(drop)
            _log.warning("the outbox is full", reason=drop.reason)

    def _number(self, write: Write) -> None:
        if not write.serial:
            self._serial += 1
            write.serial = self._serial
            if write.kind != "ask":  # it is kept from now on, in memory if need be
                self.books.enter(write.serial, write.kind, write.size, write.stamp)

    def _no_room_for(self, write: Write, promised: int) -> EdgedError | None:
        store = self.files.store
        if store is None:
            return None  # whether it can be written at all comes first
        used = store.bytes_used + max(WAL_BYTES, store.log_bytes) + promised
        needed = write.size + RESERVED_BYTES
        bound = self._bounds.max_bytes
        return no_room(used, needed, bound) if used + needed > bound else None

    def _transact(self, store: Store, writes: list[Write]) -> None:
        replaced = {write.replaces for write in writes if write.replaces is not None}
        removals = self._removals | replaced | set(islice(self._leaving, len(writes) - len(replaced)))
        # The newest row has the census of all: where none of these is the newest, the journal adds its own.
        own = not writes or writes[-1].serial < store.highest
        states = self._states
        with store.transaction():
            store.remove(write.serial for write in writes)  # an attempt that failed may have left them
            store.remove([*removals, *states] if own else removals)
            for write in writes:
                store.insert(
                    write.serial, write.kind, write.key, write.body_hash, write.stamp, self._run, write.body
                )
            if own:
                self._serial += 1
                states = [self._serial]
                store.insert(self._serial, "state", None, b"", self._clock.now(), self._run, self._salt)
        self._states = states
        self._removals = set()
        self._leaving -= removals
        self.files.unscrubbed = self.files.unscrubbed or bool(removals)
        for serial in removals:
            self.books.strike(serial)
        self.commits += 1
        self.file_bytes = store.file_bytes()
        self._write_mark()

    def _fail(self, error: Exception, writes: list[Write]) -> None:
        """Refuse requests, and keep the rest until it can be written."""
        news = self.problem is None
        self.problem = describe(error, self._directory)
        self._retry_at = time.monotonic() + RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
        self._failures += 1
        if not is_full(error):
            self.files.let_go()
        for write in writes:
            if write.kind == "ask":
                self._removals.add(write.serial)  # where a flush failed it may be there all the same
                write.settled = True
                write.done(refusal(error, self._directory))
            else:
                self._number(write)
                write.done(write.serial)
        # Last, so that a log that can't be written either does no harm.
        if not isinstance(error, _FORESEEN):
            _log.error("the journal met an unexpected error", exc_info=error)
        elif news:
            _log.error("the journal can't be written", reason=self.problem)

    def _open_files(self) -> list[Row]:
        rows = self.files.open(self._serial)
        marked = self.files.marked
        self._states = [row.serial for row in rows if row.kind == "state"]
        self._serial = max([self._serial, marked.highest if marked else 0, *(row.serial for row in rows)])
        return rows

    def _write_mark(self) -> None:
        if self.files.store is not None:
            highest, books = self.files.store.highest, self.books
            self.files.mark(MarkState(highest, books.floor, books.low_water(highest), self._run, self._salt))

    def _tend(self, *, scrub: bool) -> None:
        """See after the files; nobody waits for this."""
        try:
            self.files.tend(scrub=scrub)
        except (sqlite3.Error, OSError) as error:
            if not is_full(error):  # otherwise it is told when something can't be kept
                self._fail(error, [])
