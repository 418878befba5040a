"""Prompts that arrive, and wishes to cancel them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from edged.errors import EdgedError, ErrorCode, invalid
from edged.frontends.mqtt.addresses import Address, ReplyRule
from edged.frontends.mqtt.message import Message, Publication
from edged.frontends.mqtt.replies import Replier
from edged.frontends.mqtt.topics import Arrival, Topics
from edged.frontends.mqtt.wire import encode, encode_frame, read_ask, read_object
from edged.protocol import PROTOCOL_VERSION, Client, Done, Failed, Request, valid_name, valid_request_id

if TYPE_CHECKING:
    from edged.core import Admitted, Core, Ticket
    from edged.frontends.mqtt.outbox import Outbox
    from edged.settings.mqtt import MqttTable

_log = structlog.get_logger(__name__)

LAST_ANSWER_CHARACTERS = 255  # the longest state that Home Assistant takes


@dataclass(slots=True)
class Counters:
    """What arrived since the start.

    Attributes:
        asks: prompts.
        refused: of these with an error that is not the requester's fault, such as busy.
        invalid: of these with one that is.
        not_allowed: named a reply topic that they may not have.
        retained_dropped: were kept by the broker from earlier.
        unanswerable: could not even be answered with an error.
        unheard: requests given up because nobody listened.
    """

    asks: int = 0
    refused: int = 0
    invalid: int = 0
    not_allowed: int = 0
    retained_dropped: int = 0
    unanswerable: int = 0
    unheard: int = 0


class Asks:
    """Hands prompts to the core, and each one's frames to a replier.

    Attributes:
        counters: what arrived.
        rule: where replies may go.
    """

    def __init__(
        self, *, core: Core, topics: Topics, outbox: Outbox, rule: ReplyRule, table: Callable[[], MqttTable]
    ) -> None:
        self.counters = Counters()
        self.rule = rule
        self._core = core
        self._topics = topics
        self._outbox = outbox
        self._table = table
        self._repliers: dict[Ticket, asyncio.Task[None]] = {}
        self._running: dict[Ticket, Replier] = {}

    async def ask(self, message: Message, arrival: Arrival) -> None:
        """Take a prompt; it is acknowledged when it, or its refusal, is safe."""
        self.counters.asks += 1
        client = Client(arrival.name, "mqtt")
        if not valid_name(client.name):
            self.counters.unanswerable += 1
            _log.warning("a prompt of a client whose name is none was dropped", name=client.name[:64])
            message.acknowledge()
            return
        asked = _Asked(uuid.uuid4().hex, self._topics.reply(client.name, ""), message.correlation)
        try:
            request = self._read(message, arrival, asked)
            admitted = await self._core.take(
                request,
                client,
                asked.address.as_envelope(),
                made_id=asked.id,
                redelivered=message.redelivered,
            )
        except EdgedError as error:
            if error.code is not ErrorCode.SHUTTING_DOWN:  # the broker keeps it for the next daemon
                await self._refuse(message, client, asked, error)
            return
        asked.id = admitted.ticket.id
        self._answer(message, admitted, asked.address)

    def resume(self) -> None:
        """Go on with what an earlier daemon accepted and did not answer."""
        for ticket, envelope in self._core.resume():
            self._reply(ticket, Address.from_envelope(envelope), lambda: None)

    def cancel(self, message: Message, arrival: Arrival) -> None:
        """Cancel a request of the same client's."""
        message.acknowledge()
        try:
            fields = read_object(message.payload)
            if set(fields) != {"id"} or not isinstance(fields["id"], str):
                raise invalid('send {"id": …} to cancel')
        except EdgedError as error:
            self.counters.invalid += 1
            _log.info("a wish to cancel could not be read", client=arrival.name, reason=error.message)
            return
        if ticket := self._core.find(Client(arrival.name, "mqtt"), fields["id"]):
            ticket.cancel()

    async def stop(self) -> None:
        """Let those that have ended be written down, and leave the others to the next daemon."""
        ending = [task for ticket, task in self._repliers.items() if ticket.terminal is not None]
        if ending:
            await asyncio.wait(ending)
        for task in list(self._repliers.values()):
            task.cancel()
        await asyncio.gather(*self._repliers.values(), return_exceptions=True)

    def _read(self, message: Message, arrival: Arrival, asked: _Asked) -> Request:
        """Return the request that a message holds; what is learnt on the way is noted in `asked`.

        Raises:
            EdgedError: it is refused.
        """
        fields = read_ask(message, self._core.settings.limits.max_prompt_bytes)
        if isinstance(id := fields.get("id"), str) and valid_request_id(id):
            asked.id = id
        self._read_address(message, arrival, fields, asked)
        if message.retain:
            self.counters.retained_dropped += 1
            self._core.events.emit("retained_prompt", client=arrival.name)
            raise invalid("the prompt was published as retained, so that it would be asked again: don't")
        if arrival.task is not None:
            if fields.get("task", arrival.task) != arrival.task:
                raise invalid("task: is given twice, in the topic and in the request", param="task")
            fields["task"] = arrival.task
        return Request.parse(fields)

    def _read_address(
        self, message: Message, arrival: Arrival, fields: dict[str, Any], asked: _Asked
    ) -> None:
        reply_to = fields.pop("reply_to", None)
        if reply_to is not None and not isinstance(reply_to, str):
            raise invalid("reply_to: must be a text", param="reply_to")
        if reply_to is not None and message.response_topic is not None:
            raise invalid("reply_to: is given beside a Response Topic: give one of them", param="reply_to")
        topic = message.response_topic if message.response_topic is not None else reply_to
        if topic is None:
            return
        try:
            self.rule.check(topic, arrival.name)
        except EdgedError:
            self.counters.not_allowed += 1
            self._core.events.emit("reply_not_allowed", client=arrival.name)
            raise
        asked.topic = topic

    async def _refuse(self, message: Message, client: Client, asked: _Asked, error: EdgedError) -> None:
        """Answer with an error; the prompt is acknowledged when the broker has the answer."""
        if error.code in (ErrorCode.JOURNAL_FULL, ErrorCode.INTERNAL):
            self.counters.refused += 1
        else:
            self.counters.invalid += 1
        _log.info("refused", request_id=asked.id, client=client.name, code=error.code, reason=error.message)
        if message.retain and (message.protocol == "3.1.1" or self._core.find(client, asked.id)):
            message.acknowledge()  # it was asked when it was published, and answered then
            return
        failed = Failed(
            asked.id,
            1,
            0,
            code=error.code,
            message=error.message,
            retry_after_s=error.retry_after_s,
            param=error.param,
        )
        publication = self._outbox.publication(
            asked.address, encode_frame(failed, self._core.settings.device_id)
        )
        publication.on_outcome = lambda outcome: message.acknowledge()
        await self._outbox.publish_in_turn(publication)

    def _answer(self, message: Message, admitted: Admitted, address: Address) -> None:
        ticket = admitted.ticket
        if not admitted.repeated:
            if ticket.serial is not None:
                message.acknowledge()
            else:
                self.counters.refused += 1
            self._reply(ticket, address, message.acknowledge)
            return
        message.acknowledge()
        replier = self._running.get(ticket)
        if replier is not None and not replier.concluded:
            replier.repeat(address)
        elif ticket.terminal is not None:
            payload = self._outbox.encode_terminal(ticket.terminal, address)
            self._outbox.publish(self._outbox.publication(address, payload))

    def _reply(self, ticket: Ticket, address: Address, on_written: Callable[[], None]) -> None:
        replier = Replier(
            ticket,
            address,
            core=self._core,
            outbox=self._outbox,
            table=self._table,
            on_written=on_written,
        )
        self._running[ticket] = replier
        task = asyncio.create_task(replier.run(), name=f"reply {ticket.id}")
        self._repliers[ticket] = task
        task.add_done_callback(lambda task: self._replied(ticket, task))

    def _replied(self, ticket: Ticket, task: asyncio.Task[None]) -> None:
        del self._repliers[ticket], self._running[ticket]
        if not task.cancelled() and (error := task.exception()):
            _log.error("a reply could not be sent", request_id=ticket.id, exc_info=error)
            return
        match ticket.terminal:
            case Failed(code=ErrorCode.ABANDONED):
                self.counters.unheard += 1
            case Done(text=text) if self._table().last_answer:
                fields = {**self._head(), "text": text[:LAST_ANSWER_CHARACTERS], **self._core.clock.fields()}
                self._outbox.publish(Publication(self._topics.last_answer, encode(fields).encode()))

    def _head(self) -> dict[str, Any]:
        return {"v": PROTOCOL_VERSION, "device_id": self._topics.device_id}


@dataclass(slots=True)
class _Asked:
    """What is known of a request while it is read: enough to refuse it.

    Attributes:
        id: its own, or one that was made.
        topic: where its frames go, if it says so.
    """

    id: str
    default: str
    correlation: bytes | None
    topic: str | None = None

    @property
    def address(self) -> Address:
        return Address(self.topic if self.topic is not None else f"{self.default}{self.id}", self.correlation)
