"""Who is next: priority with ageing, then fairness between clients, then order of arrival."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from edged.core.ticket import Ticket

_Name = tuple[str, ...]

_LEVELS = {"low": 0, "normal": 1, "high": 2}
AGEING_SECONDS = 60.0
"""A request that has waited so long counts as one priority higher, up to high."""


class FairQueue:
    """Tickets that wait to be computed.

    Of the highest priority waiting, the client that was served the fewest tokens is next; within it the
    user that was. Who comes anew counts as served with what each active one's equal share of the work has
    been so far (the virtual time of weighted fair queueing: Demers, Keshav, Shenker 1989), so that neither
    a pause nor a new name earns anything.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[Ticket, float] = {}  # to the time of arrival, in order of arrival
        self._parties: dict[_Name, _Party] = {}
        self._costs: dict[Ticket, float] = {}  # expected tokens of those that were taken

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._waiting)

    def put(self, ticket: Ticket) -> None:
        """Let a ticket wait."""
        for above, name in pairwise(_names(ticket)):
            parent = self._parties.setdefault(above, _Party())
            if name not in self._parties:
                self._parties[name] = _Party(served=parent.share)
                parent.members += 1
            self._parties[name].tickets += 1
        self._waiting[ticket] = self._clock()

    def take(self, eligible: Callable[[Ticket], bool], cost: Callable[[Ticket], float]) -> Ticket | None:
        """Return the next ticket that may run now, None if there is none; `cost` says its expected tokens."""
        now = self._clock()
        ticket = min(filter(eligible, self._waiting), key=lambda t: self._rank(t, now), default=None)
        if ticket is not None:
            del self._waiting[ticket]
            self._costs[ticket] = cost(ticket)
            for name in _names(ticket):
                self._parties[name].lent += self._costs[ticket]
        return ticket

    def leave(self, ticket: Ticket, used: float) -> None:
        """Forget a ticket that has ended, waiting or taken, and count the tokens that it really used."""
        self._waiting.pop(ticket, None)
        expected = self._costs.pop(ticket, 0.0)
        for name, above in pairwise(reversed(_names(ticket))):
            parent, party = self._parties[above], self._parties[name]
            party.lent -= expected
            party.served += used
            parent.share += used / parent.members
            party.tickets -= 1
            if not party.tickets:
                del self._parties[name]
                parent.members -= 1
        everybody = self._parties[()]
        everybody.lent -= expected
        if not everybody.members:
            del self._parties[()]

    def _rank(self, ticket: Ticket, now: float) -> tuple[float, ...]:
        age = now - self._waiting[ticket]
        level = min(_LEVELS["high"], _LEVELS[ticket.request.priority] + age // AGEING_SECONDS)
        _, client, user = (self._parties[name] for name in _names(ticket))
        return (-level, client.served + client.lent, user.served + user.lent, self._waiting[ticket])


@dataclass(slots=True)
class _Party:
    """A client, a user of one, or () for everybody.

    Attributes:
        served: tokens of its requests that have ended.
        lent: expected tokens of those that run.
        share: tokens that each of its members would have been served, had they shared equally.
        members: active parties within it.
        tickets: its tickets, waiting or running.
    """

    served: float = 0.0
    lent: float = 0.0
    share: float = 0.0
    members: int = 0
    tickets: int = 0


def _names(ticket: Ticket) -> tuple[_Name, _Name, _Name]:
    """Return everybody, the ticket's client and its user within that client."""
    client = ticket.client
    return (), client.identity, (*client.identity, client.user)
