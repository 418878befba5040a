"""All requests that can be asked about: those in hand, and the finished ones for a while."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator

from edged.core.ticket import Key, Ticket
from edged.errors import EdgedError, ErrorCode
from edged.protocol import Client, Request

MOST_KEPT = 1024
MOST_KEPT_BYTES = 8 << 20


class Registry:
    """Tickets by client and id.

    Args:
        keep_seconds: how long a finished request's terminal frame is kept for duplicates.
        clock: seconds, monotonic.

    Attributes:
        salt: of body hashes.
    """

    def __init__(self, keep_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.keep_seconds = keep_seconds
        self._clock = clock
        self.salt = secrets.token_bytes(16)
        self._tickets: dict[Key, Ticket] = {}
        self._kept: dict[Key, tuple[float, int]] = {}  # finished ones, to their end and size, oldest first
        self._kept_bytes = 0

    def active(self) -> Iterator[Ticket]:
        """Go through the tickets that have not finished."""
        return (ticket for key, ticket in self._tickets.items() if key not in self._kept)

    def body_hash(self, request: Request) -> bytes:
        """Return what tells a request's body from another's, and tells nobody the body."""
        return request.body_hash(self.salt)

    def find(self, client: Client, id: str) -> Ticket | None:
        """Return a client's request: in hand, or finished and still kept."""
        self._forget_old()
        return self._tickets.get(Key(client.way, client.name, id))

    def duplicate(self, client: Client, request: Request, *, redelivered: bool = False) -> Ticket | None:
        """Return the earlier request of which this one is a repeat.

        A request without an id of its own is one only where the transport says that it delivers again.

        Raises:
            EdgedError: `id_in_use`: the id belongs to another request of this client.
        """
        if request.id is None:
            return self._same_body(client, request) if redelivered else None
        earlier = self.find(client, request.id)
        if earlier is not None and earlier.body_hash != self.body_hash(request):
            raise EdgedError(
                ErrorCode.ID_IN_USE,
                f"id {request.id} belongs to another request of yours; give each request an id of its own",
                param="id",
            )
        return earlier

    def _same_body(self, client: Client, request: Request) -> Ticket | None:
        self._forget_old()
        body_hash = self.body_hash(request)
        for ticket in self._tickets.values():
            if ticket.client == client and ticket.body_hash == body_hash and ticket.request.id is None:
                return ticket
        return None

    def add(self, ticket: Ticket) -> None:
        """Take a new ticket in."""
        self._tickets[ticket.key] = ticket

    def remove(self, ticket: Ticket) -> None:
        """Forget a ticket that was refused after all."""
        self._tickets.pop(ticket.key, None)
        _, size = self._kept.pop(ticket.key, (0.0, 0))
        self._kept_bytes -= size

    def keep(self, ticket: Ticket, ended_before: float = 0.0) -> None:
        """Keep a ticket that has finished, so many seconds ago, for its time and within the bounds."""
        self._kept[ticket.key] = self._clock() - ended_before, ticket.size
        self._kept_bytes += ticket.size
        self._forget_old()

    def _forget_old(self) -> None:
        oldest_allowed = self._clock() - self.keep_seconds
        while self._kept:
            key, (ended, size) = next(iter(self._kept.items()))
            if (
                ended >= oldest_allowed
                and len(self._kept) <= MOST_KEPT
                and self._kept_bytes <= MOST_KEPT_BYTES
            ):
                return
            del self._kept[key]
            del self._tickets[key]
            self._kept_bytes -= size
