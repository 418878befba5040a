"""The parts by themselves: census, mark, schema and the reader of pages."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.clock import Stamp
from edged.core.journal import schema
from edged.core.journal.census import Census, Roll
from edged.core.journal.mark import Mark, MarkState
from edged.core.journal.pages import rows_of
from edged.core.journal.records import RecordKey, Row
from edged.core.journal.schema import NewerSchemaError, migrate
from edged.core.journal.store import Store

NOW = Stamp("boot", 1.0, 2.0, True)


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "commit", "rollback"]), st.integers(0, 30))))
def test_the_roll_agrees_with_a_census_taken_anew(changes: list[tuple[str, int]]) -> None:
    roll, kept, now, highest = Roll(), set[int](), set[int](), 0
    for change, number in changes:
        if change == "add":
            highest += 1
            now.add(highest)
            assert roll.add(highest, 100 + highest) == Census.of(now)
        elif change == "remove":
            there = number in kept and number in now
            assert roll.remove(number) == (100 + number if there else None)
            now -= {number} if there else set()
        elif change == "commit":
            roll.commit()
            kept = set(now)
        else:
            roll.rollback()
            now = set(kept)


def test_a_row_that_was_given_its_serial_earlier_finds_its_place() -> None:
    roll = Roll({5: 1, 9: 2})
    assert roll.add(7, 3) == Census.of([5, 7, 9])
    assert roll.add(10, 4) == Census.of([5, 7, 9, 10])
    roll.commit()
    roll.remove(5)
    assert roll.add(11, 1) == Census.of([7, 9, 10, 11])


STATES = [MarkState(number, 1, number - 1, 3, b"s" * 16) for number in range(1, 6)]


def test_the_mark_says_what_was_written_last(tmp_path: Path) -> None:
    for state in STATES:
        mark = Mark(tmp_path / "mark")
        mark.write(state)
        mark.close()
        mark = Mark(tmp_path / "mark")
        assert mark.state == state
        mark.close()


@pytest.mark.parametrize("torn", range(1, 90, 8))
def test_a_torn_write_leaves_the_mark_before(tmp_path: Path, torn: int) -> None:
    mark = Mark(tmp_path / "mark")
    mark.write(STATES[0])
    before = (tmp_path / "mark").read_bytes().ljust(8192, b"\0")
    mark.write(STATES[1])
    mark.close()
    after = (tmp_path / "mark").read_bytes().ljust(8192, b"\0")
    changed = [at for at in range(8192) if before[at] != after[at]]
    (tmp_path / "mark").write_bytes(after[: changed[0] + torn] + before[changed[0] + torn :])
    mark = Mark(tmp_path / "mark")
    assert mark.state in STATES[:2]
    mark.close()


def test_a_mark_of_rubbish_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "mark").write_bytes(os.urandom(8192))
    mark = Mark(tmp_path / "mark")
    said = [mark.state]
    mark.write(STATES[0])
    said.append(mark.state)
    mark.close()
    assert said == [None, STATES[0]]


def test_a_new_database_has_the_newest_version() -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    migrate(db)
    assert db.execute("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)
    db.close()


def test_an_older_database_is_brought_up_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    migrate(db)
    monkeypatch.setattr(
        schema,
        "MIGRATIONS",
        (*schema.MIGRATIONS, "ALTER TABLE records ADD COLUMN later TEXT", "CREATE TABLE x (y)"),
    )
    migrate(db)
    assert db.execute("PRAGMA user_version").fetchone() == (3,)
    db.execute("SELECT later FROM records, x")
    db.close()


def test_a_step_that_fails_leaves_the_version_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "MIGRATIONS", ("CREATE TABLE x (y)", "CREATE TABLE x (y)"))
    db = sqlite3.connect(":memory:", isolation_level=None)
    with pytest.raises(sqlite3.Error):
        migrate(db)
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    assert not db.in_transaction
    db.close()


def test_a_newer_database_is_refused() -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.execute("PRAGMA user_version = 7")
    with pytest.raises(NewerSchemaError, match="version 7"):
        migrate(db)
    db.close()


def test_a_commit_is_flushed_before_it_counts(tmp_path: Path) -> None:
    """That a loss of power can be survived isn't seen from outside: SQLite has to be asked."""
    store = Store(tmp_path / "db")
    told = {
        name: store._db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("synchronous", "journal_mode", "secure_delete", "locking_mode")
    }
    store.close()
    assert told == {"synchronous": 2, "journal_mode": "wal", "secure_delete": 1, "locking_mode": "exclusive"}


@pytest.mark.parametrize("page_bytes", [512, 1024, 4096])
def test_the_reader_of_pages_reads_what_sqlite_wrote(tmp_path: Path, page_bytes: int) -> None:
    path = tmp_path / "db"
    store = Store(path, page_bytes=page_bytes)
    sizes = [*range(0, 1200, 7), 5000, 20_000, 100_000]
    with store.transaction():
        for serial, size in enumerate(sizes, start=1 << 40):
            store.insert(
                serial, "ask", RecordKey("mqtt", "älice", "id"), b"hash", NOW, serial % 300, os.urandom(size)
            )
    written = store.read()
    store.checkpoint()
    store.close()
    data = path.read_bytes()

    def fetch(number: int) -> bytes:
        return data[(number - 1) * page_bytes : number * page_bytes]

    found: dict[int, Row] = {}
    for number in range(2, len(data) // page_bytes + 1):
        found |= {row.serial: row for row in rows_of(fetch(number), fetch)}
    assert [found[serial] for serial in sorted(found)] == written


@given(st.binary(min_size=504, max_size=504), st.sampled_from([b"\x0d", b"\x05", b"\0"]))
def test_the_reader_of_pages_reads_nothing_from_rubbish(rubbish: bytes, kind: bytes) -> None:
    page = kind + rubbish + bytes(7)
    assert list(rows_of(page, lambda number: page)) == []
