"""What `edgectl top` asks the daemon, and what it orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from edged.cli.client import LIVE_SECONDS, Daemon
from edged.cli.errors import CommandError, Exit

Fields = Mapping[str, Any]


class Look(NamedTuple):
    """What the daemon said of itself.

    Attributes:
        status: its state.
        telemetry: its figures.
        requests: those that have not ended, the oldest first; of many not all.
        total: how many there are.
        everybodys: whether they are all clients', not only one's own.
    """

    status: Fields
    telemetry: Fields
    requests: Sequence[Fields]
    total: int
    everybodys: bool


class Source:
    """The daemon. Whoever may not command it sees and cancels his own requests.

    Args:
        daemon: is asked.
    """

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._may_command = True

    def look(self, timeout: float = LIVE_SECONDS) -> Look:
        """Ask for everything.

        Args:
            timeout: seconds for the first answer.

        Raises:
            CommandError: the daemon can't be reached, or does not answer in time.
        """
        status = self._ask("GET", "/v1/status", timeout=timeout)
        telemetry = self._ask("GET", "/v1/telemetry")
        listed = self._requests()
        return Look(status, telemetry, listed["requests"], listed["total"], self._may_command)

    def cancel(self, request: Fields) -> str:
        """Cancel a request and return its state.

        Raises:
            CommandError: it could not be cancelled.
        """
        if not self._may_command:
            return str(self._ask("DELETE", f"/v1/requests/{request['id']}")["state"])
        named = {name: request[name] for name in ("way", "client", "id")}
        return str(self._ask("POST", "/v1/cmd/cancel", named)["data"]["state"])

    def _requests(self) -> Fields:
        if self._may_command:
            try:
                data: Fields = self._ask("POST", "/v1/cmd/requests", {})["data"]
            except CommandError as error:
                if error.exit is not Exit.NOT_PERMITTED:
                    raise
                self._may_command = False
            else:
                return data
        return self._ask("GET", "/v1/requests")

    def _ask(
        self, method: str, path: str, body: Fields | None = None, *, timeout: float = LIVE_SECONDS
    ) -> Fields:
        with self._daemon.request(method, path, body, timeout=timeout) as response:
            answer: Fields = response.json()
        return answer
