"""Database and mark on the disk: opened, opened anew after a fault, and kept in shape."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from edged.clock import Clock
from edged.core.journal.mark import Mark, MarkState
from edged.core.journal.opening import open_store
from edged.core.journal.records import Loss, Row
from edged.core.journal.store import Store

_log = structlog.get_logger(__name__)

DATABASE, MARK = "journal.sqlite", "journal.mark"
SCRUB_SECONDS = 3600.0  # after which removed texts leave the log too, if the journal is never empty before
MARK_SECONDS = 10.0  # between flushes of the mark


class Files:
    """The journal's files.

    Attributes:
        losses: what was lost, at the start or since.
        store: the open database; None while it can't be opened.
        unscrubbed: whether texts that were removed may still stand in the log.

    Args:
        directory: where they lie.
        clock: for stamps.
        on_loss: told of what was found lost later than at the first opening.
    """

    def __init__(self, directory: Path, clock: Clock, on_loss: Callable[[Loss], None]) -> None:
        self._directory = directory
        self._clock = clock
        self._on_loss = on_loss
        self._mark: Mark | None = None
        self._mark_at = 0.0  # of the monotonic clock
        self._scrub_at = clock.now().boottime + SCRUB_SECONDS
        self._opened = False  # if only in vain
        self._fault: Exception | None = None  # why there is no store
        self.losses: list[Loss] = []
        self.store: Store | None = None
        self.unscrubbed = False

    @property
    def marked(self) -> MarkState | None:
        """Return what the mark says, if there is one."""
        return self._mark.state if self._mark else None

    def open(self, given: int = 0) -> list[Row]:
        """Open mark and database, and return the rows, which are known even where nothing can be written.

        Args:
            given: the highest serial that was given out.

        Raises:
            EdgedError: another process has the database.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            if self._mark is None:
                self._mark = Mark(self._directory / MARK)
        except OSError as error:
            _log.warning("the journal's mark can't be opened", reason=str(error))
        opened = open_store(self._directory / DATABASE, self.marked, self._clock, given)
        self.store, self._fault = opened.store, opened.fault
        if not self._opened:
            self.losses = opened.losses
        elif self.store is not None:  # else what seems lost may only be out of reach
            self._find_lost(opened.losses)
        self._opened = True
        return opened.rows

    def _find_lost(self, losses: list[Loss]) -> None:
        named = {(loss.first, loss.last) for loss in self.losses}
        for loss in losses:
            if (loss.first, loss.last) not in named:
                self.losses.append(loss)
                self._on_loss(loss)

    def writable(self) -> Store:
        """Return the open database.

        Raises:
            OSError: there is none.
            sqlite3.Error: likewise.
        """
        if self.store is None:
            raise self._fault or OSError("it can't be opened")
        return self.store

    def let_go(self) -> None:
        """Close the database after a fault, to be opened anew, and mended if it is damaged."""
        if self.store is not None:
            self.store.close()
            self.store = None

    def mark(self, state: MarkState) -> None:
        """Write the mark; without one the journal goes on, and only a loss would be less well known."""
        if self._mark is None:
            return
        try:
            self._mark.write(state)
        except OSError as error:
            self._mark.close()
            self._mark = None
            _log.warning("the journal's mark can't be written", reason=str(error))

    def tend(self, *, scrub: bool) -> None:
        """Keep log and mark in shape.

        Args:
            scrub: whether this is a good moment to overwrite removed texts in the log.

        Raises:
            sqlite3.Error: the database can't be written.
            OSError: likewise.
        """
        if self.store is None:
            return
        self.store.tend()
        boottime, now = self._clock.now().boottime, time.monotonic()
        if self.unscrubbed and (scrub or boottime >= self._scrub_at):
            self.store.scrub()
            self.unscrubbed = False
            self._scrub_at = boottime + SCRUB_SECONDS
        if self._mark is not None and now >= self._mark_at:
            self._mark_at = now + MARK_SECONDS
            self._mark.sync()

    def close(self) -> None:
        """Close both."""
        self.let_go()
        if self._mark is not None:
            with contextlib.suppress(OSError):
                self._mark.sync()
            self._mark.close()
            self._mark = None
