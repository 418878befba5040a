"""HTTP connections that notice a hang-up at once and that cost nothing when their client is slow."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from edged.errors import EdgedError, invalid
from edged.frontends.http.openai_errors import HttpError, http_error

_log = structlog.get_logger(__name__)

REFUSAL_SECONDS = 1.0
_UCRED = struct.Struct("3i")  # pid, uid, gid of unix(7)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a client may cost, in seconds where nothing else is said.

    Attributes:
        header_timeout: from the first byte of a request (or the connection) to the end of its headers.
        body_timeout: for the whole body.
        write_timeout: for a client to read what was sent.
        keepalive_timeout: between two requests.
        keepalive_comment: between two events of a stream, then a comment is sent.
        connections: how many may be open at once.
    """

    header_timeout: float = 10.0
    body_timeout: float = 30.0
    write_timeout: float = 60.0
    keepalive_timeout: float = 75.0
    keepalive_comment: float = 15.0
    connections: int = 256


def ended_early() -> EdgedError:
    """Return the refusal of a body whose sender closed before its end."""
    return invalid("the connection ended before the body did")


class HangUpWatch:
    """Aborts a connection when its client is gone, even while nothing is read or written.

    One epoll object inside the event loop's own serves all connections.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._transports: dict[int, asyncio.Transport] = {}
        loop.add_reader(self._epoll.fileno(), self._report)

    def add(self, descriptor: int, transport: asyncio.Transport, events: int) -> None:
        """Watch a connection for a hang-up and for `events`."""
        self._transports[descriptor] = transport
        self._epoll.register(descriptor, events)

    def remove(self, descriptor: int) -> None:
        """Forget a connection; must come before its descriptor is closed and used again."""
        if self._transports.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Stop watching; connections that are still open are aborted."""
        for transport in self._transports.values():
            transport.abort()
        self._transports.clear()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _report(self) -> None:
        for descriptor, _ in self._epoll.poll(0):
            transport = self._transports[descriptor]
            self.remove(descriptor)
            transport.abort()


class Connection(web.RequestHandler, ABC):
    """One client's connection.

    Attributes:
        way: the kind of listener that it came by.
        client_name: whom the core counts it for.
        peer: what the log says of the client.
        half_closed: the client sends nothing more, but still reads.
    """

    way: ClassVar[Literal["socket", "tcp"]]
    _events: ClassVar[int]

    def __init__(self, server: web.Server, *, watch: HangUpWatch, limits: ConnectionLimits) -> None:
        self.loop = asyncio.get_running_loop()
        super().__init__(
            server,
            loop=self.loop,
            keepalive_timeout=limits.keepalive_timeout,
            lingering_time=REFUSAL_SECONDS,
            access_log=cast(Any, None),  # the frontend's own log knows the peer and the hang-ups
            auto_decompress=False,
        )
        self.client_name = ""
        self.peer: dict[str, Any] = {}
        self.half_closed = False
        self._server = server
        self._watch = watch
        self._limits = limits
        self._connected: asyncio.Transport | None = None  # aiohttp drops its own when it begins to close
        self._descriptor = -1
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    @abstractmethod
    def _identify(self, transport: asyncio.Transport) -> None:
        """Set `client_name` and `peer`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it when there are too many."""
        transport = cast(asyncio.Transport, transport)
        if len(self._server.connections) >= self._limits.connections:
            self._turn_away(transport)
            return
        super().connection_made(transport)
        # Whatever the kernel does not take at once counts: tokens are joined, and the write timeout runs.
        transport.set_write_buffer_limits(high=0)
        self._identify(transport)
        self._connected = transport
        self._descriptor = transport.get_extra_info("socket").fileno()
        self._watch.add(self._descriptor, transport, self._events)
        self._start_header_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Let go of everything; a handler that still runs is cancelled."""
        self._watch.remove(self._descriptor)
        self._stop_header_timer()
        self._stop_write_timer()
        self._connected = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; headers must be complete in time."""
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._stop_header_timer()
        elif self._is_idle() and self._header_timer is None:
            self._start_header_timer()

    def pause_writing(self) -> None:
        """Give the client time to read, not for ever."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._limits.write_timeout, self._give_up)

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        self._stop_write_timer()
        super().resume_writing()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never became a request of the application, and close."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun, so no error can be told")
        match exc:
            case LineTooLong():
                error = HttpError(431, "invalid", "the address or a header field is longer than 8190 bytes")
            case HttpProcessingError():
                what = (message or "").partition("\n")[0].rstrip(": ")
                error = HttpError(400, "invalid", f"this is no HTTP request: {what}")
            case Exception():
                error = http_error(exc)
            case _:
                error = http_error(RuntimeError(f"status {status} without an exception"))
        _log.info("request", method=request.method, path=None, status=error.status, **self.peer)
        response = error.response()
        response.force_close()
        return response

    def _turn_away(self, transport: asyncio.Transport) -> None:
        error = HttpError(
            503,
            "busy",
            f"all {self._limits.connections} connections are in use; close some or try again",
            retry_after_s=REFUSAL_SECONDS,
        )
        _log.warning("connection refused: too many are open", connections=self._limits.connections)
        self._force_close = True  # whatever is sent is read and dropped, lest closing cuts the answer off
        transport.write(error.bare_response())
        self.loop.call_later(REFUSAL_SECONDS, transport.abort)

    def _is_idle(self) -> bool:
        """Say whether the next request is waited for."""
        return self._waiter is not None and not self._waiter.done()

    def _start_header_timer(self) -> None:
        self._header_timer = self.loop.call_later(self._limits.header_timeout, self._headers_too_late)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _headers_too_late(self) -> None:
        self._header_timer = None
        if self.transport is not None and self._is_idle():
            seconds = self._limits.header_timeout
            error = HttpError(408, "invalid", f"no request came within {seconds:g} seconds")
            self.transport.write(error.bare_response())
            self.force_close()

    def _give_up(self) -> None:
        self._write_timer = None
        _log.info("client does not read: connection given up", **self.peer)
        if self._connected is not None:
            self._connected.abort()


class UnixConnection(Connection):
    """A connection on the Unix socket: who can't send any more may still read."""

    way = "socket"
    _events = 0  # EPOLLHUP and EPOLLERR are always reported

    def _identify(self, transport: asyncio.Transport) -> None:
        credentials = transport.get_extra_info("socket").getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size
        )
        pid, uid, _ = _UCRED.unpack(credentials)
        self.client_name = f"uid-{uid}"
        self.peer = {"uid": uid, "pid": pid}

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep the connection open for the answers that are still to come."""
        self.half_closed = True
        if self._force_close or self._is_idle():
            return False
        if (request := self._current_request) is not None and not request.content.is_eof():
            request.content.set_exception(ended_early())
        return True

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Close after the last answer: no further request can come."""
        if self.half_closed and not self._messages:
            resp.force_close()
        return await super().finish_response(request, resp, start_time)


class TcpConnection(Connection):
    """A connection on the TCP listener: its end is a hang-up."""

    way = "tcp"
    _events = select.EPOLLRDHUP

    def _identify(self, transport: asyncio.Transport) -> None:
        self.client_name = "http"
        peer = transport.get_extra_info("peername")
        self.peer = {"address": peer[0] if peer else None}
