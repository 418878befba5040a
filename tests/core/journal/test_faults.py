"""Disks that are full, read-only or broken: requests are refused in clear words, and nothing else is lost."""

from __future__ import annotations

import contextlib
import errno
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edged.core.journal import Journal, Loss, Recovered, opening
from edged.core.journal.books import Books
from edged.core.journal.store import Store
from edged.errors import EdgedError, ErrorCode
from tests.core.journal.conftest import Bench, ask, key, until


def mount(*arguments: str | Path) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path, bench: Bench) -> Iterator[Path]:
    """A disk of 2 MiB with the bench's directory on it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", disk):
        pytest.skip("mounting a tmpfs is not permitted here")
    bench.directory = disk / "state"
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk: Path) -> Path:
    """Use up what is free on a disk."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


@contextlib.contextmanager
def no_file_grows() -> Iterator[None]:
    """Let every write fail that would make a file longer than nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def fill_until_refused(journal: Journal) -> EdgedError:
    """Ask until it is refused: the log has some room of its own."""
    with pytest.raises(EdgedError) as refusal:
        for number in range(2000):
            await ask(journal, f"filling-{number}", b"q" * 2000)
    return refusal.value


def bodies(recovered: Recovered) -> list[bytes]:
    records = [*recovered.asks, *recovered.answers, *recovered.events]
    return [r.body for r in sorted(records, key=lambda r: r.serial) if not r.body.startswith(b"qqq")]


async def go_through(bench: Bench, fault: contextlib.AbstractContextManager[Any]) -> EdgedError:
    """Let a journal meet a fault with requests in work, and return what new ones were told."""
    journal, _ = await bench.open()
    serials = [await ask(journal, name, b"question " + name.encode()) for name in ("one", "two", "three")]
    with fault:
        refusal = await fill_until_refused(journal)
        first = await journal.answer(serials[0], key("one"), b"h" * 16, b"answer one")
        event = await journal.event(b"event")
        await until(lambda: not journal.can_write)
        assert journal.status()["state"] == "cannot_write"
        assert journal.status()["outbox"] == 2
        with pytest.raises(EdgedError):
            await ask(journal, "four", b"q" * 100_000)
    second = await journal.answer(serials[1], key("two"), b"h" * 16, b"answer two")
    assert journal.can_write
    assert await ask(journal, "four", b"question four") > second > event > first
    assert journal.status()["problem"] is None
    _, recovered = await bench.crash_and_open()
    expected = [b"question three", b"answer one", b"event", b"answer two", b"question four"]
    assert bodies(recovered) == expected
    assert recovered.losses == []
    return refusal


async def test_a_full_disk_refuses_requests_and_keeps_answers_until_there_is_room(
    bench: Bench, small_disk: Path
) -> None:
    @contextlib.contextmanager
    def full_disk() -> Iterator[None]:
        ballast = fill(small_disk)
        yield
        ballast.unlink()

    refusal = await go_through(bench, full_disk())
    assert refusal.code == ErrorCode.JOURNAL_FULL
    assert "no room is left (0 B of 2,097,152 B are free)" in refusal.message
    assert (
        f"free some under {bench.directory.parent}" in refusal.message or "free some under" in refusal.message
    )
    assert refusal.retry_after_s


async def test_a_disk_that_takes_no_writes(bench: Bench) -> None:
    refusal = await go_through(bench, no_file_grows())
    assert refusal.code == ErrorCode.JOURNAL_FULL
    assert "check the disk" in refusal.message or "no room" in refusal.message


async def test_what_waits_is_written_without_any_further_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.core.journal.writer.RETRY_SECONDS", (0.01,))
    journal, _ = await bench.open()
    with no_file_grows():
        await fill_until_refused(journal)
        await journal.event(b"event")
        await until(lambda: not journal.can_write)
    await until(lambda: journal.can_write)
    _, recovered = await bench.crash_and_open()
    assert bodies(recovered) == [b"event"]


async def test_an_acknowledgement_of_what_is_not_written_yet_holds(bench: Bench) -> None:
    journal, _ = await bench.open()
    with no_file_grows():
        await fill_until_refused(journal)
        journal.acknowledged(await journal.event(b"event"))
        await until(lambda: journal.status()["outbox"] == 0)
    await ask(journal, "one")
    _, recovered = await bench.crash_and_open()
    assert recovered.unacknowledged == set()


async def test_what_is_on_a_read_only_disk_is_read_all_the_same(bench: Bench, small_disk: Path) -> None:
    journal, _ = await bench.open()
    serial = await ask(journal, "one", b"question one")
    await bench.close()
    assert mount("-o", "remount,ro", small_disk)
    journal, recovered = await bench.open()
    assert bodies(recovered) == [b"question one"]
    assert recovered.losses == []
    assert not journal.can_write
    assert "is read-only; make it writable" in journal.status()["problem"]
    with pytest.raises(EdgedError) as refusal:
        await ask(journal, "two")
    assert refusal.value.code == ErrorCode.JOURNAL_FULL
    await journal.answer(serial, key("one"), b"h" * 16, b"answer one")
    assert mount("-o", "remount,rw", small_disk)
    await ask(journal, "three", b"question three")
    _, recovered = await bench.crash_and_open()
    assert bodies(recovered) == [b"answer one", b"question three"]
    assert recovered.losses == []


async def test_a_file_that_turns_out_damaged_at_work_is_mended_at_work(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, _ = await bench.open()
    serial = await ask(journal, "one", b"question one")
    insert = Store.insert

    def fail_once(*arguments: Any) -> None:
        monkeypatch.setattr(Store, "insert", insert)
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(Store, "insert", fail_once)
    await journal.answer(serial, key("one"), b"h" * 16, b"answer one")
    await ask(journal, "two", b"question two")
    assert journal.can_write
    _, recovered = await bench.crash_and_open()
    assert bodies(recovered) == [b"answer one", b"question two"]


@pytest.mark.parametrize("hindered", [False, True])
async def test_what_is_found_lost_at_work_is_told_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, hindered: bool
) -> None:
    """Also where the file can't be mended at the first try."""
    journal, recovered = await bench.open()
    told: list[Loss] = []
    journal.on_loss = told.append
    serials = [await ask(journal, str(number), b"question %02d" % number * 40) for number in range(21)]
    journal.forget(serials.pop())
    await journal.settle()  # by which all of it leaves the log
    data = bytearray((bench.directory / "journal.sqlite").read_bytes())
    data[data.index(b"question 07") + 3] ^= 16
    insert, write_new = Store.insert, opening._write_new

    def fail_once(*arguments: Any) -> None:
        monkeypatch.setattr(Store, "insert", insert)
        (bench.directory / "journal.sqlite").write_bytes(data)
        raise sqlite3.OperationalError("disk I/O error")

    def hinder_once(*arguments: Any) -> None:
        monkeypatch.setattr(opening, "_write_new", write_new)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Store, "insert", fail_once)
    if hindered:
        monkeypatch.setattr(opening, "_write_new", hinder_once)
    await journal.event(b"event")
    await until(lambda: told and journal.can_write)
    await ask(journal, "afterwards")
    assert [(loss.first, loss.last) for loss in told] == [(serials[7], serials[7])]
    assert journal.status()["losses"] == [{"first": serials[7], "last": serials[7], "reason": told[0].reason}]
    assert recovered.losses == []
    _, recovered = await bench.crash_and_open()
    assert len(recovered.asks) == 20
    assert recovered.losses == []


async def test_what_is_found_lost_at_the_opening_is_told_there_alone(bench: Bench) -> None:
    journal, _ = await bench.open()
    await ask(journal, "one")
    await journal.settle()  # by which the mark names it
    bench.crash()
    (bench.directory / "journal.sqlite").unlink()
    (bench.directory / "journal.sqlite-wal").unlink()
    told: list[Loss] = []
    journal, recovered = await bench.open(told.append)
    await ask(journal, "two")
    assert len(recovered.losses) == 1
    assert told == []


async def test_an_error_that_nobody_foresaw_does_not_end_the_thread(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.core.journal.thread.UNEXPECTED_SECONDS", 0)
    journal, _ = await bench.open()
    acknowledge = Books.acknowledge

    def fail_once(*_: Any) -> None:
        monkeypatch.setattr(Books, "acknowledge", acknowledge)
        raise ZeroDivisionError

    monkeypatch.setattr(Books, "acknowledge", fail_once)
    journal.acknowledged(1)
    await until(lambda: not journal.can_write)
    assert "unexpected error (ZeroDivisionError())" in journal.status()["problem"]
    await ask(journal, "one", b"question one")
    assert journal.can_write


async def test_requests_that_meet_it_are_told_and_answers_are_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.core.journal.thread.UNEXPECTED_SECONDS", 0)
    journal, _ = await bench.open()
    enter = Books.enter

    def fail_once(*_: Any) -> None:
        monkeypatch.setattr(Books, "enter", enter)
        raise ZeroDivisionError

    monkeypatch.setattr(Books, "enter", fail_once)
    with pytest.raises(EdgedError) as refusal:
        await ask(journal, "one")
    assert refusal.value.code == ErrorCode.INTERNAL
    monkeypatch.setattr(Store, "transaction", lambda self: 1 / 0)
    await journal.event(b"event")
    monkeypatch.undo()
    await ask(journal, "two", b"question two")
    _, recovered = await bench.crash_and_open()
    assert b"event" in bodies(recovered)
