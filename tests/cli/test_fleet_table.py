"""The table of fleet watch, without a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.cli.fleet_device import Device
from edged.cli.fleet_inventory import Row, Selection
from edged.cli.fleet_table import Table
from edged.cli.output import ago
from edged.cli.screen import keys_of

NOW = 1000.0
SIZE = (80, 24)


def rows(count: int) -> list[Row]:
    """Devices dev-000 …, each hotter than the one before; every tenth is dead."""
    made = []
    for number in range(count):
        dead = number % 10 == 9
        device = Device(
            f"dev-{number:03}",
            {"state": "offline" if dead else "online", "phase": "lost" if dead else "ready", "reason": None},
            {"model": {"name": "qwen2.5-0.5b-instruct-q4_0"}},
            {"requests": {"running": 1, "queued": number}},
            {"celsius": 40 + number / 2},
            heard=NOW - number,
        )
        state = device.state(NOW)
        made.append(Row(device, state, device.trouble(state)))
    return made


def shown(table: Table, count: int = 40, size: tuple[int, int] = SIZE) -> list[str]:
    return [text for text, _ in table.lines(rows(count), NOW, size, "")]


def ids(lines: list[str]) -> list[str]:
    return [line.split()[1] for line in lines[2:-1] if line]


def test_the_whole_screen_is_filled_and_the_worst_stand_first() -> None:
    lines = shown(Table(Selection()))
    assert len(lines) == 24
    assert lines[0] == "40 devices: 36 online, 4 dead"
    assert lines[2].split()[:7] == ["dead", "dev-009", "lost", "qwen2.5-0…", "44", "10", "9s"]
    assert ids(lines)[:6] == ["dev-009", "dev-019", "dev-029", "dev-039", "dev-000", "dev-001"]
    assert lines[-1].startswith("1-21 of 40  [s]ort: trouble  [f]ilter: all")


@pytest.mark.parametrize(
    ("keys", "first"),
    [
        ("down", "dev-019"),
        ("j j k", "dev-019"),
        ("page-down", "dev-016"),
        ("end", "dev-016"),
        ("end page-up home", "dev-009"),
        ("up", "dev-009"),
        ("s", "dev-000"),  # by id
        ("s s", "dev-039"),  # by heat
        ("s s s s", "dev-039"),  # by silence
        ("f", "dev-009"),  # who is not online
        ("f f", "dev-000"),  # who is
        ("/ 3 9 enter", "dev-039"),
        ("/ 3 9 backspace 0 enter", "dev-030"),
        ("/ 3 9 enter escape", "dev-009"),
        ("/ q escape", "dev-009"),
        ("x", "dev-009"),
    ],
)
def test_keys_move_sort_and_filter(keys: str, first: str) -> None:
    table = Table(Selection())
    shown(table)
    for key in keys.split():
        assert table.press(key.replace("-", " "))
        lines = shown(table)
    assert ids(lines)[0] == first


def test_q_quits_but_not_while_an_id_is_typed() -> None:
    table = Table(Selection())
    assert not table.press("q")
    table.press("/")
    assert table.press("q")
    assert shown(table)[-1] == "id with: q_"


@given(st.integers(1, 200), st.integers(1, 60), st.integers(0, 60), st.lists(st.sampled_from("sfjkgG /")))
def test_any_size_is_filled_and_never_overrun(columns: int, height: int, count: int, keys: list[str]) -> None:
    table = Table(Selection())
    for key in ["", *keys]:
        table.press(key)
        lines = shown(table, count, (columns, height))
        assert len(lines) == max(height, 4)
        assert all(len(line) <= columns for line in lines[1:-1])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86_400, "1d"), (1e9, "999d")],
)
def test_times_are_short(seconds: float, text: str) -> None:
    assert ago(seconds) == text


def test_keys_have_names() -> None:
    sent = "q\x1b[A\x1bOB\x1b[5~\x1b[6~\x1b[1~\x1b[F\x1b\r\x7f\x1b[1;5C/"
    named = ["q", "up", "down", "page up", "page down", "home", "end", "escape", "enter", "backspace", "/"]
    assert list(keys_of(sent)) == named
