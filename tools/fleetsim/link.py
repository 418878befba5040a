"""One connection of MQTT 3.1.1 on asyncio: nothing is kept, nothing is repeated."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tools.fleetsim import packets

KEEPALIVE_SECONDS = 600
_CONNECT_SECONDS = 60.0
_CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Place:
    """A broker's address; `tls` where it wants that."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None


class Link(asyncio.Protocol):
    """A connection, or what becomes one.

    Attributes:
        is_open: the broker has let us in and has not gone.
        unacknowledged: messages at QoS 1 whose PUBACK has not come.

    Args:
        received: is given each message that comes.
        lost: is called when the connection ends by another hand than ours.
    """

    def __init__(self, received: Callable[[packets.Message], None], lost: Callable[[], None]) -> None:
        self.is_open = False
        self.unacknowledged = 0
        self._received = received
        self._lost = lost
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._agreed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended = asyncio.Event()
        self._mid = 0
        self._closing = False

    async def open(
        self,
        place: Place,
        client_id: str,
        *,
        filters: Sequence[str],
        qos: int = 1,
        will_topic: str = "",
        will: bytes = b"",
    ) -> None:
        """Connect, and subscribe.

        Raises:
            OSError: the broker can't be reached, refuses us or is silent.
        """
        host = place.host if place.tls else None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await loop.create_connection(
                    lambda: self, place.host, place.port, ssl=place.tls, server_hostname=host
                )
                self.write(
                    packets.connect(client_id, keepalive=KEEPALIVE_SECONDS, will_topic=will_topic, will=will)
                )
                await self._admitted
                self.write(packets.subscribe(self._next_mid(), filters, qos=qos))
                await self._agreed
        except BaseException:
            self.cut()
            raise

    def publish(self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False) -> None:
        """Publish; QoS 1 is counted and not repeated."""
        mid = self._next_mid() if qos else None
        self.unacknowledged += qos
        self.write(packets.publish(topic, payload, mid=mid, retain=retain))

    def write(self, data: bytes) -> None:
        """Write bytes, if there is a connection."""
        if self._transport is not None:
            self._transport.write(data)

    async def close(self) -> None:
        """Say goodbye: the broker drops the will, and closes the connection.

        A socket that is closed with something unread in it sends a reset, behind which the broker may not see
        the goodbye.
        """
        if self._transport is None:
            return
        self._closing = True
        self.write(packets.DISCONNECT)
        try:
            await asyncio.wait_for(self._ended.wait(), _CLOSE_SECONDS)
        except TimeoutError:
            self.cut()

    def cut(self) -> None:
        """Break off without a word: the broker publishes the will."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio."""
        self.is_open = False
        self._transport = None
        self._ended.set()
        for future in (self._admitted, self._agreed):
            if not future.done():
                future.set_exception(ConnectionResetError("the broker closed the connection"))
                future.exception()
        if not self._closing:
            self._closing = True
            self._lost()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self._buffer += data
        for packet in packets.take(self._buffer):
            self._take(packet)

    def _take(self, packet: packets.Packet) -> None:
        match packet.type:
            case packets.PUBLISH:
                message = packets.message_of(packet)
                if message.mid is not None:
                    self.write(packets.puback(message.mid))
                self._received(message)
            case packets.PUBACK:
                self.unacknowledged -= 1
            case packets.SUBACK if not self._agreed.done():
                codes = packet.body[2:]
                if refused := sum(code >= packets.REFUSED for code in codes):
                    why = f"the broker refuses {refused} of {len(codes)} subscriptions"
                    self._agreed.set_exception(ConnectionRefusedError(why))
                else:
                    self.is_open = True
                    self._agreed.set_result(None)
            case packets.CONNACK if not self._admitted.done():
                code = struct.unpack("!BB", packet.body)[1]
                if code:
                    self._admitted.set_exception(ConnectionRefusedError(f"the broker refuses: {code}"))
                else:
                    self._admitted.set_result(None)

    def _next_mid(self) -> int:
        self._mid = self._mid % 65535 + 1
        return self._mid
