"""Prompts that arrive, and wishes to cancel them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from edged.errors import EdgedError, ErrorCode, invalid
from edged.frontends.mqtt.addresses import Address, ReplyRule
from edged.frontends.mqtt.last_answer import LastAnswer
from edged.frontends.mqtt.message import Message
from edged.frontends.mqtt.replies import Replier
from edged.frontends.mqtt.topics import Arrival, Topics
from edged.frontends.mqtt.wire import encode_frame, read_ask, read_object
from edged.protocol import Client, Failed, Request, valid_name, valid_request_id

if TYPE_CHECKING:
    from edged.core import Core, Ticket
    from edged.frontends.mqtt.outbox import Outbox
    from edged.settings.mqtt import MqttTable

_log = structlog.get_logger(__name__)

MAX_CANCEL_BYTES = 4096
_FAULTS_OF_THE_REQUEST = {
    ErrorCode.INVALID,
    ErrorCode.TOO_LARGE,
    ErrorCode.NOT_ALLOWED,
    ErrorCode.ID_IN_USE,
}


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
        dropped: of QoS 0, for want of room.
    """

    asks: int = 0
    refused: int = 0
    invalid: int = 0
    not_allowed: int = 0
    retained_dropped: int = 0
    unanswerable: int = 0
    unheard: int = 0
    dropped: int = 0


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
        self._last_answer = LastAnswer(core=core, topics=topics, outbox=outbox, table=table)
        self._repliers: dict[Ticket, Replier] = {}
        self._taking: dict[tuple[str, str | bytes], asyncio.Event] = {}

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
            await self._take(message, client, request, asked)
        except EdgedError as error:
            if error.code is not ErrorCode.SHUTTING_DOWN:  # the broker keeps it for the next daemon
                await self._refuse(message, client, asked, error)
        except Exception:
            _log.exception("a prompt could not be dealt with", request_id=asked.id)
            fault = EdgedError(ErrorCode.INTERNAL, "a fault in edged; its log says more")
            await self._refuse(message, client, asked, fault)

    async def _take(self, message: Message, client: Client, request: Request, asked: _Asked) -> None:
        """Have the core take a request; one of the same name waits until the first is written down.

        Raises:
            EdgedError: it is refused.
        """
        key = client.name, request.id or message.payload
        while ahead := self._taking.get(key):
            await ahead.wait()
        taken = self._taking[key] = asyncio.Event()
        assert self._core.durable is not None
        try:
            admitted = await self._core.durable.take(
                request,
                client,
                asked.address.as_envelope(),
                made_id=asked.id,
                chunk_characters=self._outbox.chunk_characters(asked.address),
                redelivered=message.redelivered,
            )
            asked.id = admitted.ticket.id
            if not admitted.repeated:
                self._reply(admitted.ticket, asked.address, message.acknowledge)
        finally:
            del self._taking[key]
            taken.set()
        if admitted.repeated:
            await self._repeat(message, admitted.ticket, asked.address)
        elif admitted.ticket.durable:
            message.acknowledge()
        else:
            self.counters.refused += 1
            await asyncio.wait([self._repliers[admitted.ticket].task])  # so many at a time, not more

    def resume(self) -> None:
        """Go on with what an earlier daemon accepted and did not answer."""
        assert self._core.durable is not None
        for ticket, envelope in self._core.durable.resume():
            self._reply(ticket, Address.from_envelope(envelope), lambda: None)

    def cancel(self, message: Message, arrival: Arrival) -> None:
        """Cancel a request of the same client's."""
        message.acknowledge()
        client = Client(arrival.name, "mqtt")
        try:
            if not valid_name(client.name) or len(message.payload) > MAX_CANCEL_BYTES:
                raise invalid("no client's name, or too many bytes")
            fields = read_object(message.payload)
            if set(fields) != {"id"} or not isinstance(fields["id"], str):
                raise invalid('send {"id": …} to cancel')
        except EdgedError as error:
            self.counters.unanswerable += 1
            _log.info("a wish to cancel could not be read", client=client.name[:64], reason=error.message)
            return
        if ticket := self._core.find(client, fields["id"]):
            ticket.cancel()

    async def stop(self) -> None:
        """Let those that have ended be written down, and leave the others to the next daemon."""
        ending = [one.task for ticket, one in self._repliers.items() if ticket.terminal is not None]
        if ending:
            await asyncio.wait(ending)
        left = [replier.task for replier in self._repliers.values()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _read(self, message: Message, arrival: Arrival, asked: _Asked) -> Request:
        """Return the request that a message holds; what is learnt on the way is noted in `asked`.

        Raises:
            EdgedError: it is refused.
        """
        refusal = None
        if message.response_topic is not None:
            refusal = self._refusal_of(message.response_topic, arrival.name, asked)
        fields = read_ask(message, self._core.settings.limits.max_prompt_bytes)
        if isinstance(id := fields.get("id"), str) and valid_request_id(id):
            asked.id = id
        if (reply_to := fields.pop("reply_to", None)) is not None:
            if not isinstance(reply_to, str):
                raise invalid("reply_to: must be a text", param="reply_to")
            if message.response_topic is not None:
                raise invalid(
                    "reply_to: is given beside a Response Topic: give one of them", param="reply_to"
                )
            refusal = self._refusal_of(reply_to, arrival.name, asked)
        if refusal is not None:
            raise refusal
        if message.retain:
            self.counters.retained_dropped += 1
            self._core.events.emit("retained_prompt", client=arrival.name)
            raise invalid("the prompt was published as retained, so that it would be asked again: don't")
        if arrival.task is not None:
            if fields.get("task", arrival.task) != arrival.task:
                raise invalid("task: is given twice, in the topic and in the request", param="task")
            fields["task"] = arrival.task
        return Request.parse(fields)

    def _refusal_of(self, topic: str, client: str, asked: _Asked) -> EdgedError | None:
        """Return why replies may not go to a topic; note it where they may."""
        try:
            self.rule.check(topic, client)
        except EdgedError as error:
            self.counters.not_allowed += 1
            self._core.events.emit("reply_not_allowed", client=client)
            return error
        asked.topic = topic
        return None

    async def _refuse(self, message: Message, client: Client, asked: _Asked, error: EdgedError) -> None:
        """Answer with an error; the prompt is acknowledged when the broker has the answer."""
        if error.code in _FAULTS_OF_THE_REQUEST:
            self.counters.invalid += 1
        else:
            self.counters.refused += 1
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
        self._last_answer.refused(client, error)

    async def _repeat(self, message: Message, ticket: Ticket, address: Address) -> None:
        """Answer a repeat: of a request in hand with `accepted`, of a finished one with its last frame."""
        replier = self._repliers.get(ticket)
        if replier is not None and not replier.concluded:
            message.acknowledge()
            replier.repeat(address)
        elif ticket.terminal is not None:
            if message.qos == 0 and not self._outbox.has_room:
                self.counters.dropped += 1
                return
            payload = self._outbox.encode_terminal(ticket.terminal, address)
            publication = self._outbox.publication(address, payload)
            publication.on_outcome = lambda outcome: message.acknowledge()
            await self._outbox.publish_in_turn(publication)

    def _reply(self, ticket: Ticket, address: Address, on_written: Callable[[], None]) -> None:
        replier = Replier(
            ticket,
            address,
            core=self._core,
            outbox=self._outbox,
            table=self._table,
            on_written=on_written,
        )
        self._repliers[ticket] = replier
        replier.task.add_done_callback(lambda task: self._replied(ticket, task))

    def _replied(self, ticket: Ticket, task: asyncio.Task[None]) -> None:
        del self._repliers[ticket]
        if not task.cancelled() and (error := task.exception()):
            _log.error("a reply could not be sent", request_id=ticket.id, exc_info=error)
            return
        if isinstance(ticket.terminal, Failed) and ticket.terminal.code is ErrorCode.ABANDONED:
            self.counters.unheard += 1
        self._last_answer.ended(ticket.client, ticket.terminal)


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
