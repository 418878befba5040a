"""When an engine that died is started again, and when that is given up for a while."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edged.engine.messages import Load
from edged.engine.supervision.oom import Memory, memory
from edged.engine.supervision.process import Death

MOST_DEATHS = 5
PAUSES = (0.0, 1.0, 2.0, 4.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds before the next start, by deaths in a row; the last holds on."""
LOOK_SECONDS = 30.0
MEMORY_MARGIN = 0.1
"""Of all memory: by so much more must be available for another try after a death for want of it."""


class BackOff:
    """Counts the engine's deaths without an answered request in between, and remembers what they went with.

    Attributes:
        deaths: how many in a row.
        look_seconds: how often to look, once given up, whether the cause is gone.

    Args:
        pauses: seconds before the next start, by deaths in a row.
        most_deaths: from so many on it is given up until the cause may be gone.
        look_seconds: see the attribute.
        memory: says how much there is.
    """

    def __init__(
        self,
        *,
        pauses: Sequence[float] = PAUSES,
        most_deaths: int = MOST_DEATHS,
        look_seconds: float = LOOK_SECONDS,
        memory: Callable[[], Memory] = memory,
    ) -> None:
        self.deaths = 0
        self.look_seconds = look_seconds
        self._pauses = pauses
        self._most_deaths = most_deaths
        self._memory = memory
        self._setting: tuple[Any, ...] = ()
        self._wanted: int | None = None  # bytes available that are worth a try

    @property
    def has_given_up(self) -> bool:
        """Say whether requests are to be refused rather than wait for the next start."""
        return self.deaths >= self._most_deaths

    def died(self, load: Load, death: Death) -> float:
        """Count a death and return the seconds to wait before the next start."""
        self.deaths += 1
        self._setting = _setting(load)
        self._wanted = None
        if death.may_be_for_memory:
            now = self._memory()
            self._wanted = now.available + int(MEMORY_MARGIN * now.total)
        return self._pauses[min(self.deaths, len(self._pauses)) - 1]

    def forgive(self) -> None:
        """Forget the deaths: a request was answered, an operator wants a try, or the cause is gone."""
        self.deaths = 0

    def may_cause_be_gone(self, load: Load) -> bool:
        """Say whether another try has a chance: another plan, or more memory where that may have lacked."""
        if _setting(load) != self._setting:
            return True
        return self._wanted is not None and self._memory().available >= self._wanted

    def explain(self, death: Death) -> str:
        """Return why it is given up, what to do, and when it is tried again."""
        remedy = "use another model (edgectl model use NAME); the log says more"
        more = ""
        if self._wanted is not None:
            remedy = "free memory, lower model.context or model.sequences, or use a smaller model"
            more = f"when {self._wanted / 1e6:,.0f} MB of memory are available, "
        return (
            f"the engine died {self.deaths} times in a row without answering a request "
            f"(last: {death.reason}): {remedy}; it is tried again {more}when the model's file is another, "
            "by restart_engine, and rarely by itself"
        )


def _setting(load: Load) -> tuple[Any, ...]:
    """Return what tells one try from another; what fits the memory changes all the time."""
    try:
        stat = Path(load.path).stat()
        file: tuple[int, ...] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    except OSError:
        file = ()
    as_fits = replace(load, context=0, sequences=0, kv_type="", flash_attention=False, prefix_bytes=0)
    return as_fits, *file
