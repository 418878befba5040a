"""A requester as docs/mqtt.md tells it to be: it repeats an ask under its id until a terminal frame comes."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Sequence

from tools.fleetsim.link import Link, Place
from tools.fleetsim.packets import Message

_REPEAT_SECONDS = 5.0
_RETRY_SECONDS = 1.0


class Requester:
    """Asks real devices in turn, and listens to every status, health and telemetry.

    Attributes:
        online: devices whose last status said so.
        told: reports that came and were not retained, by kind.
        accepted: ids of which a device has said that it has them.
        ended: the ids that have their terminal frame, and when that came.
        asked: ids by the device that was asked.
        repeats: asks that were published again.
        errors: codes of terminal frames that are errors.
    """

    def __init__(self, place: Place, name: str = "requester", root: str = "edged") -> None:
        self.online: set[str] = set()
        self.told: Counter[str] = Counter()
        self.accepted: set[str] = set()
        self.ended: dict[str, float] = {}
        self.asked: dict[str, str] = {}
        self.repeats = 0
        self.errors: Counter[str] = Counter()
        self._place = place
        self._name = name
        self._base = f"{root}/v1"
        self._link: Link | None = None
        self._words: dict[str, float] = {}
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Stay connected, and repeat what has had no word for a while, until cancelled."""
        while True:
            gone = asyncio.Event()
            link = Link(self._received, gone.set)
            try:
                topics = ("status", "health", "telemetry/thermal", f"reply/{self._name}/#")
                filters = [f"{self._base}/+/{topic}" for topic in topics]
                # At QoS 1 NATS would have to agree on a consumer for each; what is lost here is asked again.
                await link.open(self._place, self._name, filters=filters, qos=0)
            except (OSError, TimeoutError):
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            self._link = link
            self._words = {}  # what was asked before may be lost: it is asked anew
            try:
                while not gone.is_set():
                    self._repeat()
                    await asyncio.sleep(_RETRY_SECONDS / 2)
            finally:
                await link.close()

    async def ask(self, devices: Sequence[str], seconds: float, every: float) -> None:
        """Ask a device after the other for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            number = len(self.asked)
            identity = f"q-{number}"
            self.asked[identity] = devices[number % len(devices)]
            self._publish(identity)
            await asyncio.sleep(every)

    def longest_pause(self) -> float:
        """Return the longest time between an answer and the next, in seconds."""
        moments = list(self.ended.values())
        return max((later - earlier for earlier, later in itertools.pairwise(moments)), default=0.0)

    def waiting(self) -> list[str]:
        """Return the ids that have no terminal frame."""
        return [identity for identity in self.asked if identity not in self.ended]

    async def all_ended(self) -> None:
        """Return when every id has its terminal frame."""
        while True:
            self._ended.clear()
            if not self.waiting():
                return
            await self._ended.wait()

    def _repeat(self) -> None:
        now = time.monotonic()
        for identity in self.waiting():
            if now - self._words.get(identity, 0.0) > _REPEAT_SECONDS:
                self.repeats += 1
                self._publish(identity)

    def _publish(self, identity: str) -> None:
        if self._link is None:
            return
        self._words[identity] = time.monotonic()
        fields = {"id": identity, "prompt": f"Tell of {identity}.", "max_tokens": 24, "seed": 1}
        topic = f"{self._base}/{self.asked[identity]}/ask/{self._name}"
        self._link.publish(topic, json.dumps(fields).encode(), qos=1)

    def _received(self, message: Message) -> None:
        device, _, kind = message.topic.removeprefix(f"{self._base}/").partition("/")
        if kind == "status":
            is_online = json.loads(message.payload or b"{}").get("state") == "online"
            (self.online.add if is_online else self.online.discard)(device)
        elif not kind.startswith("reply/"):
            self.told[kind] += not message.retained
        else:
            self._take(json.loads(message.payload))

    def _take(self, frame: dict[str, object]) -> None:
        identity = str(frame["id"])
        self._words[identity] = time.monotonic()
        if frame["type"] == "accepted":
            self.accepted.add(identity)
        elif frame["type"] in ("done", "error") and identity not in self.ended:
            self.ended[identity] = time.monotonic()
            self._ended.set()
            if frame["type"] == "error":
                self.errors[str(frame["code"])] += 1
