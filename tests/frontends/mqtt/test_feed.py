"""The line of publications on its own: order, window, room, and one outcome for each."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.frontends.mqtt.link.connection import Connection
from edged.frontends.mqtt.link.feed import SHORT_LINE, Feed
from edged.frontends.mqtt.link.packets import Publish
from edged.frontends.mqtt.message import ACKNOWLEDGED, WITHDRAWN, Outcome, Publication

CONNECTION = Connection(
    session="s",
    protocol="5",
    session_present=False,
    receive_maximum=65_535,
    maximum_packet_size=None,
    maximum_qos=2,
    retain_available=True,
    wildcards_available=True,
    shared_available=True,
    session_expiry_seconds=0,
)


class Wire:
    """Keeps what a feed sends over one connection."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes]] = []

    def send(self, serial: int, publish: Publish) -> None:
        self.sent.append((serial, publish.payload))

    @property
    def payloads(self) -> list[bytes]:
        return [payload for _, payload in self.sent]


async def settle() -> None:
    """Let the loop run what is due."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def feed() -> Feed:
    return Feed()


async def test_nothing_leaves_from_within_publish(feed: Feed) -> None:
    """An owner that publishes in the middle of its own bookkeeping is not called back there."""
    wire, told = Wire(), list[Outcome]()
    feed.attach(CONNECTION, wire.send)
    feed.publish(Publication("a/+", b"", on_outcome=told.append))
    feed.publish(Publication("a", b"1"))
    assert (wire.sent, told) == ([], [])
    await settle()
    assert wire.payloads == [b"1"]
    assert [outcome.kind for outcome in told] == ["refused"]


async def test_what_is_withdrawn_while_it_waits_never_leaves(feed: Feed) -> None:
    told: list[Outcome] = []
    one, two = (Publication("a", b"%d" % n, on_outcome=told.append) for n in (1, 2))
    feed.publish(one)
    feed.publish(two)
    feed.withdraw(one)
    wire = Wire()
    feed.attach(CONNECTION, wire.send)
    await settle()
    assert wire.payloads == [b"2"]
    assert told == [WITHDRAWN]


async def test_what_is_withdrawn_in_flight_is_not_sent_again(feed: Feed) -> None:
    told: list[Outcome] = []
    publication = Publication("a", b"1", on_outcome=told.append)
    first, second = Wire(), Wire()
    feed.attach(CONNECTION, first.send)
    feed.publish(publication)
    await settle()
    feed.withdraw(publication)
    assert not told
    feed.detach()
    feed.attach(CONNECTION, second.send)
    await settle()
    assert (told, second.sent, feed.in_flight, feed.waiting) == ([WITHDRAWN], [], 0, 0)


async def test_what_is_withdrawn_in_flight_may_yet_arrive(feed: Feed) -> None:
    told: list[Outcome] = []
    publication = Publication("a", b"1", on_outcome=told.append)
    wire = Wire()
    feed.attach(CONNECTION, wire.send)
    feed.publish(publication)
    await settle()
    feed.withdraw(publication)
    feed.answered(wire.sent[0][0], 0)
    await settle()
    assert told == [ACKNOWLEDGED]


async def test_room_is_given_in_turn(feed: Feed) -> None:
    """Eight writers that all want to publish without end get the same share."""
    wire = Wire()
    written: list[int] = []

    async def write(number: int) -> None:
        for _ in range(10):
            await feed.room()
            written.append(number)
            feed.publish(Publication("a", b"%d" % number))

    writers = [asyncio.create_task(write(number)) for number in range(8)]
    await settle()
    assert not written  # there is no connection
    feed.attach(replace(CONNECTION, receive_maximum=1), wire.send)
    answered = 0
    while not all(writer.done() for writer in writers):
        await settle()
        assert feed.waiting <= SHORT_LINE + 8
        while answered < len(wire.sent):
            feed.answered(wire.sent[answered][0], 0)
            answered += 1
            await settle()
    for end in range(8, len(written), 8):
        counts = [written[:end].count(number) for number in range(8)]
        assert max(counts) - min(counts) <= SHORT_LINE


async def test_a_writer_that_gives_up_passes_its_turn_on(feed: Feed) -> None:
    first, second = asyncio.create_task(feed.room()), asyncio.create_task(feed.room())
    await settle()
    feed.attach(CONNECTION, Wire().send)
    first.cancel()
    await settle()
    assert first.cancelled()
    assert second.done()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(0, 3)),
        st.tuples(st.just("answer"), st.sampled_from([0, 0x10, 0x87])),
        st.tuples(st.just("withdraw"), st.integers(0, 200)),
        st.tuples(st.just("cut"), st.integers(1, 20)),
    ),
    max_size=60,
)


@given(steps=STEPS)
@settings(max_examples=150)
def test_whatever_happens_each_has_one_outcome_and_the_order_holds(steps: list[tuple[str, int]]) -> None:
    """Publishing, answers in any order, withdrawals and cuts: on each connection in order, none twice."""

    async def play() -> None:
        feed, wires = Feed(), [Wire()]
        publications: list[Publication] = []
        outcomes: dict[int, list[Outcome]] = {}
        open_serials: list[int] = []
        window = 20
        feed.attach(CONNECTION, wires[-1].send)
        for what, how in steps:
            wire = wires[-1]
            if what == "publish":
                for _ in range(how):
                    number = len(publications)
                    outcomes[number] = []
                    publications.append(Publication("a", b"%d" % number, on_outcome=outcomes[number].append))
                    feed.publish(publications[-1])
            elif what == "answer" and len(wire.sent) > len(open_serials):
                serial = wire.sent[len(open_serials)][0]
                open_serials.append(serial)
                feed.answered(serial, how)
            elif what == "withdraw" and publications:
                feed.withdraw(publications[how % len(publications)])
            elif what == "cut":
                feed.detach()
                open_serials.clear()
                wires.append(Wire())
                window = how
                feed.attach(replace(CONNECTION, receive_maximum=window), wires[-1].send)
            await settle()
            assert feed.in_flight <= min(window, 16)
        for wire in wires:
            numbers = [int(payload) for payload in wire.payloads]
            assert numbers == sorted(set(numbers))
        while feed.in_flight:
            feed.answered(wires[-1].sent[len(open_serials)][0], 0)
            open_serials.append(0)
            await settle()
        assert feed.waiting == 0
        assert all(len(told) == 1 for told in outcomes.values())

    asyncio.run(play())


async def test_a_packet_that_a_3_1_1_broker_hangs_up_on_does_not_keep_the_others(feed: Feed) -> None:
    """It goes last after some ends, and is given up when the broker takes all but it."""
    outcomes: list[Outcome] = []
    bad = Publication("t", b"bad", on_outcome=outcomes.append)
    feed.publish(bad)
    for number in range(8):
        feed.publish(Publication("t", f"good {number}".encode()))
        wire = Wire()
        feed.attach(replace(CONNECTION, protocol="3.1.1", receive_maximum=1), wire.send)
        await settle()
        while wire.payloads[-1] != b"bad":
            feed.answered(wire.sent[-1][0], 0)
            await settle()
        feed.detach()
        if outcomes:
            break
    assert [outcome.kind for outcome in outcomes] == ["too_large"]
    wire = Wire()
    feed.attach(CONNECTION, wire.send)
    await settle()
    assert b"bad" not in wire.payloads


async def test_a_link_that_breaks_again_and_again_loses_nothing(feed: Feed) -> None:
    """Where nothing arrives at all, no publication is to blame."""
    outcomes: list[Outcome] = []
    for number in range(3):
        feed.publish(Publication("t", f"{number}".encode(), on_outcome=outcomes.append))
    for _ in range(20):
        feed.attach(replace(CONNECTION, protocol="3.1.1"), Wire().send)
        await settle()
        feed.detach()
    wire = Wire()
    feed.attach(CONNECTION, wire.send)
    await settle()
    assert (outcomes, sorted(wire.payloads)) == ([], [b"0", b"1", b"2"])
