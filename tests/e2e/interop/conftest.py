"""A real daemon behind a real broker, and what asks it: clients and brokers that no one here wrote."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiomqtt
import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests.brokers import Mosquitto
from tests.conftest import ROOT
from tests.e2e.conftest import Daemon, StartDaemon

WAIT_SECONDS = 30
NPM_SECONDS = 100
TERMINAL = ("done", "error")
MQTT_JS, AEDES, GMQTT = "mqtt@5.16.0", "aedes@1.2.0", "gmqtt==0.8.0"
AEDES_NODE = 20

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


@contextmanager
def birth(port: int, base: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """Listen to a device's status before it starts; the function waits until it is ready, and returns it."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    subscribed: queue.SimpleQueue[None] = queue.SimpleQueue()
    told: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    client.on_connect = lambda client, *_: client.subscribe(f"{base}/status", 1)
    client.on_subscribe = lambda *_: subscribed.put(None)
    client.on_message = lambda client, data, message: told.put(message.payload)
    client.connect("127.0.0.1", port)
    client.loop_start()

    def ready() -> dict[str, Any]:
        while True:
            status = dict(json.loads(told.get(timeout=WAIT_SECONDS)))
            if (status["state"], status["phase"]) == ("online", "ready"):
                return status

    try:
        subscribed.get(timeout=WAIT_SECONDS)
        yield ready
    finally:
        client.disconnect()
        client.loop_stop()


StartDevice = Callable[..., Device]


@pytest.fixture(scope="session")
def start_device(start_daemon: StartDaemon, tiny_model: Path) -> StartDevice:
    """Return a function that starts a device behind a broker's port and waits until it has connected."""

    def start(port: int, *, root: str = "", mqtt: dict[str, Any] | None = None, **tables: Any) -> Device:
        root = root or new_root()
        with birth(port, f"{root}/v1/test") as ready:
            tables["model"] = {"context": 4096, "sequences": 2, **tables.get("model", {})}
            tables["mqtt"] = {"url": f"mqtt://127.0.0.1:{port}", "root": root, **(mqtt or {})}
            daemon = start_daemon(tiny_model, **tables)
            try:
                return Device(daemon, port, root, ready())
            except queue.Empty:
                raise AssertionError(f"the device has not come online:\n{daemon.log()}") from None

    return start


def new_root() -> str:
    """Return a root of topics that no device has had."""
    return f"interop{next(_numbers)}"


@pytest.fixture(scope="session")
def device(broker: Mosquitto, start_device: StartDevice) -> Device:
    """The device that tests share: text is joined by characters and sentences alone, not by time."""
    return start_device(
        broker.port,
        mqtt={"chunk_milliseconds": 60_000, "chunk_characters": 100, "health_seconds": 1},
        limits={"per_client": 4},
        watch={"liveness": {"engine_seconds": 100.0}},
    )


OpenRequester = Callable[..., AbstractAsyncContextManager[Requester]]


@asynccontextmanager
async def open_requester(device: Device, *, version: str = "5", name: str = "") -> AsyncIterator[Requester]:
    """Connect one that asks."""
    name = name or f"c{next(_numbers)}"
    protocol = aiomqtt.ProtocolVersion.V5 if version == "5" else aiomqtt.ProtocolVersion.V311
    async with aiomqtt.Client("127.0.0.1", device.port, protocol=protocol) as client:
        requester = Requester(client, device, name, version)
        await requester.listen(f"{requester.replies}/#")
        yield requester


@pytest.fixture
async def requester(device: Device) -> AsyncIterator[Requester]:
    """One that asks the shared device over MQTT 5."""
    async with open_requester(device) as requester:
        yield requester


def need(program: str) -> str:
    """Return a program's path, or skip the test."""
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    path = shutil.which(program, path=search)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


@pytest.fixture(scope="session")
def packages() -> Path:
    """The directory that keeps foreign packages between runs."""
    directory = Path(os.environ.get("EDGED_TEST_PACKAGES") or ROOT / ".cache" / "packages")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def node(packages: Path) -> Path:
    """The directory in which node finds mqtt.js and aedes."""
    need("node")
    command = [need("npm"), "install", "--prefix", packages, "--no-audit", "--no-fund", "--ignore-scripts"]
    if not (packages / "node_modules" / "aedes").exists():
        _install([*command, MQTT_JS, AEDES], packages / "node_modules")
    return packages


@pytest.fixture(scope="session")
def gmqtt(packages: Path) -> Path:
    """The directory that gmqtt is imported from.

    It is not in the environment, where it would bring a package `tests` that hides ours.
    """
    directory = packages / GMQTT
    if not (directory / "gmqtt").exists():
        _install(
            [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", directory, GMQTT],
            directory,
        )
    return directory


def _install(command: list[Any], directory: Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=NPM_SECONDS)
    except subprocess.TimeoutExpired:
        shutil.rmtree(directory, ignore_errors=True)
        pytest.skip(f"no registry answers: {command[-1]} can't be installed")
    if done.returncode != 0:
        shutil.rmtree(directory, ignore_errors=True)
        pytest.skip(f"{command[-1]} can't be installed: {done.stderr.strip()[-300:]}")


async def lines_of(*command: str | Path, until: str, environ: dict[str, str] | None = None) -> list[str]:
    """Run a client until it has written a line that contains `until`; return its lines."""
    async with running(*command, environ=environ) as client:
        return await client.lines(until)


class Program:
    """A client in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[str] = []

    async def lines(self, until: str, times: int = 1) -> list[str]:
        """Read until so many lines contain a text; return all lines so far."""
        assert self._process.stdout is not None
        while sum(until in line for line in self.said) < times:
            async with asyncio.timeout(WAIT_SECONDS):
                line = await self._process.stdout.readline()
            assert line, f"it ended before it said {until!r}: {self.said}"
            self.said.append(line.decode().rstrip("\n"))
        return self.said

    async def wait(self) -> int:
        """Wait for its end; return the exit code."""
        async with asyncio.timeout(WAIT_SECONDS):
            return await self._process.wait()


@asynccontextmanager
async def running(*command: str | Path, environ: dict[str, str] | None = None) -> AsyncIterator[Program]:
    """Run a client, and end it at the end."""
    process = await asyncio.create_subprocess_exec(
        *("stdbuf", "-oL", *command),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(environ or {})},
        limit=2**22,
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
