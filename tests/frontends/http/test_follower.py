"""Streams of one ticket: when its frames are sent, and when they wait."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from edged.core import Admitted
from edged.frontends.http.follower import Follower
from edged.frontends.http.sse import EventStream
from edged.protocol import Client, Frame, Request
from tests.frontends.http.conftest import FakeTicket, Script


class Reader:
    """The client's side of a stream, which reads or doesn't."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.reads = asyncio.Event()
        self.reads.set()

    @property
    def is_clear(self) -> bool:
        return self.reads.is_set()

    def put(self, events: bytes) -> None:
        self.sent.append(events.decode())

    async def drain(self) -> None:
        await self.reads.wait()


def follow(script: Script, render: bytes | Exception = b"") -> tuple[FakeTicket, Reader, asyncio.Task[None]]:
    ticket = FakeTicket("a", Request(prompt="x", stream=True), Client("c", "socket"), script)
    reader = Reader()

    def made(frame: Frame) -> bytes:
        if isinstance(render, Exception):
            raise render
        return frame.type.encode()

    follower = Follower(cast(Admitted, Admit(ticket)), made, cast(EventStream, reader))
    return ticket, reader, asyncio.create_task(follower.run())


class Admit:
    repeated = False

    def __init__(self, ticket: FakeTicket) -> None:
        self.ticket = ticket


async def test_frames_are_sent_in_the_turn_in_which_they_come() -> None:
    script = Script()
    script.go_on.clear()
    ticket, reader, following = follow(script)
    await asyncio.sleep(0)
    assert reader.sent == ["accepted"]
    script.go_on.set()
    ticket.on_change()
    assert reader.sent == ["accepted", "chunk", "chunk", "chunk", "done"]
    await following


async def test_what_comes_while_the_client_does_not_read_stays_in_the_ticket() -> None:
    script = Script()
    script.go_on.clear()
    ticket, reader, following = follow(script)
    await asyncio.sleep(0)
    reader.reads.clear()
    script.go_on.set()
    ticket.on_change()
    await asyncio.sleep(0)
    assert reader.sent == ["accepted"]
    assert len(ticket.taken) == 1
    reader.reads.set()
    await following
    assert reader.sent[-1] == "done"


async def test_what_can_not_be_told_ends_the_following() -> None:
    _, reader, following = follow(Script(), ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await following
    assert reader.sent == []
