"""A daemon at rest that tells of itself writes its history to the card, and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.brokers import Mosquitto
from tests.conftest import ROOT
from tests.e2e.conftest import Daemon

from .conftest import DEVICE, MqttDaemon, children, online, until

pytestmark = pytest.mark.slow

# What happens in minutes and hours, in seconds: twenty reports are twenty minutes of them.
FAST = """
import edged.core.journal.files as files
import edged.core.journal.writer as writer
import edged.frontends.mqtt.presence as presence
import edged.telemetry.history as history
import edged.telemetry.service as service
files.MARK_SECONDS = writer.REMOVAL_SECONDS = writer.REST_SECONDS = 0.5
history.SECONDS = service.LOOK_SECONDS = presence.INFO_SECONDS = 1
"""
REPORTS = 20
BATCHES = REPORTS // 10 + 1  # of the history, one of which may have begun before
MOST_BYTES_OF_A_BATCH = 4 * 4096  # a record may lie on two pages; the rest is the file system's own


def hear(broker: Mosquitto, reports: int) -> None:
    """Wait for so many reports that are new."""
    topic = f"edged/v1/{DEVICE}/telemetry/thermal"
    command = ["mosquitto_sub", "-p", str(broker.port), "-t", topic, "-C", str(reports), "-W", "60"]
    subprocess.run(command, capture_output=True, check=True)


def state(daemon: Daemon) -> dict[Path, tuple[int, int]]:
    """Return size and time of the last change of every file but the history."""
    found = {path: path.stat() for path in daemon.directory.rglob("*") if path.name != "history"}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


def written(daemon: Daemon) -> int:
    """Return the bytes that daemon and engine have had the kernel write to a disk."""
    lines = [Path(f"/proc/{pid}/io").read_text() for pid in (daemon.process.pid, *children(daemon))]
    return sum(int(text.partition("\nwrite_bytes: ")[2].partition("\n")[0]) for text in lines)


def test_at_rest_the_history_alone_is_written(
    mosquitto: Mosquitto, mqtt_daemon: MqttDaemon, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAST)
    environ = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    daemon = mqtt_daemon(mosquitto, environ=environ, telemetry={"interval_seconds": 1})
    online(daemon)

    def rests() -> bool:
        before = state(daemon)
        hear(mosquitto, 3)
        return state(daemon) == before

    history = daemon.directory / "history"
    until(history.exists)
    until(rests)  # the journal has put away what the start told
    files, bytes_before, changed = state(daemon), written(daemon), history.stat().st_mtime_ns
    hear(mosquitto, REPORTS)
    assert state(daemon) == files
    assert history.stat().st_mtime_ns > changed
    assert written(daemon) - bytes_before <= BATCHES * MOST_BYTES_OF_A_BATCH
