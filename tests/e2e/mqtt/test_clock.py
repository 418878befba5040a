"""The wall clock jumps by years: nothing expires early or late, and TLS waits for the right time."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import MakeMosquitto, Mosquitto
from tests.conftest import ROOT

from .conftest import MqttDaemon, Requester, online, status, until

pytestmark = pytest.mark.slow

YEAR = timedelta(days=365)
LATER, EARLIER = 10 * YEAR, -20 * YEAR
TABLES: Any = {"model": {"sequences": 1}, "limits": {"max_tokens": 4096}}

# Whether the kernel's clock is right is the machine's own matter: here a file says so.
SYNCHRONISED_BY_FILE = """
import edged.clock
from pathlib import Path
edged.clock.Clock.synchronised = property(lambda self: Path({flag!r}).exists())
"""


class WallClock:
    """The wall clock of a daemon, set by libfaketime; the monotonic clock goes on as it is.

    Attributes:
        environ: variables for the daemon.
    """

    def __init__(self, directory: Path, library: Path) -> None:
        self._offset = directory / "offset"
        self._flag = directory / "synchronised"
        patch = SYNCHRONISED_BY_FILE.format(flag=str(self._flag))
        (directory / "sitecustomize.py").write_text(patch)
        self.environ = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
            "PYTHONPATH": f"{directory}:{ROOT}",
        }
        self.jump(timedelta())

    def jump(self, offset: timedelta) -> None:
        """Set the clock to the right time and so much more."""
        new = self._offset.with_suffix(".new")
        new.write_text(f"{offset.total_seconds():+.0f}\n")
        new.replace(self._offset)

    def synchronise(self) -> None:
        """Set the clock right, and let it be known."""
        self.jump(timedelta())
        self._flag.touch()


@pytest.fixture
def wall_clock(tmp_path: Path) -> WallClock:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime isn't installed: apt-get install faketime")
    directory = tmp_path / "clock"
    directory.mkdir()
    return WallClock(directory, library)


def health_of(requester: Requester, year: int, *, synchronised: bool) -> bool:
    """Say whether the newest health message carries such a time."""
    health = json.loads(requester.retained("health") or b"{}")
    at = datetime.fromisoformat(health["time"]) if health else datetime.fromtimestamp(0, UTC)
    return at.year == year and health["clock_synchronised"] is synchronised


def test_jumps_change_no_ttl_and_no_answer(
    mosquitto: Mosquitto, mqtt_daemon: MqttDaemon, wall_clock: WallClock
) -> None:
    telemetry = {"interval_seconds": 1}
    daemon = mqtt_daemon(mosquitto, environ=wall_clock.environ, telemetry=telemetry, **TABLES)
    with Requester(mosquitto) as anna:
        online(daemon)
        for id in ("runs", "runs-too"):
            anna.ask(id, max_tokens=3900)
        until(lambda: status(daemon)["requests"]["running"] == 1)
        anna.ask("patient", max_tokens=8, ttl_s=600)
        anna.ask("hasty", max_tokens=8, ttl_s=1)
        wall_clock.jump(LATER)
        expired = anna.terminal("hasty")
        assert expired["code"] == "expired"
        waited = re.match(r"not begun within ([0-9.]+) s", expired["message"])
        assert waited and 1 <= float(waited[1]) < 30
        assert not any(frame["type"] == "done" for frame in anna.frames("runs-too"))  # it came in time
        for offset in (EARLIER, LATER, EARLIER):
            wall_clock.jump(offset)
            year = (datetime.now(UTC) + offset).year
            anna.wait(partial(health_of, anna, year, synchronised=False))
        for id in ("runs", "runs-too"):
            assert anna.done(id)["usage"]["completion_tokens"] == 3900
        queued_ms = anna.done("patient")["timings"]["queued_ms"]
        assert 1000 < queued_ms < 100_000
        wall_clock.synchronise()
        anna.wait(lambda: health_of(anna, datetime.now(UTC).year, synchronised=True))


@pytest.mark.parametrize("offset", [LATER, EARLIER])
def test_jumps_across_a_restart_change_no_ttl(
    mosquitto: Mosquitto, mqtt_daemon: MqttDaemon, wall_clock: WallClock, offset: timedelta
) -> None:
    """Within one boot the time since the boot decides, also for what is kept for repeats."""
    first = mqtt_daemon(mosquitto, environ=wall_clock.environ, **TABLES)
    with Requester(mosquitto) as anna:
        online(first)
        anna.ask("answered", max_tokens=8)
        anna.done("answered")
        answer = anna.payloads("answered")[-1]
        anna.ask("runs", max_tokens=2000)
        anna.ask("patient", max_tokens=8, ttl_s=600)
        anna.ask("hasty", max_tokens=8, ttl_s=1)
        until(lambda: status(first)["journal"]["asks"] == 3)
        first.kill()
        wall_clock.jump(offset)
        second = mqtt_daemon(mosquitto, directory=first.directory, environ=wall_clock.environ, **TABLES)
        online(second)
        assert anna.terminal("hasty")["code"] == "expired"
        for id in ("runs", "patient"):
            assert anna.done(id)["attempt"] == 2
        anna.ask("answered", max_tokens=8)
        anna.wait(lambda: anna.payloads("answered").count(answer) == 2)


def test_tls_waits_until_the_clock_is_right(
    make_mosquitto: MakeMosquitto, mqtt_daemon: MqttDaemon, wall_clock: WallClock, tmp_path: Path
) -> None:
    key, certificate = tmp_path / "broker.key", tmp_path / "broker.pem"
    made_by = "openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=127.0.0.1"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "keyUsage=digitalSignature,keyCertSign"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*made_by.split(), *names, *files], check=True, capture_output=True)
    broker = make_mosquitto(config=f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}")
    wall_clock.jump(EARLIER)
    url = broker.url.replace("mqtt:", "mqtts:")
    mqtt = {"url": url, "ca_file": str(certificate)}
    daemon = mqtt_daemon(url, environ=wall_clock.environ, mqtt=mqtt)
    daemon.wait_ready()
    until(lambda: status(daemon)["mqtt"]["state"] == "waiting_for_time")
    problem = status(daemon)["mqtt"]["problem"]
    assert "is not valid yet by this device's clock" in problem["message"]
    assert "time server" in problem["remedy"]
    wall_clock.synchronise()
    until(lambda: status(daemon)["mqtt"]["state"] == "connected")
    assert status(daemon)["mqtt"]["problem"] is None
