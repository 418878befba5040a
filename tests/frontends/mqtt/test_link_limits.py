"""What a broker allows, and what it answers: a scripted one says what mosquitto doesn't."""

from __future__ import annotations

import asyncio
import time

import pytest

from edged.frontends.mqtt.link import Broker, Subscription, feed, live
from edged.frontends.mqtt.message import ACKNOWLEDGED, EXPIRED, UNHEARD, Outcome, Publication
from tests.frontends.mqtt.conftest import WAIT_SECONDS, MakeLink, until
from tests.scripted_broker import (
    CONNECT,
    DISCONNECT,
    PUBACK,
    PUBLISH,
    SUBSCRIBE,
    Peer,
    ScriptedBroker,
    connack,
    puback,
    publish,
    suback,
)

RECEIVE_MAXIMUM_2 = b"\x21\x00\x02"
MAXIMUM_QOS_0 = b"\x24\x00"
NO_RETAIN = b"\x25\x00"
MAXIMUM_PACKET_200 = b"\x27\x00\x00\x00\xc8"
NO_WILDCARDS = b"\x28\x00"
NO_SHARED = b"\x2a\x00"
KEEP_ALIVE_7 = b"\x13\x00\x07"
EXPIRY_5 = b"\x11\x00\x00\x00\x05"


def granting(properties: bytes = b"") -> ScriptedBroker:
    """Return a broker with these properties in CONNACK that acknowledges everything."""

    async def script(peer: Peer) -> None:
        await peer.greet(properties=properties)
        await peer.serve()

    return ScriptedBroker(script)


async def test_connect_asks_for_16_messages_at_once_of_1_mib_and_for_reasons(make_link: MakeLink) -> None:
    async with granting() as broker:
        await make_link(broker.port, client_id="kitchen", session_expiry_seconds=86_400).connected()
        (connect,) = broker.of(CONNECT)
    assert connect.connect_flags == 0  # no clean start, no will, no login
    properties = connect.body[11 : 11 + connect.body[10]]
    for wanted in (b"\x21\x00\x10", b"\x27\x00\x10\x00\x00", b"\x11\x00\x01\x51\x80", b"\x17\x01"):
        assert wanted in properties
    assert connect.body.endswith(b"\x00\x07kitchen")


async def test_the_broker_is_not_sent_more_at_once_than_it_takes(make_link: MakeLink) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(properties=RECEIVE_MAXIMUM_2)
        for _ in range(5):
            first, second = await peer.expect(PUBLISH), await peer.expect(PUBLISH)
            with pytest.raises(TimeoutError):  # a third one doesn't come before an acknowledgement
                await asyncio.wait_for(peer.read(), 0.05)
            await peer.send(puback(first.mid), puback(second.mid))
        await peer.serve()

    async with ScriptedBroker(script) as broker:
        owner = make_link(broker.port)
        assert (await owner.connected()).receive_maximum == 2
        outcomes = [owner.publish_soon("t", b"%d" % number) for number in range(10)]
        assert [await outcome for outcome in outcomes] == [ACKNOWLEDGED] * 10
        assert [one.payload() for one in broker.of(PUBLISH)] == [b"%d" % number for number in range(10)]


async def test_a_packet_that_is_one_byte_too_large_stays_here(make_link: MakeLink) -> None:
    async with granting(MAXIMUM_PACKET_200) as broker:
        owner = make_link(broker.port)
        assert (await owner.connected()).maximum_packet_size == 200
        more = {"correlation": b"corr", "content_type": "text/plain", "expires": time.monotonic() + 60}
        fitting = 200
        while True:  # the largest payload that fits by edged's count
            outcome = await owner.publish("topic", b"x" * fitting, **more)
            if outcome == ACKNOWLEDGED:
                break
            assert outcome.kind == "too_large"
            assert outcome.reason.endswith("the broker takes 200")
            fitting -= 1
        assert [len(one.raw) for one in broker.of(PUBLISH)] == [200]


async def test_qos_and_retain_are_lowered_to_what_the_broker_has(make_link: MakeLink) -> None:
    async with granting(MAXIMUM_QOS_0 + NO_RETAIN) as broker:
        owner = make_link(broker.port)
        connection = await owner.connected()
        assert await owner.publish("t", b"x", qos=1, retain=True) == ACKNOWLEDGED
        (sent,) = await broker.received(PUBLISH)
        assert (sent.qos, sent.retain) == (0, False)
        notes = " ".join(connection.notes(60))
        assert "QoS 0 alone" in notes
        assert "no retained messages" in notes


@pytest.mark.parametrize(("code", "bit"), [(0x9A, 0x20), (0x9B, 0x18)], ids=["retain", "qos"])
async def test_a_will_that_the_broker_cannot_take_is_made_smaller(
    make_link: MakeLink, code: int, bit: int
) -> None:
    """A broker without retain or QoS 1 refuses the whole CONNECT for the will's sake."""

    async def script(peer: Peer) -> None:
        connect = await peer.expect(CONNECT)
        if connect.connect_flags & bit:
            await peer.send(connack(code))
        else:
            await peer.send(connack())
            await peer.serve()

    async with ScriptedBroker(script) as broker:
        owner = make_link(broker.port, will=lambda _: Publication("w", b"lost", retain=True))
        await owner.connected()
        assert [bool(one.connect_flags & bit) for one in broker.of(CONNECT)] == [True, False]
        assert broker.of(CONNECT)[1].connect_flags & 0x04


async def test_subscriptions_that_the_broker_lacks_are_not_asked_for(make_link: MakeLink) -> None:
    async with granting(NO_WILDCARDS + NO_SHARED) as broker:
        owner = make_link(broker.port, subscriptions=[("a/#", 1), ("$share/g/a", 1), ("a/b", 1)])
        connection = await owner.connected()
        assert not connection.wildcards_available
        assert not connection.shared_available
        assert "wildcards" in str(owner.faults["a/#"])
        assert "shared subscriptions" in str(owner.faults["$share/g/a"])
        assert owner.faults["a/b"] is None
        (asked,) = broker.of(SUBSCRIBE)
        assert asked.body[3:] == b"\x00\x03a/b\x25"  # QoS 1, no local, retain handling 2


async def test_options_of_subscriptions_are_sent_and_no_local_never_on_shared_ones(
    make_link: MakeLink,
) -> None:
    async with granting() as broker:
        wanted = [
            Subscription("a", 0, no_local=False, retain_handling=1, retain_as_published=True),
            Subscription("$share/g/b", 1, no_local=True, retain_handling=2),
        ]
        await make_link(broker.port, subscriptions=wanted).connected()
        (asked,) = broker.of(SUBSCRIBE)
    assert asked.body[3:] == b"\x00\x01a\x18" + b"\x00\x0a$share/g/b\x21"


@pytest.mark.parametrize(
    ("code", "words"),
    [(0x87, "access list"), (0x80, "access list"), (0x8F, "topic filter invalid"), (0x9E, "can't do it")],
)
async def test_a_refused_subscription_is_explained(make_link: MakeLink, code: int, words: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        asked = await peer.expect(SUBSCRIBE)
        await peer.send(suback(asked.mid, 1, code))
        await peer.serve()

    async with ScriptedBroker(script) as broker:
        owner = make_link(broker.port, subscriptions=[("fine", 1), ("closed", 1)])
        await owner.connected()
    assert owner.faults["fine"] is None
    assert words in str(owner.faults["closed"])


async def test_a_subscription_without_an_answer_is_said(
    make_link: MakeLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def deaf(peer: Peer) -> None:
        await peer.greet()
        await peer.expect(SUBSCRIBE)
        await peer.read()

    monkeypatch.setattr(live, "SUBSCRIBE_SECONDS", 0.1)
    async with ScriptedBroker(deaf) as broker:
        owner = make_link(broker.port, subscriptions=[("a", 1)])
        await owner.connected()
    assert "did not answer the subscription" in str(owner.faults["a"])


async def test_a_filter_that_is_none_is_said(make_link: MakeLink) -> None:
    async with granting() as broker:
        owner = make_link(broker.port, subscriptions=[("a#b", 1)])
        await owner.connected()
        assert "topic filter invalid" in str(owner.faults["a#b"])
        assert owner.link.state == "connected"


async def test_without_a_connection_subscribing_says_so(make_link: MakeLink) -> None:
    owner = make_link(1)
    await owner.in_state("backing_off")
    assert "connection" in str((await owner.link.subscribe([("a", 1)]))["a"])


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (0x00, ACKNOWLEDGED),
        (0x10, UNHEARD),
        (0x87, Outcome("refused", "not authorised")),
        (0x90, Outcome("refused", "topic name invalid")),
        (0x99, Outcome("refused", "payload format invalid")),
    ],
)
async def test_the_brokers_reason_is_the_outcome(make_link: MakeLink, code: int, outcome: Outcome) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        got = await peer.expect(PUBLISH)
        await peer.send(puback(got.mid, code))
        await peer.serve()

    async with ScriptedBroker(script) as broker:
        assert await make_link(broker.port).publish("t", b"x") == outcome


async def test_quota_exceeded_is_tried_again_in_order(
    make_link: MakeLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet(properties=b"\x21\x00\x01")
        got = await peer.expect(PUBLISH)
        await peer.send(puback(got.mid, 0x97))
        await peer.serve()

    monkeypatch.setattr(feed, "QUOTA_SECONDS", 0.1)
    async with ScriptedBroker(script) as broker:
        owner = make_link(broker.port)
        first, second = owner.publish_soon("t", b"1"), owner.publish_soon("t", b"2")
        assert await asyncio.wait_for(second, WAIT_SECONDS) == ACKNOWLEDGED
        assert first.result() == ACKNOWLEDGED
        assert [one.payload() for one in broker.of(PUBLISH)] == [b"1", b"1", b"2"]


async def test_an_expired_publication_is_not_sent(make_link: MakeLink) -> None:
    async with granting() as broker:
        owner = make_link(broker.port)
        await owner.connected()
        late = owner.publish_soon("t", b"late", expires=time.monotonic() - 1)
        assert await owner.publish("t", b"timely", expires=time.monotonic() + 0.9) == ACKNOWLEDGED
        assert late.result() == EXPIRED
        (sent,) = broker.of(PUBLISH)
        assert b"\x02\x00\x00\x00\x01timely" in sent.body  # less than a second left: 1, since 0 is none


@pytest.mark.parametrize("topic", ["", "a/+", "a/#", "a\0b", "x" * 70_000, "\ud800"])
async def test_a_topic_that_no_broker_takes_is_refused_here(make_link: MakeLink, topic: str) -> None:
    async with granting() as broker:
        owner = make_link(broker.port)
        assert (await owner.publish(topic)).kind == "refused"
        assert await owner.publish("fine") == ACKNOWLEDGED
        assert len(broker.of(CONNECT)) == 1


@pytest.mark.parametrize(("keepalive", "told"), [(1, 1), (14, 14), (15, 10), (30, 25), (3600, 3595)])
async def test_a_broker_that_looks_seldom_has_room_within_one_and_a_half_keepalives(
    make_link: MakeLink, keepalive: int, told: int
) -> None:
    """It is told a shorter one, and edged tries a quiet connection after that, too."""
    async with granting() as broker:
        owner = make_link(Broker("127.0.0.1", broker.port, keepalive_seconds=keepalive))
        await owner.connected()
        (connect,) = broker.of(CONNECT)
    assert int.from_bytes(connect.body[8:10], "big") == told


async def test_what_the_broker_grants_is_told(make_link: MakeLink) -> None:
    async with granting(KEEP_ALIVE_7 + EXPIRY_5) as broker:
        owner = make_link(broker.port, session_expiry_seconds=60)
        connection = await owner.connected()
    assert connection.session_expiry_seconds == 5
    assert any("5 s" in note for note in connection.notes(60))
    assert not connection.notes(5)


async def test_mqtt_3_1_1_has_no_limits_of_its_own_and_says_what_is_missing(make_link: MakeLink) -> None:
    async def script(peer: Peer) -> None:
        connect = await peer.greet(session_present=True)
        assert connect.version == 4
        await peer.serve(version=4)

    async with ScriptedBroker(script) as broker:
        here = Broker("127.0.0.1", broker.port, protocol="3.1.1")
        owner = make_link(here, subscriptions=[("a", 1), ("$share/g/a", 1)])
        connection = await owner.connected()
        assert connection.session_present
        assert connection.maximum_packet_size is None
        assert connection.session_expiry_seconds is None
        assert owner.faults["a"] is None
        assert "shared subscriptions" in str(owner.faults["$share/g/a"])
        assert await owner.publish("t", b"x" * 100_000, correlation=b"c") == ACKNOWLEDGED
        (sent,) = broker.of(PUBLISH)
        assert sent.payload(4) == b"x" * 100_000
        assert "3.1.1" in connection.notes(60)[0]


async def test_what_was_not_acknowledged_goes_out_again_in_order_with_the_same_bytes(
    make_link: MakeLink,
) -> None:
    async def cut(peer: Peer) -> None:
        await peer.greet()
        got = [await peer.expect(PUBLISH) for _ in range(3)]
        await peer.send(puback(got[1].mid))
        await peer.expect(PUBLISH)

    async def healthy(peer: Peer) -> None:
        await peer.greet()
        await peer.serve()

    async with ScriptedBroker(cut, healthy) as broker:
        owner = make_link(broker.port)
        outcomes = [owner.publish_soon("t", b"chunk %d" % number) for number in range(3)]
        await asyncio.wait_for(outcomes[1], WAIT_SECONDS)
        outcomes.append(owner.publish_soon("t", b"chunk 3"))
        await owner.in_state("backing_off")
        owner.hurry()
        assert [await asyncio.wait_for(one, WAIT_SECONDS) for one in outcomes] == [ACKNOWLEDGED] * 4
        again = broker.of(PUBLISH)[4:]
        assert [one.payload() for one in again] == [b"chunk 0", b"chunk 2", b"chunk 3"]
        assert again[0].body[3:] == broker.of(PUBLISH)[0].body[3:]


async def test_a_stop_sends_what_waits_then_the_farewell_then_disconnect(make_link: MakeLink) -> None:
    async with granting(RECEIVE_MAXIMUM_2) as broker:
        owner = make_link(broker.port)
        await owner.connected()
        for number in range(10):
            owner.link.publish(Publication("t", b"%d" % number))
        await owner.link.stop([Publication("status", b"stopped")], 10)
        await broker.received(DISCONNECT)
        assert [one.payload() for one in broker.of(PUBLISH)] == [
            *(b"%d" % number for number in range(10)),
            b"stopped",
        ]
        assert broker.of(DISCONNECT)[0].body == b""


async def test_a_stop_without_an_acknowledgement_has_the_will_published(make_link: MakeLink) -> None:
    """Otherwise the device would stay online for ever: neither farewell nor will."""

    async def deaf(peer: Peer) -> None:
        await peer.greet()
        await peer.expect(DISCONNECT)

    async with ScriptedBroker(deaf) as broker:
        owner = make_link(broker.port, will=lambda _: Publication("w", b"lost"))
        await owner.connected()
        await owner.link.stop([Publication("w", b"stopped")], 1.3)
        (left,) = await broker.received(DISCONNECT)
        assert left.body == b"\x04"  # disconnect with will message


async def test_acknowledgements_of_late_hands_are_dropped(make_link: MakeLink) -> None:
    """A message's acknowledgement belongs to its connection: on the next one its number is another's."""

    async def cut(peer: Peer) -> None:
        await peer.greet()
        await peer.send(publish(b"a", b"first", mid=7))
        await peer.expect(PUBLISH)

    async def healthy(peer: Peer) -> None:
        await peer.greet(session_present=True)
        await peer.serve()

    async with ScriptedBroker(cut, healthy) as broker:
        owner = make_link(broker.port)
        owner.acknowledging = False
        message = await owner.message()
        owner.link.publish(Publication("t", b"now cut it"))
        await owner.in_state("backing_off")
        owner.hurry()
        await until(lambda: owner.link.reconnects == 1)
        message.acknowledge()
        assert await owner.publish("t", b"after it") == ACKNOWLEDGED
        assert not broker.of(PUBACK)
