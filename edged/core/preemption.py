"""Which requests that run give way: to a more urgent one that waits, or to a bound on how many may run.

Pure decisions; the dispatcher carries them out. An engine keeps the state of what gives way as long as it
can, so it costs little to go on; but it costs something, and a pause is seen, so it is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable

from edged.core.turn import Turn

MOST_TIMES = 8
"""A request that was put back so often gives way to no other one any more. One that has waited long does
not either: what counts of it is the priority that it was begun with, which rises with its age."""


def gives_way(turns: Iterable[Turn], level: float) -> Turn | None:
    """Return which turn gives way to a request of a priority, None if none does."""
    lower = (turn for turn in turns if turn.level < level and turn.times_put_back < MOST_TIMES)
    return max(filter(_can_leave, lower), key=_readiness, default=None)


def surplus(turns: Iterable[Turn], most: int) -> list[Turn]:
    """Return the turns beyond so many; fewer where some can't leave yet."""
    staying = [turn for turn in turns if not turn.is_leaving]
    leaving = sorted(filter(_can_leave, staying), key=_readiness, reverse=True)
    return leaving[: max(0, len(staying) - most)]


def _can_leave(turn: Turn) -> bool:
    return turn.ticket.generation is not None and not turn.is_leaving


def _readiness(turn: Turn) -> tuple[float, float]:
    """Rank the lowest priority first, of equal ones what was begun last: it has the least to lose."""
    return -turn.level, turn.begun or 0.0
