"""The traps of paho-mqtt 2.x: what naive use comes to, and that the link stays out of them.

Each test shows the trap on paho itself first; should a later paho be without it, the test says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes

from edged.frontends.mqtt.link import Broker
from edged.frontends.mqtt.link.packets import MAX_PACKET_BYTES, properties_of
from edged.frontends.mqtt.message import ACKNOWLEDGED
from tests.brokers import Mosquitto
from tests.frontends.mqtt.conftest import WAIT_SECONDS, MakeLink, until
from tests.scripted_broker import CONNECT, PUBACK, PUBLISH, Peer, ScriptedBroker, packet, puback, publish

BOM_IN_A_USER_PROPERTY = b"\x26\x00\x03\xef\xbb\xbf\x00\x00"


@contextlib.contextmanager
def naive(port: int, *, keep: bool = False) -> Iterator[paho.Client]:
    """Use paho as its examples do."""
    client = paho.Client(
        CallbackAPIVersion.VERSION2, f"naive-{port}", protocol=MQTTProtocolVersion.MQTTv5, manual_ack=keep
    )
    client.reconnect_delay_set(1, 1)
    client.max_queued_messages_set(50)
    client.connect_async("127.0.0.1", port)
    try:
        yield client
    finally:
        client.disconnect()
        sock = client.socket()
        if isinstance(sock, socket.socket):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # a broker that hangs would never read the DISCONNECT
        client.loop_stop()


async def acknowledge_nothing(peer: Peer) -> None:
    await peer.greet(properties=b"\x21\x00\x02")
    while True:
        await peer.read()


async def healthy(peer: Peer) -> None:
    await peer.greet()
    await peer.serve()


@pytest.fixture
async def hook() -> AsyncIterator[list[threading.ExceptHookArgs]]:
    """Collect what threads die of."""
    deaths: list[threading.ExceptHookArgs] = []
    before, threading.excepthook = threading.excepthook, deaths.append
    yield deaths
    threading.excepthook = before


async def test_an_exception_in_a_callback_ends_no_thread_silently(
    make_link: MakeLink, hook: list[threading.ExceptHookArgs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Naive: paho's thread is dead and is_connected() still says True."""

    async def two(peer: Peer) -> None:
        await peer.greet()
        await peer.send(publish(b"\xff\xfe", b"first", mid=1), publish(b"a", b"second", mid=2))
        await peer.serve()

    async with ScriptedBroker(two) as broker:
        with naive(broker.port) as client:
            client.on_message = lambda _, __, message: print(message.topic)
            client.loop_start()
            await until(lambda: hook)
            assert hook[0].exc_type is UnicodeDecodeError
            assert client.is_connected()

    del hook[:]
    async with ScriptedBroker(two) as broker:
        owner = make_link(broker.port)
        assert (await owner.message()).payload == b"second"
        assert owner.link.unusable == 1
        await broker.received(PUBACK, 2)

    def bug(_: object) -> None:
        raise RuntimeError("a bug of our own")

    async with ScriptedBroker(two, healthy) as broker:
        owner = make_link(broker.port)
        monkeypatch.setattr("edged.frontends.mqtt.link.box.Box.arrived", lambda *_: bug(None))
        await owner.in_state("backing_off")
        assert owner.link.fault is not None
        assert "RuntimeError" in owner.link.fault.message
        owner.hurry()
        assert await owner.publish("a") == ACKNOWLEDGED
    assert not hook


@pytest.mark.slow
async def test_a_message_that_paho_cannot_read_is_stepped_over(
    mosquitto: Mosquitto, make_link: MakeLink
) -> None:
    """Naive: a requester's U+FEFF, which MQTT allows, ends the connection, and the broker delivers it again.

    For a session that is kept that goes on for ever: one message, and the device is deaf.
    """

    async def poison(peer: Peer) -> None:
        await peer.greet()
        await peer.send(
            publish(b"a", b"poison", mid=1, properties=BOM_IN_A_USER_PROPERTY),
            publish(b"a", b"wholesome", mid=2),
        )
        await peer.serve()

    async with ScriptedBroker(poison) as broker:
        ends: list[object] = []
        with naive(broker.port) as client:
            client.on_disconnect = lambda *args: ends.append(args)
            client.loop_start()
            await until(lambda: len(ends) >= 2)
        assert not broker.of(PUBACK)

    async with ScriptedBroker(poison) as broker:
        owner = make_link(broker.port)
        assert (await owner.message()).payload == b"wholesome"
        assert owner.link.unusable == 1
        assert [one.mid for one in await broker.received(PUBACK, 2)] == [1, 2]
        assert broker.connections == 1

    owner = make_link(mosquitto.port, subscriptions=[("a", 1)])
    await owner.connected()
    with naive(mosquitto.port) as client:
        client.loop_start()
        await until(client.is_connected)
        properties = properties_of(PacketTypes.PUBLISH)
        properties.UserProperty = ("\ufeff", "")
        client.publish("a", b"poison", 1, properties=properties)
        client.publish("a", b"wholesome", 1)
        assert (await owner.message()).payload == b"wholesome"
    assert owner.link.unusable == 1
    assert owner.link.reconnects == 0


async def test_qos_0_is_bounded_too(make_link: MakeLink) -> None:
    """Naive: max_queued_messages does not count QoS 0: while the broker does not read, all is kept."""

    async def stuck(peer: Peer) -> None:
        await peer.greet()
        await asyncio.sleep(3600)

    async with ScriptedBroker(stuck) as broker:
        with naive(broker.port) as client:
            client.loop_start()
            await until(client.is_connected)
            for _ in range(100):
                assert client.publish("t", b"x" * 100_000, 0).rc is MQTTErrorCode.MQTT_ERR_SUCCESS
            assert len(client._out_packet) > 50

        owner = make_link(broker.port)
        await owner.connected()
        for _ in range(100):
            owner.publish_soon("t", b"x" * 100_000, qos=0)
        await until(lambda: owner.link.waiting and not owner.link.has_room)
        assert owner.link.in_flight <= 16


async def test_the_brokers_receive_maximum_is_obeyed(make_link: MakeLink) -> None:
    """Naive: a broker that takes two at once is sent twenty."""
    async with ScriptedBroker(acknowledge_nothing) as broker:
        with naive(broker.port) as client:
            client.loop_start()
            await until(client.is_connected)
            for _ in range(20):
                client.publish("t", b"x", 1)
            await broker.received(PUBLISH, 20)

    async with ScriptedBroker(acknowledge_nothing) as broker:
        owner = make_link(broker.port)
        await owner.connected()
        for _ in range(20):
            owner.publish_soon("t", b"x")
        await broker.received(PUBLISH, 2)
        await until(lambda: owner.link.waiting == 18)
        assert len(broker.of(PUBLISH)) == 2


async def test_after_a_reconnect_the_line_does_not_go_out_at_once(make_link: MakeLink) -> None:
    """Naive: all that was queued while the broker was away is sent at once, past Receive Maximum."""
    async with ScriptedBroker(acknowledge_nothing) as broker:
        with naive(broker.port) as client:
            for _ in range(20):
                client.publish("t", b"x", 1)
            client.loop_start()
            await broker.received(PUBLISH, 20)

    async with ScriptedBroker(acknowledge_nothing) as broker:
        owner = make_link(broker.port)
        for _ in range(20):
            owner.publish_soon("t", b"x")
        await owner.connected()
        await broker.received(PUBLISH, 2)
        await until(lambda: owner.link.in_flight == 2)
        assert (len(broker.of(PUBLISH)), owner.link.waiting) == (2, 18)


async def test_publishing_while_away_doubles_nothing(make_link: MakeLink) -> None:
    """Naive: publish() returns an error and keeps the message all the same; a retry sends it twice."""
    async with ScriptedBroker(healthy) as broker:
        with naive(broker.port) as client:
            while client.publish("t", b"once", 1).rc is not MQTTErrorCode.MQTT_ERR_SUCCESS:
                client.loop_start()
                await until(client.is_connected)
            await broker.received(PUBLISH, 2)

    async with ScriptedBroker(healthy) as broker:
        owner = make_link(broker.port)
        assert await owner.publish("t", b"once") == ACKNOWLEDGED
        assert await owner.publish("t", b"twice") == ACKNOWLEDGED
        assert [one.payload() for one in broker.of(PUBLISH)] == [b"once", b"twice"]


async def test_packet_identifiers_that_begin_again_confuse_nobody(make_link: MakeLink) -> None:
    """Naive: after a restart paho counts from 1 again, so a late PUBACK acknowledges another message."""
    first, second = (paho.Client(CallbackAPIVersion.VERSION2) for _ in range(2))
    assert first.publish("t", b"", 1).mid == second.publish("t", b"", 1).mid == 1

    async def late(peer: Peer) -> None:
        await peer.greet()
        got = await peer.expect(PUBLISH)
        assert got.mid == 1
        await peer.send(puback(99), puback(got.mid), puback(got.mid))
        await peer.serve()

    async def cut(peer: Peer) -> None:
        await peer.greet()
        assert (await peer.expect(PUBLISH)).mid == 1

    async with ScriptedBroker(cut, late) as broker:
        owner = make_link(broker.port)
        one, two = owner.publish_soon("t", b"1"), owner.publish_soon("t", b"2")
        await owner.in_state("backing_off")
        assert not one.done()
        owner.hurry()
        assert await asyncio.wait_for(one, WAIT_SECONDS) == ACKNOWLEDGED
        assert await asyncio.wait_for(two, WAIT_SECONDS) == ACKNOWLEDGED
        assert len(broker.of(CONNECT)) == 2


async def test_an_acknowledgement_stays_on_its_connection(make_link: MakeLink) -> None:
    """Naive: ack() after a reconnect sends a PUBACK for a message that this connection never brought."""

    async def cut(peer: Peer) -> None:
        await peer.greet()
        await peer.send(publish(b"a", b"first", mid=7))

    async with ScriptedBroker(cut, healthy) as broker:
        mids: list[int] = []
        with naive(broker.port, keep=True) as client:
            client.on_message = lambda _, __, message: mids.append(message.mid)
            client.loop_start()
            await broker.received(CONNECT, 2)
            await until(client.is_connected)
            client.ack(mids[0], 1)
            await broker.received(PUBACK)

    async with ScriptedBroker(cut, healthy) as broker:
        owner = make_link(broker.port)
        owner.acknowledging = False
        message = await owner.message()
        await owner.in_state("backing_off")
        owner.hurry()
        await until(lambda: owner.link.reconnects)
        message.acknowledge()
        assert await owner.publish("t") == ACKNOWLEDGED
        assert not broker.of(PUBACK)


async def test_3_1_1_cannot_fill_the_memory_with_one_message(make_link: MakeLink) -> None:
    """Naive: 3.1.1 has no Maximum Packet Size; paho gathers up to 256 MiB before anyone may look."""
    too_large = publish(b"a", b"x" * MAX_PACKET_BYTES, mid=1, version=4)

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.send(too_large, publish(b"a", b"small", mid=2, version=4))
        await peer.serve(version=4)

    async with ScriptedBroker(script) as broker:
        owner = make_link(Broker("127.0.0.1", broker.port, protocol="3.1.1"))
        assert (await owner.message()).payload == b"small"
        assert owner.link.unusable == 1
        assert [one.mid for one in await broker.received(PUBACK, 2)] == [1, 2]
        assert broker.connections == 1


async def test_paho_is_driven_by_the_box_alone(mosquitto: Mosquitto, make_link: MakeLink) -> None:
    """Naive: without a thread of its own paho writes from whatever thread publishes.

    The box hangs on three of paho's names that are not public; this fails should one go.
    """
    for name in ("_create_socket", "_handle_publish", "_sock_recv"):
        assert callable(getattr(paho.Client, name))
    owner = make_link(mosquitto.port)
    await owner.connected()
    live = owner.link._live
    assert live is not None
    threads: set[str] = set()
    stream = live._box._stream
    assert stream is not None
    send: Callable[[bytes], int] = stream.send

    def spy(data: bytes) -> int:
        threads.add(threading.current_thread().name)
        return send(data)

    stream.send = spy  # type: ignore[assignment, method-assign]
    for _ in range(50):
        await owner.publish("t", b"x")
    assert threads == {live._box._thread.name}


@pytest.mark.parametrize(
    "rubbish",
    [
        packet(PUBLISH, 2, b"\x00"),
        packet(PUBLISH, 2, b"\xff\xff"),
        packet(PUBLISH, 6, b"\x00\x01a\x00\x01\x00"),
        packet(4, 0, b"\x00"),
        packet(9, 0, b"\x00"),
        packet(11, 0, b""),
        packet(0, 0, b""),
        packet(15, 0, b"\x42"),
        packet(2, 0, b"\x00\x00\x00"),
        b"\xd0\xff\xff\xff\xff\xff",
        packet(14, 0, b"\x42"),
        packet(9, 0, b"x" * (MAX_PACKET_BYTES + 1)),
    ],
    ids=lambda rubbish: rubbish[:8].hex(),
)
async def test_no_rubbish_ends_the_link(
    make_link: MakeLink, hook: list[threading.ExceptHookArgs], rubbish: bytes
) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.send(rubbish, publish(b"after", b"", qos=0))
        await peer.serve()

    async with ScriptedBroker(script, healthy) as broker:
        owner = make_link(broker.port)
        await owner.connected()
        began = time.monotonic()
        while owner.link.reconnects == 0 and owner.messages.empty():
            owner.hurry()
            await asyncio.sleep(0.01)
            assert time.monotonic() - began < WAIT_SECONDS
        assert await owner.publish("t") == ACKNOWLEDGED
    assert not hook
