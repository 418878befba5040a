"""As much of MQTT 3.1.1 as a simulated device needs: bytes of packets that leave, and packets from bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

CONNACK, PUBLISH, PUBACK, SUBACK = 2, 3, 4, 9
REFUSED = 0x80  # the least code in a SUBACK that is a refusal
DISCONNECT = b"\xe0\x00"


class Packet(NamedTuple):
    """A packet that came: its type, the flags beside that, and what follows its length."""

    type: int
    flags: int
    body: bytes


class Message(NamedTuple):
    """A PUBLISH; `mid` is what PUBACK must name, None at QoS 0."""

    topic: str
    payload: bytes
    mid: int | None
    retained: bool


def connect(client_id: str, *, keepalive: int, will_topic: str, will: bytes) -> bytes:
    """Return CONNECT with a clean session and a retained will at QoS 1; without a topic there is none."""
    flags = 0x02 | (0x04 | 0x08 | 0x20 if will_topic else 0)
    body = _text(b"MQTT") + bytes((4, flags)) + struct.pack("!H", keepalive) + _text(client_id.encode())
    return _packet(0x10, body + (_text(will_topic.encode()) + _text(will) if will_topic else b""))


def publish(topic: str, payload: bytes, *, mid: int | None = None, retain: bool = False) -> bytes:
    """Return PUBLISH, at QoS 1 if it has an id."""
    head = _text(topic.encode()) + (struct.pack("!H", mid) if mid is not None else b"")
    return _packet(0x30 | (0x02 if mid is not None else 0) | retain, head + payload)


def subscribe(mid: int, filters: Sequence[str], *, qos: int = 1) -> bytes:
    """Return SUBSCRIBE."""
    return _packet(
        0x82, struct.pack("!H", mid) + b"".join(_text(each.encode()) + bytes((qos,)) for each in filters)
    )


def puback(mid: int) -> bytes:
    """Return PUBACK."""
    return struct.pack("!BBH", 0x40, 2, mid)


def message_of(packet: Packet) -> Message:
    """Return what a PUBLISH says."""
    (length,) = struct.unpack_from("!H", packet.body)
    rest = packet.body[2 + length :]
    mid = struct.unpack_from("!H", rest)[0] if packet.flags & 0x06 else None
    topic = packet.body[2 : 2 + length].decode()
    return Message(topic, rest if mid is None else rest[2:], mid, bool(packet.flags & 1))


def take(buffer: bytearray) -> Iterator[Packet]:
    """Yield the packets that are whole, and remove them from the buffer."""
    while len(buffer) >= 2:
        length, shift, at = 0, 0, 1
        while True:
            if at >= len(buffer):
                return
            byte = buffer[at]
            length |= (byte & 0x7F) << shift
            shift += 7
            at += 1
            if not byte & 0x80:
                break
        if len(buffer) < at + length:
            return
        packet = Packet(buffer[0] >> 4, buffer[0] & 0x0F, bytes(buffer[at : at + length]))
        del buffer[: at + length]
        yield packet


def _text(text: bytes) -> bytes:
    return struct.pack("!H", len(text)) + text


def _packet(first: int, body: bytes) -> bytes:
    head = bytearray((first,))
    length = len(body)
    while True:
        length, byte = length >> 7, length & 0x7F
        head.append(byte | (0x80 if length else 0))
        if not length:
            return bytes(head) + body
