"""What runs and how it is: health, status, and requests by their id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from edged.frontends.http.context import REQUEST_ID, client_of
from edged.frontends.http.openai_errors import HttpError
from edged.protocol import frame_fields

if TYPE_CHECKING:
    from edged.core import Core, Ticket


class StatusHandlers:
    """Handlers that look at the core, and the one that cancels."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def health(self, _request: web.Request) -> web.Response:
        """Say whether requests are served."""
        return self._health(good=self._core.ready)

    async def alive(self, _request: web.Request) -> web.Response:
        """Say whether the daemon gets on, with or without a model."""
        return self._health(good=not self._core.stalled)

    async def status(self, _request: web.Request) -> web.Response:
        """Return the daemon's status."""
        return web.json_response(self._core.status())

    async def show(self, request: web.Request) -> web.Response:
        """Return a request's state and the frames that it has had."""
        ticket = self._find(request)
        frames = [frame_fields(frame) for frame in ticket.frames]
        return web.json_response(
            {"id": ticket.id, "state": ticket.state, "created": ticket.created, "frames": frames}
        )

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a request."""
        ticket = self._find(request)
        ticket.cancel()
        return web.json_response({"id": ticket.id, "state": ticket.state})

    def _health(self, *, good: bool) -> web.Response:
        core = self._core
        fields = {
            "status": core.phase,
            "ready": core.ready,
            "alive": not core.stalled,
            "stalled": core.stalled,
        }
        return web.json_response(fields, status=200 if good else 503)

    def _find(self, request: web.Request) -> Ticket:
        ticket = self._core.find(client_of(request), request.match_info["id"])
        if ticket is None:
            raise HttpError(404, "not_found", "none of your requests has this id, or it ended too long ago")
        request[REQUEST_ID] = ticket.id
        return ticket
