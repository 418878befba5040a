"""A device at a real broker whose answers are scripted; it notes what it is asked."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

PATIENCE_SECONDS = 20
Script = Callable[["Ask"], None]


@dataclass
class Ask:
    """A question that came, and the means to answer it."""

    device: Device
    topic: str
    client: str
    fields: dict[str, Any]
    expiry_seconds: int | None
    number: int

    @property
    def id(self) -> str:
        return str(self.fields["id"])

    def frame(self, kind: str, seq: int, attempt: int = 1, **more: Any) -> None:
        self.device.reply(
            self.client, self.id, {"v": 1, "attempt": attempt, "seq": seq, "type": kind, **more}
        )

    def chunks(self, *texts: str, attempt: int = 1) -> int:
        """Send `accepted` and chunks; return the next seq."""
        self.frame("accepted", 0, attempt, queue_position=0)
        for seq, text in enumerate(texts, 1):
            self.frame("chunk", seq, attempt, text=text)
        return len(texts) + 1

    def answer(self, *texts: str, attempt: int = 1, reason: str = "stop", **more: Any) -> None:
        seq = self.chunks(*texts, attempt=attempt)
        self.frame("done", seq, attempt, finish_reason=reason, text="".join(texts), usage={}, **more)


@dataclass
class Device:
    """Subscribes to its prompts, its pool's and its cancellations; `script` answers each ask."""

    port: int
    id: str
    script: Script = lambda ask: ask.answer("Hel", "lo.")
    pool: str = ""
    asks: list[Ask] = field(default_factory=list)
    cancelled: queue.Queue[tuple[str, str]] = field(default_factory=queue.Queue)

    def __post_init__(self) -> None:
        self.errors: list[BaseException] = []
        self._ready = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", self.port)
        self._client.loop_start()
        assert self._ready.wait(PATIENCE_SECONDS)

    def reply(self, client: str, request: str, frame: dict[str, Any]) -> None:
        fields = {"id": request, "device_id": self.id, **frame}
        self._client.publish(f"edged/v1/{self.id}/reply/{client}/{request}", json.dumps(fields), qos=1)

    def publish(self, topic: str, payload: str | bytes, *, retain: bool = False) -> None:
        """Publish below the device's own topics, and return when the broker has it."""
        info = self._client.publish(f"edged/v1/{self.id}/{topic}", payload, qos=1, retain=retain)
        info.wait_for_publish(PATIENCE_SECONDS)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        assert self.errors == []

    def _on_connect(self, client: Client, *_: Any) -> None:
        places = [f"edged/v1/{self.id}", *([f"edged/v1/_pool/{self.pool}"] if self.pool else [])]
        client.subscribe([(f"{place}/{what}/+", 1) for place in places for what in ("ask", "cancel")])

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        try:
            fields = json.loads(message.payload)
            *_, what, name = message.topic.split("/")
            if what == "cancel":
                self.cancelled.put((name, fields["id"]))
                return
            expiry = getattr(message.properties, "MessageExpiryInterval", None)
            self.asks.append(Ask(self, message.topic, name, fields, expiry, len(self.asks) + 1))
            self.script(self.asks[-1])
        except BaseException as error:  # paho's thread would end without a word
            self.errors.append(error)
