"""Telemetry on its topics: what is documented, when it is due, and alarms that are true."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edged.frontends.mqtt import reporter as module
from edged.frontends.mqtt.link import Link
from edged.frontends.mqtt.reporter import PARTS, Reporter
from edged.frontends.mqtt.topics import Topics
from edged.telemetry.alarms import DUPLICATE_ID, TYPES, Alarms
from edged.telemetry.fields import flat
from edged.telemetry.service import Telemetry
from edged.telemetry.snapshot import Snapshot
from tests.frontends.mqtt.bench import BASE, Bench, daemon
from tests.frontends.mqtt.conftest import until
from tests.telemetry.made_up import snapshot as made_up


class FakeTelemetry:
    """The telemetry's interface, with a snapshot that is made up."""

    def __init__(self) -> None:
        self.alarms = Alarms(lambda: 0.0)
        self.fails = False

    def snapshot(self) -> Snapshot:
        if self.fails:
            raise OSError("no /proc")
        told = made_up()
        return replace(told, watch=replace(told.watch, alarms=self.alarms.raised))


class Device:
    """The reporter of one device whose connections are made by hand."""

    def __init__(self, bench: Bench) -> None:
        self.core, self.line = bench.core, bench.line
        self.line.connection = None
        self.telemetry = FakeTelemetry()
        self.reporter = Reporter(
            telemetry=cast(Telemetry, self.telemetry),
            link=cast(Link, bench.line),
            topics=Topics("edged", "d"),
            clock=bench.core.clock,
            settings=lambda: self.core.settings,
        )

    def connect(self) -> None:
        self.line.connection = SimpleNamespace(session="s", protocol="5", maximum_packet_size=None)
        self.reporter.connected()

    def set(self, **keys: Any) -> None:
        """Change the table [telemetry]."""
        table = self.core.settings.telemetry.model_copy(update=keys)
        self.core.settings = self.core.settings.model_copy(update={"telemetry": table})

    def payloads(self, level: str) -> list[bytes]:
        return [p.payload for p in self.line.sent if p.topic == BASE + level]

    def said(self, level: str) -> list[dict[str, Any]]:
        return [json.loads(payload) for payload in self.payloads(level) if payload]


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[Device]:
    async with daemon(tmp_path) as bench:
        yield Device(bench)


HEAD = {"v", "device_id", "time", "clock_synchronised"}


async def test_each_topic_has_the_fields_of_its_part_and_nothing_else(device: Device) -> None:
    device.connect()
    [health] = device.said("health")
    assert set(health) == HEAD | {"phase", "uptime_seconds", "requests", "device", "mqtt", "watch"}
    for part in PARTS:
        [told] = device.said(f"telemetry/{part}")
        assert set(told) == HEAD | set(flat(getattr(made_up(), part)))
        assert all(not isinstance(value, dict | list) for value in told.values())


async def test_health_is_kept_by_the_broker_and_figures_expire(device: Device) -> None:
    device.set(interval_seconds=20)
    device.connect()
    told = {p.topic.removeprefix(BASE): (p.qos, p.retain, p.lifetime) for p in device.line.sent}
    assert told["health"] == (1, True, None)
    assert {told[f"telemetry/{part}"] for part in PARTS} == {(0, False, 40.0)}


async def test_it_is_said_again_after_the_interval_and_not_before(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)
    now = 1000.0
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    device.connect()
    running = asyncio.create_task(device.reporter.run())
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(device.said("health")) == 1
    now += 60.0
    await until(lambda: len(device.said("health")) == 2)
    running.cancel()


async def test_nothing_is_said_without_a_connection(device: Device) -> None:
    device.reporter.report()
    device.telemetry.alarms.note(DUPLICATE_ID)
    assert device.line.sent == []


async def test_figures_out_of_reach_end_nothing(device: Device) -> None:
    device.connect()
    device.telemetry.fails = True
    device.reporter.report()
    device.telemetry.alarms.note(DUPLICATE_ID)
    assert len(device.said(f"alarm/{DUPLICATE_ID}")) == 1  # an alarm is told all the same
    device.telemetry.fails = False
    device.reporter.report()
    assert len(device.said("health")) == 2


async def test_on_each_connection_every_alarm_is_told_as_it_is(device: Device) -> None:
    device.connect()
    assert {type: device.payloads(f"alarm/{type}") for type in TYPES} == {type: [b""] for type in TYPES}
    device.telemetry.alarms.note(DUPLICATE_ID)
    device.connect()
    assert all(p.retain for p in device.line.sent if "/alarm/" in p.topic)
    told = device.said(f"alarm/{DUPLICATE_ID}")
    assert [alarm["type"] for alarm in told] == [DUPLICATE_ID] * 2


async def test_an_alarm_is_told_at_once_and_health_with_it(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.connect()
    device.telemetry.alarms.note(DUPLICATE_ID)
    assert set(device.said(f"alarm/{DUPLICATE_ID}")[0]) == HEAD | {"type"}
    assert device.said("health")[-1]["watch"]["alarms"] == [DUPLICATE_ID]
    monkeypatch.setattr("edged.telemetry.alarms.NOTED_SECONDS", -1.0)
    device.telemetry.alarms.judge(made_up())
    assert device.payloads(f"alarm/{DUPLICATE_ID}")[-1] == b""
    assert DUPLICATE_ID not in device.said("health")[-1]["watch"]["alarms"]


async def test_home_assistant_is_told_only_where_it_is_wanted(device: Device) -> None:
    device.connect()
    device.set(homeassistant=True)
    device.connect()
    device.reporter.announce()
    told = [p for p in device.line.sent if p.topic == "homeassistant/device/edged_d/config"]
    assert [(p.qos, p.retain) for p in told] == [(1, True)] * 2
