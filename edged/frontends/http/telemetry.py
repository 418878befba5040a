"""Figures over HTTP: the snapshot once or as a stream of events, the history, and metrics for Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING

from aiohttp import web

from edged.errors import invalid
from edged.frontends.http.openai_errors import HttpError
from edged.frontends.http.sse import EventStream, data
from edged.telemetry.fields import nested

if TYPE_CHECKING:
    from edged.core.commands import Commands
    from edged.telemetry.service import Telemetry

MOST_INTERVAL_SECONDS = 3600


class TelemetryHandlers:
    """Handlers that tell figures.

    Args:
        telemetry: has them.
        commands: reads the history.
        serves_metrics: whether /metrics is there.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        commands: Commands,
        *,
        serves_metrics: bool,
    ) -> None:
        self._telemetry = telemetry
        self._commands = commands
        self._serves_metrics = serves_metrics
        self._closed = asyncio.Event()

    def close(self) -> None:
        """End the streams."""
        self._closed.set()

    async def show(self, request: web.Request) -> web.StreamResponse:
        """Return a snapshot; to whoever accepts events one after the other, every `interval` seconds."""
        if "text/event-stream" not in request.headers.get("Accept", ""):
            return web.json_response(nested(self._telemetry.snapshot()))
        interval = _whole(request, "interval", 1, MOST_INTERVAL_SECONDS)
        stream = EventStream(request)
        await stream.open()
        while not self._closed.is_set():
            await stream.send(data(nested(self._telemetry.snapshot())))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), interval)
        return stream.response

    async def history(self, request: web.Request) -> web.Response:
        """Return a page of the history; the first is the newest hour."""
        page = _whole(request, "page", 1, 1 << 30)
        return web.json_response(await self._commands.run("history", {"page": page}))

    async def metrics(self, request: web.Request) -> web.Response:
        """Return all figures as Prometheus reads them."""
        if not self._serves_metrics:
            raise HttpError(404, "not_found", "metrics are off (telemetry.prometheus = false)")
        from edged.telemetry.prometheus import page  # it takes memory: only where somebody asks

        body, content_type = page(self._telemetry.snapshot(), request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})


def _whole(request: web.Request, name: str, least: int, most: int) -> int:
    """Return a parameter of the address, `least` where it is not given.

    Raises:
        EdgedError: `invalid`.
    """
    text = request.query.get(name, str(least))
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and least <= int(text) <= most):
        raise invalid(f"{name}: must be a whole number from {least} to {most}, not {json.dumps(text[:64])}")
    return int(text)
