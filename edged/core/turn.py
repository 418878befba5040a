"""A request's turn: from when it is begun to its end, with the times that it was put back meanwhile."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from edged.core.sessions import Session
from edged.core.ticket import Ticket


@dataclass(slots=True, eq=False)
class Turn:
    """What the dispatcher knows of a ticket whose turn has come.

    Attributes:
        ticket: whose it is.
        session: the conversation that it goes on with.
        preparation: what makes its prompt, while it is at it.
        model_key: of the model that computes it; "" before its prompt is made.
        level: the priority that it was taken with, its age counted.
        is_leaving: the engine was told to put it back, and has not yet.
        times_put_back: how often the engine has.
        begun: when it was begun, or begun again, by the monotonic clock; None while it is put back.
        seconds_before: how long it ran before that.
    """

    ticket: Ticket
    session: Session | None = None
    preparation: asyncio.Task[None] | None = None
    model_key: str = ""
    level: float = 0.0
    is_leaving: bool = False
    times_put_back: int = 0
    begun: float | None = None
    seconds_before: float = 0.0

    @property
    def seconds(self) -> float:
        """Return for how long it has run by now, in all."""
        return self.seconds_before + (time.monotonic() - self.begun if self.begun is not None else 0.0)

    def begin(self, level: float) -> None:
        """Note that it runs, or runs again."""
        self.begun, self.level = time.monotonic(), level

    def pause(self) -> None:
        """Note that it was put back."""
        self.seconds_before, self.begun, self.is_leaving = self.seconds, None, False
        self.times_put_back += 1
