"""One simulated device: what it publishes is shaped as the daemon's own topics are."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from datetime import UTC, datetime
from typing import Any

from tools.fleetsim.link import Link, Place
from tools.fleetsim.packets import Message

RETRY_SECONDS = (1.0, 30.0)
MODELS = ("qwen2.5-0.5b-instruct-q4_0", "smollm2-135m-instruct-q4_1", "gemma-3-270m-it-q4_0")
POOLS = ("kitchen", "hall", "yard")


class Device:
    """A device with its connection, birth, will and telemetry; it answers prompts and commands at once.

    Attributes:
        id: its name.
        is_online: it is connected and has said so.
        connects: how often it has connected.

    Args:
        number: which of the fleet.
        place: the broker.
        root: the first levels of the topics.
        interval: of telemetry, in seconds.
        qos: of what it listens to.
    """

    def __init__(self, number: int, place: Place, *, root: str, interval: float, qos: int = 1) -> None:
        self.id = f"sim-{number:06d}"
        self.is_online = False
        self.connects = 0
        self._place = place
        self._base = f"{root}/v1/{self.id}"
        self._interval = interval
        self._qos = qos
        self._dice = random.Random(number)
        self._model = MODELS[number % len(MODELS)]
        self._pool = POOLS[number // 2 % len(POOLS)] if number % 2 else None
        self._process = secrets.token_hex(8)
        self._began = time.monotonic()
        self._link: Link | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._wanted = False
        self._returning: asyncio.Task[None] | None = None
        self._done = 0

    async def start(self) -> None:
        """Connect and say so; from then on come back by itself.

        Raises:
            OSError: see `Link.open`.
        """
        self._wanted = True
        self.connects += 1
        session = f"{self._process}-{self.connects}"
        link = self._link = Link(self._received, self._lost)
        own = ("ask", "ask/+", "ask/+/+", "cancel/+", "cmd/+", "status")
        await link.open(
            self._place,
            self.id,
            filters=[f"{self._base}/{each}" for each in own],
            qos=self._qos,
            will_topic=f"{self._base}/status",
            will=self._status("offline", "lost", session, "the connection broke"),
        )
        self._publish("status", self._status("online", "ready", session, None), retain=True)
        self._publish("info", _encode(self._info()), retain=True)
        self.is_online = True
        self._report()

    def die(self) -> None:
        """Break off without a word and stay away."""
        if (link := self._leave()) is not None:
            link.cut()

    async def stop(self) -> None:
        """End in order."""
        if self._link is not None and self.is_online:
            session = f"{self._process}-{self.connects}"
            self._publish("status", self._status("offline", "stopped", session, "SIGTERM"), retain=True)
        if (link := self._leave()) is not None:
            await link.close()

    def mute(self) -> None:
        """Stay connected and say nothing any more."""
        self._stop_telling()

    def drop(self) -> None:
        """Lose the connection, and come back by itself."""
        if self._link is not None:
            self._link.cut()
            self._lost()

    def _leave(self) -> Link | None:
        """Return the connection to end; nothing follows it."""
        self._wanted = False
        self.is_online = False
        self._stop_telling()
        if self._returning is not None:
            self._returning.cancel()
        return self._link

    def _lost(self) -> None:
        self.is_online = False
        self._stop_telling()
        if self._wanted and (self._returning is None or self._returning.done()):
            self._returning = asyncio.create_task(self._come_back())

    async def _come_back(self) -> None:
        least, most = RETRY_SECONDS
        pause = least
        while True:
            await asyncio.sleep(pause * self._dice.uniform(0.5, 1.5))
            try:
                await self.start()
            except (OSError, TimeoutError):
                pause = min(2 * pause, most)
            else:
                return

    def _stop_telling(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _report(self) -> None:
        """Publish the figures of this moment, and arrange for the next time."""
        delay = self._interval
        if self._timer is None:
            delay *= self._dice.random()  # devices don't report in step
        self._timer = asyncio.get_running_loop().call_later(delay, self._report)
        head = self._head()
        celsius = round(self._dice.gauss(58, 6), 1)
        running = self._dice.choice((0, 0, 0, 1, 2))
        self._publish("health", _encode({**head, **self._health(running)}), retain=True)
        thermal = {"celsius": celsius, "target_celsius": 75.0, "duty_ratio": 1.0, "threads": 4}
        flags = dict.fromkeys(("capped", "throttled", "soft_limit"), False)
        power = {"under_voltage": False, "watts": None, "energy_joules_total": None}
        memory = {"size_bytes": 8_323_072_000, "available_bytes": 6_000_000_000, "engine_bytes": 210_000_000}
        work = {"engine": "ready", "requests_running": running, "answer_tokens_total": 41 * self._done}
        for part, fields in (
            ("thermal", {**thermal, **flags}),
            ("power", power),
            ("memory", {**memory, "kv_cells": 8192, "kv_cells_used": 211 * running}),
            ("inference", {**work, "tokens_per_second_p50": 31.5, "first_token_seconds_p50": 0.4}),
        ):
            self._publish(f"telemetry/{part}", _encode({**head, **fields}), qos=0)

    def _received(self, message: Message) -> None:
        match message.topic.removeprefix(f"{self._base}/").split("/"):
            case ["ask", client]:
                self._answer(client, _object(message.payload))
            case ["cmd", name]:
                result = {"status": "ok", "data": {"phase": "ready"}, "error": None}
                told = {**result, "transaction": _object(message.payload).get("transaction")}
                self._publish(f"cmd/{name}/result", _encode(told))

    def _answer(self, client: str, request: dict[str, Any]) -> None:
        self._done += 1
        identity = str(request.get("id", self._done))
        head = {"v": 1, "id": identity, "attempt": 1, "device_id": self.id}
        text = f"I am {self.id}."
        for frame in (
            {"seq": 0, "type": "accepted", "queue_position": 0},
            {"seq": 1, "type": "done", "finish_reason": "stop", "text": text, "usage": {}},
        ):
            self._publish(f"reply/{client}/{identity}", _encode({**head, **frame}))

    def _publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        if self._link is not None:
            self._link.publish(f"{self._base}/{topic}", payload, qos=qos, retain=retain)

    def _head(self) -> dict[str, Any]:
        time_text = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"v": 1, "device_id": self.id, "time": time_text, "clock_synchronised": True}

    def _status(self, state: str, phase: str, session: str, reason: str | None) -> bytes:
        said = {"state": state, "phase": phase, "session": session, "reason": reason}
        return _encode({**self._head(), **said})

    def _info(self) -> dict[str, Any]:
        return {
            **self._head(),
            "version": "0.1.0",
            "model": {"name": self._model, "context": 2048, "sequences": 4, "quantisation": "Q4_0"},
            "limits": {"queue": 64, "per_client": 16, "max_prompt_bytes": 65536, "max_tokens": 2048},
            "host": {"machine": "aarch64", "cores": 4, "memory_bytes": 8_323_072_000},
            "capabilities": {"pool": self._pool, "telemetry_interval_seconds": self._interval},
        }

    def _health(self, running: int) -> dict[str, Any]:
        totals = {"accepted_total": self._done, "done_total": self._done, "cancelled_total": 0}
        loads = {"load1": 0.4, "load5": 0.5, "load15": 0.5, "disk_free_bytes": 21_474_836_480}
        link = {"link": "connected", "reconnects_total": self.connects - 1, "outbox": 0, "waiting": 0}
        return {
            "phase": "ready",
            "uptime_seconds": round(time.monotonic() - self._began, 1),
            "requests": {"queued": 0, "running": running, "put_back": 0, **totals},
            "device": loads,
            "mqtt": {**link, "in_flight": 0, "journal_bytes": 204_800, "journal_can_write": True},
            "watch": {"memory_level": "ok", "thermal_state": "cool", "alarms": []},
        }


def _encode(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def _object(payload: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(payload)
    except ValueError:
        return {"prompt": payload.decode(errors="replace")}
    return fields if isinstance(fields, dict) else {}
