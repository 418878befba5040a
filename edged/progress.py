"""How a part of the daemon shows that it gets on: a count that it raises, and another thread reads."""

from __future__ import annotations

import os

STANDS_STILL = os.EX_SOFTWARE
"""The exit code of a daemon that ends itself because a part of it stands still."""


class Progress:
    """The steps of one part, which a thread of its own may take; reading and writing wait for nobody.

    A part that owes no step rests, for however long. One that owes a step and takes none stands still.

    Attributes:
        steps: how many it has taken; they are counted by the part alone.
        owes: whether it has something to do.
        allowance: seconds that its present step may take beyond the usual.
    """

    __slots__ = ("allowance", "owes", "steps")

    def __init__(self) -> None:
        self.steps = 0
        self.owes = False
        self.allowance = 0.0

    def step(self, allowance: float = 0.0) -> None:
        """Note that a step is done and another begins, which may take so many seconds beyond the usual."""
        self.steps += 1
        self.allowance = allowance
        self.owes = True

    def rest(self) -> None:
        """Note that there is nothing more to do."""
        self.steps += 1
        self.allowance = 0.0
        self.owes = False

    def expect(self) -> None:
        """Note, as who gives it something to do, that a step is owed."""
        self.owes = True
