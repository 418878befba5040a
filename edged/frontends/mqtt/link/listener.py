"""What a box tells of its connection."""

from __future__ import annotations

from typing import Protocol

import paho.mqtt.client as paho

from edged.frontends.mqtt.link.connection import Connection
from edged.frontends.mqtt.link.ending import Ending
from edged.frontends.mqtt.link.stream import Head


class Listener(Protocol):
    """Who is told, on the event loop and in order, what becomes of a connection."""

    def on_connected(self, connection: Connection) -> None:
        """Begin: the broker has taken us in."""

    def on_message(self, message: paho.MQTTMessage) -> None:
        """Take a message; its topic is UTF-8."""

    def on_unusable(self, head: Head, why: str) -> None:
        """Acknowledge in turn a message that is too large, or that nobody can read."""

    def on_published(self, serial: int, code: int) -> None:
        """Note the broker's reason code for a publication."""

    def on_answered(self, serial: int, codes: list[int]) -> None:
        """Note the broker's reason codes for the filters of a SUBSCRIBE or UNSUBSCRIBE."""

    def on_ended(self, ending: Ending) -> None:
        """Note that it is over. The last call, and it always comes."""
