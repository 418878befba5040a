"""The database's shape, as numbered steps: a file's user_version says how many of them it has seen."""

from __future__ import annotations

import sqlite3

# A step is never changed once it was released: add another.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE records (
        serial INTEGER NOT NULL,
        kind TEXT NOT NULL,
        way TEXT NOT NULL,
        client TEXT NOT NULL,
        id TEXT NOT NULL,
        body_hash BLOB NOT NULL,
        stamp TEXT NOT NULL,
        run INTEGER NOT NULL,
        body BLOB NOT NULL,
        census BLOB NOT NULL,
        checksum BLOB NOT NULL
    )
    """,
)


class NewerSchemaError(Exception):
    """The file was written by a newer edged: it must not be touched."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"it has version {version} of the journal's form, and this edged knows up to {len(MIGRATIONS)}"
        )


def migrate(db: sqlite3.Connection) -> None:
    """Bring a database to the newest version, each step in a transaction of its own.

    Raises:
        NewerSchemaError: it is newer than this.
        sqlite3.Error: it can't be written, or is damaged.
    """
    [version] = db.execute("PRAGMA user_version").fetchone()
    if not 0 <= version <= len(MIGRATIONS):
        raise NewerSchemaError(version)
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute(step)
            db.execute(f"PRAGMA user_version = {number}")
            db.execute("COMMIT")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
