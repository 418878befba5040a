"""Files that were cut, changed or lost: nothing wrong is returned, and whatever is missing is named.

The journals that are damaged here are real ones, copied while they were in use; every acknowledged fact is
known beside them.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.clock import Clock
from edged.core.journal import Journal, Recovered
from tests.core.journal.conftest import Bench, Bounds, ask, key

DATABASE, LOG, MARK = "journal.sqlite", "journal.sqlite-wal", "journal.mark"


@dataclass
class Case:
    """A journal as a crash left it, and what had been acknowledged.

    Attributes:
        directory: the files; copy them before they are damaged.
        ever: every body that was ever handed over, by serial.
        live: serials that must be there.
    """

    directory: Path
    ever: dict[int, bytes] = field(default_factory=dict, repr=False)
    live: set[int] = field(default_factory=set, repr=False)


async def make_case(directory: Path, requests: int, *, settle_at: int | None, seed: int) -> Case:
    """Use a journal and leave it: asks open and answered, events, acknowledged and not."""
    chance = random.Random(seed)
    work, left = directory / "work", directory / "left"
    journal = Journal(work, settings=Bounds(), clock=Clock())
    await journal.open()
    case = Case(left)
    for number in range(requests):
        question, answer = chance.randbytes(chance.randrange(900)), chance.randbytes(chance.randrange(2500))
        serial = await ask(journal, str(number), question)
        case.ever[serial] = question
        case.live.add(serial)
        if chance.random() < 0.7:
            replacing = await journal.answer(serial, key(str(number)), b"h" * 16, answer)
            case.live.remove(serial)
            case.live.add(replacing)
            case.ever[replacing] = answer
        if chance.random() < 0.3:
            event = await journal.event(answer)
            case.live.add(event)
            case.ever[event] = answer
        if number == settle_at:
            await journal.settle()
    shutil.copytree(work, left)
    await journal.close()
    return case


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """Small and large, with everything in the log, with nothing in it, and in between."""
    shapes = [(5, None), (40, None), (40, 39), (40, 20), (200, None), (3, 1)]
    return [
        asyncio.run(make_case(tmp_path_factory.mktemp("case"), requests, settle_at=settle_at, seed=seed))
        for seed, (requests, settle_at) in enumerate(shapes)
    ]


async def open_and_close(directory: Path) -> Recovered:
    journal = Journal(directory, settings=Bounds(), clock=Clock())
    recovered = await journal.open()
    assert journal.can_write
    await ask(journal, "afterwards")
    await journal.close()
    return recovered


def check(case: Case, directory: Path) -> Recovered:
    """Open damaged files, and hold what comes to what is known; open them again, when all must be well."""
    recovered = asyncio.run(open_and_close(directory))
    records = [*recovered.asks, *recovered.answers, *recovered.events]
    assert {r.serial: r.body for r in records} == {r.serial: case.ever[r.serial] for r in records}
    missing = case.live - {record.serial for record in records}
    unnamed = {s for s in missing if not any(loss.first <= s <= loss.last for loss in recovered.losses)}
    assert unnamed == set()
    if {record.serial for record in records} != case.live:
        assert recovered.losses
    again = asyncio.run(open_and_close(directory))
    assert again.losses == []
    assert {r.serial for r in records} <= {r.serial for r in [*again.asks, *again.answers, *again.events]}
    return recovered


def flip(path: Path, where: float, bit: int) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[int(where * len(data))] ^= 1 << bit
        path.write_bytes(data)


def cut(path: Path, where: float, _: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(where * len(data))])


def blank(path: Path, where: float, bit: int) -> None:
    data = bytearray(path.read_bytes())
    begin = int(where * len(data))
    size = min(512 << bit, len(data) - begin)
    data[begin : begin + size] = bytes(size)
    path.write_bytes(data)


Wound = tuple[Callable[[Path, float, int], None], str, float, int]
wounds = st.lists(
    st.tuples(
        st.sampled_from([flip, flip, flip, cut, blank]),
        st.sampled_from([DATABASE, LOG]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 7),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=150)
@given(which=st.integers(0, 5), wounds=wounds)
def test_whatever_is_damaged_nothing_wrong_is_read_and_no_loss_is_silent(
    cases: list[Case], which: int, wounds: list[Wound]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name, "state")
        shutil.copytree(cases[which].directory, directory)
        for wound, file, where, bit in wounds:
            wound(directory / file, where, bit)
        check(cases[which], directory)


@pytest.fixture(params=range(6))
def case(cases: list[Case], request: pytest.FixtureRequest) -> Case:
    number: int = request.param
    return cases[number]


@pytest.fixture
def directory(case: Case, tmp_path: Path) -> Path:
    return Path(shutil.copytree(case.directory, tmp_path / "state"))


def test_an_undamaged_journal_is_whole(case: Case, directory: Path) -> None:
    recovered = check(case, directory)
    assert recovered.losses == []


def test_a_frame_that_names_a_page_far_away_hangs_nothing(cases: list[Case], tmp_path: Path) -> None:
    case = cases[1]
    directory = Path(shutil.copytree(case.directory, tmp_path / "state"))
    data = bytearray((directory / LOG).read_bytes())
    data[32] = 0xFF  # the first byte of the first frame's page number
    (directory / LOG).write_bytes(data)
    check(case, directory)


@pytest.mark.parametrize("file", [DATABASE, LOG, DATABASE + "-shm"])
def test_a_missing_file_is_a_named_loss_at_most(case: Case, directory: Path, file: str) -> None:
    (directory / file).unlink(missing_ok=True)
    check(case, directory)


def test_a_missing_mark_is_no_loss(case: Case, directory: Path) -> None:
    (directory / MARK).unlink()
    assert check(case, directory).losses == []


@pytest.mark.parametrize("slot", [0, 4096])
def test_a_torn_mark_leaves_the_other_one(case: Case, directory: Path, slot: int) -> None:
    data = bytearray((directory / MARK).read_bytes())
    data[slot : slot + 20] = bytes(20)
    (directory / MARK).write_bytes(data)
    assert check(case, directory).losses == []


def test_with_all_files_but_the_mark_gone_everything_is_named(case: Case, directory: Path) -> None:
    (directory / DATABASE).unlink()
    (directory / LOG).unlink()
    [loss] = check(case, directory).losses
    assert (loss.first, loss.last) == (min(case.live), max(case.ever))


def test_a_leftover_of_another_journal_is_not_taken_for_its_log(case: Case, directory: Path) -> None:
    (directory / LOG).write_bytes(random.Random(1).randbytes(20_000))
    (directory / (DATABASE + "-shm")).write_bytes(b"\xff" * 32768)
    check(case, directory)


def test_a_flipped_bit_in_a_row_costs_that_row_alone(cases: list[Case], tmp_path: Path) -> None:
    case = cases[2]
    directory = Path(shutil.copytree(case.directory, tmp_path / "state"))
    serial = sorted(case.live)[len(case.live) // 2]
    data = bytearray((directory / DATABASE).read_bytes())
    at = data.index(case.ever[serial][:40])
    data[at + 3] ^= 16
    (directory / DATABASE).write_bytes(data)
    recovered = check(case, directory)
    read = {r.serial for r in [*recovered.asks, *recovered.answers, *recovered.events]}
    assert case.live - read == {serial}
    assert [(loss.first, loss.last) for loss in recovered.losses] == [(serial, serial)]


def test_what_follows_a_flipped_bit_in_the_log_is_saved(cases: list[Case], tmp_path: Path) -> None:
    """SQLite itself ignores everything behind it, without a word."""
    case = cases[1]
    directory = Path(shutil.copytree(case.directory, tmp_path / "state"))
    flip(directory / LOG, 0.02, 3)
    recovered = check(case, directory)
    read = {r.serial for r in [*recovered.asks, *recovered.answers, *recovered.events]}
    assert len(case.live - read) <= 1


def test_a_damaged_first_page_costs_nothing(cases: list[Case], tmp_path: Path) -> None:
    case = cases[2]
    directory = Path(shutil.copytree(case.directory, tmp_path / "state"))
    data = bytearray((directory / DATABASE).read_bytes())
    data[:512] = random.Random(2).randbytes(512)
    (directory / DATABASE).write_bytes(data)
    assert check(case, directory).losses == []


def test_a_row_that_is_missing_from_a_sound_file_is_noticed(cases: list[Case], tmp_path: Path) -> None:
    """So it is after a part of a log that is half in the file is lost: SQLite finds nothing wrong."""
    case = cases[4]
    directory = Path(shutil.copytree(case.directory, tmp_path / "state"))
    serial = sorted(case.live)[len(case.live) // 2]
    db = sqlite3.connect(directory / DATABASE)
    db.execute("DELETE FROM records WHERE serial = ?", (serial,))
    db.commit()
    db.close()
    [loss, *_] = check(case, directory).losses
    assert "rows are missing" in loss.reason


def test_a_loss_quotes_nothing_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SQLite itself would name the text that it can't decode."""

    async def write() -> None:
        journal = Journal(tmp_path, settings=Bounds(), clock=Clock())
        await journal.open()
        for number in range(3):
            await ask(journal, f"confidential-{number}")
        await journal.close()

    asyncio.run(write())
    data = (tmp_path / DATABASE).read_bytes()
    (tmp_path / DATABASE).write_bytes(data.replace(b"confidential-1", b"confidential-\xff"))
    [loss] = asyncio.run(open_and_close(tmp_path)).losses
    assert loss.reason == "it holds text that can't be read"
    output = capsys.readouterr()
    assert "confidential" not in output.out + output.err


def test_damaged_files_are_kept_aside_but_not_without_end(cases: list[Case], tmp_path: Path) -> None:
    directory = Path(shutil.copytree(cases[2].directory, tmp_path / "state"))
    for _ in range(5):
        data = (directory / DATABASE).read_bytes()
        (directory / DATABASE).write_bytes(b"\0" * 64 + data[64:])
        asyncio.run(open_and_close(directory))
    aside = sorted(path.name for path in directory.glob("*.damaged-*") if not path.name.endswith("-wal"))
    assert aside == [f"{DATABASE}.damaged-4", f"{DATABASE}.damaged-5"]


def test_a_newer_form_is_not_touched(cases: list[Case], tmp_path: Path) -> None:
    case = cases[2]
    directory = Path(shutil.copytree(case.directory, tmp_path / "state"))
    db = sqlite3.connect(directory / DATABASE)
    db.execute("PRAGMA user_version = 99")
    db.close()
    before = (directory / DATABASE).read_bytes()
    recovered = asyncio.run(open_and_close(directory))
    [loss] = recovered.losses
    assert "version 99" in loss.reason
    assert (loss.first, loss.last) == (min(case.live), max(case.ever))
    assert (directory / f"{DATABASE}.newer-1").read_bytes() == before


@pytest.mark.parametrize("name", [DATABASE, MARK])
def test_a_directory_in_a_files_place_is_moved_aside(tmp_path: Path, name: str) -> None:
    (tmp_path / name / "something").mkdir(parents=True)
    recovered = asyncio.run(open_and_close(tmp_path))
    assert recovered.losses == []


@pytest.mark.parametrize("content", [b"", b"x", b"SQLite format 3\0", b"\0" * 5000])
def test_a_file_that_is_none_is_moved_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DATABASE).write_bytes(content)
    assert asyncio.run(open_and_close(tmp_path)).losses == []


async def test_a_loss_of_power_while_a_damaged_file_is_replaced(bench: Bench) -> None:
    journal, _ = await bench.open()
    serial = await ask(journal, "one", b"question")
    await bench.close()
    database = bench.directory / DATABASE
    database.rename(bench.directory / f"{DATABASE}.new")  # the new file is complete, the old one is away
    (bench.directory / LOG).write_bytes(b"of the old file")
    _, recovered = await bench.open()
    assert [record.serial for record in recovered.asks] == [serial]
    assert not recovered.losses
