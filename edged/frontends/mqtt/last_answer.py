"""The newest answer's text on a topic of its own, for who has no reply topic: Home Assistant above all."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from edged.errors import EdgedError
from edged.frontends.mqtt.homeassistant import CLIENT
from edged.frontends.mqtt.message import Publication
from edged.frontends.mqtt.wire import encode, head
from edged.protocol import Client, Done, Failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from edged.core import Core
    from edged.frontends.mqtt.outbox import Outbox
    from edged.frontends.mqtt.topics import Topics
    from edged.protocol import Terminal
    from edged.settings.mqtt import MqttTable


class LastAnswer:
    """Tells each answer, and why a question of Home Assistant's got none, where the settings want it.

    Others are told of a refusal where they listen; here it would take the place of an answer.
    """

    def __init__(self, *, core: Core, topics: Topics, outbox: Outbox, table: Callable[[], MqttTable]) -> None:
        self._core = core
        self._topics = topics
        self._outbox = outbox
        self._table = table

    def ended(self, client: Client, terminal: Terminal | None) -> None:
        """Take in the end of a request."""
        match terminal:
            case Done(text=text) if self._table().last_answer or self._core.settings.telemetry.homeassistant:
                self._tell(text, None)
            case Failed():
                self._failed(client, terminal.code, terminal.message, terminal.retry_after_s)

    def refused(self, client: Client, error: EdgedError) -> None:
        """Take in that a request was not let in."""
        self._failed(client, error.code, error.message, error.retry_after_s)

    def _failed(self, client: Client, code: str, message: str, retry_after_s: float | None) -> None:
        if client.name != CLIENT or not self._core.settings.telemetry.homeassistant:
            return
        line = " ".join(f"{code}: {message}".split())
        self._tell(None, line if retry_after_s is None else f"{line}; try again in {ceil(retry_after_s)} s")

    def _tell(self, text: str | None, error: str | None) -> None:
        fields = {**head(self._topics.device_id), "text": text, "error": error, **self._core.clock.fields()}
        self._outbox.publish(Publication(self._topics.last_answer, encode(fields).encode()))
