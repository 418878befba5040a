"""The daemon's end of the messages to and from one engine process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from edged.engine.messages import Message
from edged.engine.wire import Decoder


class Link(asyncio.Protocol):
    """Hands the engine's messages on as they come: one turn of the event loop from the socket to who waits.

    Attributes:
        transport: what messages are written to, once there is a connection.
        closed: done when no more will come, with the reason: None, the engine has closed its end;
            ProtocolError or OSError, its messages can't be read; or what `take` raised.
    """

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.closed: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._decoder = Decoder()
        self._take: Callable[[Sequence[Message]], None] = lambda messages: None

    def begin(self, take: Callable[[Sequence[Message]], None]) -> None:
        """Hand messages on from now on."""
        self._take = take
        self.transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection; what comes waits for `begin`."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        """Hand on the messages that are whole."""
        try:
            self._take(self._decoder.feed(data))
        except Exception as error:
            self._end(error)
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        self._end(exc)

    def _end(self, reason: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)
