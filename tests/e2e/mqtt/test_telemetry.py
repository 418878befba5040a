"""Telemetry of a real daemon at a real mosquitto, read by mosquitto_sub: the documented topics and fields."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

import jsonschema
import pytest

from edged.telemetry.alarms import TYPES
from edged.telemetry.describe import leaves
from edged.telemetry.snapshot import Distribution
from tests.brokers import Mosquitto
from tests.e2e.conftest import Daemon
from tests.e2e.mqtt.conftest import MqttDaemon, Requester, online, until
from tests.test_docs import MQTT, code_spans, table
from tests.watch.memory.trees import lay
from tests.watch.thermal.trees import PI4

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PARTS = ("thermal", "power", "memory", "inference")
HEAD = {"v", "device_id", "time", "clock_synchronised"}
LISTEN_SECONDS = 60


class Told(dict[str, tuple[int, bool, dict[str, Any]]]):
    """QoS, retained or not, and fields by topic below the device's own."""


def hear(broker: Mosquitto, *filters: str, count: int) -> Told:
    """Return what mosquitto_sub hears first on these topics, retained ones among them."""
    topics = [word for filter in filters for word in ("-t", f"edged/v1/test/{filter}")]
    command = ["mosquitto_sub", "-p", str(broker.port), "-q", "1", *topics, "-F", "%q %r %t %p"]
    command += ["-C", str(count), "-W", str(LISTEN_SECONDS)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    told = Told()
    for line in run.stdout.splitlines():
        qos, retained, topic, payload = line.split(" ", 3)
        told[topic.removeprefix("edged/v1/test/")] = int(qos), retained == "1", json.loads(payload)
    return told


def documented(part: str) -> tuple[set[str], set[str]]:
    """Return the fields of a part's topic, and how those begin of which there may be any number."""
    names, beginnings = set(HEAD), set()
    for leaf in leaves():
        if leaf.path[0] != part:
            continue
        name = "_".join(leaf.path[1:])
        if leaf.type is Distribution:
            names |= {f"{name}_{field}" for field in ("count", "sum", "p50", "p95")}
        elif get_origin(leaf.type) is Mapping:
            beginnings.add(f"{name}_")
        else:
            names.add(name)
    return names, beginnings


def layer(*path: str) -> set[str]:
    """Return the documented fields of a part in `health`."""
    return {leaf.path[len(path)] for leaf in leaves() if leaf.path[: len(path)] == path}


@pytest.fixture
def device(mosquitto: Mosquitto, mqtt_daemon: MqttDaemon) -> Daemon:
    """A daemon that tells of itself every second."""
    daemon = mqtt_daemon(
        mosquitto,
        telemetry={"interval_seconds": 1, "homeassistant": True},
        limits={"max_tokens": 3900},
    )
    online(daemon)
    return daemon


def test_each_documented_topic_has_the_documented_fields(mosquitto: Mosquitto, device: Daemon) -> None:
    with Requester(mosquitto) as anna:
        anna.ask("one", max_tokens=4)
        anna.done("one")
    told = hear(mosquitto, "health", "telemetry/+", count=12)
    assert set(told) == {"health", *(f"telemetry/{part}" for part in PARTS)}
    for part in PARTS:
        qos, is_retained, fields = told[f"telemetry/{part}"]
        assert (qos, is_retained) == (0, False)
        names, beginnings = documented(part)
        others = {name for name in fields if not any(name.startswith(one) for one in beginnings)}
        assert others == names
    qos, _, health = told["health"]
    assert qos == 1
    assert set(health) == HEAD | {"phase", "uptime_seconds", "requests", "device", "mqtt", "watch"}
    assert set(health["requests"]) == layer("inference", "requests")
    for part in ("device", "mqtt", "watch"):
        assert set(health[part]) == layer(part)
    inference = told["telemetry/inference"][2]
    assert (inference["requests_done_total"], inference["first_token_seconds_count"]) == (1, 1)
    assert inference["answer_tokens_total"] == 4
    assert hear(mosquitto, "health", count=1)["health"][1]  # kept for whoever comes later


def test_what_a_device_says_else_has_the_documented_fields(
    mosquitto: Mosquitto, mqtt_daemon: MqttDaemon, tmp_path: Path
) -> None:
    """On a made-up Pi whose supply sags."""
    root = lay(tmp_path / "root", PI4)
    (root / "proc/meminfo").symlink_to("/proc/meminfo")
    environ = {"EDGED_TEST_PROGRAM": "tests.e2e.rooted", "EDGED_TEST_ROOT": str(root)}
    command = ["mosquitto_sub", "-p", str(mosquitto.port), "-t", "edged/v1/test/#", "-F", "%t %p"]
    wanted = {"status", "info", "last_answer", "cmd/cancel_all/result"}
    wanted |= {
        "alarm/undervoltage",
        "event/undervoltage",
        "event/alarm",
        "event/model_loaded",
        "event/command",
    }
    told: dict[str, dict[str, Any]] = {}
    with subprocess.Popen([*command, "-W", str(LISTEN_SECONDS)], stdout=subprocess.PIPE, text=True) as heard:
        online(mqtt_daemon(mosquitto, environ=environ, mqtt={"url": mosquitto.url, "last_answer": True}))
        with Requester(mosquitto) as anna:
            anna.ask("one", max_tokens=4)
            anna.done("one")
            anna.publish("edged/v1/test/cmd/cancel_all", {"transaction": 1})
            assert heard.stdout is not None
            for line in heard.stdout:
                topic, _, payload = line.strip().partition(" ")
                if payload:  # an alarm's is empty while it is not raised
                    told[topic.removeprefix("edged/v1/test/")] = json.loads(payload)
                if wanted <= told.keys():
                    break
        heard.terminate()
    rows = {code_spans(row[0])[0]: set(code_spans(row[1])) for row in table("fields of", MQTT)}
    assert set(told["status"]) == rows["status"] | HEAD
    assert set(told["last_answer"]) == rows["last_answer"] | HEAD
    assert set(told["alarm/undervoltage"]) == rows["alarm/<type>"] | HEAD
    assert set(told["info"]) == rows["info"] | {"v", "device_id"}
    for part in ("model", "limits", "host", "capabilities"):
        assert set(told["info"][part]) == rows[f"info.{part}"]
    for event in (fields for topic, fields in told.items() if topic.startswith("event/")):
        assert rows["event/<type>"] | HEAD <= set(event)
    assert set(told["cmd/cancel_all/result"]) == {"status", "data", "error", "transaction"}


async def test_the_same_snapshot_over_http_and_for_prometheus(device: Daemon) -> None:
    """Streamed until the engine has been looked at, which memory's watch does every few seconds."""
    schema = json.loads((ROOT / "docs/telemetry.schema.json").read_text())
    stream = {"Accept": "text/event-stream"}
    async with device.session() as session:
        async with session.get("/v1/telemetry", headers=stream) as response:
            async for line in response.content:
                told = json.loads(line.removeprefix(b"data: ") if line.strip() else b"null")
                if told and told["memory"]["engine_bytes"] is not None:
                    break
        async with session.get("/metrics") as response:
            text = await response.text()
    jsonschema.Draft202012Validator(schema).validate(told)
    assert told["memory"]["engine_bytes"] > 1 << 20
    assert told["mqtt"]["link"] == "connected"
    assert 'edged_mqtt_link{state="connected"} 1.0' in text
    assert f"edged_memory_kv_cells {told['memory']['kv_cells']}.0" in text


def test_alarms_are_clear_and_one_that_an_earlier_daemon_left_is_cleared(
    mosquitto: Mosquitto, mqtt_daemon: MqttDaemon
) -> None:
    stale = "edged/v1/test/alarm/too_hot"
    subprocess.run(["mosquitto_pub", "-p", str(mosquitto.port), "-r", "-t", stale, "-m", "{}"], check=True)
    online(mqtt_daemon(mosquitto))

    def retained() -> bytes:
        command = ["mosquitto_sub", "-p", str(mosquitto.port), "-t", "edged/v1/test/alarm/#", "-W", "1"]
        return subprocess.run(command, capture_output=True, check=False).stdout

    assert until(lambda: retained() == b"")
    assert "too_hot" in TYPES


def test_the_last_figures_are_told_before_it_stops(mosquitto: Mosquitto, mqtt_daemon: MqttDaemon) -> None:
    daemon = mqtt_daemon(mosquitto, telemetry={"interval_seconds": 86_400})
    online(daemon)
    with Requester(mosquitto) as anna:
        anna.ask("one", max_tokens=4)
        anna.done("one")
        assert daemon.stop() == 0
    health = hear(mosquitto, "health", count=1)["health"][2]
    assert (health["phase"], health["requests"]["done_total"]) == ("stopping", 1)


def test_home_assistant_finds_the_device_asks_and_hears(mosquitto: Mosquitto, device: Daemon) -> None:
    config = "homeassistant/device/edged_test/config"
    port = str(mosquitto.port)

    def announced(*options: str) -> subprocess.Popen[str]:
        command = ["mosquitto_sub", "-p", port, "-t", config, "-C", "1", "-W", "30", *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    message = json.loads(announced().communicate()[0])
    # It has started anew, and has forgotten: -R leaves out what was retained, so this is said again.
    again = announced("-R")
    with Requester(mosquitto) as anna:
        while again.poll() is None:
            anna._client.publish("homeassistant/status", b"online", qos=1)
            time.sleep(0.1)
        assert json.loads(again.communicate()[0]) == message
        ask = message["components"]["ask"]
        anna._client.publish(ask["command_topic"], json.dumps({"prompt": "harbour", "max_tokens": 4}), qos=1)
        answer = message["components"]["last_answer"]["state_topic"].removeprefix("edged/v1/test/")
        assert json.loads(anna.wait(lambda: anna.retained(answer)))["error"] is None
        too_long = json.dumps({"prompt": "harbour " * 5000})
        anna._client.publish(ask["command_topic"], too_long, qos=1)
        refusal = anna.wait(lambda: json.loads(anna.retained(answer) or b"{}").get("error"))
        assert refusal.startswith("prompt_too_long: the prompt has ")
        anna.ask("long-0", max_tokens=3900)
        button = message["components"]["cancel_all"]
        until(lambda: asyncio.run(device.get("/v1/status"))["requests"]["running"] >= 1)
        anna._client.publish(button["command_topic"], button["payload_press"], qos=1)
        assert anna.terminal("long-0")["finish_reason"] == "cancelled"


def test_the_history_is_sent_in_pages(mosquitto: Mosquitto, device: Daemon) -> None:
    until(lambda: asyncio.run(device.get("/v1/history"))["total"] >= 1)
    with Requester(mosquitto) as anna:
        anna.publish("edged/v1/test/cmd/history", {"transaction": 1, "page": 1})
        result = json.loads(anna.wait(lambda: anna.retained("cmd/history/result")))
    assert (result["status"], result["data"]["total"]) == ("ok", 1)
    assert len(result["data"]["rows"][0]) == len(result["data"]["columns"])
    assert device.stop() == 0
    assert (device.directory / "history").stat().st_size > 4096  # what waited was written at the end
