"""The journal's thread: commits all that waits in one transaction, and goes on when the disk fails."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

import structlog

from edged.clock import Clock
from edged.core.journal.books import Books
from edged.core.journal.mark import Mark, MarkState
from edged.core.journal.opening import new_salt, open_store
from edged.core.journal.records import Drop, Kind, Loss, Recovered, Row
from edged.core.journal.store import WAL_BYTES, DamagedError, Store
from edged.core.journal.trouble import describe, is_full, no_room, refusal
from edged.core.journal.work import Bounds, Inbox, Write
from edged.errors import EdgedError

_log = structlog.get_logger(__name__)

DATABASE, MARK = "journal.sqlite", "journal.mark"
GROUP_BYTES = 512 << 10  # most of one transaction
RESERVED_BYTES = 8 << 10  # room kept for the answer of each request that was accepted
REMOVAL_SECONDS = 60.0  # between batches of removals
SCRUB_SECONDS = 3600.0  # after which removed texts leave the log too, if it is never at rest before
MARK_SECONDS = 10.0  # between flushes of the mark
RETRY_SECONDS = (1.0, 2.0, 4.0, 5.0)
REST_SECONDS = 2.0  # between looks at what is due


class Writer:
    """Files and books; everything but the figures belongs to the journal's thread.

    Attributes:
        books: what the journal holds.
        problem: why nothing can be written; None while it can.
        losses: what was lost, at the start or since.
        commits: how many transactions were committed.
        file_bytes: of database and log.

    Args:
        directory: where the files lie.
        bounds: the settings.
        clock: gives stamps, and the time by which answers are removed.
        on_drop: told of what left the outbox because it was full.
    """

    def __init__(
        self, directory: Path, bounds: Bounds, clock: Clock, on_drop: Callable[[Drop], None]
    ) -> None:
        self._directory = directory
        self._bounds = bounds
        self._clock = clock
        self._on_drop = on_drop
        self.books = Books()
        self.problem: str | None = None
        self.losses: list[Loss] = []
        self.commits = 0
        self.file_bytes = 0
        self._store: Store | None = None
        self._mark: Mark | None = None
        self._fault: Exception | None = None  # why there is no store
        self._salt = b""
        self._run = 0
        self._serial = 0  # the highest that was given out
        self._states: list[int] = []  # the journal's own rows
        self._unwritten: list[Write] = []
        self._removals: set[int] = set()
        self._failures = 0
        self._retry_at = self._mark_at = 0.0  # of the monotonic clock
        self._remove_at = self._scrub_at = 0.0  # of the time since the boot
        self._unscrubbed = False

    # What the thread calls, in this order: open, round …, close.

    def open(self) -> Recovered:
        """Open the files and return what they hold.

        Raises:
            EdgedError: another process has them open.
        """
        rows = self._open_files()
        marked = self._mark.state if self._mark else None
        self._salt = new_salt(rows, marked)
        self._run = 1 + max([marked.run if marked else 0, *(row.run for row in rows)])
        kept = [row for row in rows if row.kind != "state"]
        for row in kept:
            self.books.enter(row.serial, cast(Kind, row.kind), row.size, row.moment())
            if marked and row.serial <= marked.acknowledged:
                self.books.acknowledge(row.serial)
        waiting = self.books.waiting()
        now = self._clock.now()
        over = set(self.books.due(now, self._bounds.keep_results_seconds))
        self._removals |= over
        self._remove_at, self._scrub_at = now.boottime + REMOVAL_SECONDS, now.boottime + SCRUB_SECONDS
        if self._store is None:
            self._fail(self._fault or OSError("it can't be opened"), [])
        else:
            self._commit([])
        records = [row.record() for row in kept if row.serial not in over]
        return Recovered(
            asks=[record for record in records if record.kind == "ask"],
            answers=[record for record in records if record.kind == "answer"],
            unacknowledged=waiting,
            events=[record for record in records if record.kind == "event"],
            losses=list(self.losses),
            salt=self._salt,
            run=self._run,
        )

    def round(self, inbox: Inbox) -> None:
        """Do what was handed over and what is due."""
        for serial in inbox.acknowledged:
            self.books.acknowledge(serial)
        self._removals.update(inbox.forgotten)
        self._find_what_is_due(at_once=bool(inbox.settle))
        groups = _groups([*self._unwritten, *inbox.writes])
        if not groups and (self._removals if self.problem is None else time.monotonic() >= self._retry_at):
            groups = [[]]
        self._unwritten = []
        failure: Exception | None = None
        for group in groups:
            failure = self._commit(group, failure)
        self._write_mark()
        self._tend(at_once=bool(inbox.settle))
        for done in inbox.settle:
            done(0)

    def survive(self, error: Exception, inbox: Inbox) -> None:
        """Go on after an error that nobody foresaw: refuse the requests, keep the rest to try it again."""
        settled = {id(write) for write in self._unwritten}
        self._fail(error, [w for w in inbox.writes if id(w) not in settled and not w.written])
        for done in inbox.settle:
            done(refusal(error, self._directory))

    def seconds_to_wait(self) -> float | None:
        """Return how long nothing is due; None: until something comes."""
        if self.problem is not None:
            return max(0.0, self._retry_at - time.monotonic())
        at_rest = not (self.books.answers or self.books.outbox or self._unscrubbed)
        return None if at_rest else REST_SECONDS

    def close(self) -> None:
        """Write what can be written, and close the files."""
        if self._unwritten:
            self._commit(self._unwritten)
        if self._unwritten:
            _log.error("the journal could not be written to the end", unwritten=len(self._unwritten))
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._mark is not None:
            with contextlib.suppress(OSError):
                self._mark.sync()
            self._mark.close()

    def _find_what_is_due(self, *, at_once: bool) -> None:
        now = self._clock.now()
        if now.boottime >= self._remove_at or at_once:
            self._remove_at = now.boottime + REMOVAL_SECONDS
            due = self.books.due(now, self._bounds.keep_results_seconds)
            self._removals.update(set(due) - {write.serial for write in self._unwritten})

    def _commit(self, writes: list[Write], failure: Exception | None = None) -> Exception | None:
        """Write everything in one transaction and tell who waits; return why not, if it fails.

        Args:
            writes: the records.
            failure: of the transaction before, in which case this one is not tried.
        """
        numbered = self._numbered(writes)
        if writes and not numbered and not self._removals:
            return failure
        writes = numbered
        try:
            if failure is not None:
                raise failure
            self._transact(self._ready_store(), writes)
        except Exception as error:
            self._fail(error, writes)
            return error
        self._succeed()
        for write in writes:
            write.written = True
            if write.kind == "ask":
                self.books.enter(write.serial, write.kind, write.size, write.stamp)
            write.done(write.serial)
        return None

    def _numbered(self, writes: list[Write]) -> list[Write]:
        """Give serials to those that have none yet; refuse requests for which there is no room."""
        numbered = []
        asks = self.books.asks
        for write in writes:
            if not write.serial:
                if write.kind == "ask":
                    asks += 1
                    refused = self._no_room_for(write, asks)
                    if refused is not None:
                        write.done(refused)
                        continue
                self._number(write)
            numbered.append(write)
        for drop in self.books.bound(self._bounds.outbox_max_bytes):
            _log.warning("the outbox is full", reason=drop.reason)
            self._on_drop(drop)
        return numbered

    def _number(self, write: Write) -> None:
        self._serial += 1
        write.serial = self._serial
        if write.kind != "ask":  # it is kept from now on, in memory if need be
            self.books.enter(write.serial, write.kind, write.size, write.stamp)

    def _no_room_for(self, write: Write, asks: int) -> EdgedError | None:
        if self._store is None:
            return None  # whether it can be written at all comes first
        log = max(WAL_BYTES, self._store.log_bytes)
        used = self._store.bytes_used + log + (asks - 1) * RESERVED_BYTES
        needed = write.size + RESERVED_BYTES
        bound = self._bounds.max_bytes
        return no_room(used, needed, bound) if used + needed > bound else None

    def _transact(self, store: Store, writes: list[Write]) -> None:
        removals = self._removals | {write.replaces for write in writes if write.replaces is not None}
        # The newest row has the census of all: where none of these is the newest, the journal adds its own.
        own = not writes or writes[-1].serial < store.highest
        states = self._states
        with store.transaction():
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
        self._unscrubbed = self._unscrubbed or bool(removals)
        for serial in removals:
            self.books.strike(serial)
        self.commits += 1
        self.file_bytes = store.file_bytes()
        self._write_mark()

    def _succeed(self) -> None:
        if self.problem is not None:
            _log.info("the journal can be written again")
        self.problem, self._failures = None, 0

    def _fail(self, error: Exception, writes: list[Write]) -> None:
        """Refuse requests, and keep the rest until it can be written."""
        if isinstance(error, (sqlite3.Error, OSError, DamagedError, EdgedError)):
            if self.problem is None:
                _log.error("the journal can't be written", reason=describe(error, self._directory))
        else:
            _log.exception("the journal met an unexpected error")
        self.problem = describe(error, self._directory)
        self._retry_at = time.monotonic() + RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
        self._failures += 1
        if self._store is not None and not is_full(error):
            self._store.close()  # to be opened anew, and mended if it is damaged
            self._store = None
        for write in writes:
            if write.kind == "ask":
                write.done(refusal(error, self._directory))
            else:
                if not write.serial:
                    self._number(write)
                self._unwritten.append(write)
                write.done(write.serial)

    def _ready_store(self) -> Store:
        """Return the store, opened anew after a failure.

        Raises:
            EdgedError: another process has it.
            OSError: it can't be opened.
            sqlite3.Error: likewise.
        """
        if self._store is None:
            self._open_files()
        if self._store is None:
            raise self._fault or OSError("the journal can't be opened")
        return self._store

    def _open_files(self) -> list[Row]:
        """Open mark and database; return the rows."""
        self._fault = None
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            if self._mark is None:
                self._mark = Mark(self._directory / MARK)
        except OSError as error:
            _log.warning("the journal's mark can't be opened", reason=str(error))
        marked = self._mark.state if self._mark else None
        opened = open_store(self._directory / DATABASE, marked, self._clock, self._serial)
        self._store, self._fault = opened.store, opened.fault
        self.losses += [loss for loss in opened.losses if loss not in self.losses]
        self._states = [row.serial for row in opened.rows if row.kind == "state"]
        serials = [row.serial for row in opened.rows]
        self._serial = max([self._serial, marked.highest if marked else 0, *serials])
        return opened.rows

    def _write_mark(self) -> None:
        if self._mark is None or self._store is None:
            return
        highest = self._store.highest
        state = MarkState(highest, self.books.floor, self.books.low_water(highest), self._run, self._salt)
        try:
            self._mark.write(state)
        except OSError as error:
            _log.warning("the journal's mark can't be written", reason=str(error))
            self._mark.close()
            self._mark = None

    def _tend(self, *, at_once: bool) -> None:
        """Keep log and mark in shape; nobody waits for this."""
        store, now, boottime = self._store, time.monotonic(), self._clock.now().boottime
        if store is None:
            return
        try:
            store.tend()
            empty = not (self.books.asks or self.books.answers or self.books.outbox)
            if self._unscrubbed and (empty or at_once or boottime >= self._scrub_at):
                store.scrub()
                self._unscrubbed = False
                self._scrub_at = boottime + SCRUB_SECONDS
            if self._mark is not None and now >= self._mark_at:
                self._mark.sync()
                self._mark_at = now + MARK_SECONDS
        except (sqlite3.Error, OSError) as error:
            if not is_full(error):  # otherwise it is told when something can't be kept
                self._fail(error, [])


def _groups(writes: Iterable[Write]) -> list[list[Write]]:
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
