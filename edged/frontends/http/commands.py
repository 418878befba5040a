"""Operators' commands over HTTP: POST /v1/cmd/<name>."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aiohttp import web

from edged.core.commands import succeeded, take_transaction
from edged.errors import EdgedError, ErrorCode
from edged.frontends.http.body import read_object
from edged.frontends.http.context import connection_of
from edged.frontends.http.openai_errors import HttpError

if TYPE_CHECKING:
    from edged.core.commands import Commands

BODY_BYTES = 65_536
_ROOT = 0


class CommandHandlers:
    """Handles commands for whoever may give them.

    Args:
        commands: what carries them out.
        body_timeout: seconds that a body may take.
    """

    def __init__(self, commands: Commands, *, body_timeout: float) -> None:
        self._commands = commands
        self._body_timeout = body_timeout

    async def run(self, request: web.Request) -> web.Response:
        """Carry out the command that the path names.

        Raises:
            EdgedError: it is not carried out.
            HttpError: 404, there is no such command.
        """
        _check_may(request)
        name = request.match_info["name"]
        if name not in self._commands.names:
            known = ", ".join(self._commands.names)
            raise HttpError(404, "unknown_command", f"there is no command {name[:64]!r}, but {known}")
        fields = {}
        if request.can_read_body:
            fields = await read_object(request, limit=BODY_BYTES, timeout=self._body_timeout)
        transaction, fields = take_transaction(fields)
        return web.json_response(succeeded(await self._commands.run(name, fields), transaction))


def _check_may(request: web.Request) -> None:
    """Let commands pass that come from root, from the daemon's own user, or over TCP with the token.

    Raises:
        EdgedError: `not_allowed`.
    """
    connection = connection_of(request)
    if connection.way == "socket" and connection.peer["uid"] not in (_ROOT, os.geteuid()):
        raise EdgedError(
            ErrorCode.NOT_ALLOWED,
            "commands act on everybody's requests, so only root and the daemon's own user may give them: "
            "use sudo",
        )
