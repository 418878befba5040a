"""How long to wait before the next try to connect, and when strangers with our id are to be suspected."""

from __future__ import annotations

import random

from edged.frontends.mqtt.link import reasons
from edged.frontends.mqtt.link.ending import Ending

SHORTEST_SECONDS = 0.5
LONGEST_SECONDS = 60.0
STABLE_SECONDS = 30.0  # a connection that lived this long was a good one
CLOCK_SECONDS = 5.0
DUPLICATE_SECONDS = (60.0, 300.0)
SUSPICIOUS_DROPS = 3


class Pauses:
    """Full jitter: anything up to a bound that doubles while connections fail or drop soon."""

    def __init__(self) -> None:
        self._bound = SHORTEST_SECONDS

    def next(self) -> float:
        """Return the seconds to wait now."""
        self._bound = min(2 * self._bound, LONGEST_SECONDS)
        return random.uniform(SHORTEST_SECONDS, self._bound)

    def lived(self, seconds: float) -> None:
        """Note how long a connection lived."""
        if seconds >= STABLE_SECONDS:
            self._bound = SHORTEST_SECONDS


class Suspicion:
    """Notices a second device of the same id by how connections end.

    A broker that speaks MQTT 5 says so. One that speaks 3.1.1 just closes: three sessions in a row that it
    had kept for us, each dropped soon, with the broker there at once for the next.
    """

    def __init__(self) -> None:
        self._drops = 0

    def ended(self, ending: Ending, version: str, lived: float, session_present: bool) -> bool:
        """Note an ending; say whether it is the work of a second device."""
        if ending.code == reasons.SESSION_TAKEN_OVER and ending.why == "disconnected":
            self._drops = 0
            return True
        dropped = ending.answered and ending.why == "lost" and lived < STABLE_SECONDS
        if not dropped or version == "5" or not (session_present or not self._drops):
            self._drops = 0
            return False
        self._drops += 1
        if self._drops < SUSPICIOUS_DROPS:
            return False
        self._drops = 0
        return True
