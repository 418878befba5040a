"""Messages as bytes, and back.

A message is four bytes of length (big-endian) and a JSON array: the message's name and its fields in order.
Bytes travel as latin-1 text.
"""

from __future__ import annotations

import json
import struct
from dataclasses import fields
from typing import get_args

from edged.engine.messages import Message
from edged.engine.shape import reader

MAX_MESSAGE_BYTES = 64 << 20

_LENGTH = struct.Struct(">I")
_ENCODER = json.JSONEncoder(separators=(",", ":"))  # json.dumps would make one for every message
_DECODER = json.JSONDecoder()


class ProtocolError(Exception):
    """The other side said something that is no message."""


_FIELDS = {cls: tuple(each.name for each in fields(cls)) for cls in get_args(Message)}
_READERS = {cls.__name__: reader(cls) for cls in get_args(Message)}


def encode(message: Message) -> bytes:
    """Return a message as it goes over the wire, its length first."""
    cls = type(message)
    values = [getattr(message, name) for name in _FIELDS[cls]]
    body = _ENCODER.encode([cls.__name__, *values]).encode()
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Cuts a stream of bytes into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Add bytes and return the messages that are whole.

        Raises:
            ProtocolError: these bytes are no messages.
        """
        self._buffer += data
        messages: list[Message] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > MAX_MESSAGE_BYTES:
                raise ProtocolError(f"a message of {length} bytes; {MAX_MESSAGE_BYTES} are allowed")
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            messages.append(_decode(bytes(self._buffer[start + _LENGTH.size : end])))
            start = end
        del self._buffer[:start]
        return messages


def _decode(body: bytes) -> Message:
    try:
        name, *values = _DECODER.decode(body.decode())  # json.loads would look for the encoding first
        message: Message = _READERS[name](values)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ProtocolError(f"{len(body)} bytes that are no message: {error!r}") from None
    return message
