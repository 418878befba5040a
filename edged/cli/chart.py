"""Charts of figures over time, in characters."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

BLOCKS = "▁▂▃▄▅▆▇█"
_PLAIN = ".:-=+*#@"
ROWS = 4
_LEAST_WIDTH, _MOST_WIDTH = 40, 160
_MARGIN = 10  # columns for the scale


class Chart(NamedTuple):
    """What is drawn.

    Attributes:
        title: what it shows, with its unit.
        first: the moment of the first value.
        last: the moment of the last one.
        values: one a minute; None: not known.
    """

    title: str
    first: str
    last: str
    values: Sequence[float | None]


def width() -> int:
    """Return how many columns there are to draw in."""
    return min(max(shutil.get_terminal_size().columns, _LEAST_WIDTH), _MOST_WIDTH)


def draw(charts: Sequence[Chart], *, width: int, blocks: bool) -> Iterator[str]:
    """Yield the lines of charts, one below the other.

    Args:
        charts: what is drawn.
        width: in columns.
        blocks: whether the output can show block characters.
    """
    for number, chart in enumerate(charts):
        if number:
            yield ""
        yield from _lines(chart, width - _MARGIN, BLOCKS if blocks else _PLAIN)


def condensed(values: Sequence[float | None], columns: int) -> list[float | None]:
    """Return the mean of the known values for each column; fewer values than columns stay as they are."""
    if len(values) <= columns:
        return list(values)
    found: list[float | None] = []
    for column in range(columns):
        begin, end = column * len(values) // columns, (column + 1) * len(values) // columns
        known = [value for value in values[begin:end] if value is not None]
        found.append(sum(known) / len(known) if known else None)
    return found


def span(values: Sequence[float | None]) -> tuple[float, float] | None:
    """Return the least and the greatest of the known values, never the same; None: nothing is known."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high = min(known), max(known)
    return (low, high) if high > low else (low, low + (abs(low) * 0.1 or 1.0))


def sparkline(values: Sequence[float | None], columns: int, low: float, high: float, *, blocks: bool) -> str:
    """Return the newest values in one line, the last one at its right end; unknown ones are blank.

    Args:
        values: what is drawn, a column each.
        columns: how many of them.
        low: has the lowest mark, with all that is below.
        high: above `low`; has the highest mark, with all that is above.
        blocks: whether the output can show block characters.
    """
    marks = BLOCKS if blocks else _PLAIN
    cells = (
        " "
        if value is None
        else marks[min(max(int((value - low) / (high - low) * len(marks)), 0), len(marks) - 1)]
        for value in values[-columns:]
    )
    return "".join(cells).rjust(columns)


def can_draw() -> bool:
    """Say whether stdout can show the characters that charts are drawn with."""
    try:
        BLOCKS.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def label(value: float) -> str:
    """Return a value with the digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def _lines(chart: Chart, columns: int, marks: str) -> Iterator[str]:
    values = condensed(chart.values, columns)
    bounds = span(values)
    if bounds is None:
        yield f"{chart.title}: not known here"
        return
    low, high = bounds
    newest = next((value for value in reversed(chart.values) if value is not None), low)
    yield f"{chart.title} (now {label(newest)})"
    steps = ROWS * len(marks)
    heights = [
        None if value is None else 1 + round((value - low) / (high - low) * (steps - 1)) for value in values
    ]
    for row in reversed(range(ROWS)):
        scale = label(high) if row == ROWS - 1 else label(low) if row == 0 else ""
        cells = (_cell(height, row * len(marks), marks) for height in heights)
        yield f"{scale:>{_MARGIN - 2}} {''.join(cells)}".rstrip()
    gap = max(1, len(values) - len(chart.first) - len(chart.last))
    yield f"{'':{_MARGIN - 1}}{chart.first}{' ' * gap}{chart.last}"


def _cell(height: int | None, below: int, marks: str) -> str:
    if height is None or height <= below:
        return " "
    return marks[min(height - below, len(marks)) - 1]
