"""The publication that a broker hangs up on: MQTT 3.1.1 has no word for too large."""

from __future__ import annotations

from typing import Literal

from edged.frontends.mqtt.message import Publication

LAST_AFTER = 3
HOPELESS_AFTER = 3

Verdict = Literal["again", "last", "hopeless"]


class Jam:
    """Watches what is at the head of the line each time that a connection ends.

    What was there several times in a row lets the others go first. If the broker then takes all of these and
    hangs up on this one alone, several times, no try will help.
    """

    def __init__(self) -> None:
        self._suspect: Publication | None = None
        self._ends = 0
        self._proofs = 0

    def ended(self, first: Publication, *, alone: bool, others_arrived: bool) -> Verdict:
        """Say what to do with the first publication that a connection has left unacknowledged.

        Args:
            first: the publication.
            alone: nothing else was on its way.
            others_arrived: the broker acknowledged others on that connection.
        """
        if first is not self._suspect:
            self._suspect, self._ends, self._proofs = first, 0, 0
        self._ends += 1
        self._proofs += alone and others_arrived
        if self._proofs >= HOPELESS_AFTER:
            return "hopeless"
        return "last" if self._ends >= LAST_AFTER else "again"
