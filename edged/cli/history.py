"""`edgectl history`: what the device did in the last hours, as charts in the terminal or in a picture."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from edged.cli import chart
from edged.cli.client import Daemon
from edged.cli.errors import CommandError, Exit
from edged.cli.output import print_json

Row = Sequence[Any]
Values = list[float | None]

MINUTE_SECONDS = 60


class Figure(NamedTuple):
    """A chart that can be drawn.

    Attributes:
        title: what it shows, with its unit.
        column: of the history.
        factor: from the column's unit to the title's.
        per: a column that counts: the figure is how much `column` grew, divided by how much this one did;
            "minute" stands for the time itself.
    """

    title: str
    column: str
    factor: float = 1.0
    per: str | None = None


FIGURES = {
    "temperature": Figure("temperature, °C", "thermal.celsius"),
    "duty": Figure("share of the time that may be computed, %", "thermal.duty_ratio", 100),
    "power": Figure("power, W", "power.watts"),
    "memory": Figure("memory available, MB", "memory.available_bytes", 1e-6),
    "engine": Figure("the engine's own memory, MB", "memory.engine_bytes", 1e-6),
    "load": Figure("load", "device.load1"),
    "queue": Figure("requests that wait", "inference.requests.queued"),
    "running": Figure("requests that are computed", "inference.requests.running"),
    "answers": Figure("answers a minute", "inference.requests.done_total", per="minute"),
    "tokens": Figure("tokens answered a minute", "inference.answer_tokens_total", per="minute"),
    "speed": Figure(
        "speed of an answer, tokens/s",
        "inference.tokens_per_second.sum",
        per="inference.tokens_per_second.count",
    ),
    "first_token": Figure(
        "time to first token, s",
        "inference.first_token_seconds.sum",
        per="inference.first_token_seconds.count",
    ),
}
SHOWN = ("temperature", "memory", "tokens", "speed", "queue")
"""Those that are drawn where none is named."""


def run(args: Namespace) -> Exit:
    """Draw the history, or print all of it as JSON."""
    columns, rows = _read(Daemon.of(args), args.hours)
    if args.json:
        print_json({"columns": columns, "rows": rows})
        return Exit.OK
    if not rows:
        raise CommandError("there is no history yet: the first figures are kept after a minute", Exit.FAILED)
    charts = [_chart(FIGURES[name], columns, rows) for name in args.figure or SHOWN]
    if args.png:
        from edged.cli.picture import draw

        draw(charts, args.png)
        return Exit.OK
    for text in chart.draw(charts, width=chart.width(), blocks=chart.can_draw()):
        print(text)
    return Exit.OK


def _read(daemon: Daemon, hours: float) -> tuple[list[str], list[Row]]:
    """Return the columns, and the rows of so many hours back from the newest."""
    rows: list[Row] = []
    page, pages = 1, 1
    while page <= pages and len(rows) < hours * 60:
        found = daemon.get(f"/v1/history?page={page}")
        rows = [*found["rows"], *rows]
        page, pages = page + 1, found["pages"]
    newest = rows[-1][0] if rows else 0.0
    return found["columns"], [row for row in rows if newest - row[0] < hours * 3600]


def _chart(figure: Figure, columns: list[str], rows: Sequence[Row]) -> chart.Chart:
    values = _column(figure.column, columns, rows)
    if figure.per == "minute":
        values = _growth(values, [row[0] / MINUTE_SECONDS for row in rows])
    elif figure.per is not None:
        values = _growth(values, _column(figure.per, columns, rows))
    scaled = [value * figure.factor if value is not None else None for value in values]
    return chart.Chart(figure.title, _moment(rows[0]), _moment(rows[-1]), scaled)


def _column(name: str, columns: list[str], rows: Sequence[Row]) -> Values:
    if name not in columns:
        return [None] * len(rows)
    place = columns.index(name)
    return [row[place] for row in rows]


def _growth(values: Values, by: Values) -> Values:
    """Return from row to row how much a count grew for each unit by which the other one did.

    A count that falls has begun anew, with the daemon: nothing is known of that row.
    """
    found: Values = [None]
    for place in range(1, len(values)):
        before, now, least, most = values[place - 1], values[place], by[place - 1], by[place]
        known = None not in (before, now, least, most)
        grown = known and most > least and now >= before  # type: ignore[operator]
        found.append((now - before) / (most - least) if grown else None)  # type: ignore[operator]
    return found


def _moment(row: Row) -> str:
    text = datetime.fromtimestamp(row[0]).strftime("%a %H:%M")
    return text if row[1] else f"{text}?"
