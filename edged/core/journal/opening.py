"""Opening the journal: whatever state the files are in, in the end there is a store, or a reason why not."""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from edged.core.journal.mark import MarkState
from edged.core.journal.records import Loss, Row
from edged.core.journal.schema import NewerSchemaError
from edged.core.journal.store import DamagedError, Store, wal_path

_log = structlog.get_logger(__name__)

DAMAGED_KEPT = 2


@dataclass
class Opened:
    """What opening gave.

    Attributes:
        store: the open database; None while it can't be opened.
        rows: what it holds, oldest first.
        losses: what is lost.
        fault: why there is no store.
    """

    store: Store | None = None
    rows: list[Row] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    fault: Exception | None = None


def open_store(path: Path, mark: MarkState | None) -> Opened:
    """Open the database; move it aside if it is damaged."""
    reason = ""
    for _ in range(2):
        store = None
        try:
            store = Store(path)
            rows = store.read()
        except (DamagedError, NewerSchemaError, sqlite3.DatabaseError) as error:
            if store is not None:
                store.close()
            if is_unwritable(error):
                return Opened(fault=error)
            reason = f"the journal was damaged ({error})"
            _log.error("the journal is damaged and moved aside", reason=str(error))
            _move_aside(path)
            continue
        except OSError as error:
            return Opened(fault=error)
        highest = mark.highest if mark else 0
        losses = []
        if store.highest < highest:
            losses.append(Loss(store.highest + 1, highest, reason or "the end of the journal is missing"))
        return Opened(store, rows, losses)
    return Opened(fault=OSError("the journal can't be made anew"))


def is_unwritable(error: Exception) -> bool:
    """Say whether the error is of the disk or its rights, not of the file's contents."""
    if not isinstance(error, sqlite3.Error):
        return isinstance(error, OSError)
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return code in (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
    )


def _move_aside(path: Path) -> None:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    with contextlib.suppress(OSError):
        path.rename(aside)
        wal_path(path).rename(wal_path(aside))
