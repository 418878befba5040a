"""The journal as the core sees it: awaited, and durable when the await is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from edged.clock import Clock
from edged.core.journal.records import Drop, Kind, Loss, RecordKey, Recovered
from edged.core.journal.thread import JournalThread
from edged.core.journal.work import Bounds, Done, Inbox, Write
from edged.core.journal.writer import Writer
from edged.errors import EdgedError, ErrorCode
from edged.progress import Progress

OPENING_BYTES_PER_SECOND = 500_000  # read, and where they are damaged written again, to a slow card

_T = TypeVar("_T")


class Journal:
    """What was accepted, what was answered and what is still to be told, safe from a loss of power.

    Attributes:
        on_drop: told of rows that left the outbox unacknowledged because it was full.
        on_loss: told of rows that were found lost, and the file mended, while the journal was open; what was
            lost before, `open` returns.

    Args:
        directory: where the files lie; it is made if need be.
        settings: the table [journal].
        clock: gives the records' stamps.
    """

    def __init__(self, directory: Path, *, settings: Bounds, clock: Clock) -> None:
        self.on_drop: Callable[[Drop], None] = lambda drop: None
        self.on_loss: Callable[[Loss], None] = lambda loss: None
        self._directory = directory
        self._clock = clock
        self._bounds = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: JournalThread | None = None
        self._writer = Writer(
            directory,
            settings,
            clock,
            on_drop=lambda drop: self._call(lambda: self.on_drop(drop)),
            on_loss=lambda loss: self._call(lambda: self.on_loss(loss)),
        )

    async def open(self) -> Recovered:
        """Open or make the files, and return what they hold.

        A damaged file is moved aside and what can be read of it is taken over: losses say what can't.

        Raises:
            EdgedError: another process holds the journal.
        """
        self._loop = asyncio.get_running_loop()
        opened: asyncio.Future[Recovered] = self._loop.create_future()
        self._thread = JournalThread(
            self._writer,
            lambda result: self._call(lambda: _settle(opened, result)),
            opening_seconds=self._bounds.max_bytes / OPENING_BYTES_PER_SECOND,
        )
        return await opened

    async def accept(self, key: RecordKey, body_hash: bytes, body: bytes) -> int:
        """Keep a request; return its serial when it is durable.

        Raises:
            EdgedError: journal_full, and nothing is kept.
        """
        future = self._write("ask", key, body_hash, body)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(self._take_back)
            raise

    async def answer(self, ask: int | None, key: RecordKey, body_hash: bytes, body: bytes) -> int:
        """Put an answer in its request's place; return its serial.

        While the journal can't be written it returns at once: the answer is kept in memory until it can.
        """
        return await asyncio.shield(self._write("answer", key, body_hash, body, replaces=ask))

    async def event(self, body: bytes) -> int:
        """Keep an event for the outbox; return its serial.

        While the journal can't be written it is kept in memory, as an answer is.
        """
        return await asyncio.shield(self._write("event", None, b"", body))

    def acknowledged(self, serial: int) -> None:
        """Note that the broker has an answer or event; this outlives a kill, and soon a loss of power."""
        self._hand_over(lambda inbox: inbox.acknowledged.append(serial))

    def forget(self, serial: int) -> None:
        """Give up a request without an answer."""
        self._hand_over(lambda inbox: inbox.forgotten.append(serial))

    async def settle(self) -> None:
        """Do what is due: remove what need not be kept, so that its texts leave the files."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        done = self._resolver(future)
        if self._hand_over(lambda inbox: inbox.settle.append(done)):
            await future

    @property
    def bounds(self) -> Bounds:
        """The table [journal]; another one takes effect at once, also on what is kept already."""
        return self._bounds

    @bounds.setter
    def bounds(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._writer.take(bounds)
        self._hand_over(_rebind)

    def progress(self) -> Progress | None:
        """Return the steps of the journal's thread; None before there is one."""
        return self._thread.progress if self._thread is not None else None

    @property
    def can_write(self) -> bool:
        """Say whether the last attempt to write succeeded."""
        return self._writer.problem is None

    def status(self) -> dict[str, Any]:
        """Return the figures that /v1/status shows."""
        writer = self._writer
        return {
            "state": "ok" if writer.problem is None else "cannot_write",
            "problem": writer.problem,
            "bytes": writer.file_bytes,
            "max_bytes": self._bounds.max_bytes,
            "asks": writer.books.asks,
            "answers": writer.books.answers,
            "outbox": writer.books.outbox,
            "outbox_bytes": writer.books.outbox_bytes,
            "outbox_max_bytes": self._bounds.outbox_max_bytes,
            "commits": writer.commits,
            "losses": [{"first": x.first, "last": x.last, "reason": x.reason} for x in writer.files.losses],
        }

    async def close(self) -> None:
        """Write what waits, and close the files."""
        if self._thread is not None:
            await asyncio.to_thread(self._thread.stop)

    def _write(
        self, kind: Kind, key: RecordKey | None, body_hash: bytes, body: bytes, *, replaces: int | None = None
    ) -> asyncio.Future[int]:
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        write = Write(kind, key, body_hash, body, self._clock.now(), replaces, self._resolver(future))
        if not self._hand_over(lambda inbox: inbox.writes.append(write)):
            raise EdgedError(
                ErrorCode.SHUTTING_DOWN, "the journal is closed: this edged is stopping; ask again later"
            )
        return future

    def _hand_over(self, put: Callable[[Inbox], None]) -> bool:
        return self._thread is not None and self._thread.hand_over(put)

    def _take_back(self, future: asyncio.Future[int]) -> None:
        if not future.cancelled() and future.exception() is None:
            self.forget(future.result())

    def _resolver(self, future: asyncio.Future[int]) -> Done:
        return lambda result: self._call(lambda: _settle(future, result))

    def _call(self, function: Callable[[], None]) -> None:
        """Run a function on the loop's side, if there still is one."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)


def _rebind(inbox: Inbox) -> None:
    inbox.rebound = True


def _settle(future: asyncio.Future[_T], result: _T | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
