"""What topics make of a fleet: by tables, and by properties over what may come in any order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.cli.fleet_inventory import Inventory, Row, Selection, counts

NOON = 1_795_262_400.0  # 2026-11-21T12:00:00Z


def status(session: str, state: str = "online", phase: str = "", *, at: int = 0, right: bool = True) -> Any:
    return {
        "state": state,
        "phase": phase or ("ready" if state == "online" else "lost"),
        "session": session,
        "reason": None if state == "online" else "the connection broke",
        "time": f"2026-11-21T12:{at // 60:02}:{at % 60:02}.000Z",
        "clock_synchronised": right,
    }


class Reader:
    """An inventory beside a clock that stands at noon until it is moved."""

    def __init__(self) -> None:
        self.inventory = Inventory("edged", 60)
        self.now = 1000.0

    def hear(self, device: str, kind: str, fields: Any, *, retained: bool = False) -> None:
        payload = b"" if fields is None else json.dumps(fields).encode()
        self.inventory.take(
            f"edged/v1/{device}/{kind}",
            payload,
            retained=retained,
            now=self.now,
            wall=NOON + self.now - 1000,
        )

    def row(self, selection: Selection | None = None) -> Row:
        [row] = self.inventory.rows(self.now, selection)
        return row

    @property
    def state(self) -> str:
        return self.row().state


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.mark.parametrize(
    ("known", "new", "retained", "state"),
    [
        ("aa-1", status("aa-1", "offline"), False, "dead"),  # its own will
        ("aa-1", status("aa-1", "offline", "stopped"), False, "stopped"),
        ("aa-2", status("aa-1", "offline"), False, "online"),  # the late will of an earlier connection
        ("aa-2", status("aa-1", "offline"), True, "online"),
        ("aa-2", status("aa-10", "offline"), False, "dead"),  # the beginning of which was missed
        ("bb-1", status("aa-9", "offline", at=-0), False, "online"),  # of an earlier process
        ("bb-1", status("aa-9", "offline", at=90), False, "dead"),  # of a later one, by clocks that are right
        ("bb-1", status("aa-9", "offline", at=90, right=False), False, "online"),
        ("bb-1", status("aa-9", "offline", at=90, right=False), True, "dead"),  # what the broker keeps
        ("odd", status("other", "offline"), False, "online"),
    ],
)
def test_a_will_is_believed_unless_it_is_an_old_ones(
    reader: Reader, known: str, new: Any, retained: bool, state: str
) -> None:
    reader.hear("pi", "status", status(known, at=30))
    reader.hear("pi", "status", new, retained=retained)
    assert reader.state == state


sessions = st.lists(st.sampled_from(["online", "die", "late"]), max_size=30)


@given(sessions)
def test_whatever_wills_come_late_the_last_connection_decides(steps: list[str]) -> None:
    reader = Reader()
    reader.hear("pi", "status", status("aa-0"))
    connection, lives = 0, True
    for step in steps:
        match step:
            case "online":
                connection, lives = connection + 1, True
                reader.hear("pi", "status", status(f"aa-{connection}"))
            case "die":
                lives = False
                reader.hear("pi", "status", status(f"aa-{connection}", "offline"))
            case "late" if connection:
                reader.hear("pi", "status", status(f"aa-{connection - 1}", "offline"))
    assert reader.state == ("online" if lives else "dead")


@given(st.text(max_size=40), st.binary(max_size=60), st.booleans())
def test_no_topic_and_no_payload_ends_the_reading(topic: str, payload: bytes, retained: bool) -> None:
    reader = Reader()
    for kind in ("status", "info", "health", "telemetry/thermal", topic):
        for body in (
            payload,
            b"[]",
            b'{"state":1,"session":[],"time":7}',
            b'{"model":3,"capabilities":null}',
        ):
            place = f"edged/v1/pi/{kind}"
            reader.inventory.take(place, body, retained=retained, now=reader.now, wall=NOON)
    for row in reader.inventory.rows(reader.now):
        assert row.state == "unknown"
        assert row.device.model is None


def test_who_says_nothing_for_three_intervals_is_stale_until_it_speaks(reader: Reader) -> None:
    reader.hear("pi", "status", status("aa-1"))
    reader.now += 180
    assert reader.state == "online"
    reader.now += 1
    assert reader.state == "stale"
    reader.hear("pi", "telemetry/thermal", {"celsius": 51.5})
    assert reader.state == "online"
    assert reader.row().device.celsius == 51.5


def test_a_device_that_says_its_interval_is_measured_by_it(reader: Reader) -> None:
    reader.hear("pi", "status", status("aa-1"))
    reader.hear("pi", "info", {"capabilities": {"telemetry_interval_seconds": 10}})
    reader.now += 31
    assert reader.state == "stale"


@pytest.mark.parametrize(("right", "state"), [(True, "stale"), (False, "online")])
def test_what_the_broker_keeps_is_as_old_as_a_right_clock_says(
    reader: Reader, right: bool, state: str
) -> None:
    reader.now += 600  # ten past noon
    reader.hear("pi", "status", status("aa-1", right=right), retained=True)
    reader.hear("pi", "health", status("", at=300, right=right), retained=True)
    assert reader.state == state
    reader.hear("pi", "health", status("", at=599), retained=True)
    assert reader.state == "online"


def test_a_dead_device_is_not_stale_and_what_comes_late_of_it_does_not_raise_it(reader: Reader) -> None:
    reader.hear("pi", "status", status("aa-1"))
    reader.hear("pi", "status", status("aa-1", "offline"))
    reader.hear("pi", "health", {"phase": "ready"})
    reader.now += 9999
    assert reader.state == "dead"


def test_a_device_that_is_forgotten_at_the_broker_is_gone(reader: Reader) -> None:
    for kind in ("status", "info", "health"):
        reader.hear("pi", kind, status("aa-1"))
    reader.hear("pi", "status", None)
    assert reader.state == "unknown"
    reader.hear("pi", "info", None)
    assert reader.inventory.rows(reader.now) == []


def fill(reader: Reader) -> None:
    """Put a device of each trouble into the fleet."""
    for name in ("silent", "calm", "loud", "slow", "gone", "ended", "new", "bare"):
        reader.hear(name, "info", {"model": {"name": f"model-{name}"}, "capabilities": {"pool": name[0]}})
    reader.hear("silent", "status", status("aa-1"))
    reader.now += 500
    for name in ("calm", "loud", "slow", "gone", "new"):
        phase = {"slow": "degraded", "new": "starting"}.get(name, "ready")
        reader.hear(name, "status", status("aa-1", phase=phase))
    reader.hear("loud", "alarm/low_disk", {"type": "low_disk"})
    reader.hear("calm", "alarm/low_disk", {"type": "low_disk"})
    reader.hear("calm", "alarm/low_disk", None)
    reader.hear("gone", "status", status("aa-1", "offline"))
    reader.hear("ended", "status", status("aa-1", "offline", "stopped"))


def test_the_worst_troubles_stand_first(reader: Reader) -> None:
    fill(reader)
    rows = reader.inventory.rows(reader.now)
    order = [(row.device.id, row.trouble.name) for row in rows]
    assert order == [
        ("gone", "DEAD"),
        ("silent", "STALE"),
        ("bare", "UNKNOWN"),
        ("loud", "ALARMED"),
        ("slow", "DEGRADED"),
        ("new", "CHANGING"),
        ("ended", "STOPPED"),
        ("calm", "NONE"),
    ]
    assert counts(rows) == {"online": 4, "stale": 1, "dead": 1, "stopped": 1, "unknown": 1}
    assert {row.device.id: row.device.reason(row.state) for row in rows} == {
        "gone": "the connection broke",
        "silent": "it says nothing any more",
        "bare": "it has no status",
        "loud": "low_disk",
        "slow": "",
        "new": "",
        "ended": "",
        "calm": "",
    }


@pytest.mark.parametrize(
    ("selection", "found"),
    [
        (Selection(), {"silent", "calm", "loud", "slow", "gone", "ended", "new", "bare"}),
        (Selection(ids=("s*", "loud")), {"silent", "slow", "loud"}),
        (Selection(pools=("s", "b")), {"silent", "slow", "bare"}),
        (Selection(model="*-g*"), {"gone"}),
        (Selection(states=("dead", "stale")), {"gone", "silent"}),
        (Selection(ids=("s*",), states=("online",)), {"slow"}),
        (Selection(ids=("S*",)), set()),
    ],
)
def test_a_selection_takes_what_fits_all_of_it(reader: Reader, selection: Selection, found: set[str]) -> None:
    fill(reader)
    assert {row.device.id for row in reader.inventory.rows(reader.now, selection)} == found


def test_levels_that_are_not_calm_are_told(reader: Reader) -> None:
    reader.hear("pi", "status", status("aa-1"))
    reader.hear("pi", "health", {"watch": {"memory_level": "shed", "thermal_state": "cool"}})
    assert reader.row().device.reason("online") == "memory shed"
    reader.hear("pi", "health", {"watch": {"memory_level": "ok", "thermal_state": "too_hot"}})
    assert reader.row().device.reason("online") == "heat too_hot"
