"""The socket as paho reads it: packet by packet, and none larger than we asked for.

MQTT 5 lets a client name the largest packet that it takes; 3.1.1 does not, and paho would gather up to
256 MiB in memory.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

_READ_BYTES = 65_536
_READS_AT_ONCE = 64  # then pings and our own packets have their turn
_PUBLISH = 3
_NOTHING_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a PUBLISH: as much as an acknowledgement needs.

    Attributes:
        qos: 0, 1 or 2.
        mid: its packet identifier; 0 at QoS 0.
        size: of the whole packet, in bytes.
    """

    qos: int
    mid: int
    size: int


class Stream:
    """A connected, non-blocking socket; what paho calls of one, and no more.

    Attributes:
        head: the beginning of the newest PUBLISH that was read.
        first_bytes: the first bytes that came at all.
        error: why reading or writing failed.
    """

    def __init__(
        self, sock: socket.socket, *, max_packet_bytes: int, on_oversized: Callable[[Head], None]
    ) -> None:
        self.head: Head | None = None
        self.first_bytes = b""
        self.error: OSError | None = None
        self._socket = sock
        self._max_packet_bytes = max_packet_bytes
        self._on_oversized = on_oversized
        self._buffer = bytearray()
        self._left = 0  # bytes of the packet that paho reads
        self._skip = 0  # bytes of the packet that it must not see
        self._starved = True  # what is buffered is too little to go on with
        self._ended = False

    def recv(self, size: int) -> bytes:
        """Return up to `size` bytes of one packet; b"" at the end of the stream.

        Raises:
            BlockingIOError: there is nothing to read yet (or ssl's own words for it).
            OSError: the connection broke.
        """
        reads = 0
        while not self._ready():
            if reads == _READS_AT_ONCE:
                raise BlockingIOError
            reads += 1
            if not self._fill():
                return b""
        piece = bytes(self._buffer[: min(size, self._left)])
        del self._buffer[: len(piece)]
        self._left -= len(piece)
        return piece

    def send(self, data: bytes | bytearray) -> int:
        """Write what fits.

        Raises:
            BlockingIOError: nothing fits now (or ssl's own words for it).
            OSError: the connection broke.
        """
        try:
            return self._socket.send(data)
        except _NOTHING_YET:
            raise
        except OSError as error:
            self.error = error
            raise

    def pending(self) -> int:
        """Return how many bytes can be read although the socket may show none."""
        buffered = 0 if self._starved else len(self._buffer)
        return buffered + (self._socket.pending() if isinstance(self._socket, ssl.SSLSocket) else 0)

    def fileno(self) -> int:
        """Return the descriptor; -1 once closed."""
        return self._socket.fileno()

    def setblocking(self, flag: bool) -> None:
        """As of a socket."""
        self._socket.setblocking(flag)

    def close(self) -> None:
        """As of a socket."""
        self._socket.close()

    def _fill(self) -> bool:
        try:
            data = self._socket.recv(_READ_BYTES)
        except _NOTHING_YET:
            self._starved = True
            raise
        except OSError as error:
            self.error = error
            raise
        self._starved = False
        self.first_bytes = self.first_bytes or data[:8]
        self._buffer += data
        return bool(data)

    def _ready(self) -> bool:
        """Say whether bytes that paho may see are buffered; step over those that it may not."""
        while self._buffer:
            if self._left:
                return True
            if self._skip:
                stepped = min(self._skip, len(self._buffer))
                del self._buffer[:stepped]
                self._skip -= stepped
            elif not self._begin():
                return False
        return False

    def _begin(self) -> bool:
        """Look at the packet that begins the buffer; False while too little of it is there."""
        rest = 0
        for index in range(1, 5):
            if len(self._buffer) <= index:
                return False
            rest |= (self._buffer[index] & 0x7F) << 7 * (index - 1)
            if self._buffer[index] < 0x80:
                break
        else:
            self._left = len(self._buffer)  # no length has five bytes: paho shall see and refuse it
            return True
        start = index + 1
        if self._buffer[0] >> 4 == _PUBLISH:
            head = self._publish_head(start, start + rest)
            if head is None:
                return False
            self.head = head
        if start + rest <= self._max_packet_bytes:
            self._left = start + rest
        elif self._buffer[0] >> 4 == _PUBLISH and self.head is not None:
            self._skip = start + rest
            self._on_oversized(self.head)
        else:
            raise ConnectionError(f"the broker sent a control packet of {start + rest} bytes")
        return True

    def _publish_head(self, start: int, end: int) -> Head | None:
        qos = self._buffer[0] >> 1 & 3
        at = start + 2 + int.from_bytes(self._buffer[start : start + 2], "big")
        last = at + 2 if qos else at
        if last > end:
            return Head(qos=0, mid=0, size=end)  # malformed: paho shall see and refuse it
        if len(self._buffer) < max(last, start + 2):
            return None
        return Head(qos=qos, mid=int.from_bytes(self._buffer[at:last], "big"), size=end)
