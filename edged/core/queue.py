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
        self._waiting: dict[Ticket, _Place] = {}
        self._taken: dict[Ticket, _Place] = {}
        self._parties: dict[_Name, _Party] = {}

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
        now = self._clock()
        self._waiting[ticket] = _Place(arrived=now, since=now)

    def put_back(self, ticket: Ticket, used: float) -> None:
        """Let a ticket that was taken wait again: as if it had not been away, but for what it used so far."""
        place = self._taken.pop(ticket)
        self._settle(ticket, place, used)
        place.since = self._clock()
        self._waiting[ticket] = place

    def ranked(self, eligible: Callable[[Ticket], bool]) -> list[Ticket]:
        """Return the tickets that may run now, the next one first."""
        now = self._clock()
        return sorted(filter(eligible, self._waiting), key=lambda ticket: self._rank(ticket, now))

    def take(self, eligible: Callable[[Ticket], bool], cost: Callable[[Ticket], float]) -> Ticket | None:
        """Return the next ticket that may run now, None if there is none; `cost` says its expected tokens."""
        ticket = next(iter(self.ranked(eligible)), None)
        if ticket is not None:
            place = self._taken[ticket] = self._waiting.pop(ticket)
            place.waited += self._clock() - place.since
            place.expected = max(0.0, cost(ticket) - place.used)
            for name in _names(ticket):
                self._parties[name].lent += place.expected
        return ticket

    def taken_level(self, ticket: Ticket) -> float:
        """Return the priority that a ticket was taken with, its age counted."""
        return _level(ticket, self._taken[ticket].waited)

    def leave(self, ticket: Ticket, used: float) -> None:
        """Forget a ticket that has ended, waiting or taken, and count the tokens that it really used."""
        place = self._waiting.pop(ticket, None) or self._taken.pop(ticket)
        self._settle(ticket, place, used)
        for name, above in pairwise(reversed(_names(ticket))):
            party = self._parties[name]
            party.tickets -= 1
            if not party.tickets:
                del self._parties[name]
                self._parties[above].members -= 1
        if not self._parties[()].members:
            del self._parties[()]

    def _settle(self, ticket: Ticket, place: _Place, used: float) -> None:
        """Count what a ticket has used by now instead of what was expected of it."""
        newly, place.used = used - place.used, used
        expected, place.expected = place.expected, 0.0
        for name, above in pairwise(reversed(_names(ticket))):
            party, parent = self._parties[name], self._parties[above]
            party.lent -= expected
            party.served += newly
            parent.share += newly / parent.members
        self._parties[()].lent -= expected

    def _rank(self, ticket: Ticket, now: float) -> tuple[float, ...]:
        place = self._waiting[ticket]
        level = _level(ticket, place.waited + now - place.since)
        _, client, user = (self._parties[name] for name in _names(ticket))
        return (-level, client.served + client.lent, user.served + user.lent, place.arrived)


@dataclass(slots=True)
class _Place:
    """Where a ticket stands.

    Attributes:
        arrived: when it came.
        since: when it began to wait, the last time.
        waited: seconds that it waited before it was taken, all times together.
        used: its tokens that are counted as served.
        expected: its tokens that are lent.
    """

    arrived: float
    since: float
    waited: float = 0.0
    used: float = 0.0
    expected: float = 0.0


@dataclass(slots=True)
class _Party:
    """A client, a user of one, or () for everybody.

    Attributes:
        served: tokens of its requests, without those that are lent.
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


def level_of(ticket: Ticket) -> float:
    """Return the priority that a ticket was asked with."""
    return _LEVELS[ticket.request.priority]


def _level(ticket: Ticket, waited: float) -> float:
    return min(_LEVELS["high"], level_of(ticket) + waited // AGEING_SECONDS)


def _names(ticket: Ticket) -> tuple[_Name, _Name, _Name]:
    """Return everybody, the ticket's client and its user within that client."""
    client = ticket.client
    return (), client.identity, (*client.identity, client.user)
