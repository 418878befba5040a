"""The line of publications: how many are on their way, in which order, and what becomes of each.

paho holds none but those that the broker takes at once. All that is not acknowledged when a connection
ends goes out again on the next one, in the same order and with the same bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

import structlog

from edged.frontends.mqtt.link import packets, reasons
from edged.frontends.mqtt.link.connection import Connection
from edged.frontends.mqtt.link.jam import Jam
from edged.frontends.mqtt.message import ACKNOWLEDGED, EXPIRED, UNHEARD, WITHDRAWN, Outcome, Publication

_log = structlog.get_logger(__name__)

MOST_IN_FLIGHT = 16
SHORT_LINE = 16  # from this length on, writers of chunks wait
QUOTA_SECONDS = 5.0

Send = Callable[[int, packets.Publish], None]


class Feed:
    """Publications on their way to the broker. Lives on the event loop."""

    def __init__(self) -> None:
        self._line: deque[Publication] = deque()
        self._in_flight: dict[int, Publication] = {}  # in the order of sending
        self._withdrawn: set[int] = set()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._send: Send | None = None
        self._connection: Connection | None = None
        self._window = 0
        self._serial = 0
        self._jam = Jam()
        self._arrived = 0  # over this connection
        self._pause: asyncio.TimerHandle | None = None
        self._pumping = False
        self._empty = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """How many publications the broker has yet to acknowledge."""
        return len(self._in_flight)

    @property
    def waiting(self) -> int:
        """How many publications wait in line."""
        return len(self._line)

    @property
    def has_room(self) -> bool:
        """Whether a writer of chunks may publish at once."""
        return self._send is not None and len(self._line) < SHORT_LINE

    def attach(self, connection: Connection, send: Send) -> None:
        """Send over a new connection: first what the last one has left unacknowledged."""
        self._connection = connection
        self._arrived = 0
        self._send = send
        self._window = min(connection.receive_maximum, MOST_IN_FLIGHT)
        self._soon()

    def detach(self) -> None:
        """Keep everything for the next connection."""
        connection, self._send, self._connection = self._connection, None, None
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        left = [(serial in self._withdrawn, publication) for serial, publication in self._in_flight.items()]
        self._in_flight.clear()
        self._withdrawn.clear()
        keep = [publication for gone, publication in left if not gone]
        if keep and connection is not None and connection.protocol == "3.1.1":
            self._unjam(keep)
        self._line.extendleft(reversed(keep))
        for gone, publication in left:
            if gone:
                _tell(publication, WITHDRAWN)

    def _unjam(self, keep: list[Publication]) -> None:
        """Let a publication that the broker hangs up on not keep the others from leaving."""
        verdict = self._jam.ended(keep[0], alone=len(keep) == 1, others_arrived=self._arrived > 0)
        if verdict == "again":
            return
        first = keep.pop(0)
        if verdict == "last":
            self._line.append(first)
        else:
            _tell(first, Outcome("too_large", "the broker hangs up on it, and on nothing else"))

    def publish(self, publication: Publication) -> None:
        """Put a publication at the end of the line."""
        self._line.append(publication)
        self._soon()

    def withdraw(self, publication: Publication) -> None:
        """Take a publication back: at once from the line, with the connection's end when it is in flight."""
        if publication in self._line:
            self._line.remove(publication)
            asyncio.get_running_loop().call_soon(_tell, publication, WITHDRAWN)
            self._soon()
            return
        for serial, sent in self._in_flight.items():
            if sent is publication:
                self._withdrawn.add(serial)

    async def room(self) -> None:
        """Wait, in turn with others, until there is a connection and the line is short."""
        if self.has_room and not self._waiters:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self._soon()  # the next one shall have this one's turn
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def answered(self, serial: int, code: int) -> None:
        """Note the broker's reason code for a publication in flight."""
        publication = self._in_flight.pop(serial)
        withdrawn = serial in self._withdrawn
        self._withdrawn.discard(serial)
        self._arrived += 1
        self._soon()
        if code == reasons.QUOTA_EXCEEDED and not withdrawn:
            self._line.appendleft(publication)
            if self._pause is None:
                self._pause = asyncio.get_running_loop().call_later(QUOTA_SECONDS, self._go_on)
        else:
            _tell(publication, _outcome(code))

    async def drained(self) -> None:
        """Wait until nothing waits and nothing is in flight."""
        while self._line or self._in_flight:
            self._empty.clear()
            await self._empty.wait()

    def _go_on(self) -> None:
        self._pause = None
        self._soon()

    def _soon(self) -> None:
        if not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        connection, send = self._connection, self._send
        if connection is None or send is None or self._pause is not None:
            return
        while self._line and len(self._in_flight) < self._window:
            publication = self._line.popleft()
            outcome = self._launch(publication, connection, send)
            if outcome is not None:
                _tell(publication, outcome)
                self._soon()  # what was told may have changed everything
                return
        if not self._line and not self._in_flight:
            self._empty.set()
        self._invite()

    def _launch(self, publication: Publication, connection: Connection, send: Send) -> Outcome | None:
        """Send one publication; return what became of it when it can't leave."""
        if publication.expires is not None and publication.expires <= time.monotonic():
            return EXPIRED
        try:
            publish = packets.publish(publication, connection)
        except ValueError as error:
            return Outcome("refused", str(error))
        most = connection.maximum_packet_size
        if most is not None and (size := publish.size) > most:
            return Outcome("too_large", f"the packet has {size} bytes, the broker takes {most}")
        self._serial += 1
        self._in_flight[self._serial] = publication
        send(self._serial, publish)
        return None

    def _invite(self) -> None:
        """Let one writer of chunks go on; the next one once this one has had its turn."""
        while self._waiters and self.has_room:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._soon()
                return


def _outcome(code: int) -> Outcome:
    if code == reasons.NO_SUBSCRIBERS:
        return UNHEARD
    return ACKNOWLEDGED if code < reasons.FIRST_FAILURE else Outcome("refused", reasons.name(code))


def _tell(publication: Publication, outcome: Outcome) -> None:
    try:
        publication.on_outcome(outcome)
    except Exception:
        _log.exception("mqtt_outcome_failed")
