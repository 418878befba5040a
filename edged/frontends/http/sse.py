"""Server-sent events: a response that is written while things happen."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from aiohttp import web

from edged.frontends.http.openai_errors import http_error
from edged.protocol import Frame, frame_fields

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"


class EventStream:
    """One response of server-sent events."""

    def __init__(self, request: web.Request) -> None:
        self._clock = asyncio.get_running_loop().time
        self._sent = self._clock()
        self._writer = request.writer
        self._is_chunked = False  # HTTP/1.0 knows no chunks
        self._request = request
        self.response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )

    async def open(self) -> None:
        """Send the status: from now on errors are events."""
        await self.response.prepare(self._request)
        self._is_chunked = "Transfer-Encoding" in self.response.headers

    @property
    def is_clear(self) -> bool:
        """Say whether the client's side has taken all that was sent."""
        transport = self._request.transport
        return transport is not None and transport.get_write_buffer_size() == 0

    def put(self, events: bytes) -> None:
        """Send whole events without waiting.

        Raises:
            ConnectionError: the client has gone.
        """
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has hung up")
        self._sent = self._clock()
        # aiohttp's own way from here to the transport is longer than all the rest of a token's.
        transport.write(b"%x\r\n%b\r\n" % (len(events), events) if self._is_chunked else events)

    async def drain(self) -> None:
        """Wait until the client's side has taken what was sent."""
        await self._writer.drain()

    async def send(self, events: bytes) -> None:
        """Send whole events, and wait until the client's side has taken them."""
        self.put(events)
        await self.drain()

    async def keep_alive(self, seconds: float) -> None:
        """Send a comment whenever nothing was sent for so long; returns when the client is gone."""
        with contextlib.suppress(ConnectionError):
            while True:
                silent = self._clock() - self._sent
                if silent >= seconds:
                    await self.send(KEEP_ALIVE)
                    silent = 0.0
                await asyncio.sleep(seconds - silent)

    async def fail(self, error: Exception) -> None:
        """Send an error as the last event."""
        await self.send(b"data: %b\n\n" % http_error(error).body())


def data(fields: Any) -> bytes:
    """Return an event's bytes."""
    return b"data: %b\n\n" % json.dumps(fields).encode()


def comment(frame: Frame) -> bytes:
    """Return a frame as a comment: OpenAI's clients skip it, curious ones read it."""
    return f": {frame.type} {json.dumps(frame_fields(frame))}\n\n".encode()
