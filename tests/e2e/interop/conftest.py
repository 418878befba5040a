"""A real daemon behind a real broker, and clients and brokers that no one here wrote."""

from __future__ import annotations

import json
import os
import queue
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.brokers import Mosquitto
from tests.conftest import ROOT
from tests.e2e.conftest import StartDaemon
from tests.e2e.interop.programs import WAIT_SECONDS, install, need
from tests.e2e.interop.requester import Device, Requester, new_root, open_requester

MQTT_JS, AEDES, GMQTT = "mqtt@5.16.0", "aedes@1.2.0", "gmqtt==0.8.0"


@contextmanager
def birth(port: int, base: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """Listen to a device's status before it starts; the function waits until it is ready, and returns it."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    subscribed: queue.SimpleQueue[None] = queue.SimpleQueue()
    told: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    client.on_connect = lambda client, *_: client.subscribe(f"{base}/status", 1)
    client.on_subscribe = lambda *_: subscribed.put(None)
    client.on_message = lambda client, data, message: told.put(bytes(message.payload))
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
    """Return a function that starts a device behind a broker's port and waits until it has connected.

    All are the same device: on one broker they would take each other's place.
    """

    def start(port: int, *, root: str = "", mqtt: dict[str, Any] | None = None, **tables: Any) -> Device:
        root = root or new_root()
        with birth(port, f"{root}/v1/test") as ready:
            tables["model"] = {"context": 4096, "sequences": 2, **tables.get("model", {})}
            # Threads that wait for each other spin: on a busy machine one is faster than two.
            tables["engine"] = {"threads": 1, "threads_batch": 1}
            tables["mqtt"] = {"url": f"mqtt://127.0.0.1:{port}", "root": root, **(mqtt or {})}
            daemon = start_daemon(tiny_model, **tables)
            try:
                return Device(daemon, port, root, ready())
            except queue.Empty:
                raise AssertionError(f"the device has not come online:\n{daemon.log()}") from None

    return start


@pytest.fixture(scope="session")
def device(broker: Mosquitto, start_device: StartDevice) -> Device:
    """The device that tests share: text is joined by characters and sentences alone, not by time."""
    return start_device(
        broker.port,
        mqtt={"chunk_milliseconds": 60_000, "chunk_characters": 100},
        telemetry={"interval_seconds": 1},
        limits={"per_client": 4},
        watch={"liveness": {"engine_seconds": 100.0}},
    )


@pytest.fixture
async def requester(device: Device) -> AsyncIterator[Requester]:
    """One that asks the shared device over MQTT 5."""
    async with open_requester(device) as requester:
        yield requester


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
        install([*command, MQTT_JS, AEDES], packages / "node_modules")
    return packages


@pytest.fixture(scope="session")
def gmqtt(packages: Path) -> Path:
    """The directory that gmqtt is imported from.

    It is not in the environment, where it would bring a package `tests` that hides ours.
    """
    directory = packages / GMQTT
    if not (directory / "gmqtt").exists():
        install(
            [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", directory, GMQTT],
            directory,
        )
    return directory
