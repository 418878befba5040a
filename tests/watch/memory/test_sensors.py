"""What the sensors make of what kernels show, on made-up trees; nothing may make them raise."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edged.watch.memory.live import remedy, sources
from edged.watch.memory.reading import EngineMemory, Group, Machine, Pressure, Zram
from edged.watch.memory.sensors import SLOW_SECONDS, MemorySensors
from tests.watch.memory.trees import (
    CONTAINER,
    ENGINE,
    FULL,
    GROUP,
    PID,
    PSI,
    STOCK_PI,
    VERSION_1,
    ZRAM_PI,
    lay,
    meminfo,
)


def test_a_stock_pi_is_watched_by_meminfo_alone(tmp_path: Path) -> None:
    reading = MemorySensors(lay(tmp_path, STOCK_PI)).read()
    assert reading is not None
    assert reading.machine == Machine(
        3_884_000 * 1024, 3_100_000 * 1024, swap_free=204_796 * 1024, disk_swap_free=204_796 * 1024
    )
    assert (reading.group, reading.machine_pressure, reading.group_pressure, reading.zram) == (None,) * 4


def test_a_stock_pi_is_told_what_to_append_to_its_command_line(tmp_path: Path) -> None:
    found = sources(lay(tmp_path, STOCK_PI))
    assert {one.name: one.live for one in found} == {
        "meminfo": True,
        "pressure": False,
        "cgroup": False,
        "cgroup pressure": False,
        "zram": False,
    }
    line = remedy(found, tmp_path)
    assert line == (
        "append to the one line of /boot/firmware/cmdline.txt, and reboot: psi=1 cgroup_enable=memory"
    )


def test_where_all_is_live_nothing_is_to_be_done(tmp_path: Path) -> None:
    found = sources(lay(tmp_path, ZRAM_PI, FULL))
    assert all(one.live for one in found)
    assert remedy(found, tmp_path) is None


def test_swap_in_compressed_memory_is_no_memory(tmp_path: Path) -> None:
    reading = MemorySensors(lay(tmp_path, ZRAM_PI)).read()
    assert reading is not None
    assert (reading.machine.swap_free, reading.machine.disk_swap_free) == (2_000_000 * 1024, 0)
    assert reading.zram == Zram(stored=99_467_264, used=33_554_432)


def test_of_two_swaps_the_one_on_a_disk_counts(tmp_path: Path) -> None:
    swaps = ZRAM_PI["proc/swaps"] + "/swap\\040file file 100000 40000 -2\n"
    reading = MemorySensors(lay(tmp_path, ZRAM_PI, {"proc/swaps": swaps})).read()
    assert reading is not None
    assert reading.machine.disk_swap_free == 60_000 * 1024


def test_swap_that_can_not_be_told_apart_counts_for_nothing(tmp_path: Path) -> None:
    reading = MemorySensors(lay(tmp_path, meminfo(900_000, 400_000, 100_000, 100_000))).read()
    assert reading is not None
    assert reading.machine.disk_swap_free == 0


def test_the_own_group_and_both_pressures_are_read(tmp_path: Path) -> None:
    reading = MemorySensors(lay(tmp_path, STOCK_PI, FULL)).read()
    assert reading is not None
    assert reading.group == Group(
        current=524_288_000,
        high=None,
        max=838_860_800,
        swap=1_048_576,
        limit=838_860_800,
        available=838_860_800 - (524_288_000 - 104_857_600 - 52_428_800),
        spare=838_860_800 - (524_288_000 - 104_857_600),
        oom_kills=1,
    )
    assert reading.machine_pressure == Pressure(12.5, 3.25)
    assert reading.group_pressure == Pressure(40.0, 20.0)


@pytest.mark.parametrize(
    ("files", "limit", "available"),
    [
        ({f"{GROUP}/memory.high": "629145600\n"}, 629_145_600, 209_715_200 + 52_428_800),
        (
            {
                "sys/fs/cgroup/system.slice/memory.max": "1000000000\n",
                "sys/fs/cgroup/system.slice/memory.current": "900000000\n",
            },
            1_000_000_000,
            100_000_000,
        ),
        ({f"{GROUP}/memory.max": "1000\n"}, 1000, 0),
    ],
    ids=["slowed down before killed", "limit of the group around", "over the limit"],
)
def test_the_limit_that_is_nearest_counts(
    tmp_path: Path, files: dict[str, str], limit: int, available: int
) -> None:
    group = MemorySensors(lay(tmp_path, STOCK_PI, FULL, files)).group.read()
    assert group is not None
    assert (group.limit, group.available) == (limit, available)


def test_a_container_has_its_limit_at_the_top(tmp_path: Path) -> None:
    reading = MemorySensors(lay(tmp_path, CONTAINER)).read()
    assert reading is not None
    assert reading.group is not None
    assert (reading.group.limit, reading.group.spare) == (536_870_912, 356_870_912)


def test_a_group_outside_what_is_mounted_is_none(tmp_path: Path) -> None:
    tree = {"proc/self/cgroup": "0::/../../elsewhere\n", "elsewhere/memory.current": "1\n"}
    assert MemorySensors(lay(tmp_path, STOCK_PI, tree)).group.directory is None


def test_version_1_is_told_and_not_used(tmp_path: Path) -> None:
    root = lay(tmp_path, meminfo(900_000, 400_000), VERSION_1)
    reading = MemorySensors(root).read()
    assert reading is not None
    assert reading.group is None
    [cgroup] = [one for one in sources(root) if one.name == "cgroup"]
    assert not cgroup.live
    assert "version 1, which is not used" in cgroup.says


def test_a_group_whose_memory_is_not_counted_is_told_from_a_kernel_that_can_not(tmp_path: Path) -> None:
    root = lay(tmp_path, STOCK_PI, {"sys/fs/cgroup/cgroup.controllers": "cpu memory pids\n"})
    [cgroup] = [one for one in sources(root) if one.name == "cgroup"]
    assert "MemoryAccounting=yes" in cgroup.says
    assert cgroup.parameter is None


def test_the_engine_is_read_by_its_pid(tmp_path: Path) -> None:
    sensors = MemorySensors(lay(tmp_path, STOCK_PI, ENGINE))
    reading = sensors.read(PID)
    assert reading is not None
    assert reading.engine == EngineMemory(
        PID, anonymous=90_000 * 1024, mapped=88_000 * 1024, swapped=512 * 1024, major_faults=321
    )
    assert reading.spare == (3_100_000 - 88_000) * 1024
    assert sensors.proportional_bytes(PID) == 150_000 * 1024


def test_an_engine_that_has_ended_has_no_memory(tmp_path: Path) -> None:
    zombie = {f"proc/{PID}/status": "Name:\tpython3\nState:\tZ (zombie)\n"}
    sensors = MemorySensors(lay(tmp_path, STOCK_PI, ENGINE, zombie))
    for pid in (PID, PID + 1):
        reading = sensors.read(pid)
        assert reading is not None
        assert reading.engine is None


def test_what_changes_slowly_is_read_seldom_and_what_is_left_each_time(tmp_path: Path) -> None:
    now = [0.0]
    root = lay(tmp_path, STOCK_PI, FULL)
    sensors = MemorySensors(root, clock=lambda: now[0])
    first = sensors.read()
    grown = {
        f"{GROUP}/memory.current": "624288000\n",
        "proc/pressure/memory": PSI.format(some="90", full="80"),
    }
    lay(
        root, meminfo(3_884_000, 100), grown, {"proc/pressure/memory": PSI.format(some="90.00", full="80.00")}
    )
    now[0] += SLOW_SECONDS / 2
    second = sensors.read()
    assert first is not None
    assert second is not None
    assert second.machine.available == 100 * 1024
    assert first.group is not None
    assert second.group is not None
    assert first.group.available is not None
    assert second.group.available == first.group.available - 100_000_000
    assert second.machine_pressure == first.machine_pressure
    now[0] += SLOW_SECONDS / 2
    third = sensors.read()
    assert third is not None
    assert third.machine_pressure == Pressure(90.0, 80.0)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EACCES, errno.EIO, errno.ENODEV])
def test_files_that_answer_with_an_error_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """So does a group's memory.pressure where PSI is off: it is there, and reading it fails."""
    root = lay(tmp_path, ZRAM_PI, FULL, ENGINE)
    read = os.read

    def refuse(file: int, size: int) -> bytes:
        if Path(f"/proc/self/fd/{file}").readlink().name not in ("meminfo", "cgroup"):
            raise OSError(number, os.strerror(number))
        return read(file, size)

    monkeypatch.setattr(os, "read", refuse)
    sensors = MemorySensors(root)
    reading = sensors.read(PID)
    assert reading is not None
    assert reading.machine.available == 3_100_000 * 1024
    others = (reading.group, reading.machine_pressure, reading.group_pressure, reading.engine, reading.zram)
    assert others == (None,) * 5
    assert sensors.proportional_bytes(PID) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MemTotal: 1000 kB\n",
        "MemTotal: 1000 kB\nMemAvailable: -5 kB\n",
        "MemTotal: 1000 kB\nMemAvailable: 2000 kB\n",
        "MemTotal: 0 kB\nMemAvailable: 0 kB\n",
        "MemTotal: 1_000 kB\nMemAvailable: 10 kB\n",
        f"MemTotal: {'9' * 5000} kB\nMemAvailable: 10 kB\n",
        "MemTotal: 1000 kB\nMemAvailable: nan kB\n",
        "MemTotal: ١٠٠٠ kB\nMemAvailable: 10 kB\n",
    ],
)
def test_a_meminfo_that_makes_no_sense_is_no_reading(tmp_path: Path, text: str) -> None:
    root = lay(tmp_path, FULL, {"proc/meminfo": text})
    assert MemorySensors(root).read() is None
    assert not sources(root)[0].live


NAMES = sorted({*ZRAM_PI, *FULL, *ENGINE})
GARBAGE = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [b"-1\n", b"max\n", b"1e9\n", b"9" * 30, b"some avg10=1000.00\n", b"some avg10=-1.00 x\n"]
    ),
    st.text(alphabet="some full avg10=.0123456789 kB:\nanRsoFile", max_size=60).map(str.encode),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spoilt=st.dictionaries(st.sampled_from(NAMES), GARBAGE, max_size=8))
def test_garbage_in_any_file_raises_nothing_and_spoils_nothing_else(
    tmp_path: Path, spoilt: dict[str, bytes]
) -> None:
    root = lay(tmp_path, ZRAM_PI, FULL, ENGINE)
    for name, content in spoilt.items():
        (root / name).write_bytes(content)
    sensors = MemorySensors(root)
    reading = sensors.read(PID)
    sensors.proportional_bytes(PID)
    remedy(sources(root), root)
    if "proc/meminfo" not in spoilt:
        assert reading is not None
        assert reading.machine.available == 3_100_000 * 1024
        assert 0 <= reading.machine.disk_swap_free <= reading.machine.swap_free
        if "proc/pressure/memory" not in spoilt:
            assert reading.machine_pressure == Pressure(12.5, 3.25)
        elif reading.machine_pressure:
            assert 0 <= reading.machine_pressure.full <= 100
        if reading.group and reading.group.available is not None:
            assert reading.group.available >= 0


def test_this_machine_can_be_read() -> None:
    reading = MemorySensors().read(os.getpid())
    assert reading is not None
    assert 0 < reading.machine.available <= reading.machine.total
    assert reading.engine is not None
    assert reading.engine.anonymous > 0
