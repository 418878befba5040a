"""The HTTP frontend: its routes, what is done for every request, and its start and stop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web

from edged import paths
from edged.errors import invalid
from edged.frontends.http import body
from edged.frontends.http.auth import Gate, cors_headers, preflight
from edged.frontends.http.chat import ChatWire
from edged.frontends.http.commands import CommandHandlers
from edged.frontends.http.completions import CompletionWire
from edged.frontends.http.connection import (
    Connection,
    ConnectionLimits,
    HangUpWatch,
    TcpConnection,
    UnixConnection,
)
from edged.frontends.http.context import ORIGIN, REQUEST_ID, connection_of
from edged.frontends.http.embeddings import embed
from edged.frontends.http.generation import complete
from edged.frontends.http.imports import import_model
from edged.frontends.http.models import ModelHandlers, fetch_model
from edged.frontends.http.openai_errors import http_error
from edged.frontends.http.sockets import BACKLOG, SocketFile, listen_tcp, listen_unix
from edged.frontends.http.status import StatusHandlers
from edged.frontends.http.telemetry import TelemetryHandlers
from edged.frontends.http.texts import apply_template, detokenize, tokenize
from edged.frontends.http.wire import Wire
from edged.protocol import valid_request_id

if TYPE_CHECKING:
    from edged.core import Core
    from edged.core.commands import Commands
    from edged.models.fetch import Fetched
    from edged.settings import Settings
    from edged.telemetry.service import Telemetry

_log = structlog.get_logger(__name__)

HUNG_UP = 499  # nginx's number for a client that did not wait; only the log sees it
_LOGGED_PATH_CHARACTERS = 256
_OTHER_BYTES = 65_536  # of a body beside its texts

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Answer = Callable[["Core", dict[str, Any], web.Request], Awaitable[web.StreamResponse]]


class HttpFrontend:
    """OpenAI's API on a Unix socket and, where configured, on TCP."""

    def __init__(
        self,
        core: Core,
        settings: Settings,
        commands: Commands,
        telemetry: Telemetry,
        *,
        limits: ConnectionLimits | None = None,
    ) -> None:
        self._core = core
        self._commands = commands
        self._figures = TelemetryHandlers(telemetry, commands, serves_metrics=settings.telemetry.prometheus)
        self._settings = settings
        self._limits = limits or ConnectionLimits()
        token = settings.http.token
        self._gate = Gate(
            host=settings.http.address[0] if settings.http.address else "",
            token=token.get_secret_value() if token else None,
            allowed_origins=settings.http.allowed_origins,
        )
        self._runner = web.AppRunner(self._application(), handler_cancellation=True, access_log=None)
        self._watch: HangUpWatch | None = None
        self._listeners: list[asyncio.Server] = []
        self._file: SocketFile | None = None

    async def start(self, sockets: Sequence[socket.socket] = ()) -> None:
        """Listen as the settings say; `sockets` that listen already take the place of those of their kind.

        Raises:
            EdgedError: a socket can't be made; with the remedy.
        """
        given = {sock.family == socket.AF_UNIX for sock in sockets}
        listening = [*sockets, *self._listen(unix=True not in given, tcp=False not in given)]
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._watch = HangUpWatch(loop)
        for sock in listening:
            kind = UnixConnection if sock.family == socket.AF_UNIX else TcpConnection
            self._listeners.append(await loop.create_server(self._factory(kind), sock=sock, backlog=BACKLOG))
            _log.info("listening", address=sock.getsockname())

    def reload(self, settings: Settings) -> None:
        """Take over what can change while requests are served."""
        self._settings = settings
        self._gate.allow_origins(settings.http.allowed_origins)

    async def stop(self, grace: float) -> None:
        """Accept nothing more, give running handlers `grace` seconds to end, and close all connections.

        One that waits for a request is closed at once, one that is being answered as soon as it has been.
        """
        for listener in self._listeners:
            listener.close()
        self._figures.close()
        if self._file is not None:
            self._file.remove()
        if (server := self._runner.server) is not None:
            await asyncio.sleep(0)  # who has only just connected waits for a request by then
            server.pre_shutdown()
            # It waits twice as long: for the handlers, then for their connections.
            await server.shutdown(max(grace / 2, 0.01))
        await self._runner.cleanup()
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _listen(self, *, unix: bool, tcp: bool) -> list[socket.socket]:
        """Make the sockets of the settings that are wanted: all of them or none."""
        table, address = self._settings.socket, self._settings.http.address
        listening = listen_tcp(*address) if tcp and address else []
        if not unix:
            return listening
        try:
            listening.append(listen_unix(table.path, mode=int(table.mode, 8), group=table.group))
        except BaseException:
            for sock in listening:
                sock.close()
            raise
        self._file = SocketFile(table.path)
        return listening

    def _factory(self, kind: type[Connection]) -> Callable[[], Connection]:
        server, watch = self._runner.server, self._watch
        assert server is not None
        assert watch is not None
        return lambda: kind(server, watch=watch, limits=self._limits)

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._observe, self._admit])
        application.on_response_prepare.append(_add_headers)
        status, models = StatusHandlers(self._core), ModelHandlers(self._core)
        commands = CommandHandlers(self._commands, body_timeout=self._limits.body_timeout)
        route = application.router.add_route
        for method, path, handler in (
            ("POST", "/v1/chat/completions", self._completion(ChatWire)),
            ("POST", "/v1/completions", self._completion(CompletionWire)),
            ("POST", "/v1/embeddings", self._direct(embed)),
            ("POST", "/v1/tokenize", self._direct(tokenize)),
            ("POST", "/v1/detokenize", self._direct(detokenize)),
            ("POST", "/v1/apply-template", self._direct(apply_template)),
            ("GET", "/v1/models", models.index),
            ("GET", "/v1/models/{name}", models.show),
            ("POST", "/v1/models/fetch", self._fetch),
            ("GET", "/v1/requests", status.index),
            ("POST", "/v1/models/import", self._import),
            ("GET", "/v1/requests/{id}", status.show),
            ("DELETE", "/v1/requests/{id}", status.cancel),
            ("GET", "/v1/status", status.status),
            ("GET", "/v1/telemetry", self._figures.show),
            ("GET", "/v1/history", self._figures.history),
            ("GET", "/metrics", self._figures.metrics),
            ("POST", "/v1/cmd/{name}", commands.run),
            ("GET", "/health", status.health),
            ("GET", "/health/alive", status.alive),
        ):
            route(method, path, handler, expect_handler=body.later)
        return application

    def _completion(self, wire: type[Wire]) -> _Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            fields = await self._read(request)
            return await complete(self._core, wire, fields, request, keepalive=self._limits.keepalive_comment)

        return handle

    def _direct(self, answer: _Answer) -> _Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await answer(self._core, await self._read(request), request)

        return handle

    async def _fetch(self, request: web.Request) -> web.StreamResponse:
        return await fetch_model(
            await self._read(request),
            paths.models_dir(self._settings.state_dir),
            request,
            keepalive=self._limits.keepalive_comment,
            on_fetched=self._fetched,
        )

    def _fetched(self, model: Fetched) -> None:
        self._core.events.emit("model_fetched", file=model.path.name, sha256=model.sha256)
        self._core.look_for_model()

    async def _import(self, request: web.Request) -> web.Response:
        directory = paths.models_dir(self._settings.state_dir)
        response = await import_model(request, directory, timeout=self._limits.body_timeout)
        self._core.look_for_model()
        return response

    async def _read(self, request: web.Request) -> dict[str, Any]:
        # JSON may write a character of two bytes as \uXXXX: three times the length.
        limit = 3 * self._settings.limits.max_prompt_bytes + _OTHER_BYTES
        return await body.read_object(request, limit=limit, timeout=self._limits.body_timeout)

    @web.middleware
    async def _observe(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Log each request and turn every exception into an answer."""
        begun = asyncio.get_running_loop().time()
        status = HUNG_UP
        try:
            response = await handler(request)
            status = response.status
        except Exception as error:
            if isinstance(error, ConnectionError) and _is_gone(request):
                raise
            response = http_error(error).response()
            status = response.status
        finally:
            # What only looks and finds is asked again and again: an SD card need not hold that.
            log = _log.debug if request.method == "GET" and status < HTTPStatus.BAD_REQUEST else _log.info
            log(
                "request",
                method=request.method,
                path=request.rel_url.raw_path[:_LOGGED_PATH_CHARACTERS],
                status=status,
                ms=round((asyncio.get_running_loop().time() - begun) * 1000, 1),
                request_id=request.get(REQUEST_ID),
                **connection_of(request).peer,
            )
        return response

    @web.middleware
    async def _admit(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Let in who may ask."""
        if (origin := self._gate.check_origin(request)) is not None:
            request[ORIGIN] = origin
        is_tcp = connection_of(request).way == "tcp"
        if is_tcp:
            self._gate.check_host(request)
        if origin is not None and (answer := preflight(request)) is not None:
            return answer
        if is_tcp:
            self._gate.check_token(request)
        if (request_id := request.headers.get("X-Request-Id")) is not None:
            if not valid_request_id(request_id):
                raise invalid("X-Request-Id must be 1 to 64 characters of A-Z a-z 0-9 _ . : -")
            request[REQUEST_ID] = request_id
        return await handler(request)


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "edged"
    if REQUEST_ID in request:
        response.headers["X-Request-Id"] = request[REQUEST_ID]
    if ORIGIN in request:
        response.headers.update(cors_headers(request[ORIGIN]))
