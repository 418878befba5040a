"""The link with a real mosquitto."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import threading
import time
import uuid
from pathlib import Path

import pytest

from edged.frontends.mqtt.link import Broker
from edged.frontends.mqtt.link.inbox import MAX_MESSAGES
from edged.frontends.mqtt.message import ACKNOWLEDGED, UNHEARD, Message, Publication
from tests.brokers import MakeMosquitto, Mosquitto
from tests.frontends.mqtt.conftest import WAIT_SECONDS, MakeLink, until
from tests.scripted_broker import connack, publish

VERSIONS = ("5", "3.1.1")


@pytest.fixture
def topic() -> str:
    return f"test/{uuid.uuid4().hex}"


async def tell(broker: Mosquitto, topic: str, payload: str, *more: str) -> None:
    """Publish as a stranger."""
    command = [
        "mosquitto_pub",
        "-p",
        str(broker.port),
        "-t",
        topic,
        *(["-m", payload] if payload else ["-n"]),
        *more,
    ]
    await asyncio.to_thread(subprocess.run, command, check=True, timeout=WAIT_SECONDS)


async def retained(broker: Mosquitto, topic: str) -> str:
    """Return what a broker keeps for later subscribers."""
    command = ["mosquitto_sub", "-p", str(broker.port), "-t", topic, "-C", "1", "-W", "10"]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=30)
    return done.stdout.rstrip("\n")


@pytest.mark.parametrize("version", VERSIONS)
async def test_messages_come_in_and_publications_go_out(
    broker: Mosquitto, make_link: MakeLink, topic: str, version: str
) -> None:
    owner = make_link(
        Broker("127.0.0.1", broker.port, protocol=version),  # type: ignore[arg-type]
        subscriptions=[(f"{topic}/in/#", 1)],
        client_id=topic,
    )
    other = make_link(broker.port, subscriptions=[(f"{topic}/out", 1)])
    assert (await owner.connected()).protocol == version
    await other.connected()

    await tell(broker, f"{topic}/in/a", "hello", "-q", "1")
    message = await owner.message()
    assert (message.topic, message.payload, message.qos) == (f"{topic}/in/a", b"hello", 1)
    assert (message.protocol, message.retain, message.redelivered) == (version, False, False)

    assert await owner.publish(f"{topic}/out", b"answer") == ACKNOWLEDGED
    assert (await other.message()).payload == b"answer"


async def test_mqtt_5_brings_addresses_expiry_and_correlation_and_takes_them(
    broker: Mosquitto, make_link: MakeLink, topic: str
) -> None:
    owner = make_link(broker.port, subscriptions=[(f"{topic}/in", 1)])
    other = make_link(broker.port, subscriptions=[(f"{topic}/out", 1)])
    await owner.connected()
    await other.connected()

    properties = {
        "response-topic": "r/1",
        "correlation-data": "c-1",
        "content-type": "text/plain",
        "message-expiry-interval": "60",
    }
    more = [part for name, value in properties.items() for part in ("-D", "PUBLISH", name, value)]
    await tell(broker, f"{topic}/in", "x", "-V", "5", "-q", "1", *more)
    message = await owner.message()
    assert message.response_topic == "r/1"
    assert message.correlation == b"c-1"
    assert message.content_type == "text/plain"
    assert message.expiry_seconds in range(50, 61)

    await owner.publish(
        f"{topic}/out", b"y", correlation=b"c-2", content_type="a/b", expires=time.monotonic() + 100
    )
    answer = await other.message()
    assert (answer.correlation, answer.content_type) == (b"c-2", "a/b")
    assert answer.expiry_seconds in range(90, 101)


async def test_nobody_listens_is_told_with_mqtt_5(
    mosquitto: Mosquitto, make_link: MakeLink, topic: str
) -> None:
    owner = make_link(mosquitto.port)
    assert await owner.publish(topic, b"x") == UNHEARD
    assert (await owner.publish(topic, b"x", qos=0)).kind == "acknowledged"


async def test_what_is_not_acknowledged_goes_out_again_after_a_restart_of_the_broker(
    make_mosquitto: MakeMosquitto, make_link: MakeLink, topic: str
) -> None:
    broker = make_mosquitto(persistent=True)
    other = make_link(broker.port, subscriptions=[(topic, 1)])
    owner = make_link(broker.port)
    await other.connected()
    await owner.connected()
    broker.pause()  # takes bytes and answers nothing
    outcomes = [owner.publish_soon(topic, b"%d" % number) for number in range(40)]
    await until(lambda: owner.link.in_flight == 16)
    assert owner.link.waiting == 24
    broker.kill()
    await owner.in_state("backing_off")
    assert (owner.link.in_flight, owner.link.waiting) == (0, 40)
    assert owner.link.fault is not None
    broker.start()
    for one in (owner, other):
        one.hurry()
    await other.connected()
    assert {(await asyncio.wait_for(outcome, WAIT_SECONDS)).kind for outcome in outcomes} <= {
        "acknowledged",
        "unheard",  # it may come before the other one's subscription
    }
    assert owner.link.reconnects == 1
    assert owner.link.fault is None


async def test_the_session_waits_while_the_link_is_away(
    broker: Mosquitto, make_link: MakeLink, topic: str
) -> None:
    first = make_link(broker.port, client_id=topic, subscriptions=[(topic, 1)])
    assert not (await first.connected()).session_present
    await first.link.stop((), 5)
    await tell(broker, topic, "meanwhile", "-q", "1")
    second = make_link(broker.port, client_id=topic)
    assert (await second.message()).payload == b"meanwhile"
    assert (await second.connected()).session_present


@pytest.mark.parametrize("version", VERSIONS)
async def test_acknowledgements_leave_in_the_order_of_arrival(
    broker: Mosquitto, make_link: MakeLink, topic: str, version: str
) -> None:
    """Of three messages the second is acknowledged: the broker delivers all three again, not two."""
    here = Broker("127.0.0.1", broker.port, protocol=version)  # type: ignore[arg-type]
    first = make_link(here, client_id=topic, subscriptions=[(topic, 1)])
    first.acknowledging = False
    await first.connected()
    for number in range(3):
        await tell(broker, topic, str(number), "-q", "1")
    messages = [await first.message() for _ in range(3)]
    messages[1].acknowledge()
    messages[1].acknowledge()
    await first.link.stop((), 5)

    second = make_link(here, client_id=topic)
    again = [await second.message() for _ in range(3)]
    assert [message.payload for message in again] == [b"0", b"1", b"2"]
    assert all(message.redelivered for message in again)
    await second.link.stop((), 5)

    third = make_link(here, client_id=topic)
    await third.connected()
    await tell(broker, topic, "last", "-q", "1")
    assert (await third.message()).payload == b"last"


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_stop_says_goodbye_and_the_will_stays_unpublished(
    broker: Mosquitto, make_link: MakeLink, topic: str, version: str
) -> None:
    owner = make_link(
        Broker("127.0.0.1", broker.port, protocol=version),  # type: ignore[arg-type]
        will=lambda session: Publication(topic, b"lost " + session.encode(), retain=True),
    )
    await owner.connected()
    before = owner.publish_soon(topic, b"before", retain=True)
    await owner.link.stop([Publication(topic, b"stopped", retain=True)], 5)
    assert before.done()
    assert owner.link.state == "stopped"
    assert await retained(broker, topic) == "stopped"


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_death_publishes_the_will_with_the_session_of_that_connection(
    broker: Mosquitto, make_link: MakeLink, topic: str, version: str
) -> None:
    owner = make_link(
        Broker("127.0.0.1", broker.port, protocol=version),  # type: ignore[arg-type]
        will=lambda session: Publication(topic, session.encode(), retain=True),
    )
    session = (await owner.connected()).session
    owner.task.cancel()
    await asyncio.wait([owner.task])
    owner.task = asyncio.create_task(asyncio.sleep(0))
    assert await retained(broker, topic) == session


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_stop_ends_in_time_while_the_broker_hangs_and_has_the_will_published(
    mosquitto: Mosquitto, make_link: MakeLink, topic: str, version: str
) -> None:
    owner = make_link(
        Broker("127.0.0.1", mosquitto.port, protocol=version),  # type: ignore[arg-type]
        will=lambda _: Publication(topic, b"lost", retain=True),
    )
    await owner.connected()
    await owner.publish(topic, b"online", retain=True)
    mosquitto.pause()
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await owner.link.stop([Publication(topic, b"stopped", retain=True)], 2.0)
            await owner.task
    finally:
        mosquitto.resume()
    assert owner.link.state == "stopped"
    async with asyncio.timeout(WAIT_SECONDS):
        while await retained(mosquitto, topic) != "lost":
            pass


async def test_a_stop_ends_at_once_during_a_pause_and_a_connect(make_link: MakeLink, topic: str) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        waiting = make_link(server.sockets[0].getsockname()[1])
        await waiting.in_state("connecting")
        async with asyncio.timeout(5):
            await waiting.link.stop((), 60)
    refused = make_link(1)
    await refused.in_state("backing_off")
    async with asyncio.timeout(5):
        await refused.link.stop((), 60)


async def test_writers_of_chunks_wait_until_connected(mosquitto: Mosquitto, make_link: MakeLink) -> None:
    mosquitto.stop()
    owner = make_link(mosquitto.port)
    waiting = asyncio.create_task(owner.link.room())
    await owner.in_state("backing_off")
    assert not owner.link.has_room
    assert not waiting.done()
    mosquitto.start()
    owner.hurry()
    await asyncio.wait_for(waiting, WAIT_SECONDS)


async def test_a_broken_owner_leaves_the_link_alive(
    broker: Mosquitto, make_link: MakeLink, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in on_message or on_outcome costs that one message, and no other."""
    owner = make_link(broker.port, subscriptions=[(topic, 1)])
    await owner.connected()

    def fail(what: object) -> None:
        if not isinstance(what, Message) or what.payload != b"third":
            raise RuntimeError("a bug")
        owner.on_message(what)

    monkeypatch.setattr(owner.link, "_on_message", fail)
    owner.link.publish(Publication(f"{topic}/x", b"", on_outcome=fail))
    await tell(broker, topic, "first", "-q", "1")
    await tell(broker, topic, "second", "-q", "1")
    await tell(broker, topic, "third", "-q", "1")
    assert (await owner.message()).payload == b"third"


@pytest.mark.slow
async def test_a_flood_of_qos_0_is_dropped_beyond_a_bound_and_counted(make_link: MakeLink) -> None:
    """The loop is busy while 50,000 messages of 1 KB come in: 256 at most are kept, the others counted."""
    listener = socket.create_server(("127.0.0.1", 0))
    written = threading.Event()
    flood = threading.Thread(target=_flood, args=(listener, written))
    flood.start()
    owner = make_link(Broker("127.0.0.1", listener.getsockname()[1], protocol="3.1.1"))
    await owner.connected()
    live = owner.link._live
    assert live is not None
    before = _resident_bytes()
    written.wait()  # in the loop's own thread: it takes nothing meanwhile
    grown = _resident_bytes() - before
    assert live._inbox._messages <= MAX_MESSAGES
    assert grown < 4_000_000
    delivered = 0
    while (await owner.message()).topic != "end":
        delivered += 1
    assert owner.link.dropped > 0
    assert delivered + owner.link.dropped == FLOOD
    await owner.link.stop((), 5)
    flood.join()


FLOOD = 50_000


def _flood(listener: socket.socket, written: threading.Event) -> None:
    one = publish(b"flood", b"x" * 1024, qos=0, version=4)
    with listener, listener.accept()[0] as peer:
        peer.recv(4096)
        peer.sendall(connack(version=4))
        for _ in range(FLOOD // 100):
            peer.sendall(one * 100)
        written.set()
        peer.sendall(publish(b"end", b"", version=4))
        while peer.recv(4096):
            pass


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
