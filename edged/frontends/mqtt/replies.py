"""A request's frames on their way to its requester: joined, sent, written down, acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from edged.frontends.mqtt.addresses import Address
from edged.frontends.mqtt.message import Outcome, Publication
from edged.frontends.mqtt.wire import encode_frame
from edged.protocol import Chunk, Frame, Terminal

if TYPE_CHECKING:
    from edged.core import Core, Ticket
    from edged.frontends.mqtt.outbox import Outbox
    from edged.settings.mqtt import MqttTable

SENTENCE_ENDS = (".", "!", "?", "\n", "。", "！", "？")
PROGRESS_SECONDS = 5.0  # between two words on how far the prompt is


class Replier:
    """Sends one request's frames.

    The first chunk leaves at once; text that comes later is joined until it is worth a message, and while
    the line is busy or the broker away. The terminal frame leaves when it is written down, together with the
    frames that the broker had not acknowledged by then.

    Attributes:
        ticket: the request.
        address: where its frames go.
        concluded: whether its terminal frame is written down and on its way.
        task: what sends them.

    Args:
        ticket: the request.
        address: where its frames go.
        core: told of a requester that does not listen.
        outbox: what carries the frames.
        table: settings; asked anew each time, for a reload.
        on_written: called when the terminal frame is written down.
    """

    def __init__(
        self,
        ticket: Ticket,
        address: Address,
        *,
        core: Core,
        outbox: Outbox,
        table: Callable[[], MqttTable],
        on_written: Callable[[], None] = lambda: None,
    ) -> None:
        self.ticket = ticket
        self.address = address
        self._core = core
        self._outbox = outbox
        self._table = table
        self._device_id = core.settings.device_id
        self._on_written = on_written
        self._unacknowledged: list[Publication] = []
        self._sent_at = 0.0
        self._text_sent = False
        self._unheard = 0  # chunks in a row
        self.concluded = False
        self.task = asyncio.create_task(self._run(), name=f"reply {ticket.id}")

    async def _run(self) -> None:
        """Send all frames; returns when the terminal one is written down and on its way."""
        while (frame := await self._next()) is not self.ticket.terminal:
            self._send(frame)
        assert self.ticket.terminal is not None
        await self._conclude(self.ticket.terminal)

    def repeat(self, address: Address) -> None:
        """Answer a repeat of the request while it runs: its frames go to where the repeat came from.

        Where the line is busy, the frames that come anyway are the answer.
        """
        self.address = address
        if self._sent_at and self.ticket.terminal is None and self._outbox.has_room:
            self._outbox.publish(self._publication(encode_frame(self.ticket.frames[0], self._device_id)))

    async def _next(self) -> Frame:
        """Wait for the next frame that is worth a message, and for room on the line."""
        ticket = self.ticket
        while ticket.terminal is None:
            pause = self._pause()
            if pause is None or pause > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await ticket.change()
            elif await self._outbox.room(ticket.wait):
                if ticket.terminal is None:  # from the end on, seq is reckoned with
                    ticket.outgoing.chunk_characters = self._outbox.chunk_characters(self.address)
                return await ticket.next_frame()
        # The end is written down at once, whether the broker is there or not.
        return await ticket.next_frame()

    def _pause(self) -> float | None:
        """Return the seconds that what is there can wait still; None: nothing is there."""
        ticket, table = self.ticket, self._table()
        if not self._sent_at:
            return 0.0 if ticket.frames else None
        since = time.monotonic() - self._sent_at
        if ticket.outgoing.text_waiting:
            if not self._text_sent or ticket.outgoing.text_waiting >= table.chunk_characters:
                return 0.0
            if ticket.answer.text.rstrip(" ").endswith(SENTENCE_ENDS):
                return 0.0
            return table.chunk_milliseconds / 1000 - since
        return PROGRESS_SECONDS - since if ticket.outgoing.has_progress else None

    def _send(self, frame: Frame) -> None:
        publication = self._publication(encode_frame(frame, self._device_id))
        is_chunk = isinstance(frame, Chunk)
        publication.on_outcome = lambda outcome: self._on_outcome(publication, outcome, is_chunk=is_chunk)
        self._text_sent = self._text_sent or is_chunk
        self._sent_at = time.monotonic()
        self._unacknowledged.append(publication)
        self._outbox.publish(publication)

    def _publication(self, payload: str) -> Publication:
        return self._outbox.publication(self.address, payload)

    def _on_outcome(self, publication: Publication, outcome: Outcome, *, is_chunk: bool) -> None:
        self._unacknowledged.remove(publication)
        if not is_chunk or self.ticket.terminal is not None:
            return
        self._unheard = self._unheard + 1 if outcome.kind == "unheard" else 0
        most = self._table().abandon_unheard
        if 0 < most <= self._unheard:
            self._core.abandon(self.ticket, self._unheard)

    async def _conclude(self, terminal: Terminal) -> None:
        assert self._core.durable is not None
        last = self._outbox.encode_terminal(terminal, self.address)
        left = [publication.payload.decode() for publication in self._unacknowledged]
        serial = await self._core.durable.answer(self.ticket, self.address.as_envelope(), [*left, last])
        self.concluded = True
        self._on_written()
        self._outbox.publish_kept(serial, [self._publication(last)])
