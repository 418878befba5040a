"""Opening the journal: whatever state its files are in, it ends with a sound store or a reason why not."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from edged.clock import Clock
from edged.core.journal.census import Census
from edged.core.journal.mark import MarkState
from edged.core.journal.records import Loss, Row
from edged.core.journal.salvage import Salvage, salvage
from edged.core.journal.schema import NewerSchemaError
from edged.core.journal.store import DamagedError, Store
from edged.core.journal.trouble import in_words
from edged.core.journal.wal import wal_path
from edged.errors import EdgedError, ErrorCode

_log = structlog.get_logger(__name__)

SALT_BYTES = 16
ASIDE_KEPT = 2  # files that were moved aside

_NOT_THE_CONTENTS = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_LOCKED,
}


@dataclass
class Opened:
    """What opening gave.

    Attributes:
        store: the open database; None while it can't be written.
        rows: what it holds, oldest first.
        losses: what is lost.
        fault: why there is no store.
    """

    store: Store | None
    rows: list[Row] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    fault: Exception | None = None


def open_store(path: Path, mark: MarkState | None, clock: Clock, given: int = 0) -> Opened:
    """Open the database; make it anew from what can be read of it if it is damaged.

    Args:
        path: the file.
        mark: what the mark says; None without one.
        clock: for the stamp of what is written.
        given: the highest serial that this process has given out.

    Raises:
        EdgedError: another process has it open.
    """
    try:
        _finish_move(path)
        log = wal_path(path).read_bytes() if wal_path(path).is_file() else b""
        missing = not path.is_file() or not path.stat().st_size
    except OSError as error:
        return Opened(None, fault=error)
    try:
        store, rows = _open_sound(path, mark, missing=missing)
        return Opened(store, rows)
    except NewerSchemaError as error:
        reason, aside = f"{error}; a newer edged wrote it", "newer"
        found = Salvage(losses=_all_of(mark, reason))
    except DamagedError as error:
        reason, aside = str(error), "damaged"
        try:
            found = salvage(path, log, mark, reason)
        except OSError as unreadable:
            found = Salvage(losses=_all_of(mark, f"{reason}; {in_words(unreadable)}"))
    except (OSError, sqlite3.Error) as error:
        # It can't be written: what is in it can be read all the same.
        try:
            found = salvage(path, log, mark, in_words(error))
        except OSError:
            found = Salvage()
        return Opened(None, found.rows, found.losses, error)
    _log.error("the journal is damaged", reason=reason, rows_saved=len(found.rows), losses=len(found.losses))
    try:
        _write_new(path, [*found.rows, _state_row(found.rows, mark, clock, given)])
        _move_aside(path, log, aside)
        _finish_move(path)
        store = Store(path)
        return Opened(store, store.read(), found.losses)
    except (OSError, sqlite3.Error, DamagedError) as error:
        return Opened(None, found.rows, found.losses, error)


def _open_sound(path: Path, mark: MarkState | None, *, missing: bool) -> tuple[Store, list[Row]]:
    """Open the database if there is nothing wrong with it, or none and nothing to miss.

    Raises:
        DamagedError: something is wrong with it.
        NewerSchemaError: it is of a newer edged.
        EdgedError: another process has it open.
        OSError: it can't be opened.
        sqlite3.Error: likewise.
    """
    if path.is_dir():
        raise DamagedError("it is a directory")
    if missing and mark is not None and mark.floor:
        raise DamagedError("the file is missing or empty")
    store = None
    try:
        store = Store(path)
        rows = store.read()
        if mark is not None and mark.highest > store.highest and mark.floor:
            raise DamagedError(f"it ends with serial {store.highest}, and went on to {mark.highest}")
    except sqlite3.Error as error:
        _close(store)
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_BUSY:
            raise EdgedError(
                ErrorCode.INTERNAL,
                f"another process has {path} open: end it, or give this edged a state_dir of its own",
            ) from None
        if code in _NOT_THE_CONTENTS:
            raise
        raise DamagedError(in_words(error)) from None
    except BaseException:
        _close(store)
        raise
    return store, rows


def _close(store: Store | None) -> None:
    if store is not None:
        store.close()


def _all_of(mark: MarkState | None, reason: str) -> list[Loss]:
    return [Loss(mark.floor, mark.highest, reason)] if mark is not None and mark.floor else []


def new_salt(rows: list[Row], mark: MarkState | None) -> bytes:
    """Return the salt that was in use, or one for a journal that begins."""
    salts = [row.body for row in rows if row.kind == "state"]
    return salts[-1] if salts else mark.salt if mark else os.urandom(SALT_BYTES)


def _state_row(rows: list[Row], mark: MarkState | None, clock: Clock, given: int) -> Row:
    """Return a newest row for rescued ones: it has the salt, and the census of them."""
    serials = [row.serial for row in rows]
    serial = 1 + max([given, mark.highest if mark else 0, *serials])
    run = max([mark.run if mark else 0, *(row.run for row in rows)])
    census = Census.of([*serials, serial])
    return Row.seal(serial, "state", None, b"", clock.now(), run, new_salt(rows, mark), census)


def _write_new(path: Path, rows: list[Row]) -> None:
    """Write a database with these rows beside the one that it shall replace.

    Raises:
        OSError: there is no room, or no right to write.
        sqlite3.Error: likewise.
    """
    new = _new_path(path)
    for leftover in (new, wal_path(new)):
        leftover.unlink(missing_ok=True)
    store = Store(new)
    try:
        with store.transaction():
            store.adopt(rows)
        store.checkpoint()
    finally:
        store.close()


def _finish_move(path: Path) -> None:
    """Let a new database take the place that is free for it, also where a loss of power came in between.

    It is complete: it was made before the place became free.
    """
    new = _new_path(path)
    if new.exists() and not path.exists():
        wal_path(path).unlink(missing_ok=True)  # it belongs to another file
        new.rename(path)
        _sync_directory(path.parent)


def _move_aside(path: Path, log: bytes, kind: str) -> None:
    """Keep a damaged database for whoever wants to look at it; the newest few are kept."""
    stem = f"{path.name}.{kind}-"
    earlier = sorted(
        (int(old.name.removeprefix(stem)), old)
        for old in path.parent.glob(f"{stem}*")
        if old.name.removeprefix(stem).isdecimal()
    )
    for _, old in earlier[: -(ASIDE_KEPT - 1)]:
        _remove(old)
        _remove(wal_path(old))
    aside = path.with_name(f"{stem}{earlier[-1][0] + 1 if earlier else 1}")
    if path.exists():
        path.rename(aside)
    _remove(wal_path(path))
    if log:
        with contextlib.suppress(OSError):
            wal_path(aside).touch(mode=0o600)
            wal_path(aside).write_bytes(log)
    _log.warning("the damaged journal was moved aside", file=str(aside))


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink() if not path.is_dir() else path.rmdir()


def _new_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
