"""Who asks all the while: on the socket, over MQTT, and for the status."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

PROMPT = "Name three birds."
TOKENS = 12
MQTT_SECONDS = 3.0
STATUS_SECONDS = 0.25
AGAIN_SECONDS = 1.0
"""After so long who was refused asks again; edged advises longer."""


@dataclass
class Seen:
    """What came of it, each with the monotonic time.

    Attributes:
        answers: when an answer came on the socket.
        refusals: when a request was refused there, and the code.
        asked: prompts over MQTT, and when.
        ended: their terminal frames, and when.
        status: when the status was answered, after how many seconds, and what it said.
        unanswered: how often it was not.
    """

    answers: list[float] = field(default_factory=list)
    refusals: list[tuple[float, str]] = field(default_factory=list)
    asked: dict[str, float] = field(default_factory=dict)
    ended: dict[str, tuple[float, dict[str, Any]]] = field(default_factory=dict)
    status: list[tuple[float, float, dict[str, Any]]] = field(default_factory=list)
    unanswered: int = 0


def session(socket: Path) -> aiohttp.ClientSession:
    """Open an HTTP session with the daemon."""
    connector = aiohttp.UnixConnector(str(socket))
    return aiohttp.ClientSession("http://edged", connector=connector, timeout=aiohttp.ClientTimeout(120))


async def ask_on_socket(socket: Path, seen: Seen) -> None:
    """Ask one thing after the other."""
    body = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": TOKENS}
    async with session(socket) as http:
        while True:
            async with http.post("/v1/chat/completions", json=body) as response:
                told = await response.json()
            if response.status == 200:
                seen.answers.append(time.monotonic())
            else:
                seen.refusals.append((time.monotonic(), told["error"]["code"]))
                await asyncio.sleep(AGAIN_SECONDS)


async def ask_for_status(socket: Path, seen: Seen) -> None:
    """Ask for the status again and again."""
    async with session(socket) as http:
        while True:
            began = time.monotonic()
            try:
                async with http.get("/v1/status") as response:
                    told = await response.json()
                seen.status.append((began, time.monotonic() - began, told))
            except aiohttp.ClientError:
                seen.unanswered += 1
            await asyncio.sleep(STATUS_SECONDS)


class Requester:
    """A client over MQTT.

    Args:
        port: of the broker.
        device: who is asked.
        seen: takes note.
    """

    def __init__(self, port: int, device: str, seen: Seen) -> None:
        self._topic = f"edged/v1/{device}"
        self._seen = seen
        self._listens = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe(f"{self._topic}/reply/hog/#", 1)
        self._client.on_subscribe = lambda *_: self._listens.set()
        self._client.on_message = lambda _client, _userdata, message: self._heard(message)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._listens.wait(10)

    async def ask(self) -> None:
        """Ask at an interval, whatever becomes of it."""
        while True:
            id = f"p{len(self._seen.asked)}"
            self._seen.asked[id] = time.monotonic()
            body = {"id": id, "prompt": PROMPT, "max_tokens": TOKENS, "stream": False}
            self._client.publish(f"{self._topic}/ask/hog", json.dumps(body), qos=1)
            await asyncio.sleep(MQTT_SECONDS)

    def end(self) -> None:
        """Hang up."""
        self._client.disconnect()
        self._client.loop_stop()

    def _heard(self, message: paho.MQTTMessage) -> None:
        frame = json.loads(message.payload)
        if frame["type"] in ("done", "error"):
            self._seen.ended.setdefault(frame["id"], (time.monotonic(), frame))
