"""Real daemons at a real broker, and a requester that remembers what it has heard."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.brokers import Mosquitto
from tests.e2e.conftest import Daemon

WAIT_SECONDS = 60.0
POLL_SECONDS = 0.02
DEVICE = "test"
Frame = dict[str, Any]


class MqttDaemon(Protocol):
    """Starts a daemon with the tiny model at a broker."""

    def __call__(
        self,
        broker: Mosquitto | str,
        *,
        directory: Path | None = ...,
        device_id: str = ...,
        environ: dict[str, str] | None = ...,
        **tables: dict[str, Any],
    ) -> Daemon:
        """Start it; what is given goes before the tests' own settings.

        Args:
            broker: the broker or its url.
            directory: of an earlier daemon, to go on with its state; default: a new one.
            device_id: its id.
            environ: variables for it.
            tables: settings.
        """


@pytest.fixture
def mqtt_daemon(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MqttDaemon]:
    """Return a function that starts a daemon; all are ended at the end."""
    daemons: list[Daemon] = []

    def start(
        broker: Mosquitto | str,
        *,
        directory: Path | None = None,
        device_id: str = DEVICE,
        environ: dict[str, str] | None = None,
        **tables: dict[str, Any],
    ) -> Daemon:
        url = broker if isinstance(broker, str) else broker.url
        own: dict[str, dict[str, Any]] = {
            "model": {"path": str(tiny_model), "context": 4096, "sequences": 2},
            "engine": {"threads": 1, "threads_batch": 1, "deterministic": True},
            "mqtt": {"url": url},
        }
        merged = {name: own.get(name, {}) | tables.get(name, {}) for name in {**own, **tables}}
        directory = directory or tmp_path_factory.mktemp("edged")
        daemon = Daemon(directory, merged, {"EDGED_DEVICE_ID": device_id, **(environ or {})})
        daemons.append(daemon)
        return daemon

    yield start
    for daemon in daemons:
        if daemon.process.poll() is None:
            daemon.process.send_signal(signal.SIGCONT)
            daemon.kill()


class Requester:
    """A client that listens to a device and remembers everything.

    Args:
        broker: where to.
        name: of the client.
        device: a device's id, or + for all.
    """

    def __init__(self, broker: Mosquitto, name: str = "anna", device: str = DEVICE) -> None:
        self.messages: list[paho.MQTTMessage] = []
        self._name = name
        self._device = device
        self._port = broker.port
        self._changed = threading.Condition()
        self._listens = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(f"edged/v1/{device}/#", 1), (f"edged/reply/{name}/#", 1)]
        )
        self._client.on_subscribe = lambda *_: self._listens.set()
        self._client.on_message = lambda _client, _userdata, message: self._heard(message)

    def __enter__(self) -> Requester:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        assert self._listens.wait(WAIT_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, fields: dict[str, Any]) -> None:
        """Publish JSON with QoS 1."""
        self._client.publish(topic, json.dumps(fields), qos=1)

    def ask(self, id: str, *, prompt: str = "harbour", **fields: Any) -> None:
        """Ask the device."""
        self.publish(f"edged/v1/{self._device}/ask/{self._name}", {"id": id, "prompt": prompt, **fields})

    def cancel(self, id: str) -> None:
        """Cancel an own request."""
        self.publish(f"edged/v1/{self._device}/cancel/{self._name}", {"id": id})

    def wait(self, condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
        """Wait until what has been heard fulfils a condition; return what it gives."""
        with self._changed:
            self._changed.wait_for(condition, seconds)
            result = condition()
        assert result, "\n".join(f"{m.topic} {bytes(m.payload)[:200]!r}" for m in self.messages[-20:])
        return result

    def payloads(self, id: str) -> list[bytes]:
        """Return the frames of a request as they came."""
        ends = f"/{id}"
        with self._changed:
            return [
                bytes(m.payload) for m in self.messages if m.topic.endswith(ends) and "/reply/" in m.topic
            ]

    def frames(self, id: str) -> list[Frame]:
        """Return the frames of a request."""
        return [json.loads(payload) for payload in self.payloads(id)]

    def terminal(self, id: str) -> Frame:
        """Wait for a request's end and return its frame; every copy of it must be the same."""
        self.wait(lambda: self._ends(id))
        ends = set(self._ends(id))
        assert len(ends) == 1, ends
        return dict(json.loads(ends.pop()))

    def done(self, id: str) -> Frame:
        """Wait for a request's answer and return its frame; its chunks must be its text."""
        frame = self.terminal(id)
        assert frame["type"] == "done", frame
        chunks = {
            f["seq"]: f["text"]
            for f in self.frames(id)
            if f["type"] == "chunk" and f["attempt"] == frame["attempt"]
        }
        assert "".join(chunks[seq] for seq in sorted(chunks)) == frame["text"]
        return frame

    def retained(self, topic: str) -> bytes | None:
        """Return the newest content of one of the device's own topics."""
        full = f"edged/v1/{self._device}/{topic}"
        with self._changed:
            return next((bytes(m.payload) for m in reversed(self.messages) if m.topic == full), None)

    def events(self, type: str) -> list[dict[str, Any]]:
        """Return the events of a type."""
        with self._changed:
            own = [m for m in self.messages if m.topic.endswith(f"/event/{type}")]
        return [json.loads(m.payload) for m in own]

    def _ends(self, id: str) -> list[bytes]:
        kinds = (b'"type":"done"', b'"type":"error"')
        return [payload for payload in self.payloads(id) if any(kind in payload for kind in kinds)]

    def _heard(self, message: paho.MQTTMessage) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()


def status(daemon: Daemon) -> dict[str, Any]:
    """Return a daemon's status."""
    return dict(asyncio.run(daemon.get("/v1/status")))


def until(condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
    """Wait for what no event tells; return what the condition gives."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "what was waited for has not come"
        time.sleep(POLL_SECONDS)
    return result


def online(daemon: Daemon) -> None:
    """Wait until a daemon serves and listens at its broker."""
    daemon.wait_ready()
    until(lambda: status(daemon)["mqtt"]["state"] == "connected")


def children(daemon: Daemon) -> list[int]:
    """Return the processes of a daemon's engine."""
    path = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a process hang."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
