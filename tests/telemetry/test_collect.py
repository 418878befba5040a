"""The snapshot tells what the kernel shows on made-up devices, and nothing where it shows nothing."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import get_args

import psutil
import pytest

from edged.core import Core
from edged.frontends.mqtt.link import State as LinkState
from edged.telemetry import device
from edged.telemetry import snapshot as model
from edged.telemetry.collect import Collector
from edged.telemetry.describe import leaves
from edged.telemetry.device import EnergyMeter
from edged.telemetry.fields import flat, nested
from edged.telemetry.snapshot import Snapshot
from edged.watch.memory.bounds import Level
from edged.watch.memory.policy import MemoryState
from edged.watch.memory.sensors import MemorySensors
from edged.watch.thermal.governor import Decision
from edged.watch.thermal.reading import ThermalReading
from tests.core.conftest import ALICE, ask
from tests.telemetry.conftest import FakeHeat, FakeMemory, MakeSnapshot
from tests.watch.memory.trees import ENGINE, FULL, PID, STOCK_PI, lay, meminfo
from tests.watch.thermal.trees import FLAGS, PI4, PI5, zone


def test_without_any_sensor_what_is_not_known_is_null(snapshot: Snapshot) -> None:
    thermal = nested(snapshot.thermal)
    assert thermal.pop("zone_celsius") == {}
    assert [thermal.pop(name) for name in ("target_celsius", "duty_ratio", "threads")] == [75.0, 1.0, 2]
    assert set(thermal.values()) == {None}
    assert set(nested(snapshot.power).values()) == {None}
    memory = nested(snapshot.memory)
    assert (memory.pop("kv_cells"), memory.pop("kv_cells_used")) == (100, 0)
    assert set(memory.values()) == {None}
    assert snapshot.versions.board is None
    assert (snapshot.mqtt, snapshot.watch.memory_level, snapshot.watch.thermal_state) == (
        None,
        None,
        "unmeasured",
    )


def test_every_field_that_may_not_be_null_is_there(snapshot: Snapshot) -> None:
    tree = nested(snapshot)
    for leaf in leaves():
        if leaf.path[0] == "mqtt" or leaf.optional:
            continue
        value = tree
        for name in leaf.path:
            value = value[name]
        assert value is not None, leaf.name


def test_it_is_json_and_nothing_else(snapshot: Snapshot) -> None:
    tree = nested(snapshot)
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree


def test_a_pi_tells_all_of_its_flags(make_snapshot: MakeSnapshot) -> None:
    told = make_snapshot(PI4, STOCK_PI)
    assert told.versions.board == "Raspberry Pi 4 Model B Rev 1.4"
    thermal, power = told.thermal, told.power
    assert thermal.celsius == 52.583
    assert thermal.processor_hertz == 1_500_000_000
    # 0x50005: under-voltage and throttled, now and since the boot.
    assert (power.under_voltage, power.under_voltage_since_boot) == (True, True)
    assert (thermal.throttled, thermal.throttled_since_boot) == (True, True)
    assert (thermal.capped, thermal.capped_since_boot) == (False, False)
    assert (thermal.soft_limit, thermal.soft_limit_since_boot) == (False, False)


def test_flags_that_are_over_stand_as_since_boot(make_snapshot: MakeSnapshot) -> None:
    told = make_snapshot(PI4, {FLAGS: "e0000\n"})
    thermal = told.thermal
    assert (thermal.throttled, thermal.capped, thermal.soft_limit) == (False, False, False)
    assert (thermal.throttled_since_boot, thermal.capped_since_boot) == (True, True)
    assert thermal.soft_limit_since_boot is True
    assert (told.power.under_voltage, told.power.under_voltage_since_boot) == (False, False)


def test_a_fan_and_what_is_not_throttled_is_said_so(make_snapshot: MakeSnapshot) -> None:
    thermal = make_snapshot(PI5).thermal
    assert (thermal.fan_rpm, thermal.throttled, thermal.throttled_since_boot) == (3200, False, False)


def test_ten_thermal_zones_are_all_told_in_the_kernels_order(make_snapshot: MakeSnapshot) -> None:
    kinds = ["x86_pkg_temp", *["acpitz"] * 4, "nvme", "", "wifi", "gpu-thermal", "battery"]
    trees = [zone(number, kind, 30_000 + 1000 * number) for number, kind in enumerate(kinds)]
    told = make_snapshot(*trees).thermal
    assert list(told.zone_celsius.items()) == [
        ("x86_pkg_temp", 30.0),
        ("acpitz", 31.0),
        ("acpitz-2", 32.0),
        ("acpitz-3", 33.0),
        ("acpitz-4", 34.0),
        ("nvme", 35.0),
        ("thermal_zone6", 36.0),
        ("wifi", 37.0),
        ("gpu-thermal", 38.0),
        ("battery", 39.0),
    ]
    assert told.celsius == 30.0


@pytest.mark.parametrize("garbage", ["", "-", "none\n", "1e3\n", "٣\n"])
def test_a_zone_that_says_nonsense_is_left_out(make_snapshot: MakeSnapshot, garbage: str) -> None:
    told = make_snapshot(zone(0, "cpu", garbage), zone(1, "frost", -5000)).thermal
    assert told.zone_celsius == {"frost": -5.0}


def test_memory_of_machine_group_pressure_and_engine(make_snapshot: MakeSnapshot) -> None:
    told = make_snapshot(meminfo(3_884_000, 3_100_000), FULL, ENGINE, engine_pid=PID).memory
    assert (told.size_bytes, told.available_bytes) == (3_884_000 * 1024, 3_100_000 * 1024)
    assert (told.pressure_some_ratio, told.pressure_full_ratio) == (0.125, 0.0325)
    assert (told.group_bytes, told.group_limit_bytes) == (524_288_000, 838_860_800)
    assert told.group_oom_kills_total == 1
    assert (told.engine_bytes, told.engine_mapped_bytes) == (90_000 * 1024, 88_000 * 1024)


def test_levels_and_what_is_governed(core: Core, tmp_path: Path) -> None:
    root = lay(tmp_path / "root", meminfo(1000, 500))
    memory = FakeMemory(MemoryState(level=Level.SHED, reading=MemorySensors(root).read()), 7)
    heat = FakeHeat(
        ThermalReading(celsius=81.0, watts=6.5), Decision(2, 4, 0.5, state="governing", fault="stuck"), 75.0
    )
    told = Collector(core, memory=memory, thermal=heat, alarms=lambda: ("low_memory",), root=root).snapshot()
    assert (told.watch.memory_level, told.watch.thermal_state) == ("shed", "governing")
    assert (told.watch.thermometer_fault, told.watch.alarms) == ("stuck", ("low_memory",))
    assert (told.thermal.duty_ratio, told.thermal.threads, told.thermal.target_celsius) == (0.5, 2, 75.0)
    assert (told.power.watts, told.memory.engine_proportional_bytes) == (6.5, 7)


async def test_requests_and_cells_in_use(core: Core, make_snapshot: MakeSnapshot) -> None:
    engine = core.engine
    ticket = (await core.submit(ask("three short words"), ALICE)).ticket
    waits = (await core.submit(ask(), ALICE)).ticket
    ticket.on_reading(3, 0)
    engine.say("one")  # type: ignore[attr-defined]
    told = make_snapshot()
    assert (told.inference.requests.running, told.inference.requests.queued) == (1, 1)
    assert (told.inference.answer_tokens_total, told.memory.kv_cells_used) == (1, 4)
    engine.answer()  # type: ignore[attr-defined]
    waits.cancel()
    told = make_snapshot()
    assert (told.inference.requests.done_total, told.inference.requests.cancelled_total) == (1, 1)
    assert (told.inference.answer_tokens_total, told.memory.kv_cells_used) == (2, 0)
    assert told.inference.first_token_seconds.count == 1


def test_the_machine_is_looked_at(snapshot: Snapshot) -> None:
    told = snapshot.device
    assert told.uptime_seconds is not None and told.uptime_seconds > 0
    assert told.disk_size_bytes is not None and told.disk_free_bytes is not None
    assert 0 < told.disk_free_bytes <= told.disk_size_bytes


def test_what_the_system_refuses_is_null(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no /proc")

    monkeypatch.setattr(os, "getloadavg", refuse)
    monkeypatch.setattr(psutil, "net_io_counters", refuse)
    told = device.device(tmp_path / "gone")
    assert nested(replace(told, uptime_seconds=None)) == dict.fromkeys(nested(told))


# Energy

METER = "sys/class/powercap/intel-rapl:0"


def test_energy_is_read_from_the_processors_meter_across_its_turn(tmp_path: Path) -> None:
    lay(tmp_path, {f"{METER}/energy_uj": "9000000\n", f"{METER}/max_energy_range_uj": "10000000\n"})
    meter = EnergyMeter(tmp_path)
    assert meter.joules(None) == 0.0
    lay(tmp_path, {f"{METER}/energy_uj": "1500000\n"})
    assert meter.joules(None) == 2.5
    (tmp_path / METER / "energy_uj").unlink()
    assert meter.joules(99.0) == 2.5


def test_energy_is_reckoned_from_watts_where_there_is_no_meter(tmp_path: Path) -> None:
    now = 0.0
    meter = EnergyMeter(tmp_path, clock=lambda: now)
    assert meter.joules(None) is None
    assert meter.joules(4.0) == 0.0
    now = 10.0
    assert meter.joules(6.0) == 50.0
    now = 10_000.0  # nobody knows what it took in between
    assert meter.joules(6.0) == 50.0


# Words


def test_the_words_are_those_of_the_parts_that_say_them() -> None:
    assert set(get_args(model.LinkState)) == set(get_args(LinkState))
    assert get_args(model.MemoryLevel) == tuple(level.label for level in Level)


def test_flat_joins_names_and_leaves_buckets_out(snapshot: Snapshot) -> None:
    told = flat(snapshot.inference)
    assert (told["requests_queued"], told["first_token_seconds_count"]) == (0, 0)
    assert told["first_token_seconds_p95"] is None
    assert all(value is None or isinstance(value, int | float | str) for value in told.values())
    assert not [name for name in told if "buckets" in name]
    thermal = replace(snapshot.thermal, zone_celsius={"cpu-thermal": 40.0})
    assert flat(thermal)["zone_celsius_cpu-thermal"] == 40.0
