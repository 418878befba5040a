"""Trying again: which version, how soon, and what if another device has our id."""

from __future__ import annotations

import asyncio
import errno
import random
import re
import socket
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from edged.frontends.mqtt.link import Broker, dialect, link
from edged.frontends.mqtt.link.dialect import MUTE_ENDINGS, Dialect
from edged.frontends.mqtt.link.ending import Ending, Why
from edged.frontends.mqtt.link.pauses import Pauses, Suspicion
from edged.frontends.mqtt.message import ACKNOWLEDGED
from tests.brokers import Mosquitto
from tests.frontends.mqtt.conftest import MakeLink, Owner, until
from tests.scripted_broker import CONNECT, PUBLISH, Peer, Script, ScriptedBroker, connack, disconnect, suback


@pytest.fixture
def pauses_taken(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Collect how long links would wait, and let them not wait at all for less than a minute."""
    taken: list[float] = []
    pause = link.Link._pause

    async def note(self: link.Link, seconds: float) -> None:
        taken.append(seconds)
        await pause(self, 0.001 if seconds < 60 else seconds)

    monkeypatch.setattr(link.Link, "_pause", note)
    return taken


async def healthy(peer: Peer) -> None:
    connect = await peer.greet(session_present=True)
    await peer.serve(version=connect.version)


async def older(peer: Peer) -> None:
    """A broker that speaks 3.1.1 and says so as 3.1.1 does."""
    connect = await peer.expect(CONNECT)
    if connect.version != 4:
        await peer.send(connack(1, version=4))
        return
    await peer.send(connack(version=4))
    await peer.serve(version=4)


async def older_in_words_of_5(peer: Peer) -> None:
    connect = await peer.expect(CONNECT)
    if connect.version != 4:
        await peer.send(connack(0x84))
        return
    await peer.send(connack(version=4))
    await peer.serve(version=4)


async def older_without_words(peer: Peer) -> None:
    connect = await peer.expect(CONNECT)
    if connect.version != 4:
        return
    await peer.send(connack(version=4))
    await peer.serve(version=4)


async def older_that_errs(peer: Peer) -> None:
    """It takes a CONNECT of 5 for one of 3.1.1 and answers in kind."""
    connect = await peer.expect(CONNECT)
    await peer.send(connack(version=4))
    if connect.version == 4:
        await peer.serve(version=4)


@pytest.mark.parametrize(
    ("script", "versions"),
    [
        (older, [5, 4]),
        (older_in_words_of_5, [5, 4]),
        (older_without_words, [5, 5, 4]),
        (older_that_errs, [5, 5, 4]),
    ],
)
async def test_a_broker_without_mqtt_5_is_served_with_3_1_1(
    make_link: MakeLink, pauses_taken: list[float], script: Script, versions: list[int]
) -> None:
    async with ScriptedBroker(script) as broker:
        owner = make_link(broker.port)
        assert (await owner.connected()).protocol == "3.1.1"
        assert [one.version for one in broker.of(CONNECT)] == versions
        assert owner.link.fault is None
        assert await owner.publish("t") == ACKNOWLEDGED


def test_3_1_1_is_remembered_for_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(dialect, "time", SimpleNamespace(monotonic=lambda: now))
    spoken = Dialect("auto")
    assert spoken.choose() == "5"
    assert spoken.failed("5", ends("refused", answered=False, code=0x84))
    assert spoken.choose() == "3.1.1"
    spoken.connected("3.1.1")
    assert not spoken.failed("3.1.1", ends("hung_up", answered=False))
    now += 86_399
    assert spoken.choose() == "3.1.1"
    now += 1
    assert spoken.choose() == "5"


def test_a_broker_that_has_spoken_5_is_not_taken_for_an_old_one_while_it_is_away() -> None:
    """A proxy takes connections for a broker that restarts, and closes them."""
    spoken = Dialect("auto")
    spoken.connected("5")
    for _ in range(2 * MUTE_ENDINGS):
        assert not spoken.failed("5", ends("hung_up", answered=False))
    assert spoken.choose() == "5"


async def test_a_mute_port_is_not_taken_for_an_old_broker(
    make_link: MakeLink, pauses_taken: list[float]
) -> None:
    """What closes on 3.1.1 too did not close for the version's sake."""

    async def mute(peer: Peer) -> None:
        await peer.expect(CONNECT)

    async with ScriptedBroker(mute) as broker:
        make_link(broker.port)
        await broker.received(CONNECT, 6)
        assert [one.version for one in broker.of(CONNECT)][:6] == [5, 5, 4, 5, 5, 4]


@pytest.mark.parametrize(("protocol", "version"), [("5", 5), ("3.1.1", 4)])
async def test_a_version_that_is_set_is_kept(
    make_link: MakeLink, pauses_taken: list[float], protocol: str, version: int
) -> None:
    async def mute(peer: Peer) -> None:
        await peer.expect(CONNECT)

    async with ScriptedBroker(mute) as broker:
        make_link(Broker("127.0.0.1", broker.port, protocol=protocol))  # type: ignore[arg-type]
        await broker.received(CONNECT, 4)
        assert {one.version for one in broker.of(CONNECT)} == {version}


def test_pauses_grow_with_full_jitter_and_begin_again_after_a_good_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high if low == 0.5 else None)
    tries = Pauses()
    assert [tries.next() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    tries.lived(29.9)
    assert tries.next() == 60
    tries.lived(30)
    assert tries.next() == 1


def no_descriptors(*_: object) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


def no_threads(*_: object) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    ("where", "what", "fail", "told"),
    [
        (socket, "socketpair", no_descriptors, "no means left for a connection with mqtt://127.0.0.1"),
        (threading.Thread, "start", no_threads, "a bug in edged"),
    ],
)
async def test_a_try_that_cannot_even_begin_is_told_and_made_again(
    make_link: MakeLink,
    pauses_taken: list[float],
    monkeypatch: pytest.MonkeyPatch,
    where: object,
    what: str,
    fail: Callable[..., None],
    told: str,
) -> None:
    async with ScriptedBroker(healthy) as broker:
        with monkeypatch.context() as want:
            want.setattr(where, what, fail)
            owner = make_link(broker.port)
            await until(lambda: len(pauses_taken) >= 2 or owner.task.done())
            assert owner.link.state == "backing_off"
            assert owner.link.fault is not None
            assert told in owner.link.fault.message
            assert "edged tries again by itself" in owner.link.fault.remedy
            assert all(seconds >= 0.5 for seconds in pauses_taken)
        await owner.connected()
        assert owner.link.fault is None


async def test_sessions_tell_a_links_connections_apart_and_links_from_each_other(
    make_link: MakeLink, pauses_taken: list[float]
) -> None:
    async def hung_up(peer: Peer) -> None:
        await peer.greet()

    async with ScriptedBroker(hung_up) as broker:
        sessions: list[list[str]] = [[], []]
        owners = [make_link(broker.port, will=told.append) for told in sessions]
        await until(lambda: all(len(told) >= 3 for told in sessions))
        for owner in owners:
            await owner.link.stop((), 1)
    assert len({*sessions[0], *sessions[1]}) == len(sessions[0]) + len(sessions[1])
    assert all(re.fullmatch("[A-Za-z0-9-]+", session) for told in sessions for session in told)
    processes = [{session.rpartition("-")[0] for session in told} for told in sessions]
    assert (len(processes[0]), len(processes[1]), len(processes[0] | processes[1])) == (1, 1, 2)


async def test_a_session_taken_over_is_a_second_device(
    make_link: MakeLink, pauses_taken: list[float]
) -> None:
    """Both say so once, and whoever lost waits for minutes: the broker isn't flooded."""

    async def taken(peer: Peer) -> None:
        await peer.greet()
        await peer.expect(PUBLISH)
        await peer.send(disconnect(0x8E))

    async with ScriptedBroker(taken, healthy) as broker:
        owner = make_link(broker.port, client_id="kitchen-1")
        owner.publish_soon("t")
        await owner.in_state("duplicate_id")
        assert owner.duplicates == 1
        assert owner.link.fault is not None
        assert "another device uses the id kitchen-1" in owner.link.fault.message
        assert 60 <= pauses_taken[-1] <= 300
        assert broker.connections == 1
        owner.hurry()
        await until(lambda: owner.link.connection)
        assert owner.link.fault is None


async def test_mosquitto_2_0_says_nothing_and_is_understood(
    mosquitto: Mosquitto, make_link: MakeLink
) -> None:
    """Two links of one id drop each other in turn, until one of them has had three drops and makes way."""
    first = make_link(mosquitto.port, client_id="same")
    second = make_link(mosquitto.port, client_id="same")

    def hurry() -> bool:
        for owner in (first, second):
            if owner.link.state == "backing_off":
                owner.hurry()
            elif owner.link.connection is not None:
                owner.link.foreign_trace()  # as the device's status would show
        return "duplicate_id" in (first.link.state, second.link.state)

    await until(hurry)
    await until(lambda: "connected" in (first.link.state, second.link.state))
    assert mosquitto.log().count("already connected, closing old connection") <= 8


def ends(
    why: Why = "lost", *, answered: bool = True, code: int | None = None, error: Exception | None = None
) -> Ending:
    return Ending(why, answered=answered, code=code, error=error)


def test_three_drops_in_a_row_are_a_second_device() -> None:
    """Of the first one nothing was known yet."""
    suspicion = Suspicion()
    drops = [suspicion.ended(ends(), lived=1.0, contested=contested) for contested in (False, True, True)]
    assert drops == [False, False, True]


@pytest.mark.parametrize(
    "endings",
    [
        pytest.param([(ends(), 31.0, True)] * 9, id="they lived"),
        pytest.param([(ends(), 1.0, False)] * 9, id="nobody else was there: the network closed them"),
        pytest.param(
            [(ends(), 1.0, True), (ends("connect", answered=False), 0.0, False)] * 9,
            id="the broker was away in between",
        ),
        pytest.param([(ends("keepalive"), 1.0, True)] * 9, id="the network was away"),
        pytest.param([(ends(error=ConnectionResetError()), 1.0, True)] * 9, id="the network broke"),
        pytest.param([(ends("disconnected", code=0x8B), 1.0, True)] * 9, id="the broker said why"),
    ],
)
def test_other_drops_are_not_taken_for_a_second_device(endings: list[tuple[Ending, float, bool]]) -> None:
    suspicion = Suspicion()
    for ending, lived, contested in endings:
        assert not suspicion.ended(ending, lived=lived, contested=contested)


async def test_a_foreign_session_that_the_owner_has_seen(
    make_link: MakeLink, pauses_taken: list[float]
) -> None:
    async with ScriptedBroker(healthy) as broker:
        owner = make_link(broker.port)
        await owner.connected()
        owner.link.foreign_session()
        await owner.in_state("duplicate_id")
        assert owner.duplicates == 1
        assert 60 <= pauses_taken[-1] <= 300


async def test_a_connection_whose_beginning_fails_is_tried_again(
    make_link: MakeLink, pauses_taken: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that is connected and has subscribed to nothing would be deaf for ever."""
    good = Owner.on_connected
    fails = iter([True, False])

    async def once(self: Owner, connection: object) -> None:
        if next(fails):
            raise RuntimeError("a bug")
        await good(self, connection)  # type: ignore[arg-type]

    monkeypatch.setattr(Owner, "on_connected", once)
    async with ScriptedBroker(healthy) as broker:
        owner = make_link(broker.port)
        await owner.connected()
        assert broker.connections == 2


async def test_a_beginning_ends_with_its_connection(make_link: MakeLink, pauses_taken: list[float]) -> None:
    async def cut(peer: Peer) -> None:
        await peer.greet()
        await peer.expect(8)

    async def answering(peer: Peer) -> None:
        await peer.greet()
        await peer.send(suback((await peer.expect(8)).mid, 1))
        await peer.serve()

    async with ScriptedBroker(cut, answering) as broker:
        owner = make_link(broker.port, subscriptions=[("a", 1)])
        await owner.connected()
        await asyncio.sleep(0)
        assert owner.connections.empty()
        assert owner.faults == {"a": None}
        assert broker.connections == 2
