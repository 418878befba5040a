"""A device of the tests' own: it answers asks over MQTT with the frames of the protocol, in several moods."""

from __future__ import annotations

import json
import threading
from typing import Any, Literal

from paho.mqtt.client import Client, MQTTMessage, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion

Mood = Literal["ready", "deaf_at_first", "restarted", "chunk_lost", "refusing"]
PIECES = ("Guten Tag, ", 'sagt "edged" \\ – ', "in zwei\nZeilen: ", "日本 🌍.")
TEXT = "".join(PIECES)


class AnsweringDevice:
    """Answers each ask of any client under its own id, as edged does; a repeat gets the terminal frame again.

    Attributes:
        device_id: its level of the topics.
        environ: what the examples are told: which broker, and as whom.
        text: the whole text of its answers.
        asks: the bodies that came, in order.
    """

    text = TEXT

    def __init__(
        self,
        *,
        device_id: str,
        environ: dict[str, str],
        port: int,
        login: str | None = None,
        password: str = "",
        ca: str | None = None,
        mood: Mood = "ready",
    ) -> None:
        self.device_id = device_id
        self.environ = environ
        self.asks: list[bytes] = []
        self._mood = mood
        self._terminal: dict[str, dict[str, Any]] = {}
        self._ready = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv311)
        if login is not None:
            self._client.username_pw_set(login, password)
        if ca is not None:
            self._client.tls_set(ca)
        self._client.on_connect = lambda client, *_: client.subscribe(f"edged/v1/{device_id}/ask/+", 1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._on_ask
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(20)

    def close(self) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_ask(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        self.asks.append(bytes(message.payload))
        if self._mood == "deaf_at_first" and len(self.asks) == 1:
            return
        request_id = json.loads(message.payload)["id"]
        reply = f"edged/v1/{self.device_id}/reply/{message.topic.rpartition('/')[2]}/{request_id}"
        if request_id in self._terminal:
            frames = [self._terminal[request_id]]
        else:
            frames = self._answer()
            self._terminal[request_id] = frames[-1]
        for frame in frames:
            fields = {"v": 1, "id": request_id, "device_id": self.device_id, **frame}
            client.publish(reply, json.dumps(fields, ensure_ascii=False, separators=(",", ":")), qos=1)

    def _answer(self) -> list[dict[str, Any]]:
        if self._mood == "refusing":
            return [_frame(1, 0, "error", code="busy", message="64 requests wait already: ask again later")]
        if self._mood == "restarted":
            before = [_frame(1, 0, "accepted"), _frame(1, 1, "chunk", text="Guten ")]
            return before + _attempt(2)
        frames = _attempt(1)
        if self._mood == "chunk_lost":
            del frames[2]
        # QoS 1 may bring a frame twice, and late.
        frames.insert(3, frames[1])
        return frames


def _attempt(attempt: int) -> list[dict[str, Any]]:
    chunks = [_frame(attempt, 1 + number, "chunk", text=text) for number, text in enumerate(PIECES)]
    return [
        _frame(attempt, 0, "accepted", queue_position=1),
        *chunks,
        _frame(attempt, 1 + len(chunks), "done", finish_reason="stop", text=TEXT, usage={}, timings={}),
    ]


def _frame(attempt: int, seq: int, kind: str, **fields: Any) -> dict[str, Any]:
    return {"attempt": attempt, "seq": seq, "type": kind, **fields}
