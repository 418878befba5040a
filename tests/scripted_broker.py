"""A broker that says what a test tells it to, for what a real one does not do on demand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 1, 2, 3, 4, 8, 9
UNSUBSCRIBE, UNSUBACK, PINGREQ, DISCONNECT = 10, 11, 12, 14
WAIT_SECONDS = 20.0
_TLS_HELLO = b"\x16"


@dataclass(frozen=True)
class Packet:
    """A control packet as it came: its type, the four flags, all after the fixed header, and all of it."""

    kind: int
    flags: int
    body: bytes
    raw: bytes

    @property
    def version(self) -> int:
        """Of a CONNECT: 4 is 3.1.1, 5 is 5."""
        return self.body[6]

    @property
    def connect_flags(self) -> int:
        """Of a CONNECT."""
        return self.body[7]

    @property
    def qos(self) -> int:
        """Of a PUBLISH."""
        return self.flags >> 1 & 3

    @property
    def retain(self) -> bool:
        """Of a PUBLISH."""
        return bool(self.flags & 1)

    @property
    def topic(self) -> str:
        """Of a PUBLISH."""
        return self.body[2 : 2 + int.from_bytes(self.body[:2], "big")].decode()

    @property
    def mid(self) -> int:
        """Of anything that has a packet identifier."""
        at = 2 + len(self.topic.encode()) if self.kind == PUBLISH else 0
        return int.from_bytes(self.body[at : at + 2], "big")

    def payload(self, version: int = 5) -> bytes:
        """Of a PUBLISH."""
        at = 2 + len(self.topic.encode()) + (2 if self.qos else 0)
        if version == 5:
            at += 1 + self.body[at]  # the tests' properties have less than 128 bytes
        return self.body[at:]


def packet(kind: int, flags: int, body: bytes) -> bytes:
    """Return a control packet."""
    rest, length = len(body), bytearray()
    while True:
        rest, digit = divmod(rest, 128)
        length.append(digit | (0x80 if rest else 0))
        if not rest:
            return bytes([kind << 4 | flags, *length]) + body


def connack(
    code: int = 0, *, version: int = 5, session_present: bool = False, properties: bytes = b""
) -> bytes:
    """Return a CONNACK; `properties` are its properties without their length."""
    tail = bytes([len(properties)]) + properties if version == 5 else b""
    return packet(CONNACK, 0, bytes([session_present, code]) + tail)


def publish(
    topic: bytes, payload: bytes, *, qos: int = 1, mid: int = 1, version: int = 5, properties: bytes = b""
) -> bytes:
    """Return a PUBLISH."""
    head = len(topic).to_bytes(2, "big") + topic + (mid.to_bytes(2, "big") if qos else b"")
    tail = bytes([len(properties)]) + properties if version == 5 else b""
    return packet(PUBLISH, qos << 1, head + tail + payload)


def puback(mid: int, code: int = 0) -> bytes:
    """Return a PUBACK; codes other than 0 are of MQTT 5."""
    return packet(PUBACK, 0, mid.to_bytes(2, "big") + (bytes([code, 0]) if code else b""))


def suback(mid: int, *codes: int, version: int = 5) -> bytes:
    """Return a SUBACK."""
    return packet(SUBACK, 0, mid.to_bytes(2, "big") + (b"\0" if version == 5 else b"") + bytes(codes))


def disconnect(code: int) -> bytes:
    """Return a DISCONNECT of MQTT 5."""
    return packet(DISCONNECT, 0, bytes([code]))


class Peer:
    """A client's connection, as the script sees it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, broker: ScriptedBroker, first: bytes
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._broker = broker
        self._first = first

    async def read(self) -> Packet:
        """Return the client's next packet.

        Raises:
            asyncio.IncompleteReadError: the client has closed the connection.
        """
        raw = self._first + await self._reader.readexactly(2 - len(self._first))
        self._first = b""
        length, shift = raw[1] & 0x7F, 7
        while raw[-1] & 0x80:
            raw += await self._reader.readexactly(1)
            length |= (raw[-1] & 0x7F) << shift
            shift += 7
        body = await self._reader.readexactly(length)
        got = Packet(raw[0] >> 4, raw[0] & 15, body, raw + body)
        self._broker.packets.append(got)
        self._broker.changed.set()
        return got

    async def expect(self, kind: int) -> Packet:
        """Read up to the next packet of a kind."""
        while (got := await self.read()).kind != kind:
            pass
        return got

    async def send(self, *packets: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(b"".join(packets))
        await self._writer.drain()

    async def greet(self, *, code: int = 0, session_present: bool = False, properties: bytes = b"") -> Packet:
        """Read CONNECT and answer it in its own version."""
        connect = await self.expect(CONNECT)
        present = session_present
        await self.send(
            connack(code, version=connect.version, session_present=present, properties=properties)
        )
        return connect

    async def serve(self, *, version: int = 5) -> None:
        """Answer whatever comes, until the client leaves."""
        while True:
            got = await self.read()
            if got.kind == PUBLISH and got.qos:
                await self.send(puback(got.mid))
            elif got.kind == SUBSCRIBE:
                await self.send(suback(got.mid, 1, version=version))
            elif got.kind == PINGREQ:
                await self.send(packet(13, 0, b""))
            elif got.kind == DISCONNECT:
                return


Script = Callable[[Peer], Awaitable[None]]


class ScriptedBroker:
    """Listens on a free port; each connection runs the next script, the last one for ever, and is closed.

    Attributes:
        port: where it listens.
        packets: all that clients have sent.
        connections: how many there have been.
        failures: what went wrong in scripts.
    """

    def __init__(self, *scripts: Script, hears_tls: bool = False) -> None:
        """Set up; who tries whether TLS is spoken gets no script, but for `hears_tls`."""
        self.port = 0
        self.packets: list[Packet] = []
        self.connections = 0
        self.failures: list[BaseException] = []
        self.changed = asyncio.Event()
        self._scripts = list(scripts)
        self._hears_tls = hears_tls
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> ScriptedBroker:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        await asyncio.sleep(0)  # what was accepted before becomes a task
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        for writer in list(self._connections.values()):
            await _hang_up(writer)
        await self._server.wait_closed()
        if kind is None and self.failures:
            raise self.failures[0]

    async def received(self, kind: int, count: int = 1) -> list[Packet]:
        """Wait until `count` packets of a kind have come; return all of them."""
        async with asyncio.timeout(WAIT_SECONDS):
            while len(got := self.of(kind)) < count:
                self.changed.clear()
                await self.changed.wait()
        return got

    def of(self, kind: int) -> list[Packet]:
        """Return the packets of a kind that have come so far."""
        return [one for one in self.packets if one.kind == kind]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections[asyncio.create_task(self._serve(reader, writer))] = writer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.read(1)
            if first != _TLS_HELLO or self._hears_tls:
                script = self._scripts[min(self.connections, len(self._scripts) - 1)]
                self.connections += 1
                await script(Peer(reader, writer, self, first))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except Exception as error:
            self.failures.append(error)
        finally:
            await _hang_up(writer)


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError, asyncio.CancelledError):
        await writer.wait_closed()
