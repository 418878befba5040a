"""Operators' commands that arrive, and their results."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import structlog

from edged.core.commands import failed, succeeded, take_transaction
from edged.errors import EdgedError, ErrorCode
from edged.frontends.mqtt.message import Message, Publication
from edged.frontends.mqtt.wire import encode, read_object

if TYPE_CHECKING:
    from edged.core import Core
    from edged.core.commands import Commands
    from edged.core.commands.results import Transaction
    from edged.frontends.mqtt.link import Link
    from edged.frontends.mqtt.topics import Topics
    from edged.settings.mqtt import MqttTable

_log = structlog.get_logger(__name__)

MOST_REMEMBERED = 64
MAX_BYTES = 16_384
_NAME = re.compile(r"[a-z_]{1,32}")


class Operators:
    """Carries out commands that the configuration allows.

    A command is acknowledged before it is carried out, so that one that takes the daemon down is not
    delivered again and again; a repeat under the same transaction gets the first one's result, also while
    that one is still carried out.

    Attributes:
        unanswerable: commands that could not be answered, as their name is none.
    """

    def __init__(
        self,
        *,
        core: Core,
        commands: Commands,
        link: Link,
        topics: Topics,
        table: Callable[[], MqttTable],
    ) -> None:
        self.unanswerable = 0
        self._core = core
        self._commands = commands
        self._link = link
        self._topics = topics
        self._table = table
        self._results: OrderedDict[tuple[str, Transaction], bytes] = OrderedDict()
        self._turns: WeakValueDictionary[tuple[str, Transaction], asyncio.Lock] = WeakValueDictionary()

    async def command(self, message: Message, name: str) -> None:
        """Carry a command out and publish its result."""
        message.acknowledge()
        if not _NAME.fullmatch(name):
            self.unanswerable += 1
            return
        if message.retain:
            self._core.events.emit("retained_command", command=name)
            return
        try:
            transaction, fields = _read(message)
        except EdgedError as error:
            self._publish(name, _payload(failed(error, None)))
            return
        turn = asyncio.Lock()
        if transaction is not None:  # a repeat has its turn when the first one's result is there
            turn = self._turns.setdefault((name, transaction), turn)
        async with turn:
            self._publish(name, await self._result(name, transaction, fields))

    async def _result(self, name: str, transaction: Transaction, fields: dict[str, object]) -> bytes:
        """Carry a command out, or return the result of its transaction."""
        if (name, transaction) in self._results:
            return self._results[name, transaction]
        try:
            if name not in self._table().commands:
                allowed = ", ".join(self._table().commands) or "none"
                raise EdgedError(
                    ErrorCode.NOT_ALLOWED,
                    f"the command {name} is not allowed over MQTT; allowed are: {allowed} (mqtt.commands)",
                )
            result = succeeded(await self._commands.run(name, fields), transaction)
        except EdgedError as error:
            result = failed(error, transaction)
        payload = _payload(result)
        if transaction is not None:
            self._results[name, transaction] = payload
            if len(self._results) > MOST_REMEMBERED:
                self._results.popitem(last=False)
        return payload

    def _publish(self, name: str, payload: bytes) -> None:
        self._link.publish(Publication(self._topics.result(name), payload, content_type="application/json"))


def _payload(result: dict[str, Any]) -> bytes:
    return encode(result).encode()


def _read(message: Message) -> tuple[Transaction, dict[str, object]]:
    if len(message.payload) > MAX_BYTES:
        raise EdgedError(
            ErrorCode.TOO_LARGE, f"the command has {len(message.payload)} bytes; {MAX_BYTES} are allowed"
        )
    return take_transaction(read_object(message.payload) if message.payload.strip() else {})
