"""The units as systemd's own analyser sees them, of whatever version is here."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edged.__main__ import WRONG_CONFIGURATION
from edged.settings.keys import CREDENTIALS

UNITS = Path(__file__).resolve().parent.parent / "systemd"
MOST_EXPOSED = {"edged.service": 1.3, "vcgencmd": 1.4}

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with a daemon that exists, so that only the units can be wrong."""
    for unit in ("edged.service", "edged.socket"):
        (tmp_path / unit).write_text((UNITS / unit).read_text().replace("/usr/bin/edged ", "/bin/true "))
    return tmp_path


def analyse(*arguments: object) -> str:
    command = ["systemd-analyze", "--no-pager", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def exposure(unit: Path) -> float:
    found = re.search(r"exposure level for \S+: ([\d.]+)", analyse("security", "--offline=true", unit))
    assert found
    return float(found[1])


def keys(unit: str) -> dict[str, list[str]]:
    """Return what the file says to each key, in order: systemd takes a key more than once."""
    lines = (
        line.split("=", 1) for line in (UNITS / unit).read_text().splitlines() if re.match(r"\w+=", line)
    )
    found: dict[str, list[str]] = {}
    for key, value in lines:
        found.setdefault(key, []).append(value)
    return found


def test_systemd_understands_every_line(units: Path) -> None:
    command = ["systemd-analyze", "verify", "--man=no"]
    command += [str(units / "edged.service"), str(units / "edged.socket")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert [line for line in said.stderr.splitlines() if "edged" in line] == []
    assert said.returncode == 0


def test_the_sandbox_leaves_little_open(units: Path) -> None:
    assert exposure(units / "edged.service") <= MOST_EXPOSED["edged.service"]


def test_the_drop_in_for_vcgencmd_opens_little_more(units: Path) -> None:
    drop_in = configparser.ConfigParser()
    drop_in.optionxform = str  # type: ignore[assignment]
    drop_in.read(UNITS / "vcgencmd.conf")
    given = dict(drop_in["Service"])
    lines = (units / "edged.service").read_text().splitlines()
    lines = [line for line in lines if line.partition("=")[0] not in given]
    lines.insert(lines.index("[Service]") + 1, "\n".join(f"{key}={value}" for key, value in given.items()))
    (units / "edged.service").write_text("\n".join(lines))
    assert exposure(units / "edged.service") <= MOST_EXPOSED["vcgencmd"]


def test_the_unit_knows_what_the_daemon_means() -> None:
    unit = keys("edged.service")
    assert unit["RestartPreventExitStatus"] == [str(WRONG_CONFIGURATION)]
    assert {line.split(":")[0] for line in unit["LoadCredential"]} == set(CREDENTIALS)
    assert unit["Wants"] == ["edged.socket"], "started alone it would refuse askers at its next restart"
    assert "MemoryHigh" not in unit, "it would slow the daemon down with its engine"
