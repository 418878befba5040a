"""Simulated devices speak MQTT as brokers and other clients understand it."""

from __future__ import annotations

import asyncio
import json
import resource
import ssl
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scripted_broker import SUBSCRIBE, Peer, ScriptedBroker, suback
from tools.fleetsim import packets
from tools.fleetsim.__main__ import certificate
from tools.fleetsim.fleet import Fleet, check_files
from tools.fleetsim.link import Link, Place

if TYPE_CHECKING:
    from pathlib import Path

    from tests.brokers import MakeMosquitto, Mosquitto


@given(
    st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=300), st.booleans(), st.booleans())),
    st.integers(1, 50),
)
def test_packets_survive_being_cut_anywhere(told: list[tuple[str, bytes, bool, bool]], piece: int) -> None:
    sent = b"".join(
        packets.publish(topic, payload, mid=7 if qos else None, retain=retain)
        for topic, payload, qos, retain in told
    )
    buffer, found = bytearray(), []
    for at in range(0, len(sent), piece):
        buffer += sent[at : at + piece]
        found += [packets.message_of(packet) for packet in packets.take(buffer)]
    assert [(m.topic, m.payload, m.mid is not None, m.retained) for m in found] == told
    assert not buffer


async def test_a_stranger_sees_birth_telemetry_and_will(mosquitto: Mosquitto) -> None:
    words = ["mosquitto_sub", "-p", str(mosquitto.port), "-q", "1", "-v", "-t", "edged/v1/sim-000000/#"]
    fleet = Fleet(1, Place("127.0.0.1", mosquitto.port), interval=0.2)
    await fleet.start()
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE)
    assert process.stdout
    seen: dict[str, Any] = {}
    parts = {f"telemetry/{part}" for part in ("thermal", "power", "memory", "inference")}
    async with asyncio.timeout(20):
        while not parts <= seen.keys():
            topic, _, payload = (await process.stdout.readline()).decode().partition(" ")
            seen[topic.removeprefix("edged/v1/sim-000000/")] = json.loads(payload)
        fleet.devices[0].die()
        while seen["status"]["phase"] != "lost":
            topic, _, payload = (await process.stdout.readline()).decode().partition(" ")
            seen[topic.removeprefix("edged/v1/sim-000000/")] = json.loads(payload)
    process.terminate()
    await process.communicate()
    assert set(seen) == {"status", "info", "health"} | parts
    assert seen["status"]["state"] == "offline"
    await fleet.stop()


async def test_a_storm_passes_and_sessions_are_counted(mosquitto: Mosquitto) -> None:
    fleet = Fleet(40, Place("127.0.0.1", mosquitto.port))
    await fleet.start()
    for device in fleet.devices:
        device.drop()
    assert fleet.online == 0
    assert await fleet.all_online(30)
    assert {device.connects for device in fleet.devices} == {2}
    await fleet.stop()
    assert fleet.online == 0


async def test_tls(make_mosquitto: MakeMosquitto, tmp_path: Path) -> None:
    trusted = certificate(tmp_path)
    config = f"allow_anonymous true\ncertfile {trusted}\nkeyfile {tmp_path / 'key.pem'}"
    broker = make_mosquitto(config=config)
    fleet = Fleet(2, Place("127.0.0.1", broker.port, ssl.create_default_context(cafile=str(trusted))))
    await fleet.start()
    assert fleet.online == 2
    await fleet.stop()


async def test_a_subscription_that_is_refused_is_no_connection() -> None:
    """A reader that took it for one would hear nothing, and wait for ever."""

    async def refuses(peer: Peer) -> None:
        await peer.greet()
        asked = await peer.expect(SUBSCRIBE)
        await peer.send(suback(asked.mid, 1, 0x80, version=4))
        await peer.read()

    link = Link(lambda message: None, lambda: None)
    async with ScriptedBroker(refuses) as broker:
        with pytest.raises(ConnectionRefusedError, match="1 of 2 subscriptions"):
            await link.open(Place("127.0.0.1", broker.port), "reader", filters=["fine", "refused"])
    assert not link.is_open


def test_too_many_devices_are_refused_with_the_figures() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(ValueError, match=rf"{hard + 64} open files, {hard} are allowed: raise `ulimit -Hn`"):
        check_files(hard)
