"""A subscription that the broker refuses for now does not leave the device deaf for good."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from edged.frontends.mqtt import listening
from edged.frontends.mqtt.listening import Listening
from tests.frontends.mqtt.conftest import MakeLink
from tests.scripted_broker import SUBSCRIBE, Peer, Script, ScriptedBroker, suback

OK, UNSPECIFIED = 1, 0x80
FILTERS = ("d/ask/+", "d/cancel/+", "d/status")


def granting(*answers: Sequence[int]) -> Script:
    """Return a broker's part: the codes of one SUBACK after the other, and consent to all that follows."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        for codes in answers:
            asked = await peer.expect(SUBSCRIBE)
            await peer.send(suback(asked.mid, *codes))
        await peer.serve()

    return script


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "AGAIN_SECONDS", (0.0, 0.0))


async def test_what_was_refused_is_asked_again_until_it_is_granted(make_link: MakeLink) -> None:
    """As of a cluster that has no leader; what was granted is left alone."""
    answers = (OK, UNSPECIFIED, UNSPECIFIED), (UNSPECIFIED, OK), (OK,)
    async with ScriptedBroker(granting(*answers)) as broker:
        owner = make_link(broker.port)
        await owner.connected()
        told = Listening(owner.link, "d/status")
        await told.begin(FILTERS)
        assert len(told.faults) == 2
        async with asyncio.timeout(20):
            await told.persist()
        assert told.faults == []
        asked = [
            [name for name in FILTERS if name.encode() in packet.body] for packet in broker.of(SUBSCRIBE)
        ]
    assert asked == [list(FILTERS), ["d/cancel/+", "d/status"], ["d/cancel/+"]]


async def test_pauses_grow(make_link: MakeLink, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(listening, "AGAIN_SECONDS", (5.0, 12.0))
    monkeypatch.setattr(listening, "asyncio", SimpleNamespace(sleep=sleep))
    async with ScriptedBroker(granting(*[(UNSPECIFIED,)] * 4)) as broker:
        owner = make_link(broker.port)
        await owner.connected()
        told = Listening(owner.link, "d/status")
        await told.begin(["d/status"])
        await told.persist()
    assert pauses == [5.0, 10.0, 12.0, 12.0]


async def test_options_are_the_same_when_it_is_asked_again(make_link: MakeLink) -> None:
    """Of its own status the device hears the echo, and what was retained."""
    async with ScriptedBroker(granting((UNSPECIFIED,))) as broker:
        owner = make_link(broker.port)
        await owner.connected()
        told = Listening(owner.link, "d/status")
        await told.begin(["d/status"])
        await told.persist()
        first, second = broker.of(SUBSCRIBE)
    assert first.body[2:] == second.body[2:]
    assert second.body.endswith(b"d/status\x01")


async def test_a_new_connection_begins_anew(make_link: MakeLink) -> None:
    """What an earlier broker refused says nothing of this one."""
    async with ScriptedBroker(granting((UNSPECIFIED,))) as broker:
        owner = make_link(broker.port)
        await owner.connected()
        told = Listening(owner.link, "d/status")
        await told.begin(["d/ask"])
        assert told.faults
        await told.begin(["d/status"])
        assert told.faults == []
