"""doctor's checks of the machine, on made-up ones: a stock Raspberry Pi OS, a container, odd files."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edged.cli.checks import Check
from edged.cli.checks_files import file_checks
from edged.cli.checks_heat import heat_checks
from edged.cli.checks_kernel import kernel_checks
from edged.cli.checks_processor import processor_checks

PID = 812
GROUP = "sys/fs/cgroup/system.slice/edged.service"
MEMINFO = "MemTotal:  4000000 kB\nMemFree: 100000 kB\nMemAvailable: 3000000 kB\nSwapTotal: 0 kB\n"
STALLS = "some avg10=0.00 avg60={:.2f} avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"

SOUND = {
    "proc/meminfo": MEMINFO,
    f"proc/{PID}/cgroup": "0::/system.slice/edged.service\n",
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n",
    f"{GROUP}/memory.current": "300000000\n",
    f"{GROUP}/memory.max": "max\n",
    f"{GROUP}/memory.stat": "anon 200000000\ninactive_file 100000000\n",
    f"{GROUP}/memory.events": "high 0\noom_kill 0\n",
    "proc/pressure/memory": STALLS.format(0.5),
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "54230\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "0\n",
}

STOCK_PI = {
    **SOUND,
    "sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n",
    **dict.fromkeys(
        (f"{GROUP}/memory.{n}" for n in ("current", "max", "stat", "events")),
    ),
    "proc/pressure/memory": None,
    "proc/cmdline": "console=tty1 cgroup_disable=memory root=/dev/mmcblk0p2\n",
    "boot/firmware/cmdline.txt": "console=tty1 root=/dev/mmcblk0p2\n",
}

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that writes files below a root; None stands for a file that is not there."""

    def make_tree(files: dict[str, str | None]) -> Path:
        for name, text in files.items():
            if text is not None:
                path = tmp_path / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        return tmp_path

    return make_tree


def judge(root: Path) -> dict[str, Check]:
    """Return what is found by its name; all that is not ok has a remedy."""
    found = [*kernel_checks(root, PID), *heat_checks(root)]
    assert all(check.remedy for check in found if check.state != "ok")
    return {check.name: check for check in found}


def test_a_sound_machine(make: Make) -> None:
    assert [(check.name, check.state, check.says) for check in judge(make(SOUND)).values()] == [
        ("memory", "ok", "3.07 GB of 4.10 GB available, no swap"),
        ("cgroup", "ok", "200.0 MB in use, no limit"),
        ("psi", "ok", "in the last minute some program waited for memory 0.5 % of the time"),
        ("heat", "ok", "the processor has 54.2 °C; edged keeps it below 75 °C by default"),
    ]


def test_stock_raspberry_pi_os_is_told_the_line_for_cmdline_txt(make: Make) -> None:
    found = judge(make(STOCK_PI))

    assert found["cgroup"].state == found["psi"].state == "warn"
    assert found["cgroup"].remedy == (
        "sudo sed -i '1s/$/ cgroup_enable=memory/' /boot/firmware/cmdline.txt, then reboot"
    )
    assert found["psi"].remedy == "sudo sed -i '1s/$/ psi=1/' /boot/firmware/cmdline.txt, then reboot"


def test_older_raspberry_pi_os_has_the_line_elsewhere(make: Make) -> None:
    found = judge(make({**STOCK_PI, "boot/firmware/cmdline.txt": None, "boot/cmdline.txt": "console=tty1\n"}))

    assert "/boot/cmdline.txt" in found["cgroup"].remedy


def test_in_a_container_the_host_decides(make: Make) -> None:
    found = judge(make({**STOCK_PI, ".dockerenv": ""}))

    assert found["psi"].remedy == "this is a container: its host's kernel must be started with psi=1"


def test_a_container_is_the_root_of_its_groups(make: Make) -> None:
    root = make({**SOUND, f"proc/{PID}/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "536870912\n"})
    assert judge(root)["cgroup"].says == "the daemon runs in the root group, which has no limit"

    (root / "sys/fs/cgroup/memory.current").write_text("520000000\n")
    found = judge(root)["cgroup"]
    assert (found.state, found.says) == ("warn", "520.0 MB in use, limit 536.9 MB")
    assert "MemoryMax" in found.remedy


def test_processes_that_were_killed_are_told(make: Make) -> None:
    found = judge(make({**SOUND, f"{GROUP}/memory.events": "oom_kill 2\n"}))["cgroup"]

    assert (found.state, found.says.split("; ")[1]) == ("warn", "2 processes were killed for want of memory")


def test_groups_of_version_1(make: Make) -> None:
    lines = "4:memory:/system.slice\n1:cpu:/\n0::/system.slice/edged.service\n"

    found = judge(make({**SOUND, f"proc/{PID}/cgroup": lines}))["cgroup"]

    assert (found.state, "version 1" in found.says) == ("warn", True)
    assert "systemd.unified_cgroup_hierarchy=1" in found.remedy


def test_memory_that_is_not_counted_for_the_unit(make: Make) -> None:
    found = judge(make({**SOUND, f"{GROUP}/memory.current": None}))["cgroup"]

    assert (found.state, "MemoryAccounting=yes" in found.remedy) == ("warn", True)


def test_little_memory_and_zram(make: Make) -> None:
    meminfo = "MemTotal: 1000000 kB\nMemAvailable: 50000 kB\nSwapTotal: 500000 kB\nSwapFree: 100000 kB\n"
    swaps = "Filename Type Size Used Priority\n/dev/zram0 partition 500000 400000 100\n"

    found = judge(make({**SOUND, "proc/meminfo": meminfo, "proc/swaps": swaps}))["memory"]

    assert found.state == "warn"
    assert found.says == (
        "51.2 MB of 1.02 GB available, 102.4 MB of 512.0 MB swap free on zram, which is memory itself"
    )


def test_programs_that_wait_for_memory(make: Make) -> None:
    assert judge(make({**SOUND, "proc/pressure/memory": STALLS.format(25)}))["psi"].state == "warn"


def test_pressure_that_is_not_supported(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make({**SOUND, "proc/cmdline": "quiet psi=1\n"})
    read = Path.read_text

    def refuse(path: Path, *args: Any, **options: Any) -> str:
        if path.match("proc/pressure/*"):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return read(path, *args, **options)

    monkeypatch.setattr(Path, "read_text", refuse)

    assert "psi=1" in judge(root)["psi"].remedy


def test_a_kernel_without_pressure(make: Make) -> None:
    root = make({**SOUND, "proc/pressure/memory": None, "proc/cmdline": "quiet psi=1\n"})

    assert judge(root)["psi"].remedy == "another kernel: this one has no CONFIG_PSI"


def test_heat(make: Make) -> None:
    zone = "sys/class/thermal/thermal_zone1"
    found = judge(make({**SOUND, f"{zone}/type": "soc-thermal\n", f"{zone}/temp": "83100\n"}))["heat"]

    assert found.state == "warn"
    assert found.says.startswith("the processor has 83.1 °C")


@pytest.mark.parametrize(
    ("bits", "says"),
    [
        ("50005", ["under-voltage now, says the firmware", "throttled now, says the firmware"]),
        ("10000", ["under-voltage at some time since the boot, says the firmware"]),
        ("0", []),
        ("garbage", []),
    ],
)
def test_what_the_firmware_tells_of_power(make: Make, bits: str, says: list[str]) -> None:
    root = make({**SOUND, "sys/devices/platform/soc/soc:firmware/get_throttled": f"{bits}\n"})

    found = [check for check in heat_checks(root) if check.name == "power"]

    assert [check.says for check in found] == says


def test_other_chips_where_there_are_no_zones(make: Make) -> None:
    chips = "sys/class/hwmon"
    files = {
        f"{chips}/hwmon0/name": "rpi_volt\n",
        f"{chips}/hwmon0/in0_lcrit_alarm": "1\n",
        f"{chips}/hwmon1/name": "k10temp\n",
        f"{chips}/hwmon1/temp1_input": "41250\n",
        f"{chips}/hwmon1/temp2_input": "-273150\n",
    }

    assert [(check.name, check.says) for check in heat_checks(make(files))] == [
        ("power", "under-voltage now, says the firmware"),
        ("heat", "the processor has 41.2 °C; edged keeps it below 75 °C by default"),
    ]


def test_garbage_breaks_nothing(make: Make) -> None:
    root = make(dict.fromkeys(SOUND, "\x00garbage 12x\n::\n"))

    assert {check.state for check in judge(root).values()} <= {"ok", "warn"}


def test_nothing_at_all_breaks_nothing(tmp_path: Path) -> None:
    assert {check.state for check in judge(tmp_path).values()} <= {"ok", "warn"}
    assert [check.state for check in processor_checks(tmp_path, None)] == ["warn"]


# --- the processor ---


def processor(make: Make, machine: str, flags: str, *kernels: str) -> list[tuple[str, str]]:
    line = "Features" if machine == "aarch64" else "flags"
    root = make({"proc/cpuinfo": f"processor: 0\n{line}\t: {flags}\n"})
    engine = {"kernels": list(kernels), "repack": True} if kernels else None
    found = list(processor_checks(root, engine, machine))
    assert all(check.remedy for check in found if check.state != "ok")
    return [(check.state, check.says) for check in found]


def test_kernels_that_use_what_there_is(make: Make) -> None:
    assert processor(make, "x86_64", "fpu avx avx2 fma f16c", "AVX", "AVX2", "FMA", "F16C", "OPENMP") == [
        ("ok", "x86_64, AVX, AVX2, F16C, FMA"),
        ("ok", "AVX, AVX2, F16C, FMA; weights repacked"),
    ]


def test_kernels_of_one_of_several_builds_are_told_with_its_name(make: Make) -> None:
    root = make({"proc/cpuinfo": "processor: 0\nFeatures\t: asimd asimddp\n"})
    engine = {"kernels": ["NEON", "DOTPROD"], "kernel_build": "armv8.2_1", "repack": True}
    assert [check.says for check in processor_checks(root, engine, "aarch64")][1:] == [
        "build armv8.2_1, NEON, DOTPROD; weights repacked"
    ]


def test_kernels_that_leave_speed_lying(make: Make) -> None:
    found = processor(make, "aarch64", "fp asimd asimdhp asimddp", "NEON")

    assert found[1] == (
        "warn",
        "the library was built without DOTPROD, which this processor has: it is slow",
    )


def test_kernels_that_could_use_still_more(make: Make) -> None:
    flags = "asimd asimdhp asimddp i8mm"

    [_, (state, says)] = processor(make, "aarch64", flags, "NEON", "FP16_VA", "DOTPROD")

    assert (state, says.split("; ")[2]) == ("ok", "the library was not built for MATMUL_INT8")


def test_kernels_for_another_processor(make: Make) -> None:
    [_, (state, says)] = processor(make, "x86_64", "avx", "AVX", "AVX2")

    assert (state, "AVX2, which this processor has not" in says) == ("fail", True)


def test_a_raspberry_pi_4_is_told_what_it_lacks(make: Make) -> None:
    assert "without DOTPROD" in processor(make, "aarch64", "fp asimd crc32")[0][1]


# --- files ---


def files(model: Path | None, size_bytes: int, state_dir: Path) -> dict[str, Check]:
    told = {"file": str(model), "size_bytes": size_bytes} if model else None
    found = list(file_checks({"model": told}, None, state_dir))
    assert all(check.remedy for check in found if check.state != "ok")
    return {check.name: check for check in found}


def test_a_model_file_that_was_changed_or_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    assert files(path, 4, tmp_path)["file"].state == "ok"
    assert files(path, 5_000_000, tmp_path)["file"].says.endswith("had 5.0 MB when it was loaded")
    path.unlink()
    assert "is not there any more" in files(path, 4, tmp_path)["file"].says


def test_a_model_file_that_only_the_daemon_can_not_reach(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    status = {"model": None, "reason": f"there is no file {path}; check model.path, or leave it out"}
    assert [check.name for check in file_checks(status, path, tmp_path)] == ["disk"], "nobody can"
    path.write_bytes(b"GGUF")
    found = next(file_checks(status, path, tmp_path))
    assert (found.name, found.state) == ("file", "fail")
    assert found.remedy == f'edgectl model import {path}, then model.path = "{tmp_path}/models/m.gguf"'
    status["reason"] = "the engine died"
    assert [check.name for check in file_checks(status, path, tmp_path)] == ["disk"]


@pytest.mark.parametrize(
    ("free", "flag", "state"),
    [
        (10**9, 0, "ok"),
        (100 * 10**6, 0, "warn"),
        (10**6, 0, "fail"),
        (10**9, os.ST_RDONLY, "fail"),
    ],
)
def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, flag: int, state: str) -> None:
    disk = SimpleNamespace(
        f_bavail=free, f_frsize=1, f_blocks=2 * 10**9, f_flag=flag, f_files=1000, f_favail=500
    )
    monkeypatch.setattr(os, "statvfs", lambda path: disk)

    assert files(None, 0, tmp_path / "not" / "there")["disk"].state == state
