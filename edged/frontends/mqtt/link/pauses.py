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

    A broker that speaks MQTT 5 should say so, and not all do (mosquitto 2.0 does not). What they all do is
    close the older connection: three in a row, each soon after its beginning, and from the second one on
    each after another session's. Without that sign it may be the network that closes connections.
    """

    def __init__(self) -> None:
        self._drops = 0

    def ended(self, ending: Ending, *, lived: float, contested: bool) -> bool:
        """Note an ending; say whether it is the work of a second device.

        Args:
            ending: of a connection, or of a try to make one.
            lived: how long the connection lasted, in seconds.
            contested: whether a trace of another session of this id was found on the connection.
        """
        if ending.why == "disconnected" and ending.code == reasons.SESSION_TAKEN_OVER:
            self._drops = 0
            return True
        closed = ending.why == "lost" and ending.answered and ending.error is None
        if not closed or lived >= STABLE_SECONDS or not (contested or self._drops == 0):
            self._drops = 0
            return False
        self._drops += 1
        if self._drops < SUSPICIOUS_DROPS:
            return False
        self._drops = 0
        return True
