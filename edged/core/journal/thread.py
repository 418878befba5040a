"""The journal's thread, which can't die: it runs the writer whenever something has come or is due."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

import structlog

from edged.core.journal.records import Recovered
from edged.core.journal.work import Inbox
from edged.core.journal.writer import Writer
from edged.progress import Progress

_log = structlog.get_logger(__name__)

UNEXPECTED_SECONDS = 1.0  # a pause after an error that nobody foresaw, so that it can't fill the log


class JournalThread:
    """Runs a writer.

    Attributes:
        progress: a step is the opening, or a round of the writer.

    Args:
        writer: whose files are touched by this thread alone.
        opened: told what the files held, or why they can't be opened.
        opening_seconds: what the opening may take beyond a round.
    """

    def __init__(
        self, writer: Writer, opened: Callable[[Recovered | Exception], None], *, opening_seconds: float
    ) -> None:
        self.progress = Progress()
        self.progress.step(opening_seconds)
        self._writer = writer
        self._opened = opened
        self._changed = threading.Condition()
        self._inbox = Inbox()
        self._stopping = False
        self._over = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def hand_over(self, put: Callable[[Inbox], None]) -> bool:
        """Let `put` put something into the inbox; say whether the thread is there to take it."""
        with self._changed:
            if self._over:
                return False
            put(self._inbox)
            self.progress.expect()
            self._changed.notify()
            return True

    def stop(self) -> None:
        """Do what has been handed over, close the files, and return when that is done."""
        with self._changed:
            self._stopping = True
            self.progress.expect()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._serve()
        finally:
            self.progress.rest()

    def _serve(self) -> None:
        try:
            recovered = self._writer.open()
        except Exception as error:
            with self._changed:
                self._over = True
            self._opened(error)
            return
        self._opened(recovered)
        while (inbox := self._take()) is not None:
            try:
                self._writer.round(inbox)
            except Exception as error:
                self._survive(error, inbox)
        try:
            self._writer.close()
        except Exception as error:
            with contextlib.suppress(Exception):
                _log.error("the journal could not be closed", exc_info=error)

    def _take(self) -> Inbox | None:
        """Wait for something to do; None when it is over."""
        with self._changed:
            if not self._inbox:
                self.progress.rest()
            self._changed.wait_for(lambda: self._inbox or self._stopping, self._writer.seconds_to_wait())
            self.progress.step()
            if self._stopping and not self._inbox:
                self._over = True
                return None
            inbox, self._inbox = self._inbox, Inbox()
            return inbox

    def _survive(self, error: Exception, inbox: Inbox) -> None:
        """Tell who waits, keep what must not be lost, and go on."""
        with contextlib.suppress(Exception):  # of the log, which may lie on the same disk
            self._writer.survive(error, inbox)
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, UNEXPECTED_SECONDS)
