"""Requests that outlive the daemon: a real journal under the core, one daemon's life after the other.

The engine is the fake of conftest.py; each `Life` is a core of its own on the same files.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from edged.clock import Clock
from edged.core import Core
from edged.core.durable import Durable
from edged.core.events import Event
from edged.core.journal import Journal, Loss, RecordKey
from edged.engine.client import Engine
from edged.errors import EdgedError, ErrorCode
from edged.protocol import Accepted, Client, Done, Failed, Request
from edged.settings import Settings

from .conftest import FakeEngine

PHONE = Client("phone", "mqtt")
ENVELOPE = {"topic": "somewhere"}


class Wall:
    """A machine's clocks, set by hand.

    Attributes:
        seconds: unix time.
        since_boot: seconds since the boot.
        synchronised: whether the wall clock is known to be right.
    """

    def __init__(self, root: Path) -> None:
        self.seconds = 1.7e9
        self.since_boot = 1000.0
        self.synchronised = False
        self._boot_id = root / "proc/sys/kernel/random/boot_id"
        self._boot_id.parent.mkdir(parents=True)
        self.root = root
        self.boot("first")

    def boot(self, boot_id: str) -> None:
        self._boot_id.write_text(boot_id)
        self.since_boot = 10.0

    def clock(self) -> Clock:
        return Clock(
            self.root,
            wall=lambda: self.seconds,
            boottime=lambda: self.since_boot,
            kernel_synchronised=lambda: self.synchronised,
        )


@pytest.fixture
def wall(tmp_path: Path) -> Wall:
    return Wall(tmp_path / "root")


class Life:
    """One daemon, from its start to its end.

    Attributes:
        core: its core.
        durable: its part that has a journal.
        engine: its engine.
        events: what it told.
    """

    def __init__(self, core: Core, engine: FakeEngine, durable: Durable) -> None:
        self.core = core
        self.durable = durable
        self.engine = engine
        self.events: list[Event] = []

    async def take(self, prompt: str = "hello there", **fields: Any) -> Any:
        request = Request.parse({"prompt": prompt, **fields})
        return (await self.durable.take(request, PHONE, ENVELOPE, made_id="made")).ticket


Live = Callable[..., Any]


@pytest.fixture
def live(tmp_path: Path, wall: Wall) -> Live:
    """Return a context manager that is one life; how it ends is as if the power had gone."""

    @asynccontextmanager
    async def life(slots: int = 1, **tables: Any) -> AsyncIterator[Life]:
        settings = Settings(device_id="d", state_dir=tmp_path, runtime_dir=tmp_path, **tables)
        engine = FakeEngine(slots)
        clock = wall.clock()
        journal = Journal(tmp_path, settings=settings.journal, clock=clock)
        durable = Durable(journal, clock)
        core = Core(settings, cast(Engine, engine), durable, clock=clock)
        one = Life(core, engine, durable)
        core.events.listeners.append(one.events.append)
        await durable.open()
        try:
            yield one
        finally:
            await journal.close()

    return life


async def conclude(life: Life, ticket: Any, *frames: str) -> int:
    """Write a ticket's end down, as a frontend does."""
    return await life.durable.answer(ticket, ENVELOPE, frames)


TERMINAL = (
    '{"v":1,"id":"a","attempt":1,"seq":2,"type":"done","finish_reason":"stop","text":"yes",'
    '"usage":{"prompt_tokens":2,"completion_tokens":1,"cached_tokens":0},"timings":{"queued_ms":1.0,'
    '"first_token_ms":null,"prompt_tokens_per_second":null,"tokens_per_second":null}}'
)


async def test_what_was_accepted_is_asked_again_as_a_new_attempt(live: Live) -> None:
    async with live() as first:
        await first.take(id="a", seed=7, logit_bias={"5": 1.5}, stop=["x"])
        await first.take("another prompt", id="b")
    async with live():
        pass  # a daemon that never came to it
    async with live() as third:
        resumed = third.durable.resume()
        assert [(t.id, t.attempt, t.client, envelope) for t, envelope in resumed] == [
            ("a", 3, PHONE, ENVELOPE),
            ("b", 3, PHONE, ENVELOPE),
        ]
        ticket = resumed[0][0]
        accepted = await ticket.next_frame()
        assert isinstance(accepted, Accepted)
        assert (accepted.attempt, accepted.seq) == (3, 0)
        sampling = third.engine.running[0].sampling
        assert (sampling["seed"], sampling["logit_bias"], ticket.request.stop) == (7, [(5, 1.5)], ("x",))
        third.engine.answer("yes")
        assert (await ticket.wait()).attempt == 3


async def test_what_was_answered_is_not_asked_again_and_its_repeat_gets_the_same(live: Live) -> None:
    async with live() as first:
        ticket = await first.take(id="a")
        await conclude(first, ticket, TERMINAL)
    async with live() as second:
        assert second.durable.resume() == []
        repeated = await second.durable.take(
            Request.parse({"prompt": "hello there", "id": "a"}), PHONE, ENVELOPE, made_id="m"
        )
        assert repeated.repeated
        done = repeated.ticket.terminal
        assert isinstance(done, Done)
        assert (done.text, done.attempt, done.seq) == ("yes", 1, 2)
        with pytest.raises(EdgedError) as refused:
            await second.take("something else", id="a")
        assert refused.value.code is ErrorCode.ID_IN_USE
        assert second.engine.started == []


async def test_an_answer_that_the_broker_has_not_got_is_sent_by_the_next_daemon(live: Live) -> None:
    async with live() as first:
        serial = await conclude(first, await first.take(id="a"), "chunk", TERMINAL)
    async with live() as second:
        assert [(u.serial, u.envelope, u.frames) for u in second.durable.unsent] == [
            (serial, ENVELOPE, ["chunk", TERMINAL])
        ]
        second.durable.journal.acknowledged(serial)
    async with live() as third:
        assert third.durable.unsent == []


async def test_a_refusal_for_now_has_its_frame_and_can_be_written_down(live: Live) -> None:
    async with live(limits={"per_client": 1}) as life:
        await life.take(id="a")
        ticket = await life.take(id="b")
        assert isinstance(ticket.terminal, Failed)
        assert (ticket.terminal.code, ticket.serial) == (ErrorCode.BUSY, None)
        again = await life.durable.take(
            Request.parse({"prompt": "hello there", "id": "b"}), PHONE, ENVELOPE, made_id="m"
        )
        assert again.repeated
        assert again.ticket.terminal is ticket.terminal


async def test_a_message_without_id_that_is_delivered_again_is_not_computed_again(live: Live) -> None:
    async with live() as life:
        request = Request.parse({"prompt": "hello there"})
        first = await life.durable.take(request, PHONE, ENVELOPE, made_id="one")
        again = await life.durable.take(request, PHONE, ENVELOPE, made_id="two", redelivered=True)
        new = await life.durable.take(request, PHONE, ENVELOPE, made_id="three")
        assert (again.repeated, again.ticket) == (True, first.ticket)
        assert (new.repeated, new.ticket.id) == (False, "three")


async def test_what_does_not_end_in_a_stops_budget_is_left_to_the_next_daemon(live: Live) -> None:
    async with live() as first:
        running, waiting = await first.take(id="a"), await first.take(id="b")
        await first.engine.begun()
        await first.core.stop(0)
        assert (running.terminal, waiting.terminal, first.engine.running) == (None, None, [])
        with pytest.raises(EdgedError) as refused:
            await first.take(id="c")
        assert refused.value.code is ErrorCode.SHUTTING_DOWN
    async with live() as second:
        assert [ticket.id for ticket, _ in second.durable.resume()] == ["a", "b"]


async def test_what_is_being_written_down_at_a_stop_is_left_to_the_next_daemon(live: Live) -> None:
    async with live() as first:
        taken = asyncio.create_task(first.take(id="a"))
        while first.core.find(PHONE, "a") is None:
            await asyncio.sleep(0)
        await first.core.stop(0)
        assert (await taken).terminal is None
    async with live() as second:
        [(ticket, _)] = second.durable.resume()
        assert (ticket.id, ticket.attempt) == ("a", 2)


async def test_what_ends_in_a_stops_budget_is_answered(live: Live) -> None:
    async with live() as life:
        ticket = await life.take(id="a")
        await life.engine.begun()
        stop = asyncio.create_task(life.core.stop(60))
        await asyncio.sleep(0)
        life.engine.answer("yes")
        await stop
        assert isinstance(ticket.terminal, Done)


async def test_time_in_an_earlier_daemon_counts_against_the_ttl(live: Live, wall: Wall) -> None:
    async with live() as first:
        await first.take(id="a", ttl_s=100)
        await first.take(id="b", ttl_s=300)
    wall.since_boot += 200
    async with live() as second:
        (a, _), (b, _) = second.durable.resume()
        assert isinstance(a.terminal, Failed)
        assert (a.terminal.code, b.terminal) == (ErrorCode.EXPIRED, None)
        assert "200.0 s" in a.terminal.message
        assert second.engine.started == []


@pytest.mark.parametrize("jump", [-50 * 365 * 86_400, 50 * 365 * 86_400])
async def test_a_clock_that_jumps_years_expires_nothing(live: Live, wall: Wall, jump: float) -> None:
    async with live() as first:
        await first.take(id="a", ttl_s=100)
    wall.seconds += jump
    wall.synchronised = True  # now, but not when it was accepted
    wall.boot("second")
    async with live() as second:
        assert second.durable.resume()[0][0].terminal is None


async def test_time_switched_off_counts_once_the_clock_is_right_on_both_sides(live: Live, wall: Wall) -> None:
    wall.synchronised = True
    async with live() as first:
        await first.take(id="a")  # it will run
        await first.take(id="b", ttl_s=100)
    wall.synchronised = False
    wall.boot("second")
    async with live() as second:
        a, b = (ticket for ticket, _ in second.durable.resume())
        await second.engine.begun()
        second.durable.recheck_ttl()
        assert b.state == "queued"
        wall.seconds += 3600
        wall.synchronised = True
        second.durable.recheck_ttl()
        assert isinstance(b.terminal, Failed)
        assert (b.terminal.code, a.terminal) == (ErrorCode.EXPIRED, None)


async def test_a_request_that_can_not_be_written_down_is_not_computed(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with live() as life:

        async def full(*_: Any) -> int:
            raise EdgedError(ErrorCode.JOURNAL_FULL, "full")

        life.engine.gate.clear()  # the engine takes its time
        monkeypatch.setattr(life.durable.journal, "accept", full)
        with pytest.raises(EdgedError) as refused:
            await life.take(id="a")
        assert refused.value.code is ErrorCode.JOURNAL_FULL
        assert (life.core.find(PHONE, "a"), life.core.in_hand()) == (None, [])
        monkeypatch.undo()
        life.engine.gate.set()
        await life.take(id="a")
        await life.engine.begun()
        assert life.engine.started == ["a"]


async def test_clients_of_different_ways_in_are_strangers(live: Live) -> None:
    async with live() as life:
        await life.take(id="a")
        namesake = Client(PHONE.name, "socket")
        assert life.core.find(namesake, "a") is None
        admitted = await life.core.submit(Request.parse({"prompt": "other", "id": "a"}), namesake)
        assert not admitted.repeated


async def test_a_body_of_another_version_is_answered_not_dropped(live: Live) -> None:
    async with live() as first:
        await first.take(id="a")
        await first.durable.journal.accept(
            RecordKey("mqtt", "phone", "z"), b"h" * 16, b'{"request":{"frob":1},"envelope":{"topic":"t"}}'
        )
    async with live() as second:
        terminals = {ticket.id: ticket.terminal for ticket, _ in second.durable.resume()}
        assert terminals["a"] is None
        assert isinstance(terminals["z"], Failed)
        assert terminals["z"].code is ErrorCode.INTERNAL


async def test_a_loss_is_told_when_a_frontend_listens(live: Live, tmp_path: Path) -> None:
    async with live() as first:
        serials = [(await first.take(id=f"request-{number}")).serial for number in range(12)]
    for file in tmp_path.glob("journal.sqlite*"):
        file.write_bytes(b"nothing that could be read" * 40)
    async with live() as second:
        assert second.events == []  # nobody can hear it yet
        assert second.durable.resume() == []
        told = [event.data for event in second.events if event.type == "journal_loss"]
        assert {n for data in told for n in range(data["first_serial"], data["last_serial"] + 1)} >= {
            *serials
        }
        second.events.clear()
        second.durable.resume()
        assert second.events == []


async def test_each_of_many_losses_is_told(live: Live) -> None:
    async with live() as life:
        life.durable._losses = [Loss(2 * n, 2 * n, "damaged") for n in range(1, 17)]
        life.durable.resume()
        assert [event.data["first_serial"] for event in life.events] == list(range(2, 34, 2))


async def test_what_is_left_of_the_ttl_is_reckoned_anew_when_the_clock_is_right(
    live: Live, wall: Wall
) -> None:
    wall.synchronised = True
    async with live() as first:
        await first.take(id="a", ttl_s=100)
    wall.seconds += 95
    wall.synchronised = False
    wall.boot("second")
    async with live() as second:
        second.engine.is_ready = False
        [(ticket, _)] = second.durable.resume()
        assert ticket.waited < 50
        wall.synchronised = True
        second.durable.recheck_ttl()
        assert ticket.terminal is None
        left = second.core.deadlines._timers[ticket].when() - asyncio.get_running_loop().time()
        assert left < 6


async def test_an_id_that_is_used_again_is_not_taken_for_its_old_answer(live: Live, wall: Wall) -> None:
    async with live() as first:
        ticket = await first.take(id="a")
        first.engine.answer("yes")
        await conclude(first, ticket, TERMINAL)
        first.core.registry.remove(ticket)  # its time is over, and the journal has not removed it yet
        await first.take(id="a")
    wall.boot("second")
    async with live() as second:
        second.durable.resume()
        assert [ticket.id for ticket in second.core.in_hand()] == ["a"]


async def test_a_restored_answer_counts_with_its_text(live: Live) -> None:
    async with live() as first:
        await conclude(first, await first.take(id="a"), TERMINAL.replace("yes", "y" * 100_000))
    async with live() as second:
        restored = second.core.find(PHONE, "a")
        assert restored is not None
        assert restored.size > 100_000


async def test_of_what_is_kept_the_client_with_most_loses_its_oldest(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.core.registry.MOST_KEPT", 3)
    async with live(slots=9) as life:
        tablet = Client("tablet", "mqtt")
        request = Request.parse({"prompt": "x", "id": "t"})
        await life.durable.take(request, tablet, ENVELOPE, made_id="m")
        for id in "abc":
            await life.take(id=id)
        await life.engine.begun()
        while life.engine.running:
            life.engine.answer()
        kept = [life.core.find(PHONE, id) is not None for id in "abc"]
        assert (kept, life.core.find(tablet, "t") is not None) == ([False, True, True], True)


async def test_what_a_stop_leaves_put_back_is_begun_again_by_the_next_daemon(live: Live) -> None:
    async with live() as first:
        low = await first.take(priority="low", id="low")
        await first.take(priority="high", id="high")
        while low.state != "put_back":
            await asyncio.sleep(0)
        await first.core.stop(0)
        assert low.terminal is None
        assert not first.core.dispatcher.put_back
    async with live(slots=2) as second:
        resumed = [ticket for ticket, _ in second.durable.resume()]
        assert [(ticket.id, ticket.attempt) for ticket in resumed] == [("low", 2), ("high", 2)]
