"""A day of figures survives what happens to cards, in few writes and bounded space."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edged.clock import Clock
from edged.telemetry import history as module
from edged.telemetry.history import BATCH, COLUMNS, ROWS_OF_A_PAGE, SECONDS, History
from edged.telemetry.snapshot import Snapshot
from tests.telemetry.made_up import snapshot as made_up

HOURS = 2
SLOTS = HOURS * 60
CELSIUS = 2 + COLUMNS.index("thermal.celsius")
BOOT = "proc/sys/kernel/random/boot_id"


class Device:
    """A device whose time runs as it is told, and its history."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "history"
        self.since_boot = 100.0
        self.wall = 1_800_000_000.0
        self.synchronised = True
        self.boots = 0
        self.boot()

    def boot(self) -> None:
        """Start the device anew."""
        self.boots += 1
        file = self.directory / BOOT
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"boot-{self.boots}\n")
        self.since_boot = 0.0
        self.start()

    def start(self, hours: int = HOURS) -> None:
        """Start the daemon anew."""
        self.clock = Clock(
            self.directory,
            wall=lambda: self.wall,
            boottime=lambda: self.since_boot,
            kernel_synchronised=lambda: self.synchronised,
        )
        self.history = History(self.path, clock=self.clock, hours=hours)

    def live(self, minutes: int, first: float = 0.0) -> None:
        """Take a record a minute; the temperature is its number. Batches are written as they are due."""
        for minute in range(minutes):
            if self.history.take(at(first + minute)):
                self.history.write()
            self.since_boot += SECONDS
            self.wall += SECONDS

    def celsius(self, page: int = 1) -> list[float]:
        """Return the temperatures of a page."""
        return [row[CELSIUS] for row in self.history.page(page)["rows"]]


def at(celsius: float | None) -> Snapshot:
    told = made_up()
    return replace(told, thermal=replace(told.thermal, celsius=celsius))


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_rows_hold_every_column_and_null_where_nothing_was_known(device: Device) -> None:
    device.history.take(replace(at(None), mqtt=None))
    page = device.history.page(1)
    assert page["columns"] == ["time", "clock_synchronised", *COLUMNS]
    [row] = page["rows"]
    told = dict(zip(page["columns"], row, strict=True))
    assert (told["time"], told["clock_synchronised"]) == (device.wall, True)
    assert (told["thermal.celsius"], told["mqtt.outbox"]) == (None, None)
    assert (told["inference.requests.done_total"], told["power.watts"], told["thermal.throttled"]) == (
        90,
        7.25,
        1,
    )


def test_the_first_page_is_the_newest_hour_and_each_is_in_order(device: Device) -> None:
    device.live(100)
    assert device.celsius(1) == list(range(40, 100))
    assert device.celsius(2) == list(range(40))
    assert device.celsius(3) == []
    page = device.history.page(2)
    assert (page["page"], page["pages"], page["total"]) == (2, 2, 100)


def test_one_record_a_minute_however_often_it_is_looked(device: Device) -> None:
    for _ in range(61):
        device.history.take(at(1.0))
        device.since_boot += 10
    assert device.history.page(1)["total"] == 11


def test_a_look_that_comes_late_does_not_shift_the_beat(device: Device) -> None:
    for seconds in (0, 69, 51, 60):
        device.since_boot += seconds
        device.history.take(at(1.0))
    assert device.history.page(1)["total"] == 4


def test_it_outlives_the_daemon_and_the_oldest_makes_room(device: Device) -> None:
    device.live(SLOTS + 25)
    device.history.write()
    size = device.path.stat().st_size
    device.start()
    assert device.history.page(1)["total"] == SLOTS
    assert device.celsius(2)[0] == 25
    device.live(SLOTS)
    assert device.path.stat().st_size == size
    assert device.celsius(1) == list(range(SLOTS - ROWS_OF_A_PAGE, SLOTS))


def test_a_card_is_written_to_once_in_ten_minutes(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    write = os.pwrite

    def counted(file: int, data: bytes, offset: int) -> int:
        writes.append(len(data))
        return write(file, data, offset)

    monkeypatch.setattr(os, "pwrite", counted)
    device.live(10 * BATCH)
    assert len(writes) == 1 + 10  # the head, and a batch each
    assert sum(writes) < 4096 + 10 * 4096


def test_a_batch_across_the_rings_end(device: Device) -> None:
    device.live(SLOTS - 3)
    device.history.write()
    device.live(BATCH, first=1000)
    device.start()
    assert device.celsius(1)[-BATCH:] == list(range(1000, 1000 + BATCH))


@pytest.mark.parametrize("damage", ["torn", "flipped", "zeroed"])
def test_what_a_loss_of_power_has_torn_is_left_out(device: Device, damage: str) -> None:
    device.live(3 * BATCH)
    data = bytearray(device.path.read_bytes())
    slot = module._SLOT_BYTES
    start = module._HEAD_BYTES + 15 * slot
    if damage == "torn":
        del data[start + 100 :]
        lost = set(range(14, 30))
    elif damage == "flipped":
        data[start + 40] ^= 4
        lost = {14}
    else:
        data[start : start + slot] = bytes(slot)
        lost = {14}
    device.path.write_bytes(data)
    device.start()
    assert device.celsius() == [minute for minute in range(30) if minute not in lost]
    device.live(BATCH, first=100)
    assert device.celsius()[-BATCH:] == list(range(100, 100 + BATCH))


@pytest.mark.parametrize("content", [b"", b"no history", bytes(1 << 16)])
def test_a_file_of_another_form_is_begun_anew(device: Device, content: bytes) -> None:
    device.path.write_bytes(content)
    device.start()
    assert device.history.page(1)["total"] == 0
    device.live(BATCH)
    device.start()
    assert device.history.page(1)["total"] == BATCH


def test_another_length_begins_anew(device: Device) -> None:
    device.live(BATCH)
    device.start(hours=3)
    assert device.history.page(1)["total"] == 0


def test_a_full_card_is_told_once_and_written_to_when_it_can_be(
    device: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as fault:
        fault.setattr(os, "pwrite", full)
        device.live(3 * BATCH)
    assert device.history.page(1)["total"] == 3 * BATCH
    device.history.write()
    device.start()
    assert device.history.page(1)["total"] == 3 * BATCH


def test_what_was_taken_before_the_clock_was_set_is_right_afterwards(device: Device) -> None:
    device.synchronised, device.wall = False, 1_000.0
    device.live(2)
    assert [row[:2] for row in device.history.page(1)["rows"]] == [[1000.0, False], [1060.0, False]]
    device.synchronised, device.wall = True, 1_800_000_000.0
    times = [row[:2] for row in device.history.page(1)["rows"]]
    assert times == [[1_800_000_000.0 - 120, True], [1_800_000_000.0 - 60, True]]


def test_what_an_earlier_boot_took_at_a_wrong_time_is_marked(device: Device) -> None:
    device.synchronised, device.wall = False, 1_000.0
    device.live(2)
    device.history.write()
    device.synchronised, device.wall = True, 1_800_000_000.0
    device.boot()
    device.live(1)
    assert [row[:2] for row in device.history.page(1)["rows"]] == [
        [1000.0, False],
        [1060.0, False],
        [1_800_000_000.0, True],
    ]
