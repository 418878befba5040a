"""Alarms follow what is measured, but neither a short dip nor a value that wavers about a bound."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edged.telemetry.alarms import DUPLICATE_ID, NOTED_SECONDS, RULES, TYPES, Alarms
from edged.telemetry.snapshot import Snapshot
from tests.telemetry.made_up import snapshot as made_up

HOLD = 30.0


class World:
    """Alarms, a clock that is set by hand, and what was told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[tuple[str, bool]] = []
        self.alarms = Alarms(lambda: HOLD, clock=lambda: self.now)
        self.alarms.listeners.append(lambda type, is_raised: self.told.append((type, is_raised)))

    def see(self, snapshot: Snapshot, seconds: float = 10.0) -> tuple[str, ...]:
        """Look again after some time."""
        self.now += seconds
        self.alarms.judge(snapshot)
        return self.alarms.raised


@pytest.fixture
def world() -> World:
    return World()


def calm() -> Snapshot:
    """Return a snapshot in which nothing is wrong."""
    told = made_up()
    return replace(
        told,
        power=replace(told.power, under_voltage=False),
        thermal=replace(told.thermal, throttled=False, capped=False, celsius=50.0),
        watch=replace(told.watch, memory_level="ok", alarms=()),
    )


def at(celsius: float | None) -> Snapshot:
    told = calm()
    return replace(told, thermal=replace(told.thermal, celsius=celsius))


def short(level: str) -> Snapshot:
    told = calm()
    return replace(told, watch=replace(told.watch, memory_level=level))  # type: ignore[arg-type]


def bad(type: str) -> Snapshot:
    """Return a snapshot that is a reason for an alarm."""
    told = calm()
    assert told.mqtt is not None
    return {
        "undervoltage": replace(told, power=replace(told.power, under_voltage=True)),
        "throttled": replace(told, thermal=replace(told.thermal, capped=True)),
        "too_hot": at(80.0),
        "low_memory": short("evict"),
        "low_disk": replace(told, device=replace(told.device, disk_free_bytes=1 << 30)),
        "no_model": replace(told, inference=replace(told.inference, engine="failed")),
        "journal_blocked": replace(told, mqtt=replace(told.mqtt, journal_can_write=False)),
    }[type]


@pytest.mark.parametrize("type", [rule.type for rule in RULES])
def test_each_alarm_is_raised_for_its_reason_and_cleared_after_it(world: World, type: str) -> None:
    for _ in range(5):
        world.see(bad(type))
    assert world.alarms.raised == (type,)
    for _ in range(5):
        world.see(calm())
    assert world.told == [(type, True), (type, False)]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.type)
def test_what_is_over_soon_is_no_alarm_unless_it_is_raised_at_once(world: World, rule: object) -> None:
    type, at_once = rule.type, rule.at_once  # type: ignore[attr-defined]
    world.see(calm())
    for _ in range(5):
        world.see(bad(type))
        world.see(calm())
    assert world.told == ([(type, True)] if at_once else [])


def test_within_the_dead_band_it_stays_as_it_is(world: World) -> None:
    for _ in range(10):
        world.see(at(79.0))
    assert world.told == []
    for celsius in (80.0, 81.0, 80.0, 80.5):
        world.see(at(celsius))
    for celsius in (79.0, 76.0, 75.0) * 5:
        world.see(at(celsius))
    assert world.alarms.raised == ("too_hot",)
    for _ in range(4):
        world.see(at(74.9))
    assert not world.alarms.raised


def test_a_value_that_wavers_about_a_bound_raises_nothing(world: World) -> None:
    for _ in range(20):
        world.see(at(80.1))
        world.see(at(79.9))
    assert world.told == []


def test_what_is_not_known_changes_nothing(world: World, snapshot: Snapshot) -> None:
    nothing = replace(snapshot, device=replace(snapshot.device, disk_free_bytes=None))
    for _ in range(5):
        world.see(nothing)
    assert world.told == []
    for _ in range(5):
        world.see(bad("undervoltage"))
    for _ in range(5):
        world.see(nothing)
    assert world.alarms.raised == ("undervoltage",)


def test_while_memory_is_a_little_short_the_alarm_stays_as_it_is(world: World) -> None:
    for _ in range(5):
        world.see(short("warn"))
    assert world.told == []
    for _ in range(5):
        world.see(short("shed"))
    for _ in range(5):
        world.see(short("warn"))
    assert world.alarms.raised == ("low_memory",)


def test_what_is_noted_is_raised_once_and_ends_when_it_is_not_noted_any_more(world: World) -> None:
    assert world.alarms.note(DUPLICATE_ID)
    world.see(calm(), NOTED_SECONDS / 2)
    assert not world.alarms.note(DUPLICATE_ID)
    world.see(calm(), NOTED_SECONDS)
    assert world.alarms.raised == (DUPLICATE_ID,)
    world.see(calm(), 1.0)
    assert world.told == [(DUPLICATE_ID, True), (DUPLICATE_ID, False)]


def test_every_alarm_has_one_name() -> None:
    assert len(set(TYPES)) == len(TYPES) == len(RULES) + 1
