"""What stands in the journal's records: written here, and read back at the next start.

The journal itself looks into none of it. An *envelope* is a frontend's own word about where frames go: kept
with the request, given back with it, never looked into either.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import structlog

from edged.core.journal import Record, Recovered
from edged.core.ticket import FORGOTTEN, Ticket
from edged.errors import EdgedError
from edged.protocol import Client, Request, terminal_of

_log = structlog.get_logger(__name__)

Envelope = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request of an earlier daemon that was accepted and not answered.

    Attributes:
        record: what the journal gave.
        request: what was asked; None if this version can't read it.
        client: who asked.
        envelope: the frontend's.
        attempt: the next one's number.
    """

    record: Record
    request: Request | None
    client: Client
    envelope: Envelope
    attempt: int

    @property
    def id(self) -> str:
        """Return its id; the request itself has none where edged made it."""
        assert self.record.key is not None
        return self.record.key.id


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


class Answered(NamedTuple):
    """A finished request, and what the journal has of it."""

    ticket: Ticket
    record: Record


@dataclass(frozen=True, slots=True)
class Restored:
    """What an earlier daemon left.

    Attributes:
        asks: not answered yet, oldest first.
        answered: finished, oldest first.
        unsent: answers and events that wait for the broker, in order.
    """

    asks: list[Ask]
    answered: list[Answered]
    unsent: list[Unsent]


def ask_body(ticket: Ticket, envelope: Envelope) -> bytes:
    """Return what is written of a request that was accepted."""
    request = ticket.request.model_dump(exclude_defaults=True, mode="json")
    return _encode({"request": request, "envelope": envelope})


def answer_body(ticket: Ticket, envelope: Envelope, frames: Sequence[str]) -> bytes:
    """Return what is written of a request's end: the frames that its requester has not got."""
    made = ticket.request.id is None
    return _encode({"envelope": envelope, "frames": list(frames), "made_id": made})


def event_body(envelope: Envelope, payload: str) -> bytes:
    """Return what is written of an event."""
    return _encode({"envelope": envelope, "frames": [payload]})


def read(recovered: Recovered) -> Restored:
    """Return what the journal's records say; one that this version can't read is logged."""
    answers = [(record, json.loads(record.body)) for record in recovered.answers]
    events = [(record, json.loads(record.body)) for record in recovered.events]
    return Restored(
        asks=[_ask(record, recovered.run) for record in recovered.asks],
        answered=[entry for record, body in answers if (entry := _answered(record, body))],
        unsent=[
            Unsent(record.serial, body["envelope"], body["frames"])
            for record, body in sorted(answers + events, key=lambda entry: entry[0].serial)
            if record.serial in recovered.unacknowledged
        ],
    )


def _ask(record: Record, run: int) -> Ask:
    body = json.loads(record.body)
    request = None
    try:
        request = Request.parse(body["request"])
    except EdgedError as error:
        _log.error("a request in the journal can't be run", serial=record.serial, reason=error.message)
    return Ask(record, request, _client(record), body["envelope"], attempt=run - record.run + 1)


def _answered(record: Record, body: dict[str, Any]) -> Answered | None:
    assert record.key is not None
    id = None if body.get("made_id") else record.key.id
    request = Request(id=id, prompt="").model_copy(update=FORGOTTEN)
    try:
        terminal = terminal_of(json.loads(body["frames"][-1]))
    except (ValueError, TypeError, KeyError):
        _log.error("an answer in the journal can't be repeated", serial=record.serial)
        return None
    return Answered(Ticket.finished(terminal, request, _client(record), record.body_hash), record)


def _client(record: Record) -> Client:
    assert record.key is not None
    return Client(record.key.client, cast(Any, record.key.way))


def _encode(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
