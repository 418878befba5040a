"""Requests that outlive the daemon: let in, begun again after a restart, remembered when answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edged.clock import Clock, elapsed
from edged.core import written
from edged.core.admission import check_size
from edged.core.journal import Journal, Loss, Record, RecordKey
from edged.core.ticket import Admitted, Ticket
from edged.core.written import Ask, Envelope, Unsent
from edged.errors import EdgedError, ErrorCode
from edged.protocol import Client, Request

if TYPE_CHECKING:
    from edged.core.service import Core
    from edged.settings.schema import JournalTable

UNREADABLE = Request(prompt="")  # stands for a request of another version
MOST_REFUSALS = 32
"""Of one client, refusals for the moment that are written down and kept at a time. Each costs a write to the
card, and what a client gets beyond that is the same error without its promise to last."""


class Durable:
    """The part of the core that has a journal.

    Attributes:
        journal: where everything is written.
        core: what the requests run in; set by the core itself.
        unsent: answers and events of earlier daemons that the broker has not got.
    """

    core: Core

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self.journal = journal
        self.unsent: list[Unsent] = []
        self._clock = clock
        self._asks: list[Ask] = []
        self._resumed: dict[Ticket, Ask] = {}
        self._losses: list[Loss] = []

    async def open(self) -> None:
        """Open the journal, and remember what was answered before.

        What an earlier daemon left for a frontend stays until the frontend asks for it.
        """
        recovered = await self.journal.open()
        self.journal.on_loss = self._tell_loss
        restored = written.read(recovered)
        self.core.registry.salt = recovered.salt
        for ticket, record in restored.answered:
            self.core.registry.add(ticket)
            self.core.registry.keep(ticket, self._since(record))
        self._asks, self.unsent, self._losses = restored.asks, restored.unsent, recovered.losses

    async def take(
        self,
        request: Request,
        client: Client,
        envelope: Envelope,
        *,
        made_id: str,
        chunk_characters: int | None = None,
        redelivered: bool = False,
    ) -> Admitted:
        """Let a request in that is answered also if the daemon dies.

        Returns once it is written down; computing may have begun by then. What is refused for reasons of the
        moment has its terminal frame already, and only that is to be written down.

        Args:
            request: what is asked.
            client: who asks.
            envelope: where the frontend sends the frames.
            made_id: its id, if it has none of its own.
            chunk_characters: most characters of one chunk.
            redelivered: the transport may have delivered it before.

        Raises:
            EdgedError: it can't be let in, and would not be if it came again; or `journal_full`,
                `shutting_down`, or a refusal that can't be written down.
        """
        core = self.core
        check_size(request, core.settings.limits)
        if earlier := core.registry.duplicate(client, request, redelivered=redelivered):
            return Admitted(earlier, repeated=True)
        refusal = core.admission.refusal(client)
        if refusal is not None and not self._may_write(refusal, client):
            raise refusal
        ticket = core.lifecycle.make_ticket(request, client, id=request.id or made_id)
        ticket.outgoing.chunk_characters = chunk_characters
        if refusal is not None:
            ticket.fail(refusal)
            return Admitted(ticket)
        ticket.durable = True
        core.lifecycle.admit_soon(ticket)
        try:
            ticket.serial = await self.journal.accept(
                _key(ticket), ticket.body_hash, written.ask_body(ticket, envelope)
            )
        except BaseException:
            core.lifecycle.suspend(ticket)
            core.registry.remove(ticket)
            raise
        return Admitted(ticket)

    def resume(self) -> list[tuple[Ticket, Envelope]]:
        """Begin what an earlier daemon accepted and did not answer, as a new attempt; oldest first.

        What could not be read of its journal is told now, when the frontend listens.
        """
        losses, self._losses = self._losses, []
        for loss in losses:
            self._tell_loss(loss)
        asks, self._asks = self._asks, []
        return [(self._resume(ask), ask.envelope) for ask in asks]

    def recheck_ttl(self) -> None:
        """Look again at what waits from before the boot: the clock has been synchronised since."""
        for ticket, ask in list(self._resumed.items()):
            if ticket.terminal is None and ticket.generation is None:
                self.core.deadlines.correct(ticket, self._since(ask.record))

    async def answer(self, ticket: Ticket, envelope: Envelope, frames: Sequence[str]) -> int:
        """Write the end of a request down, as the frames that its requester has not got; return the row."""
        serial, ticket.serial = ticket.serial, None
        self._resumed.pop(ticket, None)
        body = written.answer_body(ticket, envelope, frames)
        return await self.journal.answer(serial, _key(ticket), ticket.body_hash, body)

    async def event(self, envelope: Envelope, payload: str) -> int:
        """Write an event down until the broker has it; return the row."""
        return await self.journal.event(written.event_body(envelope, payload))

    def reload(self, table: JournalTable) -> None:
        """Take over other bounds."""
        self.journal.bounds = table

    def _resume(self, ask: Ask) -> Ticket:
        core = self.core
        ticket = core.lifecycle.make_ticket(
            ask.request or UNREADABLE,
            ask.client,
            id=ask.id,
            body_hash=ask.record.body_hash,
            attempt=ask.attempt,
            waited=self._since(ask.record),
        )
        ticket.serial, ticket.durable = ask.record.serial, True
        self._resumed[ticket] = ask
        if ask.request is None:
            ticket.fail(EdgedError(ErrorCode.INTERNAL, "edged was changed and can't read it; ask again"))
        elif core.deadlines.left(ticket) <= 0:
            core.deadlines.expire(ticket)
        else:
            core.lifecycle.admit_soon(ticket)
        return ticket

    def _may_write(self, refusal: EdgedError, client: Client) -> bool:
        if refusal.code is ErrorCode.SHUTTING_DOWN:
            return False
        return self.journal.can_write and self.core.registry.kept_refusals(client) < MOST_REFUSALS

    def _since(self, record: Record) -> float:
        """Return the seconds since a record was written, as far as the clocks can tell."""
        return elapsed(record.stamp, self._clock.now())

    def _tell_loss(self, loss: Loss) -> None:
        self.core.events.emit(
            "journal_loss",
            limited=False,
            first_serial=loss.first,
            last_serial=loss.last,
            reason=loss.reason,
        )


def _key(ticket: Ticket) -> RecordKey:
    return RecordKey(ticket.client.way, ticket.client.name, ticket.id)
