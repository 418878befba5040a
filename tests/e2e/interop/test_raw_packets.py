"""Packets that no broker should let through: each is answered or stepped over, on the same connection."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Daemon, StartDaemon
from tests.scripted_broker import PUBACK, PUBLISH, SUBSCRIBE, Packet, Peer, ScriptedBroker, packet

pytestmark = pytest.mark.slow

BASE = "raw/v1/test"
TOPIC = f"{BASE}/ask/c".encode()
REPLIES = f"{BASE}/reply/c"
GOOD = {"prompt": "Hello", "max_tokens": 4}


def text(value: bytes | str) -> bytes:
    """Return a text, or what is none, with its length before it."""
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(2, "big") + raw


def length(count: int) -> bytes:
    """Return a number as MQTT writes lengths."""
    digits = bytearray()
    while True:
        count, digit = divmod(count, 128)
        digits.append(digit | (0x80 if count else 0))
        if not count:
            return bytes(digits)


RESPONSE, CONTENT, CORRELATION, EXPIRY, USER = b"\x08", b"\x03", b"\x09", b"\x02", b"\x26"

# Properties of an ask whose prompt is good, and the error that its requester gets; None: it is stepped over,
# or answered with whatever fits.
PROPERTIES: list[tuple[str, bytes, str | None]] = [
    ("a Response Topic with +", RESPONSE + text(f"{REPLIES}/+"), "not_allowed"),
    ("a Response Topic with #", RESPONSE + text("#"), "not_allowed"),
    ("a Response Topic of the broker's own", RESPONSE + text("$SYS/broker/x"), "not_allowed"),
    ("an empty Response Topic", RESPONSE + text(""), "not_allowed"),
    ("a Response Topic with a zero byte", RESPONSE + text(f"{REPLIES}/a\0b"), None),
    ("a Response Topic with a control character", RESPONSE + text(f"{REPLIES}/a\nb"), "not_allowed"),
    ("a Response Topic that is no UTF-8", RESPONSE + text(b"\xff\xfe"), None),
    ("a Response Topic with half a character", RESPONSE + text(b"\xed\xa0\x80"), None),
    ("a Response Topic of 65,535 bytes", RESPONSE + text("x" * 65_535), "not_allowed"),
    ("two Response Topics", (RESPONSE + text("a")) * 2, None),
    ("a content type that is no UTF-8", CONTENT + text(b"\xff"), None),
    ("a content type with a zero byte", CONTENT + text("a\0b"), None),
    ("an expiry of nothing", EXPIRY + bytes(4), None),
    ("Correlation Data of 60,000 bytes", CORRELATION + text(b"\xff" * 60_000), None),
    ("user properties without end", (USER + text("k") + text("v")) * 5_000, None),
    ("a topic alias that was never given", b"\x23\0\x07", None),
    ("a property of another packet", b"\x21\0\x10", None),
    ("an unknown property", b"\x7f\0", None),
    ("a payload format that is none", b"\x01\x09", None),
    ("properties that end too early", RESPONSE + b"\xff\xff", None),
]


def publish(topic: bytes, properties: bytes, payload: bytes, *, mid: int) -> bytes:
    """Return a PUBLISH of QoS 1 with these properties."""
    return packet(
        PUBLISH, 2, text(topic) + mid.to_bytes(2, "big") + length(len(properties)) + properties + payload
    )


class Script:
    """Takes one connection of a device, and says things to it."""

    def __init__(self) -> None:
        self.connected: asyncio.Queue[Peer] = asyncio.Queue()
        self.broker = ScriptedBroker(self._serve)

    async def _serve(self, peer: Peer) -> None:
        await peer.greet()
        serving = asyncio.create_task(peer.serve())
        await self.broker.received(SUBSCRIBE, self.broker.connections)
        self.connected.put_nowait(peer)
        await serving

    async def acknowledged(self, mid: int) -> None:
        """Wait until the device has acknowledged a message."""
        async with asyncio.timeout(20):
            while not any(ack.mid == mid for ack in self.broker.of(PUBACK)):
                self.broker.changed.clear()
                await self.broker.changed.wait()

    def frames(self, id: str) -> list[tuple[Packet, dict[str, Any]]]:
        """Return the frames of a request."""
        replies = [sent for sent in self.broker.of(PUBLISH) if "/reply/" in sent.topic]
        frames = [(sent, json.loads(sent.raw[sent.raw.index(b'{"v":') :])) for sent in replies]
        return [(sent, frame) for sent, frame in frames if frame["id"] == id]

    async def ended(self, id: str) -> dict[str, Any]:
        """Wait for a request's terminal frame."""
        async with asyncio.timeout(20):
            while not (ends := [f for _, f in self.frames(id) if f["type"] in ("done", "error")]):
                self.broker.changed.clear()
                await self.broker.changed.wait()
        return ends[0]


async def connect(script: Script, start_daemon: StartDaemon, model: Path) -> tuple[Daemon, Peer]:
    """Start a device that connects to a script."""
    daemon = start_daemon(
        model,
        model={"context": 1024, "sequences": 1},
        engine={"threads": 1, "threads_batch": 1},
        mqtt={"url": f"mqtt://127.0.0.1:{script.broker.port}", "root": "raw", "protocol": "5"},
    )
    async with asyncio.timeout(30):
        peer = await script.connected.get()
    return daemon, peer


@pytest.fixture
async def script() -> Any:
    script = Script()
    async with script.broker:
        yield script


async def test_strange_properties(script: Script, start_daemon: StartDaemon, tiny_model: Path) -> None:
    daemon, peer = await connect(script, start_daemon, tiny_model)
    for mid, (what, properties, code) in enumerate(PROPERTIES, start=1):
        body = json.dumps({"id": f"p{mid}", **GOOD}).encode()
        await peer.send(publish(TOPIC, properties, body, mid=mid))
        try:
            await script.acknowledged(mid)
        except TimeoutError:
            raise AssertionError(
                f"{what}: no PUBACK; {script.broker.connections} connections\n{daemon.log()}"
            ) from None
        if code is not None:
            end = await script.ended(f"p{mid}")
            assert end.get("code") == code, (what, end)
            assert {sent.topic for sent, _ in script.frames(f"p{mid}")} == {f"{REPLIES}/p{mid}"}, what
    await _check_serves(script, daemon, peer)
    daemon.stop()


async def test_strange_topics(script: Script, start_daemon: StartDaemon, tiny_model: Path) -> None:
    daemon, peer = await connect(script, start_daemon, tiny_model)
    wrong = [
        b"",
        b"\xff",
        f"{BASE}/ask/+".encode(),
        f"{BASE}/ask/a\0b".encode(),
        f"{BASE}/ask/c\n".encode(),
        b"x" * 65_535,
    ]
    for mid, topic in enumerate(wrong, start=1):
        await peer.send(publish(topic, b"", b"Hello", mid=mid))
        try:
            await script.acknowledged(mid)
        except TimeoutError:
            raise AssertionError(
                f"{topic[:30]!r}: {script.broker.connections} connections\n{daemon.log()}"
            ) from None
    await _check_serves(script, daemon, peer)
    assert [sent.topic for sent in script.broker.of(PUBLISH) if "/reply/" in sent.topic] != []
    daemon.stop()


async def test_more_than_the_largest_packet(
    script: Script, start_daemon: StartDaemon, tiny_model: Path
) -> None:
    """A broker that does not heed Maximum Packet Size: stepped over, counted, and never whole in memory."""
    daemon, peer = await connect(script, start_daemon, tiny_model)
    before = (await daemon.get("/v1/status"))["memory"]["daemon_bytes"]
    for mid in range(1, 4):
        await peer.send(publish(TOPIC, b"", b"x" * 2**25, mid=mid))
        await script.acknowledged(mid)
    await _check_serves(script, daemon, peer)
    status = await daemon.get("/v1/status")
    assert status["mqtt"]["counters"]["dropped"] == 3
    assert status["memory"]["daemon_bytes"] - before < 10 * 2**20
    daemon.stop()


async def _check_serves(script: Script, daemon: Daemon, peer: Peer) -> None:
    """Ask a good prompt; nothing must have died, and the connection is still the first."""
    await peer.send(publish(TOPIC, b"", json.dumps({"id": "good", **GOOD}).encode(), mid=999))
    assert (await script.ended("good"))["type"] == "done"
    assert script.broker.connections == 1
    status = await daemon.get("/v1/status")
    assert (status["pid"], status["engine"]["restarts"]) == (daemon.process.pid, 0)
    assert daemon.log().count('"level": "error"') == 0
