"""What a device says of itself, and the commands that it obeys, seen by clients that no one here wrote."""

from __future__ import annotations

import json

import pytest

from tests.brokers import Mosquitto
from tests.e2e.interop.conftest import StartDevice
from tests.e2e.interop.programs import lines_of, need, running
from tests.e2e.interop.requester import Device, Requester, check_answer, new_root, open_requester


async def test_status_info_and_health(device: Device, requester: Requester) -> None:
    """status and info are there for whoever comes later; times say whether they can be trusted."""
    for name in ("status", "info", "health"):
        await requester.listen(f"{device.base}/{name}")
    status = await requester.next()
    assert status.topic == f"{device.base}/status"
    assert status.retain
    assert {
        "state": "online",
        "phase": "ready",
        "device_id": "test",
        "reason": None,
    }.items() <= status.frame.items()
    assert status.frame["session"] == device.birth["session"]
    assert status.frame["time"].endswith("Z")
    assert isinstance(status.frame["clock_synchronised"], bool)
    info = await requester.next(lambda message: message.topic.endswith("/info"))
    assert info.retain
    assert info.frame["model"]["context"] == 4096
    assert info.frame["limits"]["per_client"] == 4
    assert info.frame["capabilities"]["open_ask"] is True
    health = await requester.next(
        lambda message: message.topic.endswith("/health") and message.frame["phase"] == "ready"
    )
    assert health.frame["mqtt"]["messages_total"].keys() == (await device.counters()).keys()
    assert health.frame["uptime_seconds"] > 0


@pytest.mark.slow
async def test_the_broker_tells_that_a_device_is_lost(
    mosquitto: Mosquitto, start_device: StartDevice
) -> None:
    """The will has the session of the birth, so that it can be told from that of another connection."""
    device = start_device(mosquitto.port)
    async with open_requester(device) as requester:
        await requester.listen(f"{device.base}/status")
        assert (await requester.next()).frame["state"] == "online"
        device.daemon.kill()
        lost = (await requester.next()).frame
    assert (lost["state"], lost["phase"], lost["session"]) == ("offline", "lost", device.birth["session"])
    lines = await lines_of(
        *(need("mosquitto_sub"), "-p", str(mosquitto.port), "-t", f"{device.base}/status"), until="lost"
    )
    assert json.loads(lines[-1]) == lost


@pytest.mark.slow
async def test_a_stop_is_told_by_the_device_itself(mosquitto: Mosquitto, start_device: StartDevice) -> None:
    device = start_device(mosquitto.port)
    async with open_requester(device) as requester:
        await requester.listen(f"{device.base}/status")
        assert device.daemon.stop() == 0
        told = [(await requester.next()).frame]
        while told[-1]["state"] == "online":
            told.append((await requester.next()).frame)
    assert (told[-1]["phase"], told[-1]["session"]) == ("stopped", device.birth["session"])


async def test_a_command_that_is_not_allowed(device: Device, requester: Requester) -> None:
    """It is refused with what is allowed."""
    await requester.listen(f"{device.base}/cmd/+/result")
    await requester.ask({"transaction": 5}, topic="cmd/restart_engine")
    result = await requester.next()
    assert result.topic == f"{device.base}/cmd/restart_engine/result"
    assert (result.frame["status"], result.frame["transaction"]) == ("error", 5)
    assert "health_check" in json.dumps(result.frame["error"])


async def test_a_command_under_its_transaction_is_carried_out_once(
    device: Device, requester: Requester
) -> None:
    """A repeat gets the same bytes."""
    await requester.listen(f"{device.base}/cmd/+/result")
    await requester.listen(f"{device.base}/event/command")
    for _ in range(2):
        await requester.ask({"transaction": "once"}, topic="cmd/cancel_all")
    first = await requester.next(lambda message: message.topic.endswith("/result"))
    again = await requester.next(lambda message: message.topic.endswith("/result"))
    assert first.payload == again.payload
    assert first.frame["status"] == "ok"
    # Had it been carried out twice, the second event would have come before this result.
    await requester.ask({"transaction": "last"}, topic="cmd/health_check")
    await requester.next(lambda message: message.payload.find(b'"last"') >= 0)
    events = [message for message in requester.unread if message.topic.endswith("/event/command")]
    assert len(events) <= 1


@pytest.mark.slow
async def test_what_the_broker_kept_from_earlier_is_dropped(
    mosquitto: Mosquitto, start_device: StartDevice
) -> None:
    """Retained prompts and commands are not obeyed at each start.

    On 3.1.1, where only the device itself can drop them; with the open ask switched off beside it.
    """
    root = new_root()
    base = f"{root}/v1/test"
    publish = [need("mosquitto_pub"), "-p", str(mosquitto.port), "-r", "-q", "1"]
    for topic, payload in (("ask/eve", "Hello"), ("cmd/cancel_all", '{"transaction": 1}')):
        async with running(*publish, "-t", f"{base}/{topic}", "-m", payload) as publisher:
            assert await publisher.wait() == 0
    listen = [
        need("mosquitto_sub"),
        "-d",
        "-p",
        str(mosquitto.port),
        "-t",
        f"{base}/event/#",
        "-F",
        "EVENT %t %p",
    ]
    async with running(*listen) as listener:
        await listener.lines("Subscribed")
        device = start_device(mosquitto.port, root=root, mqtt={"protocol": "3.1.1", "open_ask": False})
        await listener.lines(f"EVENT {base}/event/retained_", times=2)
    async with open_requester(device, version="3.1.1", name="eve") as requester:
        await requester.ask("Hello", topic="ask")
        check_answer(
            [message.frame for message in await requester.answered({"prompt": "Hi", "max_tokens": 4})]
        )
        assert requester.unread == []
    status = await device.status()
    assert status["mqtt"]["protocol"] == "3.1.1"
    assert status["mqtt"]["counters"]["retained_dropped"] == 1
    assert status["mqtt"]["counters"]["asks"] == 2
    assert status["requests"]["accepted_total"] == 1
    device.daemon.stop()
