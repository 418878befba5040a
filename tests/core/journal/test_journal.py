"""What the core relies on: what was acknowledged is there after a crash, and what is over leaves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edged.core.journal import Drop, Journal, RecordKey
from edged.errors import EdgedError, ErrorCode
from tests.core.journal.conftest import Bench, Bounds, ask, key, until
from tools import journal_writes


async def answered(journal: Journal, id_: str, body: bytes = b"answer") -> int:
    serial = await ask(journal, id_)
    return await journal.answer(serial, key(id_), b"h" * 16, body)


async def test_an_accepted_request_is_there_after_a_crash(bench: Bench) -> None:
    journal, _ = await bench.open()
    serial = await journal.accept(
        RecordKey("mqtt", "alice", "one"), b"hash of the body", b"What is an otter?"
    )
    journal, recovered = await bench.crash_and_open()
    [record] = recovered.asks
    assert (record.serial, record.kind, record.key) == (serial, "ask", RecordKey("mqtt", "alice", "one"))
    assert (record.body_hash, record.body, record.run) == (b"hash of the body", b"What is an otter?", 1)
    assert record.stamp.boottime == 1000
    assert not recovered.losses


async def test_an_answer_takes_its_requests_place(bench: Bench) -> None:
    journal, _ = await bench.open()
    serial = await answered(journal, "one", b"An animal.")
    _, recovered = await bench.crash_and_open()
    assert not recovered.asks
    assert [(record.serial, record.body) for record in recovered.answers] == [(serial, b"An animal.")]
    assert recovered.unacknowledged == {serial}


async def test_what_the_broker_has_is_not_sent_again(bench: Bench) -> None:
    journal, _ = await bench.open()
    first, second = await answered(journal, "one"), await answered(journal, "two")
    event, later = await journal.event(b"low memory"), await journal.event(b"too hot")
    for serial in (first, second, event):
        journal.acknowledged(serial)
    await ask(journal, "three")  # whatever is handed over before is done
    _, recovered = await bench.crash_and_open()
    assert recovered.unacknowledged == {later}
    assert [record.body for record in recovered.events] == [b"too hot"]
    assert [record.serial for record in recovered.answers] == [first, second]


async def test_an_acknowledgement_out_of_order_sends_again_rather_than_not_at_all(bench: Bench) -> None:
    journal, _ = await bench.open()
    first, second = await answered(journal, "one"), await answered(journal, "two")
    journal.acknowledged(second)
    await ask(journal, "three")
    _, recovered = await bench.crash_and_open()
    assert first in recovered.unacknowledged


async def test_serials_rise_over_restarts(bench: Bench) -> None:
    serials = []
    for _ in range(3):
        journal, _ = await bench.open()
        serials += [await ask(journal, "one"), await answered(journal, "two"), await journal.event(b"event")]
        await bench.close()
    assert serials == sorted(set(serials))


async def test_salt_stays_and_the_run_is_counted(bench: Bench) -> None:
    runs: list[int] = []
    salts: set[bytes] = set()
    for _ in range(3):
        _, recovered = await bench.crash_and_open() if runs else await bench.open()
        runs.append(recovered.run)
        salts.add(recovered.salt)
    assert runs == [1, 2, 3]
    assert len(salts) == 1
    assert len(salts.pop()) == 16


async def test_requests_at_once_share_commits(bench: Bench) -> None:
    journal, _ = await bench.open()
    before = journal.status()["commits"]
    serials = await asyncio.gather(*(ask(journal, str(number)) for number in range(200)))
    assert len(set(serials)) == 200
    assert journal.status()["commits"] - before < 20
    _, recovered = await bench.crash_and_open()
    assert [record.serial for record in recovered.asks] == sorted(serials)


async def test_an_answer_leaves_when_its_time_is_over_and_the_broker_has_it(bench: Bench) -> None:
    journal, _ = await bench.open()
    had, unsent = await answered(journal, "one"), await answered(journal, "two")
    journal.acknowledged(had)
    bench.time.boottime += 599
    await journal.settle()
    assert journal.status()["answers"] == 2
    bench.time.boottime += 1
    await journal.settle()
    assert journal.status()["answers"] == 1
    _, recovered = await bench.crash_and_open()
    assert [record.serial for record in recovered.answers] == [unsent]
    assert not recovered.losses


async def test_without_a_right_clock_time_switched_off_keeps_answers(bench: Bench) -> None:
    bench.time.synchronised = False
    journal, _ = await bench.open()
    serial = await answered(journal, "one")
    journal.acknowledged(serial)
    await bench.close()
    bench.boot("second")
    bench.time.boottime, bench.time.wall = 30, bench.time.wall + 10**8
    journal, recovered = await bench.open()
    assert [record.serial for record in recovered.answers] == [serial]
    bench.time.boottime = 601
    await journal.settle()
    assert journal.status()["answers"] == 0


async def test_with_a_right_clock_time_switched_off_counts(bench: Bench) -> None:
    journal, _ = await bench.open()
    journal.acknowledged(await answered(journal, "one"))
    await bench.close()
    bench.boot("second")
    bench.time.boottime, bench.time.wall = 30, bench.time.wall + 3600
    _, recovered = await bench.open()
    assert not recovered.answers


async def test_a_request_that_is_given_up_is_gone(bench: Bench) -> None:
    journal, _ = await bench.open()
    serial, other = await ask(journal, "one"), await ask(journal, "two")
    journal.forget(serial)
    await journal.settle()
    assert journal.status()["asks"] == 1
    _, recovered = await bench.crash_and_open()
    assert [record.serial for record in recovered.asks] == [other]


async def test_nothing_is_kept_of_a_request_whose_requester_left_before_the_commit(bench: Bench) -> None:
    journal, _ = await bench.open()
    task = asyncio.create_task(ask(journal, "one"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await journal.settle()
    await asyncio.sleep(0)
    await journal.settle()
    assert journal.status()["asks"] == 0


async def test_an_overfull_outbox_drops_the_oldest_events_then_the_oldest_answers(bench: Bench) -> None:
    bench.bounds.outbox_max_bytes = 3500
    journal, _ = await bench.open()
    drops: list[Drop] = []
    journal.on_drop = drops.append
    first = await answered(journal, "one", b"a" * 1000)
    events = [await journal.event(b"e" * 600) for _ in range(2)]
    await answered(journal, "two", b"a" * 1000)
    await answered(journal, "three", b"a" * 1000)
    await journal.settle()
    dropped = [(drop.kind, serial) for drop in drops for serial in drop.serials]
    assert dropped == [("event", events[0]), ("event", events[1]), ("answer", first)]
    assert all("outbox_max_bytes" in drop.reason for drop in drops)
    assert journal.status()["outbox_bytes"] <= 3500
    _, recovered = await bench.crash_and_open()
    assert not recovered.unacknowledged & {first, *events}
    assert first in [record.serial for record in recovered.answers]  # for whoever asks again


async def test_a_full_journal_refuses_with_figures_and_keeps_room_for_answers(bench: Bench) -> None:
    bench.bounds.max_bytes = 1 << 20
    journal, _ = await bench.open()
    serials: list[int] = []
    with pytest.raises(EdgedError) as refusal:
        for number in range(1000):
            serials.append(await ask(journal, str(number), b"q" * 2000))  # noqa: PERF401 (until it is refused)
    assert refusal.value.code == ErrorCode.JOURNAL_FULL
    assert "1,048,576 B (journal.max_bytes)" in refusal.value.message
    assert refusal.value.retry_after_s
    assert len(serials) > 10
    assert journal.can_write
    for number, serial in enumerate(serials):
        await journal.answer(serial, key(str(number)), b"h" * 16, b"a" * 8000)
    assert journal.status()["answers"] == len(serials)
    assert journal.status()["bytes"] <= 1 << 20


async def test_other_bounds_hold_at_once(bench: Bench) -> None:
    journal, _ = await bench.open()
    drops: list[Drop] = []
    journal.on_drop = drops.append
    events = [await journal.event(b"e" * 600) for _ in range(3)]
    journal.acknowledged(await answered(journal, "one", b"a"))
    bench.time.boottime += 10

    journal.bounds = Bounds(max_bytes=8 << 20, keep_results_seconds=5.0, outbox_max_bytes=1000)
    async with asyncio.timeout(30):
        while not drops or journal.status()["answers"]:
            await asyncio.sleep(0.005)
    assert [(drop.kind, drop.serials) for drop in drops] == [("event", events[:2])]
    assert (journal.status()["max_bytes"], journal.status()["outbox_max_bytes"]) == (8 << 20, 1000)

    journal.bounds = Bounds(max_bytes=1)
    assert journal.bounds.max_bytes == 1
    with pytest.raises(EdgedError, match=r"of its 1 B \(journal\.max_bytes\)"):
        await ask(journal, "two")
    journal.bounds = Bounds()
    await ask(journal, "two")


async def test_texts_leave_the_files(bench: Bench) -> None:
    journal, _ = await bench.open()
    for number in range(300):
        serial = await ask(journal, f"id-{number}", b"a secret question, " * 40)
        journal.acknowledged(
            await journal.answer(serial, key(f"id-{number}"), b"h" * 16, b"a confidential answer, " * 60)
        )
        journal.acknowledged(await journal.event(b"a private event, " * 10))
    contents = b"".join(path.read_bytes() for path in bench.directory.iterdir())
    assert b"secret question" in contents  # in the log, until it is scrubbed
    bench.time.boottime += 700
    await journal.settle()
    files = {path.name: path.read_bytes() for path in bench.directory.iterdir()}
    for text in (b"secret question", b"confidential answer", b"private event", b"id-299"):
        assert [name for name, data in files.items() if text in data] == []
    _, recovered = await bench.crash_and_open()
    assert not recovered.losses


async def test_what_nothing_comes_after_leaves_the_files_by_itself(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.core.journal.writer.REST_SECONDS", 0.005)
    journal, _ = await bench.open()
    journal.acknowledged(await journal.event(b"a private event"))
    journal.acknowledged(await answered(journal, "one", b"a confidential answer"))

    def gone() -> bool:
        bench.time.boottime += 60
        contents = b"".join(path.read_bytes() for path in bench.directory.iterdir())
        return b"private" not in contents and b"confidential" not in contents

    assert not gone()
    await until(gone)


async def test_texts_that_give_their_place_to_others_leave_the_file(bench: Bench) -> None:
    journal, _ = await bench.open()
    for number in range(60):
        journal.acknowledged(await answered(journal, str(number), b"answer %02d, " % number * 90))
        bench.time.boottime += 60
    _, recovered = await bench.crash_and_open()
    assert [record.key for record in recovered.answers] == [key(str(number)) for number in range(51, 60)]
    assert not recovered.losses
    await bench.close()  # by which all of the log is in the file
    contents = (bench.directory / "journal.sqlite").read_bytes()
    assert [number for number in range(40) if b"answer %02d" % number in contents] == []


async def test_what_a_lone_request_writes_is_bounded(tmp_path: Path) -> None:
    """A card wears out by it: what a device gets is about twice this (docs/adr/0018)."""
    written = await journal_writes.measure(tmp_path, None, journal_writes.SCENARIOS[0], 250)
    assert written.handed_over < 9.5


async def test_five_thousand_records_come_back_in_order(bench: Bench) -> None:
    bench.bounds.max_bytes = 256 << 20
    journal, _ = await bench.open()
    serials = await asyncio.gather(*(ask(journal, str(number), b"q" * 1000) for number in range(5000)))
    _, recovered = await bench.crash_and_open()
    assert [record.serial for record in recovered.asks] == sorted(serials)


async def test_nobody_else_can_read_the_files(bench: Bench) -> None:
    journal, _ = await bench.open()
    await ask(journal, "one")
    assert {path.stat().st_mode & 0o777 for path in bench.directory.iterdir()} == {0o600}
    assert len(list(bench.directory.iterdir())) == 3


async def test_a_closed_journal_refuses(bench: Bench) -> None:
    journal, _ = await bench.open()
    await bench.close()
    with pytest.raises(EdgedError) as refusal:
        await ask(journal, "one")
    assert refusal.value.code == ErrorCode.SHUTTING_DOWN
    journal.acknowledged(1)


async def test_a_second_daemon_is_told_who_holds_the_journal(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.core.journal.store.LOCK_SECONDS", 0)
    await bench.open()
    with pytest.raises(EdgedError, match="another process"):
        await bench.open()


async def test_status_has_every_field_that_edgectl_shows(bench: Bench, tmp_path: Path) -> None:
    journal, _ = await bench.open()
    await answered(journal, "one")
    await ask(journal, "two")
    status = journal.status()
    assert status["bytes"] > 0
    assert status["outbox_bytes"] > 0
    del status["bytes"], status["outbox_bytes"]
    assert status == {
        "state": "ok",
        "problem": None,
        "max_bytes": 16 << 20,
        "asks": 1,
        "answers": 1,
        "outbox": 1,
        "outbox_max_bytes": 4 << 20,
        "commits": 4,
        "losses": [],
    }
