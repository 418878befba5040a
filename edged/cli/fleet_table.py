"""What fleet watch shows: a pure table of the rows in sight, and what keys do to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edged.cli.fleet_device import STATES, State, Trouble
from edged.cli.fleet_inventory import Row, Selection, counts
from edged.cli.output import ago, cells
from edged.cli.screen import Line

_HEAD_LINES, _FOOT_LINES = 2, 1
_LAST = 10**9
_STYLES: Mapping[Trouble, str] = {
    Trouble.DEAD: "31",
    Trouble.STALE: "35",
    Trouble.UNKNOWN: "35",
    Trouble.ALARMED: "33",
    Trouble.DEGRADED: "33",
    Trouble.CHANGING: "36",
    Trouble.STOPPED: "2",
}
_SHOWN: Sequence[tuple[str, tuple[State, ...]]] = (
    ("all", ()),
    ("not online", tuple(state for state in STATES if state != "online")),
    *((state, (state,)) for state in STATES),
)


def _descending(value: float | None) -> float:
    return float("inf") if value is None else -value


_SORTS: Mapping[str, Callable[[Row], Any]] = {
    "trouble": lambda row: row.trouble,
    "id": lambda row: 0,
    "heat": lambda row: _descending(row.device.celsius),
    "requests": lambda row: _descending(row.device.load),
    "silence": lambda row: row.device.heard or 0.0,
    "model": lambda row: row.device.model or "~",
}


class Table:
    """The view: which devices, in which order, from which row on.

    Args:
        selection: what the command line selects; the view's own filters narrow it.
    """

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._sort = 0
        self._shown = 0
        self._top = 0
        self._pattern = ""
        self._typing: str | None = None
        self._page = 1

    @property
    def selection(self) -> Selection:
        """Which devices the command line selects."""
        return self._selection

    def press(self, key: str) -> bool:
        """Obey a key; say whether the view goes on."""
        if self._typing is not None:
            self._type(key, self._typing)
            return True
        match key:
            case "q":
                return False
            case "s":
                self._sort, self._top = (self._sort + 1) % len(_SORTS), 0
            case "f":
                self._shown, self._top = (self._shown + 1) % len(_SHOWN), 0
            case "/":
                self._typing = ""
            case "escape":
                self._pattern, self._shown, self._top = "", 0, 0
            case "up" | "k":
                self._top -= 1
            case "down" | "j":
                self._top += 1
            case "page up":
                self._top -= self._page
            case "page down" | " ":
                self._top += self._page
            case "home" | "g":
                self._top = 0
            case "end" | "G":
                self._top = _LAST
        return True

    def lines(self, rows: Sequence[Row], now: float, size: tuple[int, int], notice: str) -> list[Line]:
        """Return the lines of the screen.

        Args:
            rows: the devices that the command line selects.
            now: the monotonic clock, in seconds.
            size: columns and lines.
            notice: what is to be said of the connection.
        """
        columns, height = size
        name, states = _SHOWN[self._shown]
        sort, key = list(_SORTS.items())[self._sort]
        view = Selection(ids=(f"*{self._pattern}*",) if self._pattern else (), states=states)
        chosen = sorted(filter(view.takes if view else None, rows), key=lambda row: (key(row), row.device.id))
        self._page = max(1, height - _HEAD_LINES - _FOOT_LINES)
        self._top = max(0, min(self._top, len(chosen) - self._page))
        seen = chosen[self._top : self._top + self._page]
        head = f"{len(rows)} devices: {', '.join(f'{n} {state}' for state, n in counts(rows).items() if n)}"
        lines = [(f"{head}{f'  {notice}' if notice else ''}", "1"), (_cells(_TITLES, columns), "7")]
        lines += [(_cells(_texts(row, now), columns), _STYLES.get(row.trouble, "")) for row in seen]
        lines += [("", "")] * (self._page - len(seen))
        if self._typing is not None:
            foot = f"id with: {self._typing}_"
        else:
            place = f"{self._top + 1}-{self._top + len(seen)} of {len(chosen)}" if seen else "none"
            only = f" /{self._pattern}" if self._pattern else ""
            foot = f"{place}  [s]ort: {sort}  [f]ilter: {name}  [/]id{only}  [q]uit"
        return [*lines, (foot, "7")]

    def _type(self, key: str, typed: str) -> None:
        match key:
            case "enter":
                self._pattern, self._typing, self._top = typed, None, 0
            case "escape":
                self._typing = None
            case "backspace":
                self._typing = typed[:-1]
            case _ if len(key) == 1 and key.isprintable():
                self._typing = typed + key


_TITLES = ("STATE", "DEVICE", "PHASE", "MODEL", "°C", "REQ", "SAID", "ALARMS OR REASON")
_WIDTHS = (7, 18, 8, 10, 3, 3, 4)
_ROOMY = 110  # columns from which ids and models have more room
_RIGHT = frozenset({4, 5, 6})


def _cells(texts: Sequence[str], columns: int) -> str:
    more = min(18, (columns - _ROOMY) // 2 + 10) if columns >= _ROOMY else 0
    widths = [width + (more if place in (1, 3) else 0) for place, width in enumerate(_WIDTHS)]
    return cells(texts, widths, columns, right=_RIGHT)


def _texts(row: Row, now: float) -> list[str]:
    device, state, _ = row
    celsius = device.celsius
    return [
        state,
        device.id,
        device.phase or "-",
        device.model or "-",
        "-" if celsius is None else f"{celsius:.0f}",
        "-" if device.load is None else str(device.load),
        "-" if device.heard is None else ago(now - device.heard),
        device.reason(state),
    ]
