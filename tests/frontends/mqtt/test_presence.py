"""What the device says of itself stays true, whoever else speaks on its topics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sized
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edged.frontends.mqtt import presence
from edged.frontends.mqtt.link import Link
from edged.frontends.mqtt.message import Message
from edged.frontends.mqtt.presence import Presence
from edged.frontends.mqtt.topics import Topics
from tests.frontends.mqtt.bench import BASE, Bench, daemon
from tests.frontends.mqtt.conftest import until


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with daemon(tmp_path) as bench:
        yield bench


class Device:
    """The presence of one device whose connections are made by hand."""

    def __init__(self, bench: Bench) -> None:
        self.line = bench.line
        self.line.connection = None
        self.core = bench.core
        self.presence = Presence(
            core=bench.core,
            link=cast(Link, bench.line),
            topics=Topics("edged", "d"),
            clock=bench.core.clock,
            settings=lambda: bench.core.settings,
        )

    def connect(self, session: str) -> dict[str, Any]:
        """Connect under a session id; return the will that the broker holds."""
        will = self.presence.will(session)
        assert (will.topic, will.retain, will.qos) == (BASE + "status", True, 1)
        self.line.connection = SimpleNamespace(session=session, protocol="5", maximum_packet_size=None)
        self.presence.connected()
        return cast(dict[str, Any], json.loads(will.payload))

    def hear(self, *, retain: bool = False, **fields: Any) -> str | None:
        return self.presence.heard(Message(BASE + "status", json.dumps(fields).encode(), retain=retain))

    def said(self, level: str) -> list[dict[str, Any]]:
        """Return what was said on a topic; empty payloads are left out."""
        return [json.loads(p.payload) for p in self.line.sent if p.topic == BASE + level and p.payload]


@pytest.fixture
def device(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Device:
    monkeypatch.setattr(presence, "CHECK_SECONDS", 0.0)
    # The status asks the engine's plan for more than the fake one has.
    monkeypatch.setattr("edged.core.status.model", lambda core: None)
    engine = {"library": "x", "restarts": 2, "deaths": 1, "next_try_seconds": 0.5}
    monkeypatch.setattr("edged.core.status._engine", lambda _: engine)
    monkeypatch.setattr("edged.core.status._estimate", lambda _: None)
    monkeypatch.setattr("edged.core.status._resident", lambda pid: None)
    return Device(bench)


async def test_a_connection_says_status_and_info_and_its_will_has_its_session(device: Device) -> None:
    will = device.connect("own-1")
    assert (will["state"], will["phase"], will["session"]) == ("offline", "lost", "own-1")
    [status] = device.said("status")
    assert (status["state"], status["phase"], status["session"]) == ("online", "ready", "own-1")
    assert (status["v"], status["device_id"], status["clock_synchronised"] in (True, False)) == (1, "d", True)
    assert len(device.said("info")) == 1
    assert all(p.retain for p in device.line.sent)


async def test_figures_that_are_out_of_reach_are_told_when_they_are_not(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as fault:
        fault.setattr(device.presence, "_info", out_of_reach)
        device.connect("own-1")
        assert (len(device.said("status")), device.said("info")) == (1, [])
    device.presence.refresh()
    assert device.said("info") == []  # not in each second
    monkeypatch.setattr(presence, "INFO_SECONDS", 0.0)
    device.presence.refresh()
    assert len(device.said("info")) == 1


async def test_a_fault_does_not_end_what_keeps_the_topics_true(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.connect("own-1")
    running = asyncio.create_task(device.presence.run())
    tried = asyncio.Event()

    def fail(*_: object) -> None:
        tried.set()
        out_of_reach()

    with monkeypatch.context() as fault:
        fault.setattr(device.presence, "_status", fail)
        device.core.close()
        await asyncio.wait([asyncio.create_task(tried.wait()), running], return_when="FIRST_COMPLETED")
        assert device.said("status")[-1]["phase"] == "ready"
    await until(lambda: device.said("status")[-1]["phase"] == "stopping")
    running.cancel()


def out_of_reach(*_: object) -> None:
    raise OSError("no /proc")


async def test_status_follows_the_phase(device: Device) -> None:
    device.connect("own-1")
    device.presence.refresh()
    assert len(device.said("status")) == 1
    device.core.close()
    device.presence.refresh()
    assert [status["phase"] for status in device.said("status")] == ["ready", "stopping"]


async def test_info_follows_a_reload_and_is_told_only_if_it_changed(device: Device) -> None:
    device.presence.reload()  # there is no connection yet
    device.connect("own-1")
    device.presence.reload()
    assert len(device.said("info")) == 1
    settings = device.core.settings
    changed = {
        "mqtt": settings.mqtt.model_copy(update={"commands": ("reload",)}),
        "telemetry": settings.telemetry.model_copy(update={"interval_seconds": 5}),
    }
    device.core.settings = settings.model_copy(update=changed)
    device.presence.reload()
    capabilities = [info["capabilities"] for info in device.said("info")]
    assert [one["commands"] for one in capabilities][1:] == [["reload"]]
    assert [one["telemetry_interval_seconds"] for one in capabilities] == [60, 5]


async def test_the_late_will_of_an_own_connection_is_said_over(device: Device) -> None:
    device.connect("own-1")
    device.connect("own-2")
    assert not device.hear(state="online", session="own-2")
    assert not device.hear(state="offline", session="own-1")
    device.presence.refresh()
    device.presence.refresh()
    assert [(s["state"], s["session"]) for s in device.said("status")] == [
        ("online", "own-1"),
        ("online", "own-2"),
        ("online", "own-2"),
    ]


async def test_years_of_tries_leave_nothing_behind(device: Device) -> None:
    """And a session is known for the own one all the same."""

    def held() -> int:
        return sum(len(value) for value in vars(device.presence).values() if isinstance(value, Sized))

    device.connect("own-1000")
    before = held()
    for number in range(1001, 1500):
        device.presence.will(f"own-{number}")
    assert held() == before
    device.connect("own-1500")
    device.hear(state="online", session="own-1500")
    for number in (1000, 1499):
        assert device.hear(state="offline", session=f"own-{number}") is None


async def test_another_device_of_the_same_id_is_noticed(device: Device) -> None:
    device.connect("own-1")
    assert not device.hear(state="online", session="own-1")
    assert device.hear(state="online", session="foreign-1") == "here"


async def test_what_was_said_before_the_own_birth_is_no_other_device(device: Device) -> None:
    """The echo of an earlier daemon of this device may have waited at the broker."""
    device.connect("own-1")
    assert not device.hear(state="online", session="earlier-1")
    assert not device.hear(state="online", session="own-1")


@pytest.mark.parametrize("trace", [{"state": "online", "retain": True}, {"state": "offline"}])
async def test_each_session_that_was_there_is_told_once(device: Device, trace: dict[str, Any]) -> None:
    """It may have been this device's own, before a restart; and a broker may say the same again."""
    device.connect("own-1")
    assert device.hear(session="foreign-1", **trace) == "was_here"
    assert device.hear(session="foreign-1", **trace) is None
    assert device.hear(session="own-1", **trace) is None
    assert device.hear(session="other-1", **trace) == "was_here"


async def test_nonsense_on_the_own_status_topic_is_said_over(device: Device) -> None:
    device.connect("own-1")
    device.hear(state="online", session="own-1")
    assert not device.presence.heard(Message(BASE + "status", b"\xff"))
    assert not device.hear(state=[], session={"no": "text"})
    device.presence.refresh()
    assert len(device.said("status")) == 2


async def test_the_last_word_is_stopped(device: Device) -> None:
    assert device.presence.farewell() is None
    device.connect("own-1")
    farewell = device.presence.farewell()
    assert farewell is not None
    fields = json.loads(farewell.payload)
    assert (fields["state"], fields["phase"], fields["session"]) == ("offline", "stopped", "own-1")
