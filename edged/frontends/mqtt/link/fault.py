"""Something wrong with the way to the broker, as an operator is told."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong, for an operator.

    Attributes:
        message: what is wrong, with figures, without secrets.
        remedy: what to do.
        since: when it began, on the monotonic clock.
    """

    message: str
    remedy: str
    since: float = field(default_factory=time.monotonic, compare=False)

    def as_fields(self) -> dict[str, Any]:
        """Return the fault for the status."""
        return {
            "message": self.message,
            "remedy": self.remedy,
            "since_seconds": round(time.monotonic() - self.since, 1),
        }
