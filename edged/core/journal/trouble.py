"""Why the journal can't be written: in words, with figures, and what to do."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from pathlib import Path

from edged.errors import EdgedError, ErrorCode

RETRY_AFTER_SECONDS = 5.0

_WORDS_OF_SQLITE = {  # sqlite3_errstr() of what a disk or a damaged file leads to
    "access permission denied",
    "attempt to write a readonly database",
    "bad parameter or other API misuse",
    "database disk image is malformed",
    "database is locked",
    "database or disk is full",
    "database schema has changed",
    "database table is locked",
    "disk I/O error",
    "file is not a database",
    "interrupted",
    "locking protocol",
    "large file support is disabled",
    "out of memory",
    "string or blob too big",
    "unable to open database file",
}


def is_full(error: Exception) -> bool:
    """Say whether the disk is full, or the file may not grow: the file itself is as it should be."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return _code(error) == sqlite3.SQLITE_FULL


def in_words(error: OSError | sqlite3.Error) -> str:
    """Return what an error says, without what SQLite quotes of the file: that may be a requester's text."""
    if isinstance(error, OSError) or str(error) in _WORDS_OF_SQLITE:
        return str(error)
    name = getattr(error, "sqlite_errorname", None)
    return f"SQLite reports {name}" if name else "it holds text that can't be read"


def describe(error: Exception, directory: Path) -> str:
    """Return what is wrong and what to do, for status, log and requesters."""
    if is_full(error):
        return f"the journal can't be written: no room is left{_free(directory)}; free some under {directory}"
    if _is_read_only(error, directory):
        return (
            f"the journal can't be written: {directory} is read-only; "
            "make it writable for edged, and check the card if it was so before"
        )
    if isinstance(error, EdgedError):
        return error.message
    if isinstance(error, (sqlite3.Error, OSError)):
        return (
            f"the journal can't be written: {in_words(error)}{_free(directory)}; "
            f"check the disk that holds {directory}"
        )
    return f"the journal met an unexpected error ({error!r}); the log says more"


def refusal(error: Exception, directory: Path) -> EdgedError:
    """Return what a requester is told whose request can't be kept."""
    expected = isinstance(error, (sqlite3.Error, OSError, EdgedError))
    code = ErrorCode.JOURNAL_FULL if expected else ErrorCode.INTERNAL
    return EdgedError(code, describe(error, directory), retry_after_s=RETRY_AFTER_SECONDS)


def no_room(used: int, needed: int, bound: int) -> EdgedError:
    """Return what a requester is told when the journal is as large as it may be."""
    return EdgedError(
        ErrorCode.JOURNAL_FULL,
        f"the journal uses {used:,} B of its {bound:,} B (journal.max_bytes), and this request needs "
        f"{needed:,} B: ask again when kept answers have gone, raise journal.max_bytes or lower "
        "journal.keep_results_seconds",
        retry_after_s=RETRY_AFTER_SECONDS,
    )


def _is_read_only(error: Exception, directory: Path) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
    if _code(error) == sqlite3.SQLITE_READONLY:
        return True
    with contextlib.suppress(OSError):
        return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
    return False


def _code(error: Exception) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _free(directory: Path) -> str:
    try:
        disk = os.statvfs(directory)
    except OSError:
        return ""
    free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    return f" ({free:,} B of {total:,} B are free)"
