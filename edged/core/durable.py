"""Requests that outlive the daemon: what is written of them, and what comes back at start.

The journal keeps opaque records; here is what stands in them. An *envelope* is a frontend's own word about
where frames go: kept with the request, given back with it, never looked into.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import structlog

from edged.clock import Clock, elapsed
from edged.core.journal import Journal, Record, RecordKey, Recovered
from edged.core.ticket import FORGOTTEN, Ticket
from edged.errors import EdgedError
from edged.protocol import Client, Request, terminal_of

_log = structlog.get_logger(__name__)

Envelope = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request of an earlier daemon that was accepted and not answered.

    Attributes:
        serial: its row.
        request: what was asked; None if this version can't read it.
        client: who asked.
        id: its id; the request has none where edged made it.
        body_hash: of the request.
        envelope: the frontend's.
        attempt: the next one's number.
        record: what the journal gave.
    """

    serial: int
    request: Request | None
    client: Client
    id: str
    body_hash: bytes
    envelope: Envelope
    attempt: int
    record: Record


class Unsent(NamedTuple):
    """An answer or an event that the broker has not acknowledged.

    Attributes:
        serial: its row.
        envelope: where it goes.
        frames: the payloads, in order.
    """

    serial: int
    envelope: Envelope
    frames: list[str]


@dataclass(frozen=True, slots=True)
class Restored:
    """What an earlier daemon left.

    Attributes:
        asks: not answered yet, oldest first.
        answered: finished tickets, with the seconds since their end, oldest first.
        unsent: answers and events that wait for the broker, in order.
    """

    asks: list[Ask]
    answered: list[tuple[Ticket, float]]
    unsent: list[Unsent]


class Durable:
    """The journal, in the core's terms.

    Attributes:
        journal: where everything is written.
        salt: of body hashes; the same in every daemon on this journal.
    """

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self.journal = journal
        self.salt = b""
        self._clock = clock
        self._run = 0

    async def open(self) -> tuple[Restored, Recovered]:
        """Open the journal and return what is in it."""
        recovered = await self.journal.open()
        self.salt, self._run = recovered.salt, recovered.run
        asks = [self._ask(record) for record in recovered.asks]
        answers = [(record, json.loads(record.body)) for record in recovered.answers]
        unsent = [
            Unsent(record.serial, body["envelope"], body["frames"])
            for record, body in sorted(
                answers + [(record, json.loads(record.body)) for record in recovered.events],
                key=lambda entry: entry[0].serial,
            )
            if record.serial in recovered.unacknowledged
        ]
        answered = [self._answered(record, body["frames"]) for record, body in answers]
        return Restored(asks, answered, unsent), recovered

    def waited(self, ask: Ask) -> float:
        """Return the seconds since a restored request was accepted, as far as the clocks can tell."""
        return elapsed(ask.record.stamp, self._clock.now())

    async def accept(self, ticket: Ticket, envelope: Envelope) -> None:
        """Write a request down; it is safe when this returns.

        Raises:
            EdgedError: `journal_full`.
        """
        body = {
            "request": ticket.request.model_dump(exclude_defaults=True, mode="json"),
            "envelope": envelope,
        }
        ticket.serial = await self.journal.accept(_key(ticket), ticket.body_hash, _encode(body))

    async def answer(self, ticket: Ticket, envelope: Envelope, frames: Sequence[str]) -> int:
        """Write the end of a request down, as the frames that its requester has not got; return the row."""
        serial, ticket.serial = ticket.serial, None
        body = _encode({"envelope": envelope, "frames": list(frames)})
        return await self.journal.answer(serial, _key(ticket), ticket.body_hash, body)

    async def event(self, envelope: Envelope, payload: str) -> int:
        """Write an event down until the broker has it; return the row."""
        return await self.journal.event(_encode({"envelope": envelope, "frames": [payload]}))

    def _ask(self, record: Record) -> Ask:
        assert record.key is not None
        body = json.loads(record.body)
        request = None
        try:
            request = Request.parse(body["request"])
        except EdgedError as error:  # written by another version
            _log.error("a request in the journal can't be run", serial=record.serial, reason=error.message)
        return Ask(
            serial=record.serial,
            request=request,
            client=_client(record.key),
            id=record.key.id,
            body_hash=record.body_hash,
            envelope=body["envelope"],
            attempt=self._run - record.run + 1,
            record=record,
        )

    def _answered(self, record: Record, frames: list[str]) -> tuple[Ticket, float]:
        assert record.key is not None
        request = Request(id=record.key.id, prompt="").model_copy(update=FORGOTTEN)
        ticket = Ticket.finished(
            terminal_of(json.loads(frames[-1])), request, _client(record.key), record.body_hash
        )
        return ticket, elapsed(record.stamp, self._clock.now())


def _key(ticket: Ticket) -> RecordKey:
    return RecordKey(ticket.client.way, ticket.client.name, ticket.id)


def _client(key: RecordKey) -> Client:
    return Client(key.client, cast(Any, key.way))


def _encode(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
