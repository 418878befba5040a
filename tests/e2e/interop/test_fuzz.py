"""Malformed messages by the thousand: each is answered or counted, and the device serves on as before."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.brokers import Mosquitto
from tests.e2e.interop.conftest import StartDevice
from tests.e2e.interop.corpus import Corpus, Malformed
from tests.e2e.interop.programs import WAIT_SECONDS
from tests.e2e.interop.requester import (
    Device,
    Requester,
    check_answer,
    open_requester,
    publish_properties,
)

SEED = 20_261_121
WINDOW = 100  # unanswered messages on their way
MEGABYTE = 2**20


class Publisher:
    """Publishes malformed messages, pipelined, and keeps account of what comes back.

    Attributes:
        sent: by fate.
        answered: error codes.
        commands: by topic.
        results: of commands, by topic.
        strange: what came and nobody asked for.
    """

    def __init__(self, device: Device, name: str, *, beside: Requester) -> None:
        self.sent: Counter[str] = Counter()
        self.commands: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.results: Counter[str] = Counter()
        self.strange: list[paho.MQTTMessage] = []
        self._base = device.base
        self._replies = f"{device.base}/reply/{name}/"
        self._others = f"{beside.replies}/"
        self._waiting: dict[bytes, tuple[Malformed, int]] = {}
        self._changed = threading.Condition()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.max_inflight_messages_set(WINDOW)
        subscribed = threading.Event()
        filters = [
            (f"{device.base}/reply/#", 1),
            (f"{device.root}/reply/#", 1),
            (f"{device.base}/cmd/+/result", 1),
        ]
        self._client.on_connect = lambda client, *_: client.subscribe(filters)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = self._arrived
        self._client.connect("127.0.0.1", device.port)
        self._client.loop_start()
        assert subscribed.wait(WAIT_SECONDS)

    def publish(self, message: Malformed, *, qos: int, retain: bool) -> None:
        """Publish one, once fewer than WINDOW are unanswered."""
        correlation = b"%d" % self.sent.total()
        self.sent[message.fate] += 1
        if message.fate == "result":
            self.commands[f"{self._base}/{message.topic}/result"] += 1
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.unanswered(1)) < WINDOW, WAIT_SECONDS), (
                self.unanswered(1)
            )
            if message.fate == "answered":
                self._waiting[correlation] = (message, qos)
        self._client.publish(
            f"{self._base}/{message.topic}",
            message.payload,
            qos=qos,
            retain=retain,
            properties=publish_properties(CorrelationData=correlation, **message.properties),
        )

    def unanswered(self, least_qos: int) -> list[Malformed]:
        """Return those that wait for their answer."""
        return [message for message, qos in self._waiting.values() if qos >= least_qos]

    def wait(self) -> None:
        """Wait until all of QoS 1 and 2 are answered, and all commands."""
        with self._changed:
            settled = self._changed.wait_for(
                lambda: not self.unanswered(1) and self.results == self.commands, WAIT_SECONDS
            )
        assert settled, f"{self.unanswered(1)[:5]}; commands: {self.commands - self.results}"

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _arrived(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        with self._changed:
            correlation = getattr(message.properties, "CorrelationData", b"")
            if message.topic.startswith(f"{self._base}/cmd/"):
                self.results[message.topic] += json.loads(message.payload)["status"] in ("ok", "error")
            elif message.topic.startswith(self._others):
                return
            elif self._waiting.pop(correlation, None) is None or not message.topic.startswith(self._replies):
                self.strange.append(message)
            else:
                frame = json.loads(message.payload)
                self.answered[frame["code"] if frame["type"] == "error" else frame["type"]] += 1
            self._changed.notify_all()


@pytest.fixture
def fuzzed(make_mosquitto: Any, start_device: StartDevice) -> Iterator[Device]:
    """A device behind a broker of its own that drops nothing."""
    broker: Mosquitto = make_mosquitto(config="allow_anonymous true\nmax_queued_messages 0")
    device = start_device(broker.port)
    yield device
    device.daemon.stop()


@pytest.mark.parametrize(
    "count", [1_000, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(300)])]
)
async def test_malformed_messages(fuzzed: Device, count: int) -> None:
    """No process dies, no connection is lost, no memory stays taken, and good prompts are answered."""
    draw = random.Random(SEED)
    before = await fuzzed.status()
    settled_bytes = 0
    async with open_requester(fuzzed) as requester:
        publisher = Publisher(fuzzed, "fuzz", beside=requester)
        try:
            for index, message in enumerate(Corpus(SEED, "fuzz", fuzzed.base).messages(count)):
                qos = draw.choices([0, 1, 2], [1, 8, 1])[0] if message.fate == "answered" else 1
                # A retained command is dropped: nobody answers it.
                retain = draw.random() < 0.05 and message.fate != "result"
                publisher.publish(message, qos=qos, retain=retain)
                if index % (count // 10) == count // 10 - 1:
                    await _check_good_prompt(requester)
                    settled_bytes = settled_bytes or (await fuzzed.status())["memory"]["daemon_bytes"]
            publisher.wait()
        finally:
            publisher.stop()
        await _check_good_prompt(requester)
    after = await _settled(fuzzed, publisher)
    assert after["pid"] == before["pid"]
    assert (after["engine"]["pid"], after["engine"]["restarts"]) == (before["engine"]["pid"], 0)
    assert after["mqtt"]["reconnects"] == 0
    assert after["memory"]["daemon_bytes"] - settled_bytes < 10 * MEGABYTE
    assert [message.topic for message in publisher.strange] == []
    assert publisher.answered.keys() <= {"invalid", "not_allowed", "too_large"}
    assert fuzzed.daemon.log().count('"level": "error"') == 0
    await _check_status_is_repaired(fuzzed)


async def _check_good_prompt(requester: Requester) -> None:
    answer = await requester.answered({"prompt": "Hello", "max_tokens": 4})
    check_answer([message.frame for message in answer])


async def _settled(device: Device, publisher: Publisher) -> dict[str, Any]:
    """Wait until what got no answer is counted, and return the status; QoS 0 may be dropped, not lost."""

    async def counted() -> bool:
        counters = await device.counters()
        answered = publisher.answered.total() + len(publisher.unanswered(0))
        return counters["invalid"] + counters["dropped"] - answered == publisher.sent["counted"]

    for _ in range(100):
        if await counted():
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError(
            (await device.counters(), publisher.sent, publisher.answered, publisher.unanswered(0))
        )
    return await device.status()


async def _check_status_is_repaired(device: Device) -> None:
    """What a stranger writes over the retained status does not stay there."""
    async with open_requester(device) as requester:
        await requester.listen(f"{device.base}/status")
        status = await requester.next(lambda m: b'"state":"online"' in m.payload)
    assert status.frame["session"] == device.birth["session"]
