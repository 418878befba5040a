"""What leaves for the broker: on the one line that there is, and out of the journal when it has arrived."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from edged.errors import EdgedError, ErrorCode
from edged.frontends.mqtt.addresses import Address
from edged.frontends.mqtt.message import Outcome, Publication
from edged.frontends.mqtt.wire import encode, encode_frame
from edged.protocol import Failed, Terminal, terminal_of

if TYPE_CHECKING:
    from edged.clock import Clock
    from edged.core import Core
    from edged.core.events import Event
    from edged.core.journal import Drop
    from edged.frontends.mqtt.link import Link
    from edged.frontends.mqtt.topics import Topics

_log = structlog.get_logger(__name__)

PACKET_BYTES = 512  # of a packet beside its topic, payload and correlation data
WORST_BYTES = 6  # of a character in JSON: \u0000
LEAST_CHARACTERS = 16


class Outbox:
    """Publishes frames, answers and events.

    Args:
        core: gives the journal.
        link: the connection with the broker.
        topics: this device's.
        clock: for time stamps.
        keep_seconds: how long a broker may keep a frame.
    """

    def __init__(
        self, *, core: Core, link: Link, topics: Topics, clock: Clock, keep_seconds: Callable[[], float]
    ) -> None:
        self._core = core
        self._link = link
        self._topics = topics
        self._clock = clock
        self._keep_seconds = keep_seconds
        self._kept: dict[int, list[Publication]] = {}  # by their row in the journal
        self._events: set[asyncio.Task[None]] = set()
        self._dropped: dict[str, int] = {}  # by kind, since the last word of it
        self._gone: set[int] = set()  # rows that were dropped before they came here
        self._last_largest_packet: int | None = None  # that the broker took when it was last there

    def publish(self, publication: Publication) -> None:
        """Send what is lost if the daemon dies."""
        self._link.publish(publication)

    @property
    def has_room(self) -> bool:
        """Whether the line has room for another chunk."""
        return self._link.has_room

    async def publish_in_turn(self, publication: Publication) -> None:
        """Send what is lost if the daemon dies, once the line has room."""
        await self._link.room()
        self._link.publish(publication)

    async def room(self, ended: Callable[[], Awaitable[Any]]) -> bool:
        """Wait until the line has room for another chunk; False when `ended` comes first."""
        if self._link.has_room:
            return True
        ways = [asyncio.ensure_future(self._link.room()), asyncio.ensure_future(ended())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            return ways[0].done()
        finally:
            for way in ways:
                way.cancel()

    def publication(self, address: Address, payload: str) -> Publication:
        """Return a frame's payload as it is sent to its requester."""
        return Publication(
            topic=address.topic,
            payload=payload.encode(),
            correlation=address.correlation,
            lifetime=self._keep_seconds(),
            content_type="application/json",
        )

    def publish_kept(self, serial: int, publications: Sequence[Publication]) -> None:
        """Send what stands in the journal; its row is done with when the broker has the last of it."""
        if serial in self._gone:
            self._gone.discard(serial)
            return
        self._kept[serial] = list(publications)
        publications[-1].on_outcome = lambda outcome: self._arrived(serial, outcome)
        for publication in publications:
            self._link.publish(publication)

    def resume(self) -> None:
        """Send what an earlier daemon wrote down and the broker has not acknowledged."""
        assert self._core.durable is not None
        unsent, self._core.durable.unsent = self._core.durable.unsent, []
        for serial, envelope, frames in unsent:
            address = Address.from_envelope(envelope)
            self.publish_kept(serial, [self.publication(address, frame) for frame in frames])

    def connected(self) -> None:
        """Tell what was given up while the broker was away: before, there was no room to."""
        if self._dropped:
            dropped, self._dropped = self._dropped, {}
            self._core.events.emit("outbox_dropped", dropped=dropped)

    def drop(self, drop: Drop) -> None:
        """Take back what has left the journal because there was too much of it."""
        _log.warning("given up", kind=drop.kind, serials=drop.serials, reason=drop.reason)
        name = f"{drop.kind}s"
        self._dropped[name] = self._dropped.get(name, 0) + len(drop.serials)
        for serial in drop.serials:
            if serial not in self._kept:
                self._gone.add(serial)
            for publication in self._kept.pop(serial, ()):
                self._link.withdraw(publication)

    def tell(self, event: Event) -> None:
        """Write an event down and send it."""
        task = asyncio.create_task(self._tell(event), name=f"event {event.type}")
        self._events.add(task)
        task.add_done_callback(self._events.discard)

    async def flush(self) -> None:
        """Wait until every event is written down."""
        if self._events:
            await asyncio.wait(self._events)

    def chunk_characters(self, address: Address) -> int | None:
        """Return how many characters of text fit the largest packet that the broker takes; None: any."""
        most = self._most_bytes(address)
        return max(LEAST_CHARACTERS, most // WORST_BYTES) if most is not None else None

    def encode_terminal(self, terminal: Terminal, address: Address) -> str:
        """Return a terminal frame as it is sent: one that no packet holds becomes an error that says so."""
        payload = encode_frame(terminal, self._topics.device_id)
        most = self._most_bytes(address)
        if most is None or len(payload.encode()) <= most:
            return payload
        return self._too_large(terminal, len(payload.encode()), address)

    def _too_large(self, terminal: Terminal, size: int, address: Address) -> str:
        most = self._most_bytes(address)
        limit = "the broker hangs up on it"
        if most is not None:
            limit = f"{max(most, 0)} fit into the broker's packets of at most {self._largest_packet} bytes"
        error = EdgedError(
            ErrorCode.TOO_LARGE,
            f"the answer's last frame has {size} bytes, and {limit}: ask for fewer tokens (max_tokens) or "
            "logprobs, or raise the broker's limit",
        )
        failed = Failed(terminal.id, terminal.attempt, terminal.seq, code=error.code, message=error.message)
        return encode_frame(failed, self._topics.device_id)

    def _most_bytes(self, address: Address) -> int | None:
        largest = self._largest_packet
        if largest is None:
            return None
        return largest - len(address.topic.encode()) - len(address.correlation or b"") - PACKET_BYTES

    @property
    def _largest_packet(self) -> int | None:
        if self._link.connection is not None:
            self._last_largest_packet = self._link.connection.maximum_packet_size
        return self._last_largest_packet

    def _arrived(self, serial: int, outcome: Outcome) -> None:
        *_, last = self._kept.pop(serial, (None,))
        if outcome.kind == "too_large" and last is not None and self._shrink(serial, last):
            return
        assert self._core.durable is not None
        self._core.durable.journal.acknowledged(serial)
        if outcome.kind in ("refused", "too_large"):
            self._core.events.emit("frame_refused", reason=outcome.reason or outcome.kind)

    def _shrink(self, serial: int, last: Publication) -> bool:
        """Send an error in place of a terminal frame that was written down before the limit was known."""
        fields = json.loads(last.payload)
        if fields.get("type") != "done":
            return False
        address = Address(last.topic, last.correlation)
        payload = self._too_large(terminal_of(fields), len(last.payload), address)
        self.publish_kept(serial, [self.publication(address, payload)])
        return True

    async def _tell(self, event: Event) -> None:
        assert self._core.durable is not None
        address = Address(self._topics.event(event.type))
        payload = encode(
            {
                "v": 1,
                "device_id": self._topics.device_id,
                "type": event.type,
                **self._clock.fields(),
                **event.data,
            }
        )
        serial = await self._core.durable.event(address.as_envelope(), payload)
        self.publish_kept(serial, [self.publication(address, payload)])
