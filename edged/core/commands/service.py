"""Operators' commands: their names, what each takes, and what it gives back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, cast, get_args

from edged.core.commands.fields import check_known, client_of, one_of, page_of, paged, text_of
from edged.core.commands.models import ModelCommands
from edged.core.status import requests
from edged.errors import EdgedError, ErrorCode, invalid
from edged.log import Level
from edged.protocol import Client, Way, valid_name, valid_request_id

if TYPE_CHECKING:
    from edged.core.service import Core
    from edged.engine.plan import Planner

Handler = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]

_THAT_ONLY_LOOK = frozenset({"health_check", "requests", "model_list", "history"})


class Commands:
    """What operators may order and ask; commands act across clients, so whoever gives them must be trusted.

    Attributes:
        names: the commands that there are.

    Args:
        core: what they act on.
        planner: chooses the model.
        reload: reads the settings again; returns the keys that `changed`, those that `needs_restart`, and
            the `faults` for which the settings stay as they are.
        set_log_level: shows events of this level and above from now on.
        history: gives a page of what was; None where none is kept.
    """

    def __init__(
        self,
        core: Core,
        planner: Planner,
        *,
        reload: Callable[[], dict[str, Any]],
        set_log_level: Callable[[Level], None],
        history: Callable[[int], dict[str, Any]] | None = None,
    ) -> None:
        self._core = core
        self._reload_settings = reload
        self._set_log_level = set_log_level
        self._read_history = history
        self._models = ModelCommands(core, planner)
        self._handlers: dict[str, Handler] = {
            "health_check": self._health_check,
            "requests": self._requests,
            "cancel": self._cancel,
            "cancel_all": self._cancel_all,
            "model_list": self._models.list,
            "model_use": self._models.use,
            "model_unload": self._models.unload,
            "reload": self._reload,
            "log_level": self._log_level,
            "restart_engine": self._restart_engine,
            "history": self._history,
        }
        self.names = tuple(self._handlers)

    async def run(self, name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Carry a command out and return its data, as JSON can carry them.

        Raises:
            EdgedError: it is not carried out: `invalid` (there is no such command, or a field is wrong),
                `shutting_down`, or what the command itself raises.
        """
        if (handler := self._handlers.get(name)) is None:
            raise invalid(f"there is no command {name[:64]!r}, but {', '.join(self.names)}")
        if name in _THAT_ONLY_LOOK:
            return await handler(fields)
        if self._core.stopping:
            raise EdgedError(ErrorCode.SHUTTING_DOWN, "edged is stopping; try again when it is back")
        data = await handler(fields)
        self._core.events.emit("command", command=name)
        return data

    async def _health_check(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        check_known(fields)
        status = self._core.status()
        return {
            "phase": status["phase"],
            "reason": status["reason"],
            "engine": status["engine"]["state"],
            "engine_deaths": status["engine"]["deaths"],
            "engine_next_try_seconds": status["engine"]["next_try_seconds"],
            "queued": status["requests"]["queued"],
            "running": status["requests"]["running"],
            "memory": status["memory"],
            "uptime_seconds": status["uptime_seconds"],
        }

    async def _requests(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """List what waits and runs, of all clients, the oldest first; no texts."""
        check_known(fields, "page")
        page = page_of(fields)
        return paged("requests", requests(self._core.in_hand()), page)

    async def _cancel(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Cancel one request, named as `requests` names it."""
        check_known(fields, "way", "client", "id")
        way = one_of(fields, "way", get_args(Way))
        client, id = text_of(fields, "client", valid_name), text_of(fields, "id", valid_request_id)
        ticket = self._core.find(Client(client, cast(Way, way)), id)
        if ticket is None:
            raise invalid(f"no request {id} of {client} by way of {way} is known, or it ended too long ago")
        ticket.cancel()
        return {"id": ticket.id, "state": ticket.state}

    async def _cancel_all(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Cancel what waits and runs, of one client or of all."""
        check_known(fields, "client")
        client = client_of(fields)
        tickets = [ticket for ticket in self._core.in_hand() if client in (None, ticket.client.name)]
        # What waits goes first: what runs makes room for it.
        for ticket in sorted(tickets, key=lambda ticket: ticket.state == "running"):
            ticket.cancel()
        return {"cancelled": len(tickets)}

    async def _reload(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        check_known(fields)
        outcome = self._reload_settings()
        if faults := outcome.pop("faults"):
            raise invalid(f"the settings stay as they are: {'; '.join(faults)}")
        return outcome

    async def _log_level(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Show events of this level and above until the settings are read again."""
        check_known(fields, "level")
        level = one_of(fields, "level", get_args(Level))
        self._set_log_level(cast(Level, level))
        return {"level": level}

    async def _restart_engine(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Start a new engine at once; what runs goes on in it where it was."""
        check_known(fields)
        self._models.check_idle()
        self._core.engine.restart()
        return {"going_on": self._core.running}

    async def _history(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was, minute by minute; the first page is the newest hour."""
        check_known(fields, "page")
        page = page_of(fields)
        if self._read_history is None:
            raise EdgedError(ErrorCode.NOT_ALLOWED, "no history is kept here (telemetry.history_hours = 0)")
        return await asyncio.to_thread(self._read_history, page)
