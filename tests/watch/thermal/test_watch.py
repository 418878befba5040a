from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edged.settings.watch import ThermalTable
from edged.watch.thermal.sensors import ThermalSensors
from edged.watch.thermal.watch import RETRY_SECONDS, EngineFacts, ThermalWatch
from tests.watch.memory.trees import lay
from tests.watch.thermal.trees import FLAGS, PI4, ZONE


class Device:
    """Made-up files, a clock, and what the watch has had done."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = lay(root, PI4, {FLAGS: "0\n", f"{ZONE}/temp": "45000\n"})
        self.now = 1000.0
        self.worked: float | None = 0.0
        self.load = 1.0
        self.tuned: list[tuple[int, int, float]] = []
        self.refused: list[str | None] = []
        self.speeds: tuple[float, ...] = (1.0, 2.0, 3.2, 4.8)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.watch = ThermalWatch(
            ThermalTable(**settings),
            ThermalSensors(root),
            self,
            lambda: EngineFacts(self.worked, self.speeds, 4),
            clock=lambda: self.now,
        )

    def tune(self, threads: int, threads_batch: int, duty: float) -> None:
        self.tuned.append((threads, threads_batch, duty))

    def refuse(self, reason: str | None, retry_after_s: float) -> None:
        assert retry_after_s == RETRY_SECONDS
        self.refused.append(reason)

    def tell(self, type: str, data: Mapping[str, Any]) -> None:
        self.told.append((type, dict(data)))

    def say(self, millidegrees: int | None) -> None:
        path = self.root / ZONE / "temp"
        if millidegrees is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(f"{millidegrees}\n")

    def run(self, seconds: int, celsius: float | None, every: int = 1) -> None:
        """Let time pass at a temperature that flickers, with the engine at work."""
        for second in range(0, seconds, every):
            self.say(round(celsius * 1000) + 487 * (second % 2) if celsius is not None else None)
            self.watch.look()
            self.now += every
            decision = self.watch.decision
            self.worked = (self.worked or 0.0) + self.load * decision.duty * decision.threads * every

    def warm(self, celsius: int) -> None:
        """Warm from 45 degrees as a chip does."""
        for degrees in range(45, celsius, 3):
            self.run(1, degrees)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    yield Device(tmp_path)


def test_what_is_cool_is_left_alone(device: Device) -> None:
    device.run(60, 45.0)
    assert device.tuned == []
    assert device.told == []


def test_what_is_hot_rests_and_the_engine_hears_of_it(device: Device) -> None:
    device.warm(76)
    device.run(30, 76.0)
    assert device.tuned[-1][2] < 0.5
    type, told = device.told[-1]
    assert (type, told["state"], told["target_celsius"]) == ("thermal", "governing", 75.0)
    assert told["celsius"] < 76.5 and told["duty"] < 1.0
    device.run(200, 45.0)
    assert device.tuned[-1] == (4, 4, 1.0), "the end of it is always told"


def test_small_changes_are_kept_from_the_engine(device: Device) -> None:
    device.warm(74)
    device.run(60, 74.0)
    told = [duty for *_, duty in device.tuned]
    assert len(told) < 50
    assert all(abs(a - b) >= 0.02 or 1.0 in (a, b) for a, b in pairwise(told))


def test_refusals_are_given_out_and_taken_back(device: Device) -> None:
    device.warm(81)
    device.run(60, 81.0)
    assert device.refused == ["81.0 °C, the target is 75 °C: 4 of 4 threads, 3% of the time"]
    assert device.told[-1][1]["state"] == "too_hot"
    device.run(30, 70.0)
    assert device.refused[1:] == [None]


def test_a_lost_thermometer_is_an_alarm(device: Device) -> None:
    device.run(10, 45.0)
    device.run(6, None)
    assert [data["fault"] for type, data in device.told if type == "thermometer"] == ["vanished"]
    assert device.tuned[-1][2] < 0.5
    device.run(40, 45.0)
    assert [data["fault"] for type, data in device.told if type == "thermometer"] == ["vanished", None]
    assert device.tuned[-1][2] == 1.0


def test_a_target_of_the_operator_s(tmp_path: Path) -> None:
    device = Device(tmp_path, target_celsius=50.0)
    device.run(60, 55.0)
    assert device.watch.target == 50.0
    assert device.tuned[-1][2] < 0.2


def test_a_budget_bounds_the_mean_of_the_work(tmp_path: Path) -> None:
    device = Device(tmp_path, most_duty=0.25)
    device.run(60, 45.0)
    assert device.tuned == [], "short work is not slowed"
    device.run(1200, 45.0, every=5)
    device.worked = 0.0
    device.run(1200, 45.0, every=5)
    assert device.worked / 1200 / 4 == pytest.approx(0.25, rel=0.05)


def test_rest_fills_the_account_again(tmp_path: Path) -> None:
    device = Device(tmp_path, most_duty=0.25)
    device.run(1500, 45.0, every=5)
    assert device.watch.decision.duty < 0.5
    device.load = 0.0
    device.run(600, 45.0, every=5)
    assert device.watch.decision.duty == 1.0


def test_measured_power_goes_before_reckoned(tmp_path: Path) -> None:
    device = Device(tmp_path, mean_watts=4.0, rest_watts=3.0, full_watts=8.0)
    meter = tmp_path / "sys/class/hwmon/hwmon7"
    lay(
        tmp_path,
        {
            f"{meter.relative_to(tmp_path)}/name": "ina219\n",
            f"{meter.relative_to(tmp_path)}/power1_input": "3000000\n",
        },
    )
    device.run(1800, 45.0, every=5)
    assert device.watch.reading.watts == 3.0
    assert device.watch.decision.duty == 1.0


def test_under_voltage_is_seen(device: Device) -> None:
    device.run(10, 45.0)
    lay(device.root, {FLAGS: "50005\n"})
    device.run(5, 45.0)
    assert device.tuned[-1][:2] == (2, 2)


def test_garbage_does_not_stop_it(device: Device) -> None:
    device.run(10, 45.0)
    for garbage in ("", "nonsense", "99999999"):
        (device.root / ZONE / "temp").write_text(garbage)
        (device.root / FLAGS).write_text(garbage)
        device.watch.look()
        device.now += 5.0
    assert device.watch.decision.fault == "vanished"


def test_without_an_engine_a_temperature_may_stay_the_same(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.worked = None
    for _ in range(300):
        device.say(45000)
        device.watch.look()
        device.now += 1.0
    assert device.watch.decision.fault is None


def test_what_the_firmware_says_is_told_when_it_begins_and_when_it_ends(device: Device) -> None:
    for flags in ("0", "50005", "50005", "0"):
        lay(device.root, {FLAGS: f"{flags}\n"})
        device.run(6, 45.0)
    told = [(type, data["now"]) for type, data in device.told if type in ("undervoltage", "throttled")]
    both_ways = [(type, now) for now in (True, False) for type in ("undervoltage", "throttled")]
    assert told == both_ways


def test_the_status_says_what_is_held_back_and_why(device: Device) -> None:
    device.run(5, 45.0)
    assert device.watch.fields()["state"] == "cool"
    assert device.watch.fields()["reason"] is None
    device.warm(76)
    device.run(30, 76.0)
    fields = device.watch.fields()
    assert (fields["state"], fields["celsius"], fields["target_celsius"]) == ("governing", 76.487, 75.0)
    share = f"{fields['duty']:.0%}"
    assert fields["reason"] == f"76.5 °C, the target is 75 °C: 4 of 4 threads, {share} of the time"


def test_who_measures_the_engine_is_heard(device: Device) -> None:
    """A model that decodes as fast with one thread needs no more of them to be as fast in the heat."""
    device.speeds = (1.0,)
    device.run(5, 45.0)
    assert device.watch.decision.threads == 1
    device.speeds = (1.0, 1.0)
    device.run(5, 45.0)
    assert device.watch.decision.threads == 2, "as many as are configured while nothing is held back"
    device.warm(76)
    device.run(90, 76.0)
    assert device.watch.decision.threads == 1


def test_an_engine_that_keeps_its_threads_rests_all_the_more(device: Device) -> None:
    device.speeds = (0.0, 0.0, 0.0, 1.0)
    device.warm(76)
    device.run(90, 76.0)
    assert {threads for threads, *_ in device.tuned} == {4}
    lay(device.root, {FLAGS: "50005\n"})
    device.run(5, 76.0)
    assert device.watch.decision.threads < 4, "but for want of voltage"
