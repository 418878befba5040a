from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edged.watch.thermal.reading import Flags, ThermalLimits, ThermalReading
from edged.watch.thermal.sensors import ThermalSensors, flags
from edged.watch.thermal.vcgencmd import Vcgencmd
from tests.watch.memory.trees import lay
from tests.watch.thermal.trees import FLAGS, FREQUENCY, PI3_PLUS, PI4, PI5, VOLTAGE, ZONE, model, zone


def without(tree: dict[str, str], *parts: str) -> dict[str, str]:
    return {name: text for name, text in tree.items() if not any(part in name for part in parts)}


def test_a_pi_4_with_a_weak_supply(tmp_path: Path) -> None:
    sensors = ThermalSensors(lay(tmp_path, PI4))
    seen = frozenset({"under_voltage", "throttled"})
    assert sensors.read() == ThermalReading(
        52.583, Flags(under_voltage=True, throttled=True, seen=seen), megahertz=1500.0
    )
    assert sensors.limits() == ThermalLimits(passive=None, soft_limit=80.0)
    assert sensors.limits().target == 75.0


def test_a_pi_5_with_a_fan(tmp_path: Path) -> None:
    sensors = ThermalSensors(lay(tmp_path, PI5))
    assert sensors.read() == ThermalReading(61.7, Flags(), megahertz=2400.0, fan_rpm=3200)
    assert sensors.limits().target == 75.0, "trips that start the fan slow nothing down"


def test_the_3b_plus_is_kept_under_its_soft_limit(tmp_path: Path) -> None:
    assert ThermalSensors(lay(tmp_path, PI3_PLUS)).limits().target == 57.0


@pytest.mark.parametrize(
    ("board", "config", "limit"),
    [
        ("Raspberry Pi 3 Model B Plus Rev 1.3", "temp_soft_limit=68\n", 68.0),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", "# temp_soft_limit=68\n", 60.0),
        ("Raspberry Pi 4 Model B Rev 1.4", "temp_soft_limit=68\n", 80.0),
        ("Raspberry Pi 4 Model B Rev 1.4", "[all]\ntemp_limit=70\n", 65.0),
        ("Raspberry Pi 4 Model B Rev 1.4", "temp_limit=hot\n", 80.0),
        ("Some Other Board", "temp_limit=70\n", None),
    ],
)
def test_limits_of_config_txt(tmp_path: Path, board: str, config: str, limit: float | None) -> None:
    lay(tmp_path, model(board), {"boot/firmware/config.txt": config})
    assert ThermalSensors(tmp_path).limits().soft_limit == limit


def test_the_first_passive_trip_of_the_processor_bounds_the_target(tmp_path: Path) -> None:
    trips = (("active", 40000), ("passive", 76000), ("passive", 72000), ("passive", 0), ("critical", 60000))
    lay(tmp_path, zone(0, "wifi", 30000, ("passive", 50000)), zone(1, "cpu-thermal", 50000, *trips))
    limits = ThermalSensors(tmp_path).limits()
    assert (limits.passive, limits.target) == (72.0, 67.0)


def test_the_hottest_zone_of_the_processor_counts(tmp_path: Path) -> None:
    lay(tmp_path, zone(0, "acpitz", 99000), zone(1, "cpu0-thermal", 51000), zone(2, "soc-thermal", 53000))
    assert ThermalSensors(tmp_path).celsius() == 53.0


def test_a_zone_of_an_unknown_name_is_better_than_none(tmp_path: Path) -> None:
    assert ThermalSensors(lay(tmp_path, zone(0, "acpitz", 44000))).celsius() == 44.0


def test_hwmon_where_there_are_no_zones(tmp_path: Path) -> None:
    chips = {f"sys/class/hwmon/hwmon{i}/name": name for i, name in enumerate(("nvme\n", "coretemp\n"))}
    values = {
        f"sys/class/hwmon/hwmon{i}/temp1_input": value for i, value in enumerate(("70000\n", "48000\n"))
    }
    assert ThermalSensors(lay(tmp_path, chips, values)).celsius() == 48.0


def test_a_zone_that_comes_back_under_another_number_is_found(tmp_path: Path) -> None:
    sensors = ThermalSensors(lay(tmp_path, zone(0, "cpu-thermal", 50000)))
    (tmp_path / ZONE / "temp").unlink()
    assert sensors.celsius() is None
    lay(tmp_path, zone(3, "cpu-thermal", 51000))
    sensors.celsius()
    assert sensors.celsius() == 51.0, "by the second look"


def test_frost_is_a_temperature(tmp_path: Path) -> None:
    assert ThermalSensors(lay(tmp_path, zone(0, "cpu-thermal", -5300))).celsius() == -5.3


@pytest.mark.parametrize("said", ["", "hot", "-", "--5", "85 C", "1e5", "-273000", "200000", "9" * 30, "\0"])
def test_what_is_no_temperature_is_none(tmp_path: Path, said: str) -> None:
    assert ThermalSensors(lay(tmp_path, zone(0, "cpu-thermal", said))).celsius() is None


def test_nothing_at_all(tmp_path: Path) -> None:
    sensors = ThermalSensors(tmp_path)
    assert sensors.read() == ThermalReading()
    assert sensors.limits() == ThermalLimits()
    assert sensors.limits().target == 75.0


@pytest.mark.parametrize(
    ("alarm", "expected"), [("1\n", Flags(under_voltage=True)), ("0\n", Flags()), ("?", None)]
)
def test_the_voltage_alarm_where_the_firmware_shows_no_flags(
    tmp_path: Path, alarm: str, expected: Flags | None
) -> None:
    lay(tmp_path, without(PI4, "get_throttled"), {f"{VOLTAGE}/in0_lcrit_alarm": alarm})
    assert ThermalSensors(tmp_path).read().flags == expected


def test_the_firmware_is_asked_last(tmp_path: Path) -> None:
    asked = []

    def ask() -> int:
        asked.append(1)
        return 0x80008

    lay(tmp_path, PI4)
    ThermalSensors(tmp_path, ask).read()
    assert not asked
    bare = lay(tmp_path / "bare", without(PI4, "get_throttled", "hwmon"))
    assert ThermalSensors(bare, ask).read().flags == Flags(soft_limit=True, seen=frozenset({"soft_limit"}))


def test_every_flag() -> None:
    names = {"under_voltage", "capped", "throttled", "soft_limit"}
    assert flags(0xF000F) == Flags(True, True, True, True, frozenset(names))
    assert flags(0xFFFFFFF0) == Flags(seen=frozenset(names)), "the other bits mean nothing here"


def program(root: Path, script: str) -> Path:
    lay(root, {"usr/bin/vcgencmd": f"#!/bin/sh\n{script}\n", "dev/vcio": ""})
    (root / "usr/bin/vcgencmd").chmod(0o755)
    return root


def test_vcgencmd_is_asked(tmp_path: Path) -> None:
    assert Vcgencmd(program(tmp_path, '[ "$1" = get_throttled ] && echo throttled=0x50005'))() == 0x50005


@pytest.mark.parametrize("script", ["echo 'VCHI initialization failed'; exit 255", "echo throttled=0xyz"])
def test_vcgencmd_that_fails_is_not_asked_again(tmp_path: Path, script: str) -> None:
    ask = Vcgencmd(program(tmp_path, f"echo x >> {tmp_path}/calls\n{script}"))
    assert (ask(), ask()) == (None, None)
    assert (tmp_path / "calls").read_text() == "x\n"


def test_vcgencmd_that_is_not_there(tmp_path: Path) -> None:
    assert Vcgencmd(tmp_path)() is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    contents=st.lists(
        st.one_of(st.binary(max_size=24), st.integers(-(10**21), 10**21).map(lambda n: str(n).encode())),
        min_size=9,
        max_size=9,
    )
)
def test_garbage_is_never_a_fault(tmp_path: Path, contents: list[bytes]) -> None:
    names = (
        f"{ZONE}/temp",
        f"{ZONE}/type",
        f"{ZONE}/trip_point_0_type",
        f"{ZONE}/trip_point_0_temp",
        FLAGS,
        FREQUENCY,
        f"{VOLTAGE}/in0_lcrit_alarm",
        "boot/firmware/config.txt",
        "proc/device-tree/model",
    )
    lay(tmp_path, PI4)
    for name, content in zip(names, contents, strict=True):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    sensors = ThermalSensors(tmp_path)
    celsius = sensors.read().celsius
    assert celsius is None or -40 <= celsius <= 125
    assert sensors.limits().target <= 75.0
