"""Brokers that allow little: small packets, QoS 0, nothing retained, one message at a time."""

from __future__ import annotations

import asyncio

import pytest

from tests.brokers import MakeMosquitto
from tests.e2e.interop.conftest import StartDevice
from tests.e2e.interop.requester import check_answer, new_id, open_requester

pytestmark = pytest.mark.slow

OPEN = "allow_anonymous true"
PACKET_BYTES = 3_000
LONG = {"prompt": "Tell me of the harbour.", "max_tokens": 2000, "stop": ["never"]}


async def test_an_answer_that_no_packet_holds(
    make_mosquitto: MakeMosquitto, start_device: StartDevice
) -> None:
    """It ends with an error that says so, a repeat gets the same; smaller answers are whole."""
    broker = make_mosquitto(config=f"{OPEN}\nmax_packet_size {PACKET_BYTES}")
    device = start_device(broker.port)
    async with open_requester(device) as requester:
        id = new_id()
        for _ in range(2):
            await requester.ask({"id": id, **LONG})
        *chunks, last = await requester.answer(id)
        assert last.frame["code"] == "too_large"
        assert f"of at most {PACKET_BYTES} bytes" in last.frame["message"]
        assert "max_tokens" in last.frame["message"]
        assert max(len(message.payload) for message in chunks) < PACKET_BYTES
        await requester.ask({"id": id, **LONG})
        assert (await requester.frame(id, "error")).payload == last.payload
        check_answer(
            [message.frame for message in await requester.answered({"prompt": "Hi", "max_tokens": 16})]
        )
    mqtt = (await device.status())["mqtt"]
    assert mqtt["reconnects"] == 0
    assert any(f"at most {PACKET_BYTES} bytes" in note for note in mqtt["notes"])
    device.daemon.stop()


@pytest.mark.slow
async def test_a_packet_that_the_broker_hangs_up_on(
    make_mosquitto: MakeMosquitto, start_device: StartDevice
) -> None:
    """A broker can't name its limit in 3.1.1: one answer beyond it must not keep all others from leaving."""
    broker = make_mosquitto(config=f"{OPEN}\nmax_packet_size {PACKET_BYTES}")
    device = start_device(broker.port, mqtt={"protocol": "3.1.1"})
    async with open_requester(device, version="3.1.1") as requester:
        await requester.ask({"id": new_id(), **LONG})
        while not (await device.status())["requests"]["done_total"]:
            await asyncio.sleep(0.05)
        check_answer(
            [message.frame for message in await requester.answered({"prompt": "Hi", "max_tokens": 16})]
        )
    device.daemon.stop()


async def test_qos_0_alone(make_mosquitto: MakeMosquitto, start_device: StartDevice) -> None:
    broker = make_mosquitto(config=f"{OPEN}\nmax_qos 0")
    device = start_device(broker.port)
    async with open_requester(device) as requester:
        for _ in range(3):
            id = new_id()
            await requester.ask({"id": id, "prompt": "Hello", "max_tokens": 200}, qos=0)
            check_answer([message.frame for message in await requester.answer(id)])
    while (mqtt := (await device.status())["mqtt"])["in_flight"]:  # it arrives before it counts as sent
        await asyncio.sleep(0.05)
    assert (mqtt["reconnects"], mqtt["waiting"]) == (0, 0)
    assert any("QoS 0 alone" in note for note in mqtt["notes"])
    device.daemon.stop()


async def test_nothing_retained(make_mosquitto: MakeMosquitto, start_device: StartDevice) -> None:
    broker = make_mosquitto(config=f"{OPEN}\nretain_available false")
    device = start_device(broker.port)
    async with open_requester(device) as requester:
        check_answer(
            [message.frame for message in await requester.answered({"prompt": "Hi", "max_tokens": 16})]
        )
    mqtt = (await device.status())["mqtt"]
    assert (mqtt["reconnects"], mqtt["problem"]) == (0, None)
    assert any("no retained messages" in note for note in mqtt["notes"])
    device.daemon.stop()


async def test_one_message_at_a_time(make_mosquitto: MakeMosquitto, start_device: StartDevice) -> None:
    """Eight answers go through a broker that takes one unacknowledged message, chunk by chunk in order."""
    broker = make_mosquitto(config=f"{OPEN}\nmax_inflight_messages 1")
    device = start_device(broker.port)
    async with open_requester(device) as requester:
        ids = [new_id() for _ in range(8)]
        for id in ids:
            await requester.ask({"id": id, "prompt": "Hello", "max_tokens": 300})
        for id in ids:
            frames = [message.frame for message in await requester.answer(id)]
            assert check_answer(frames)["usage"]["completion_tokens"] == 300
    assert (await device.status())["mqtt"]["reconnects"] == 0
    device.daemon.stop()
