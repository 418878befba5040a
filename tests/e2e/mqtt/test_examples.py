"""The shipped examples and broker configuration and `edgectl mqtt`, with the real daemon and model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.config.site import Site, started_site
from tests.e2e.conftest import Daemon
from tests.e2e.mqtt.conftest import MqttDaemon

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[3] / "tools/examples"
DEVICE = "kitchen"
PROMPT = "Name three birds."


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A broker that runs by the shipped configuration."""
    with started_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def device(site: Site, mqtt_daemon: MqttDaemon, smollm2: Path) -> Daemon:
    """A daemon that logs in there over TLS, with the real model."""
    daemon = mqtt_daemon(
        f"mqtts://localhost:{site.port}",
        device_id=DEVICE,
        model={"path": str(smollm2), "context": 1024},
        limits={"max_tokens_default": 24},
        mqtt={
            "username": DEVICE,
            "password_file": str(site.directory / "edged/secrets" / DEVICE),
            "ca_file": str(site.ca),
        },
    )
    daemon.wait_for("connected with the broker")
    daemon.wait_ready()
    return daemon


def run(site: Site, command: list[str], login: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a requester as a login of the broker's."""
    own = {
        "MQTT_HOST": "localhost",
        "MQTT_PORT": str(site.port),
        "MQTT_CA": str(site.ca),
        "MQTT_LOGIN": login,
        "MQTT_PASSWORD": site.password(login),
        "EDGED_BROKER": f"mqtts://localhost:{site.port}",
        "EDGED_BROKER_USERNAME": login,
        "EDGED_BROKER_PASSWORD_FILE": str(site.directory / "edged/secrets" / login),
        "EDGED_BROKER_CA_FILE": str(site.ca),
    }
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **own, **environ},
    )


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, str(EXAMPLES / "ask_mqtt.py"), DEVICE, PROMPT],
        ["sh", str(EXAMPLES / "ask_mqtt.sh"), DEVICE, PROMPT],
        [sys.executable, "-m", "edged.cli.main", "mqtt", "ask", "--device", DEVICE, PROMPT],
    ],
    ids=["paho", "mosquitto", "edgectl"],
)
async def test_a_requester_gets_the_models_answer(site: Site, device: Daemon, command: list[str]) -> None:
    done = run(site, command, "alice")
    assert done.returncode == 0, done.stderr
    ended = device.wait_for("ended", client="alice")
    assert ended["completion_tokens"] > 0
    assert len(done.stdout.strip()) > 0
    status = await device.get("/v1/status")
    assert (status["mqtt"]["state"], status["mqtt"]["problem"]) == ("connected", None)
    assert status["mqtt"]["notes"] == []


def test_operators_command_the_device_and_requesters_do_not(site: Site, device: Daemon) -> None:
    """The result comes to the operator; what a requester publishes there never reaches the device."""

    def command(login: str) -> subprocess.CompletedProcess[str]:
        topic = f"edged/v1/{DEVICE}/cmd/cancel_all"
        common = ["-h", "localhost", "-p", str(site.port), "--cafile", str(site.ca), "-V", "5"]
        own = ["-u", login, "-P", site.password(login)]
        return subprocess.run(
            ["mosquitto_rr", *common, *own, "-q", "1", "-t", topic, "-e", f"{topic}/result", "-n", "-W", "5"],
            check=False,
            capture_output=True,
            text=True,
        )

    mark = len(device.events)
    command("mallory")
    assert '"status":"ok"' in command("olga").stdout
    commands = [e for e in device.events[mark:] if e["event"] == "event" and e.get("type") == "command"]
    assert len(commands) == 1
