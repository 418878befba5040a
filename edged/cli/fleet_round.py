"""A round: each device of a selection is given the same message once, and what ends it is collected."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from edged.cli.errors import CommandError, Exit
from edged.cli.fields import Fields, object_of
from edged.cli.fleet_inventory import Row
from edged.cli.fleet_reading import session
from edged.cli.mqtt_broker import Broker
from edged.cli.mqtt_connection import Connection, LostError
from edged.cli.mqtt_faults import silent

_KEEP_SECONDS = 120
_RETRY_SECONDS = 1.0
_WAIT_SECONDS = 3600.0

NO_ANSWER = "no_answer"
OFFLINE = "offline"


class Outcome(NamedTuple):
    """What became of one device's part.

    Attributes:
        device: its id.
        status: ok, error, no_answer, or offline: it was not told at all.
        fields: what it sent.
        seconds: from the round's start.
    """

    device: str
    status: str
    fields: Fields
    seconds: float | None = None

    @property
    def error(self) -> str:
        """Why it failed; empty: it did not."""
        match self.fields.get("error", self.fields):
            case {"code": code, "message": message}:
                return f"{code}: {message}"
            case {"finish_reason": "cancelled"}:
                return "cancelled elsewhere"
        return "" if self.status == "ok" else self.status.replace("_", " ")


Ended = Callable[[Fields], str | None]
"""Returns the status of what a message ends; None: it ends nothing of this round."""


class Round:
    """One message to many devices.

    Args:
        broker: where they are.
        topic: to publish on, under each device.
        payload: the same for all: a device that gets it twice must take it once.
        results: the topic, under each device, on which results come.
        ended: reads them.
    """

    def __init__(self, broker: Broker, *, topic: str, payload: bytes, results: str, ended: Ended) -> None:
        self._broker = broker
        self._topic = topic
        self._payload = payload
        self._results = f"{broker.root}/v1/+/{results}"
        self._ended = ended
        self._session = session()
        self._published: set[str] = set()
        self._pending: dict[str, None] = {}

    def run(
        self, rows: Iterable[Row], timeout: float | None, tell: Callable[[Outcome], None]
    ) -> list[Outcome]:
        """Tell every device that is online or stale; return what became of each, in the order of its end.

        Args:
            rows: the devices.
            timeout: in seconds; None: for as long as it takes.
            tell: is called with each outcome as it is known.

        Raises:
            CommandError: the broker can't be reached, or does not let us.
        """
        began = time.monotonic()
        outcomes: list[Outcome] = []

        def end(device: str, status: str, fields: Mapping[str, Any]) -> None:
            seconds = None if status in (OFFLINE, NO_ANSWER) else round(time.monotonic() - began, 2)
            outcomes.append(Outcome(device, status, fields, seconds))
            tell(outcomes[-1])

        for row in rows:
            if row.state in ("online", "stale"):
                self._pending[row.device.id] = None
            else:
                end(row.device.id, OFFLINE, {})
        deadline = began + (timeout if timeout is not None else float("inf"))
        while self._pending and time.monotonic() < deadline:
            try:
                self._collect(deadline, end)
            except LostError:
                if not self._published:
                    raise silent(self._broker, "closes the connection at once") from None
            except CommandError as error:
                if not self._published or error.exit is not Exit.UNREACHABLE:
                    raise
            if self._pending:
                time.sleep(max(0.0, min(_RETRY_SECONDS, deadline - time.monotonic())))
        for device in self._pending:
            end(device, NO_ANSWER, {})
        return outcomes

    def withdraw(self, topic: str, payload: bytes) -> None:
        """Publish on a topic under each device that was told and has not answered, if that can be done."""
        told = self._published & self._pending.keys()
        if not told:
            return
        try:
            with Connection(self._broker, session()) as connection:
                for device in told:
                    connection.publish(f"{self._broker.root}/v1/{device}/{topic}", payload)
        except (LostError, CommandError):
            return

    def _collect(self, deadline: float, end: Callable[[str, str, Fields], None]) -> None:
        resume = bool(self._published)
        with Connection(self._broker, self._session, keep_seconds=_KEEP_SECONDS, resume=resume) as connection:
            connection.subscribe([self._results])
            expiry = int(min(deadline - time.monotonic(), _WAIT_SECONDS)) + 1
            for device in list(self._pending):
                self._published.add(device)
                place = f"{self._broker.root}/v1/{device}/{self._topic}"
                connection.publish(place, self._payload, expiry_seconds=max(1, expiry))
            while self._pending and (left := deadline - time.monotonic()) > 0:
                arrival = connection.receive(min(left, _WAIT_SECONDS))
                fields = object_of(arrival.payload) if arrival else None
                if arrival is None or fields is None or arrival.retained:
                    continue
                device = arrival.topic.removeprefix(f"{self._broker.root}/v1/").partition("/")[0]
                status = self._ended(fields) if device in self._pending else None
                if status is not None:
                    del self._pending[device]
                    end(device, status, fields)
