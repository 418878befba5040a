"""All requests that can be asked about: those in hand, and the finished ones for a while."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator

from edged.core.ticket import Key, Ticket
from edged.errors import EdgedError, ErrorCode
from edged.protocol import Client, Failed, Request

MOST_KEPT = 1024
MOST_KEPT_BYTES = 8 << 20
REDELIVERY_SECONDS = 60.0
"""A message without an id that is delivered again is the same as one that ended no longer ago than this."""


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
        body_hash, now = self.body_hash(request), self._clock()
        for key, ticket in self._tickets.items():
            ended, _ = self._kept.get(key, (now, 0))
            if (
                ticket.client == client
                and ticket.body_hash == body_hash
                and ticket.request.id is None
                and now - ended <= REDELIVERY_SECONDS
            ):
                return ticket
        return None

    def add(self, ticket: Ticket) -> None:
        """Take a new ticket in, in the place of a finished one of its key."""
        self._unkeep(ticket.key)
        self._tickets[ticket.key] = ticket

    def remove(self, ticket: Ticket) -> None:
        """Forget a ticket that was refused after all."""
        self._tickets.pop(ticket.key, None)
        self._unkeep(ticket.key)

    def keep(self, ticket: Ticket, ended_before: float = 0.0) -> None:
        """Keep a ticket that has finished, so many seconds ago, for its time and within the bounds."""
        self._unkeep(ticket.key)
        self._kept[ticket.key] = self._clock() - ended_before, ticket.size
        self._kept_bytes += ticket.size
        self._forget_old()

    def kept_refusals(self, client: Client) -> int:
        """Return how many refusals of a client's requests are kept."""
        self._forget_old()
        return sum(
            key[:2] == client.identity and not self._tickets[key].admitted and _failed(self._tickets[key])
            for key in self._kept
        )

    def _forget_old(self) -> None:
        """Forget what was kept for its time; beyond the bounds, of the client that has most, the oldest."""
        oldest_allowed = self._clock() - self.keep_seconds
        while self._kept and next(iter(self._kept.values()))[0] < oldest_allowed:
            self._forget(next(iter(self._kept)))
        while len(self._kept) > MOST_KEPT or self._kept_bytes > MOST_KEPT_BYTES:
            [(most, _)] = Counter(key[:2] for key in self._kept).most_common(1)
            self._forget(next(key for key in self._kept if key[:2] == most))

    def _forget(self, key: Key) -> None:
        self._unkeep(key)
        del self._tickets[key]

    def _unkeep(self, key: Key) -> None:
        _, size = self._kept.pop(key, (0.0, 0))
        self._kept_bytes -= size


def _failed(ticket: Ticket) -> bool:
    return isinstance(ticket.terminal, Failed)
