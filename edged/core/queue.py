"""Who is next: priority with ageing, then fairness between clients, then order of arrival."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from edged.core.ticket import Ticket

_LEVELS = {"low": 0, "normal": 1, "high": 2}
AGEING_SECONDS = 60.0
"""A request that has waited so long counts as one priority higher, up to high."""


class FairQueue:
    """Tickets that wait to be computed.

    Of the highest priority waiting, the client that was served the fewest tokens is next; within it the
    user that was. A client counts from the least served active one when it comes, so that a pause earns
    it nothing (start-time fair queueing: Goyal, Vin, Cheng 1996).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[Ticket, float] = {}  # to the time of arrival, in order of arrival
        self._active: dict[tuple[str, ...], int] = {}  # tickets waiting or running, by client and by user
        self._served: dict[tuple[str, ...], float] = {}  # tokens of ended requests, by client and by user
        self._lent: dict[tuple[str, ...], float] = {}  # expected tokens of running ones
        self._costs: dict[Ticket, float] = {}  # of those that were taken

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._waiting)

    def put(self, ticket: Ticket) -> None:
        """Let a ticket wait."""
        for party in _parties(ticket):
            if party not in self._active:
                siblings = [p for p in self._active if len(p) == len(party) and p[:-1] == party[:-1]]
                self._served[party] = min((self._served[p] for p in siblings), default=0.0)
                self._lent[party] = 0.0
            self._active[party] = self._active.get(party, 0) + 1
        self._waiting[ticket] = self._clock()

    def take(self, eligible: Callable[[Ticket], bool], cost: Callable[[Ticket], float]) -> Ticket | None:
        """Return the next ticket that may run now, None if there is none; `cost` says its expected tokens."""
        now = self._clock()
        ticket = min(filter(eligible, self._waiting), key=lambda t: self._rank(t, now), default=None)
        if ticket is not None:
            del self._waiting[ticket]
            self._costs[ticket] = cost(ticket)
            for party in _parties(ticket):
                self._lent[party] += self._costs[ticket]
        return ticket

    def leave(self, ticket: Ticket, used: float) -> None:
        """Forget a ticket that has ended, waiting or taken, and count the tokens that it really used."""
        self._waiting.pop(ticket, None)
        expected = self._costs.pop(ticket, 0.0)
        for party in _parties(ticket):
            self._lent[party] -= expected
            self._served[party] += used
            self._active[party] -= 1
            if not self._active[party]:
                del self._active[party], self._served[party], self._lent[party]

    def _rank(self, ticket: Ticket, now: float) -> tuple[float, ...]:
        age = now - self._waiting[ticket]
        level = min(_LEVELS["high"], _LEVELS[ticket.request.priority] + age // AGEING_SECONDS)
        return (
            -level,
            *(self._served[party] + self._lent[party] for party in _parties(ticket)),
            self._waiting[ticket],
        )


def _parties(ticket: Ticket) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the ticket's client, and its user within that client."""
    return (ticket.client.name,), (ticket.client.name, ticket.client.user)
