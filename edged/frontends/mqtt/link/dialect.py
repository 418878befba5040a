"""What to say in CONNECT, by what the broker has answered earlier: the version of MQTT, and the will."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Literal

from edged.frontends.mqtt.link import reasons
from edged.frontends.mqtt.link.ending import Ending
from edged.frontends.mqtt.message import Protocol, Publication

MUTE_ENDINGS = 2  # this many connections closed without an answer to CONNECT are an answer
REMEMBERED_SECONDS = 86_400.0  # then the broker may have learnt


class Dialect:
    """5 first; 3.1.1 once the broker has shown that it speaks no 5. A will that the broker can take."""

    def __init__(self, wanted: Literal["auto", "5", "3.1.1"]) -> None:
        self._wanted = wanted
        self._mute = 0
        self._older_until = 0.0
        self._proven = False
        self._speaks_5 = False
        self._will_qos = 1
        self._will_retain = True

    def choose(self) -> Protocol:
        """Return the version for the next try."""
        if self._wanted != "auto":
            return self._wanted
        return "3.1.1" if time.monotonic() < self._older_until else "5"

    def fit(self, will: Publication) -> Publication:
        """Return the will as the broker takes it."""
        return replace(will, qos=min(will.qos, self._will_qos), retain=will.retain and self._will_retain)

    def connected(self, version: Protocol) -> None:
        """Note that the broker has taken us in."""
        self._mute = 0
        self._proven = True
        if version == "5":
            self._older_until = 0.0
            self._speaks_5 = True

    def failed(self, version: Protocol, ending: Ending) -> bool:
        """Note how a try ended without CONNACK's consent; say whether to say it otherwise at once."""
        if ending.why == "refused" and self._lower_will(ending.code):
            return True
        if self._wanted != "auto":
            return False
        mute = ending.why in ("hung_up", "protocol") and not ending.answered
        if version == "3.1.1":
            if mute and not self._proven:
                self._older_until = 0.0  # it wasn't the version
        elif ending.why == "refused" and ending.code == reasons.UNSUPPORTED_VERSION:
            self._speaks_5 = False
            self._go_back(proven=True)
            return True
        elif mute and not self._speaks_5:  # else it is away, behind something that takes its connections
            self._mute += 1
            if self._mute >= MUTE_ENDINGS:
                self._go_back(proven=False)
        return False

    def _go_back(self, *, proven: bool) -> None:
        self._mute = 0
        self._proven = proven
        self._older_until = time.monotonic() + REMEMBERED_SECONDS

    def _lower_will(self, code: int | None) -> bool:
        """Take from the will what the broker does not have; say whether that was something."""
        if code == reasons.RETAIN_UNAVAILABLE and self._will_retain:
            self._will_retain = False
            return True
        if code == reasons.QOS_UNAVAILABLE and self._will_qos:
            self._will_qos = 0
            return True
        return False
