"""What the broker keeps as a device's status is true after each kill and each cut."""

from __future__ import annotations

import json
import re

import pytest

from tests.brokers import Mosquitto

from .conftest import DEVICE, MqttDaemon, Requester, online, stopped

pytestmark = pytest.mark.slow

KEEPALIVE_SECONDS = 15
# Mosquitto looks every six seconds, for which edged makes up, and its log tells whole ones.
MOST_SECONDS = 1.5 * KEEPALIVE_SECONDS + 1
TIMES = 2


def says(requester: Requester, state: str) -> bool:
    return bool(json.loads(requester.retained("status") or b"{}").get("state") == state)


def cuts(broker: Mosquitto) -> list[int]:
    """Return after how many seconds of silence the broker gave the device up, each time."""
    found, heard = [], 0
    for at, text in re.findall(r"^(\d+): (.*)$", broker.log(), re.MULTILINE):
        if f" from {DEVICE} " in f"{text} ":
            heard = int(at)
        elif text.startswith(f"Client {DEVICE} has exceeded timeout"):
            found.append(int(at) - heard)
    return found


def test_status_is_true_after_each_cut_and_each_kill(mosquitto: Mosquitto, mqtt_daemon: MqttDaemon) -> None:
    """After a kill the keep-alive was not waited for. To the broker a daemon that hangs is cut off."""
    mqtt = {"url": mosquitto.url, "keepalive_seconds": KEEPALIVE_SECONDS}
    with Requester(mosquitto) as anna:
        daemon = mqtt_daemon(mosquitto, mqtt=mqtt)
        online(daemon)
        for _ in range(TIMES):
            with stopped(daemon.process.pid):
                anna.wait(lambda: says(anna, "offline"))
            anna.wait(lambda: says(anna, "online"))
        for _ in range(TIMES):
            daemon.kill()
            anna.wait(lambda: says(anna, "offline"))
            daemon = mqtt_daemon(mosquitto, directory=daemon.directory, mqtt=mqtt)
            anna.wait(lambda: says(anna, "online"))
    silences = cuts(mosquitto)
    assert len(silences) == TIMES
    assert max(silences) <= MOST_SECONDS
