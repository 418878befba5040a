"""Two daemons with one id at one broker: both say so, and neither floods it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.brokers import Mosquitto
from tests.conftest import ROOT
from tests.e2e.conftest import Daemon

from .conftest import DEVICE, MqttDaemon, Requester, online, status, until

pytestmark = pytest.mark.slow

# The pause before a device of a doubled id tries again takes minutes; here seconds.
IMPATIENT = """
import edged.frontends.mqtt.link.link as link
link.DUPLICATE_SECONDS = (2.0, 3.0)
"""


MOST_CONNECTS = 10
TWO_OF_ONE_ID = f"another device uses the id {DEVICE}: the broker lets only one of them stay"


def connects(broker: Mosquitto) -> int:
    return broker.log().count(f" as {DEVICE} (")


def is_in_doubt(daemon: Daemon) -> bool:
    return bool(status(daemon)["mqtt"]["state"] == "duplicate_id")


def says_so(alarm: bytes | None) -> bool:
    return bool(alarm) and b'"type":"duplicate_id"' in (alarm or b"")


def test_one_of_them_makes_way_and_says_so(mosquitto: Mosquitto, mqtt_daemon: MqttDaemon) -> None:
    """mosquitto 2.0 tells nobody why it closes a connection, so that it takes some drops to notice."""
    daemons = [mqtt_daemon(mosquitto) for _ in range(2)]
    for daemon in daemons:
        daemon.wait_ready()
    until(lambda: any(map(is_in_doubt, daemons)))
    tried = connects(mosquitto)
    assert tried <= MOST_CONNECTS
    [away, here] = sorted(daemons, key=is_in_doubt, reverse=True)
    problem = status(away)["mqtt"]["problem"]
    assert f"another device uses the id {DEVICE}" in problem["message"]
    assert "give one of the two another device_id" in problem["remedy"]
    online(here)
    with Requester(mosquitto) as anna:
        for number in range(20):  # undisturbed
            anna.ask(f"a{number}", max_tokens=8)
            anna.done(f"a{number}")
    assert connects(mosquitto) <= tried + 1


def test_both_say_so_when_the_first_comes_back(
    mosquitto: Mosquitto, mqtt_daemon: MqttDaemon, tmp_path: Path
) -> None:
    """Each is told in its turn, and the broker keeps the alarm for who comes later."""
    (tmp_path / "sitecustomize.py").write_text(IMPATIENT)
    environ = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    daemons = [mqtt_daemon(mosquitto, environ=environ) for _ in range(2)]
    for daemon in daemons:
        daemon.wait_for("event", type="duplicate_id")
        daemon.wait_for("no connection with the broker", message=TWO_OF_ONE_ID)
    with Requester(mosquitto) as first:
        first.wait(lambda: says_so(first.retained("alarm/duplicate_id")))
    with Requester(mosquitto) as late:
        late.wait(lambda: says_so(late.retained("alarm/duplicate_id")))
        assert any(m.retain for m in late.messages if m.topic.endswith("/alarm/duplicate_id"))
    before = connects(mosquitto)
    for daemon in daemons:
        daemon.wait_for("connected with the broker", after=len(daemon.events))
    assert connects(mosquitto) - before <= MOST_CONNECTS
