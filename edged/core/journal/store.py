"""The SQLite file: one table, one connection, used by one thread."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from edged.clock import Stamp
from edged.core.journal.census import Census, Roll
from edged.core.journal.records import RecordKey, Row, RowKind
from edged.core.journal.schema import migrate
from edged.core.journal.wal import WalFile, wal_path

PAGE_BYTES = 512  # by measurement: tools/journal_writes.py --page
WAL_BYTES = 512 << 10  # a log that is longer is taken over into the file
WAL_STEP_BYTES = 64 << 10  # by which it is lengthened
LOCK_SECONDS = 5.0
_PUT = (
    f"INSERT OR REPLACE INTO records (rowid, {', '.join(Row._fields)}) "
    f"VALUES ({', '.join('?' * (1 + len(Row._fields)))})"
)


class DamagedError(Exception):
    """The file's contents are not what was written."""


class Store:
    """The open database.

    Attributes:
        highest: the highest serial that it has held.
        bytes_used: of its pages that hold something.

    Args:
        path: the file; it is created if there is none.
        page_bytes: of a new file.
        secure_delete: whether what is removed is overwritten.

    Raises:
        sqlite3.Error: it can't be opened or written, or is damaged.
        DamagedError: it is no journal any more.
        NewerSchemaError: it is of a newer edged.
        OSError: it or its log can't be opened.
    """

    def __init__(self, path: Path, *, page_bytes: int = PAGE_BYTES, secure_delete: bool = True) -> None:
        self._path = path
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # the log gets the same rights
        self._db = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            for pragma in (
                "locking_mode = EXCLUSIVE",  # no shared-memory file that the kernel writes to the card
                f"page_size = {page_bytes}",
                "journal_mode = WAL",
                "synchronous = FULL",
                f"secure_delete = {'ON' if secure_delete else 'OFF'}",
                "wal_autocheckpoint = 0",
                "trusted_schema = OFF",
                "cell_size_check = ON",
                "temp_store = MEMORY",
                "cache_size = -1024",
            ):
                self._db.execute(f"PRAGMA {pragma}")
            self._page_bytes = self._number("page_size")
            if self._number("user_version") == 0 and self._number("page_count") > 1:
                raise DamagedError("it has pages, and no version")
            migrate(self._db)
            self._wal = WalFile(wal_path(path))
        except BaseException:
            self._db.close()
            raise
        self._roll = Roll()
        self._places = 0  # the highest that was given out
        self._vacant: list[int] = []  # places whose rows leave in this transaction
        self.highest = 0
        self.bytes_used = self._count_bytes()

    def read(self) -> list[Row]:
        """Check the file and return all rows, oldest first.

        Raises:
            DamagedError: something is wrong with it; what, is said.
            sqlite3.Error: likewise, or it can't be read.
        """
        [(verdict,), *_] = self._db.execute("PRAGMA integrity_check(1)").fetchall()
        if verdict != "ok":
            raise DamagedError(f"SQLite finds it inconsistent: {verdict}")
        found = []
        for place, *values in self._db.execute("SELECT rowid, * FROM records"):
            try:
                found.append((Row.verified(values), place))
            except ValueError as error:
                raise DamagedError(f"row {values[0]}: {error}") from None
        found.sort()
        rows = [row for row, _ in found]
        self._roll = Roll({row.serial: place for row, place in found})
        self._places = max((place for _, place in found), default=0)
        if rows:
            self.highest = rows[-1].serial
            if Census.of(row.serial for row in rows) != Census.unpack(rows[-1].census):
                raise DamagedError("rows are missing, or old ones have come back")
        return rows

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is done in it, durably, or nothing of it.

        Raises:
            sqlite3.Error: nothing was kept.
        """
        highest = self.highest
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.executemany("DELETE FROM records WHERE rowid = ?", [(place,) for place in self._vacant])
            self._db.execute("COMMIT")
        except BaseException:
            self._roll.rollback()
            self.highest = highest
            if self._db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
            raise
        finally:
            self._vacant = []
        self._roll.commit()
        self.bytes_used = self._count_bytes()

    def insert(
        self,
        serial: int,
        kind: RowKind,
        key: RecordKey | None,
        body_hash: bytes,
        stamp: Stamp,
        run: int,
        body: bytes,
    ) -> None:
        """Add a row, in a transaction; the last one added must have the highest serial of all."""
        place = self._place()
        census = self._roll.add(serial, place)
        self._put(place, Row.seal(serial, kind, key, body_hash, stamp, run, body, census))

    def adopt(self, rows: Iterable[Row]) -> None:
        """Add rows as they lie in another file, oldest first; in a transaction."""
        for row in rows:
            place = self._place()
            self._roll.add(row.serial, place)
            self._put(place, row)

    def remove(self, serials: Iterable[int]) -> None:
        """Remove rows, before anything is inserted in the same transaction; unknown ones don't matter.

        A transaction that removes must insert as well: the newest row holds the census.
        """
        self._vacant += filter(None, map(self._roll.remove, serials))

    @property
    def log_bytes(self) -> int:
        """Return how much of the write-ahead log is not in the file yet."""
        return self._wal.used()

    def tend(self) -> None:
        """Take the log over into the file when it is long, and see that the next commits have room in it.

        Raises:
            sqlite3.Error: the file can't be written; the log still holds everything.
            OSError: the log can't be lengthened; that is no harm to what it holds.
        """
        if self.log_bytes > WAL_BYTES:
            self.checkpoint()
        steps = min(WAL_BYTES, self.log_bytes + 2 * WAL_STEP_BYTES) // WAL_STEP_BYTES
        self._wal.extend(steps * WAL_STEP_BYTES)

    def checkpoint(self) -> None:
        """Take the log over into the file: the next commit overwrites it from its start.

        Raises:
            sqlite3.Error: see `tend`.
        """
        [(busy, _, _)] = self._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        if not busy:
            self._wal.taken_over()

    def scrub(self) -> None:
        """Take the log over into the file and overwrite it, so that removed texts are in neither.

        Raises:
            sqlite3.Error: see `tend`.
            OSError: the log can't be written.
        """
        self.checkpoint()
        if self.log_bytes == 0:
            self._wal.scrub()

    def file_bytes(self) -> int:
        """Return the size of file and log."""
        total = 0
        for path in (self._path, wal_path(self._path)):
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total

    def close(self) -> None:
        """Close it; the log goes into the file if that can be written."""
        self._wal.close()
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def _place(self) -> int:
        """Return a place for a row: of one that leaves, so that fewer pages change than for both apart."""
        if self._vacant:
            return self._vacant.pop()
        self._places += 1
        return self._places

    def _put(self, place: int, row: Row) -> None:
        self._db.execute(_PUT, (place, *row))
        self.highest = max(self.highest, row.serial)

    def _count_bytes(self) -> int:
        return (self._number("page_count") - self._number("freelist_count")) * self._page_bytes

    def _number(self, pragma: str) -> int:
        return int(self._db.execute(f"PRAGMA {pragma}").fetchone()[0])
