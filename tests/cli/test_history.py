"""`edgectl history` draws what was, in a terminal, in ASCII and as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edged.cli.history import FIGURES, SHOWN, _growth
from edged.cli.parser import HISTORY_FIGURES
from edged.telemetry.history import COLUMNS
from tests.cli.conftest import Exchange, Run, SmallDaemon

START = 1_800_000_000.0
NEEDED = ["time", "clock_synchronised", *COLUMNS]


def row(minute: int, **values: Any) -> list[Any]:
    """Return a row of the history; what isn't given is not known."""
    known = {"time": START + 60 * minute, "clock_synchronised": True}
    known |= {name.replace("__", "."): value for name, value in values.items()}
    return [known.get(column) for column in NEEDED]


def serve(daemon: SmallDaemon, *pages: list[list[Any]]) -> None:
    """Have the small daemon serve these pages, the newest first."""

    def route(number: int, rows: list[list[Any]]) -> None:
        page = {"columns": NEEDED, "rows": rows, "page": number, "pages": len(pages), "total": 0}
        daemon.routes[f"GET /v1/history?page={number}"] = lambda exchange: exchange.reply(page)

    for number, rows in enumerate(pages, 1):
        route(number, rows)


def warm(first: int, count: int) -> list[list[Any]]:
    return [row(minute, thermal__celsius=40.0 + minute) for minute in range(first, first + count)]


def test_a_chart_has_its_scale_its_times_and_the_newest_value(daemon: SmallDaemon, edgectl: Run) -> None:
    serve(daemon, warm(0, 20))
    done = edgectl("history", "--figure", "temperature", TZ="UTC")
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0
    assert lines[0] == "temperature, °C (now 59.0)"
    assert lines[1].lstrip().startswith("59.0") and lines[1].endswith("█")
    assert lines[4].lstrip().startswith("40.0 ▁")
    assert lines[5].split() == ["Fri", "08:00", "Fri", "08:19"]
    assert len(lines) == 6


def test_without_unicode_the_same_in_ascii(daemon: SmallDaemon, edgectl: Run) -> None:
    serve(daemon, warm(0, 20))
    done = edgectl("history", "--figure", "temperature", PYTHONIOENCODING="ascii")
    text = done.stdout.decode("ascii")
    assert done.returncode == 0
    assert "@" in text


def test_pages_are_joined_and_only_as_many_read_as_are_needed(daemon: SmallDaemon, edgectl: Run) -> None:
    serve(daemon, warm(120, 60), warm(60, 60), warm(0, 60))
    told = json.loads(edgectl("history", "--json", "--hours", "2").stdout)
    assert told["columns"] == NEEDED
    assert [one[0] for one in told["rows"]] == [START + 60 * minute for minute in range(60, 180)]
    assert len(daemon.requests) == 2
    told = json.loads(edgectl("history", "--json", "--hours", "0.5").stdout)
    assert len(told["rows"]) == 30


def test_what_nobody_measures_is_said(daemon: SmallDaemon, edgectl: Run) -> None:
    serve(daemon, warm(0, 3))
    text = edgectl("history").stdout.decode()
    assert "memory available, MB: not known here" in text


def test_a_clock_that_was_not_right_is_marked(daemon: SmallDaemon, edgectl: Run) -> None:
    serve(daemon, [row(0, clock_synchronised=False, device__load1=1.0), row(1, device__load1=2.0)])
    text = edgectl("history", "--figure", "load", TZ="UTC").stdout.decode()
    assert "Fri 08:00?" in text
    assert "Fri 08:01?" not in text


def test_counts_become_rates_and_means(daemon: SmallDaemon, edgectl: Run) -> None:
    speed = "inference__tokens_per_second__"
    before = {"inference__answer_tokens_total": 0, f"{speed}sum": 10.0, f"{speed}count": 1}
    after = {"inference__answer_tokens_total": 600, f"{speed}sum": 70.0, f"{speed}count": 4}
    serve(daemon, [row(0, **before), row(2, **after)])
    text = edgectl("history", "--figure", "tokens", "--figure", "speed").stdout.decode()
    assert "tokens answered a minute (now 300)" in text
    assert "speed of an answer, tokens/s (now 20.0)" in text


def test_a_count_that_has_begun_anew_is_no_rate() -> None:
    assert _growth([5, 9, 0, 3], [0, 1, 2, 3]) == [None, 4, None, 3]
    assert _growth([5, None, 7, 8], [0, 1, 2, 2]) == [None, None, None, None]


def test_no_history_yet(daemon: SmallDaemon, edgectl: Run) -> None:
    serve(daemon, [])
    done = edgectl("history")
    assert done.returncode == 1
    assert b"after a minute" in done.stderr


def test_a_picture(daemon: SmallDaemon, edgectl: Run, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    rows = warm(0, 30)
    rows[10] = row(10)  # nothing was known
    serve(daemon, rows)
    file = tmp_path / "history.png"
    assert edgectl("history", "--png", str(file), "--figure", "temperature").returncode == 0
    with image.open(file) as picture:
        assert picture.format == "PNG"
        assert picture.size == (960, 180)
        assert len(picture.convert("RGB").getcolors(1 << 16)) > 3
    done = edgectl("history", "--png", str(tmp_path / "no" / "where.png"))
    assert done.returncode == 1
    assert b"can't be written" in done.stderr


def test_every_figure_is_of_a_column_that_is_kept() -> None:
    assert tuple(FIGURES) == HISTORY_FIGURES
    assert set(SHOWN) <= set(FIGURES)
    for figure in FIGURES.values():
        assert figure.column in COLUMNS
        assert figure.per in (None, "minute", *COLUMNS)


def silent(exchange: Exchange) -> None:
    exchange.refuse(403, "not_allowed", "no history is kept here (telemetry.history_hours = 0)")


def test_a_device_that_keeps_none(daemon: SmallDaemon, edgectl: Run) -> None:
    daemon.routes["GET /v1/history?page=1"] = silent
    done = edgectl("history")
    assert done.returncode == 4
    assert b"telemetry.history_hours" in done.stderr
