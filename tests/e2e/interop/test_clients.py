"""Clients that no one here wrote: each asks and reads accepted, chunks, done."""

from __future__ import annotations

import json
import queue
import sys
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.e2e.interop.programs import lines_of, need, running
from tests.e2e.interop.requester import Device, check_answer, new_id, open_requester

CLIENTS = Path(__file__).parent / "clients"
PROMPT = "Tell me of the harbour."
VERSIONS = ["5", "3.1.1"]
MOSQUITTO_VERSION = {"5": "mqttv5", "3.1.1": "mqttv311"}


def mosquitto(program: str, device: Device, version: str, *arguments: str) -> list[str]:
    """Return the command line of one of mosquitto's clients."""
    return [need(program), "-V", MOSQUITTO_VERSION[version], "-p", str(device.port), *arguments]


@pytest.mark.parametrize("version", VERSIONS)
async def test_mosquitto_pub_and_sub(device: Device, version: str) -> None:
    """A plain text is a prompt; the answer goes to the client's own replies, under an id that edged made."""
    name = f"shell-{version}"
    replies = f"{device.base}/reply/{name}"
    listen = mosquitto("mosquitto_sub", device, version, "-d", "-q", "1", "-t", f"{replies}/#", "-F", "%j")
    async with running(*listen) as listener:
        await listener.lines("Subscribed")
        ask = mosquitto("mosquitto_pub", device, version, "-q", "1", "-t", f"{device.base}/ask/{name}", "-m")
        async with running(*ask, PROMPT) as publisher:
            assert await publisher.wait() == 0
        messages = _messages(await listener.lines('\\"type\\":\\"done\\"'))
    frames = [json.loads(message["payload"]) for message in messages]
    assert check_answer(frames)["text"]
    assert {message["topic"] for message in messages} == {f"{replies}/{frames[0]['id']}"}
    assert {message["qos"] for message in messages} == {1}
    assert {message["retain"] for message in messages} == {0}


async def test_mosquitto_pub_with_every_property(device: Device) -> None:
    """Response Topic, Correlation Data, content type and expiry go both ways."""
    id, name = new_id(), "properties"
    replies = f"{device.root}/reply/{name}/inbox"
    listen = mosquitto("mosquitto_sub", device, "5", "-d", "-q", "1", "-t", replies, "-F", "%j")
    properties = {
        "response-topic": replies,
        "correlation-data": "c-17",
        "content-type": "application/json",
        "message-expiry-interval": "30",
    }
    async with running(*listen) as listener:
        await listener.lines("Subscribed")
        ask = mosquitto("mosquitto_pub", device, "5", "-q", "1", "-t", f"{device.base}/ask/{name}")
        for property in properties.items():
            ask += ["-D", "publish", *property]
        body = json.dumps({"id": id, "prompt": PROMPT, "max_tokens": 32})
        async with running(*ask, "-m", body) as publisher:
            assert await publisher.wait() == 0
        messages = _messages(await listener.lines('\\"type\\":\\"done\\"'))
    assert check_answer([json.loads(message["payload"]) for message in messages])["id"] == id
    for message in messages:
        assert message["properties"]["correlation-data"] == "c-17"
        assert message["properties"]["content-type"] == "application/json"
        assert 3500 < message["properties"]["message-expiry-interval"] <= 3600


async def test_mosquitto_rr_hears_that_its_prompt_is_accepted(device: Device) -> None:
    """It ends with the first message of the answer, which is `accepted` with its Correlation Data."""
    id, name = new_id(), "rr"
    lines = await lines_of(
        *mosquitto("mosquitto_rr", device, "5", "-q", "1", "-t", f"{device.base}/ask/{name}"),
        *("-e", f"{device.base}/reply/{name}/{id}", "-D", "publish", "correlation-data", "rr-1"),
        *("-F", "%j", "-m", json.dumps({"id": id, "prompt": PROMPT, "max_tokens": 4})),
        until="accepted",
    )
    (message,) = _messages(lines)
    assert json.loads(message["payload"])["id"] == id
    assert message["properties"]["correlation-data"] == "rr-1"


async def test_mosquitto_rr_gives_a_command(device: Device) -> None:
    """A command's result comes back with its transaction."""
    lines = await lines_of(
        *mosquitto("mosquitto_rr", device, "5", "-q", "1", "-t", f"{device.base}/cmd/health_check"),
        *("-e", f"{device.base}/cmd/health_check/result", "-m", '{"transaction": "t-1"}'),
        until="transaction",
    )
    result = json.loads(lines[-1])
    assert (result["status"], result["error"], result["transaction"]) == ("ok", None, "t-1")
    assert result["data"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_aiomqtt(device: Device, version: str) -> None:
    async with open_requester(device, version=version) as requester:
        answer = await requester.answered({"prompt": PROMPT, "max_tokens": 300})
    frames = [message.frame for message in answer]
    assert check_answer(frames)["usage"]["completion_tokens"] == 300
    assert "chunk" in {frame["type"] for frame in frames}


@pytest.mark.parametrize("version", VERSIONS)
async def test_gmqtt(device: Device, gmqtt: Path, version: str) -> None:
    _check_foreign(
        await lines_of(
            *(sys.executable, CLIENTS / "gmqtt_ask.py", str(device.port), version, device.base),
            *(f"gmqtt-{version}", id := new_id(), PROMPT),
            until='"type": "done"',
            environ={"PYTHONPATH": str(gmqtt)},
        ),
        id,
        version,
    )


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
async def test_mqtt_js(device: Device, node: Path, version: str) -> None:
    _check_foreign(
        await lines_of(
            *(need("node"), CLIENTS / "mqtt_js_ask.cjs", str(device.port), version, device.base),
            *(f"js-{version}", id := new_id(), PROMPT),
            until='"type":"done"',
            environ={"NODE_PATH": str(node / "node_modules")},
        ),
        id,
        version,
    )


async def test_paho_3_1_1(device: Device) -> None:
    """The client of an ESP32's kind: no properties at all, `reply_to` in the request."""
    id, name = new_id(), "esp32"
    replies = f"{device.base}/reply/{name}/here"
    subscribed: queue.SimpleQueue[int] = queue.SimpleQueue()
    arrived: queue.SimpleQueue[paho.MQTTMessage] = queue.SimpleQueue()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
    client.on_connect = lambda client, *_: client.subscribe(replies, 1)
    client.on_subscribe = lambda *_: subscribed.put(1)
    client.on_message = lambda client, data, message: arrived.put(message)
    client.connect("127.0.0.1", device.port)
    client.loop_start()
    frames: list[dict[str, Any]] = []
    try:
        subscribed.get(timeout=10)
        body = {"id": id, "prompt": PROMPT, "max_tokens": 64, "reply_to": replies}
        client.publish(f"{device.base}/ask/{name}", json.dumps(body), qos=1)
        while not frames or frames[-1]["type"] not in ("done", "error"):
            message = arrived.get(timeout=10)
            assert message.topic == replies
            frames.append(json.loads(message.payload))
    finally:
        client.disconnect()
        client.loop_stop()
    assert check_answer(frames)["id"] == id


def _messages(lines: list[str]) -> list[dict[str, Any]]:
    """Return what mosquitto_sub has written with -F %j, its own words (-d) left out."""
    return [json.loads(line) for line in lines if line.startswith("{")]


def _check_foreign(lines: list[str], id: str, version: str) -> None:
    messages = [json.loads(line) for line in lines]
    assert check_answer([message["frame"] for message in messages])["id"] == id
    for message in messages:
        assert message["topic"].endswith(f"/{id}")
        assert message["qos"] == 1
        assert message["correlation"] == ([id] if version == "5" else [])
