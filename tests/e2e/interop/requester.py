"""A device behind a broker, and one that asks it by aiomqtt."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.e2e.conftest import Daemon
from tests.e2e.interop.programs import WAIT_SECONDS

TERMINAL = ("done", "error")

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Received:
    """A message as a requester sees it."""

    topic: str
    payload: bytes
    correlation: bytes | None = None
    content_type: str | None = None
    expiry_seconds: int | None = None
    retain: bool = False

    @property
    def frame(self) -> dict[str, Any]:
        """The payload's JSON."""
        return dict(json.loads(self.payload))


class Device:
    """A daemon that has connected to a broker.

    Attributes:
        daemon: its process.
        port: where the broker listens.
        base: what its topics begin with.
        root: what those of all devices begin with.
        birth: its `status` when it had connected.
    """

    def __init__(self, daemon: Daemon, port: int, root: str, birth: dict[str, Any]) -> None:
        self.daemon = daemon
        self.port = port
        self.root = root
        self.base = f"{root}/v1/test"
        self.birth = birth

    async def status(self) -> dict[str, Any]:
        """Return /v1/status."""
        return dict(await self.daemon.get("/v1/status"))

    async def counters(self) -> dict[str, int]:
        """Return the counters of /v1/status's `mqtt`."""
        return dict((await self.status())["mqtt"]["counters"])

    @asynccontextmanager
    async def held_engine(self) -> AsyncIterator[None]:
        """Stop the engine's process for a while: what runs stays as it is."""
        pid = (await self.status())["engine"]["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @asynccontextmanager
    async def slow_engine(self) -> AsyncIterator[None]:
        """Let the engine run for a fiftieth of the time."""
        pid = (await self.status())["engine"]["pid"]

        async def slow_down() -> None:
            while True:
                os.kill(pid, signal.SIGSTOP)
                await asyncio.sleep(0.1)
                os.kill(pid, signal.SIGCONT)
                await asyncio.sleep(0.002)

        task = asyncio.create_task(slow_down())
        try:
            yield
        finally:
            task.cancel()
            os.kill(pid, signal.SIGCONT)


class Requester:
    """One that asks a device, on aiomqtt; it has subscribed to its replies."""

    def __init__(self, client: aiomqtt.Client, device: Device, name: str, version: str) -> None:
        self.name = name
        self.replies = f"{device.base}/reply/{name}"
        self._client = client
        self._device = device
        self._version = version
        self._read: list[Received] = []

    async def ask(
        self,
        body: str | bytes | dict[str, Any],
        *,
        topic: str | None = None,
        qos: int = 1,
        retain: bool = False,
        **properties: Any,
    ) -> None:
        """Publish to ask/<name>, or to another topic of the device; properties have paho's names."""
        await self._client.publish(
            f"{self._device.base}/{topic or f'ask/{self.name}'}",
            json.dumps(body) if isinstance(body, dict) else body,
            qos=qos,
            retain=retain,
            properties=publish_properties(**properties) if self._version == "5" else None,
        )

    async def cancel(self, id: str) -> None:
        """Publish the wish to cancel a request."""
        await self.ask({"id": id}, topic=f"cancel/{self.name}")

    async def listen(self, topic: str) -> None:
        """Subscribe to another topic."""
        await self._client.subscribe(topic, qos=1)

    async def next(self, fits: Callable[[Received], bool] = lambda message: True) -> Received:
        """Return the first message that fits, those that came before and were passed over included."""
        for index, message in enumerate(self._read):
            if fits(message):
                return self._read.pop(index)
        async with asyncio.timeout(WAIT_SECONDS):
            async for raw in self._client.messages:
                message = _received(raw)
                if fits(message):
                    return message
                self._read.append(message)
        raise AssertionError("the client has disconnected")

    async def frame(self, id: str, type: str | None = None) -> Received:
        """Return the next frame of a request."""

        def fits(message: Received) -> bool:
            if not message.payload.startswith(b'{"v":1,"id":'):
                return False
            return message.frame["id"] == id and type in (None, message.frame["type"])

        return await self.next(fits)

    async def answer(self, id: str) -> list[Received]:
        """Return a request's frames up to the terminal one."""
        frames = [await self.frame(id)]
        while frames[-1].frame["type"] not in TERMINAL:
            frames.append(await self.frame(id))
        return frames

    async def answered(self, body: dict[str, Any], **properties: Any) -> list[Received]:
        """Ask under a new id and return the answer."""
        id = new_id()
        await self.ask({"id": id, **body}, **properties)
        return await self.answer(id)

    @property
    def unread(self) -> list[Received]:
        """What was passed over."""
        return self._read


def _received(message: aiomqtt.Message) -> Received:
    properties = vars(message.properties) if message.properties is not None else {}
    assert isinstance(message.payload, bytes)
    return Received(
        topic=str(message.topic),
        payload=message.payload,
        correlation=properties.get("CorrelationData"),
        content_type=properties.get("ContentType"),
        expiry_seconds=properties.get("MessageExpiryInterval"),
        retain=message.retain,
    )


def new_id() -> str:
    """Return an id that no request has had."""
    return f"r{next(_numbers)}"


def publish_properties(**values: Any) -> Properties:
    """Return a PUBLISH's properties, by paho's names for them."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


def check_answer(frames: list[dict[str, Any]], *, device_id: str = "test") -> dict[str, Any]:
    """Check what holds for the frames of every answer; return the terminal one."""
    last = frames[-1]
    assert last["type"] == "done", last
    assert [frame["type"] for frame in frames[:-1] if frame["type"] not in ("chunk", "progress")] == [
        "accepted"
    ]
    assert [frame["seq"] for frame in frames] == list(range(len(frames)))
    assert {frame["id"] for frame in frames} == {last["id"]}
    assert {frame["device_id"] for frame in frames} == {device_id}
    assert {frame["attempt"] for frame in frames} == {1}
    chunks = [frame["text"] for frame in frames if frame["type"] == "chunk"]
    assert not chunks or "".join(chunks) == last["text"]
    return last


@asynccontextmanager
async def open_requester(device: Device, *, version: str = "5", name: str = "") -> AsyncIterator[Requester]:
    """Connect one that asks."""
    name = name or f"c{next(_numbers)}"
    protocol = aiomqtt.ProtocolVersion.V5 if version == "5" else aiomqtt.ProtocolVersion.V311
    async with aiomqtt.Client("127.0.0.1", device.port, protocol=protocol) as client:
        requester = Requester(client, device, name, version)
        await requester.listen(f"{requester.replies}/#")
        yield requester


def new_root() -> str:
    """Return a root of topics that no device has had."""
    return f"interop{next(_numbers)}"
