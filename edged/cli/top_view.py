"""What `edgectl top` shows: gauges, what the watches say, and the requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from edged.cli.chart import sparkline
from edged.cli.fields import number, text
from edged.cli.output import ago, cells, duration
from edged.cli.screen import Line, lost
from edged.cli.top_gauges import Gauge, gauges
from edged.cli.top_source import Fields, Look
from edged.cli.top_watches import watches

_NAME, _VALUE = 9, 9  # columns
_LEAST_SPARK, _MOST_KEPT = 6, 240
_HEADS = (" CLIENT", "WAY", "STATE", "TOKENS", "AGE", "PROMPT", "ID")
_WIDTHS = (12, 6, 8, 6, 4, 6)
_RIGHT = frozenset({3, 4, 5})
_LEAST_ROWS = 3
_KEYS = "[q]uit  [k] cancels  arrows select"
_Key = tuple[str, str, str]


class View:
    """The picture, which request is selected, and the values of the last looks.

    Attributes:
        notice: what is to be told of the last key; gone with the next one.

    Args:
        blocks: whether the terminal can show block characters.
    """

    def __init__(self, *, blocks: bool) -> None:
        self.notice = ""
        self._blocks = blocks
        self._look: Look | None = None
        self._problem = ""
        self._tokens: tuple[float, float] | None = None  # how many, and when
        self._fastest = 0.0
        self._kept: dict[str, deque[float | None]] = {}
        self._gauges: list[Gauge] = []
        self._selected: _Key | None = None
        self._top = 0

    @property
    def selected(self) -> Fields | None:
        """The request that is selected, if one is."""
        return next((request for request in self._requests if _key(request) == self._selected), None)

    def take(self, look: Look, now: float) -> None:
        """Take what the daemon said at a moment of the monotonic clock."""
        had = bool(self._requests)
        self._look, self._problem = look, ""
        speed = self._speed(look, now)
        self._fastest = max(self._fastest, speed or 0.0)
        self._gauges = gauges(look, speed, self._fastest)
        for gauge in self._gauges:
            self._kept.setdefault(gauge.name, deque(maxlen=_MOST_KEPT)).append(gauge.value)
        # One that has ended is not followed by its neighbour: a key that is pressed just then would hit that.
        if not had and look.requests:
            self._selected = _key(look.requests[0])

    def lose(self, problem: str) -> None:
        """Note that the daemon said nothing, and why."""
        self._problem = problem
        self._tokens = None
        for values in self._kept.values():
            values.append(None)

    def press(self, key: str) -> None:
        """Obey a key that selects."""
        self.notice = ""
        keys = [_key(request) for request in self._requests]
        if not keys:
            return
        place = keys.index(self._selected) if self._selected in keys else None
        match key:
            case "down" | "j":
                place = 0 if place is None else min(place + 1, len(keys) - 1)
            case "up":
                place = len(keys) - 1 if place is None else max(place - 1, 0)
            case "home" | "g":
                place = 0
            case "end" | "G":
                place = len(keys) - 1
        self._selected = None if place is None else keys[place]

    def lines(self, size: tuple[int, int]) -> list[Line]:
        """Return the lines of the screen, of so many columns and lines."""
        columns, height = size
        look = self._look
        if look is None:
            return []
        head = [lost(self._problem) if self._problem else (_title(look), "1"), *self._drawn(columns)]
        room = height - len(head) - 2  # for a header and the foot
        watched = watches(look, columns)[: max(1, room - _LEAST_ROWS)]
        rows = self._rows(columns, max(0, room - len(watched)))
        head += [*watched, (_row(_HEADS, columns), "7"), *rows]
        return [*head[: height - 1], (self._foot(look, columns), "7")]

    @property
    def _requests(self) -> Sequence[Fields]:
        return self._look.requests if self._look else ()

    def _speed(self, look: Look, now: float) -> float | None:
        """Return how many tokens a second were produced since the last look."""
        tokens, before = number(look.telemetry, "inference", "answer_tokens_total"), self._tokens
        self._tokens = None if tokens is None else (tokens, now)
        if before is None or tokens is None or tokens < before[0] or now <= before[1]:
            return None
        return (tokens - before[0]) / (now - before[1])

    def _drawn(self, columns: int) -> list[Line]:
        limit = max(len(gauge.limit) for gauge in self._gauges)
        room = max(_LEAST_SPARK, columns - _NAME - _VALUE - 2 - limit)
        lines = []
        for gauge in self._gauges:
            values = list(self._kept[gauge.name])
            drawn = sparkline(values, room, gauge.low, gauge.high, blocks=self._blocks)
            lines.append((f"{gauge.name:<{_NAME}}{gauge.said:>{_VALUE}} {drawn} {gauge.limit}", gauge.style))
        return lines

    def _rows(self, columns: int, room: int) -> list[Line]:
        requests = self._requests
        place = next((n for n, request in enumerate(requests) if _key(request) == self._selected), self._top)
        self._top = min(max(self._top, place - room + 1), place, max(0, len(requests) - room))
        lines = [
            (_cells(request, columns, is_selected=True), "7")
            if _key(request) == self._selected
            else (_cells(request, columns, is_selected=False), "")
            for request in requests[self._top : self._top + room]
        ]
        return lines + [("", "")] * (room - len(lines))

    def _foot(self, look: Look, columns: int) -> str:
        if self.notice:
            return self.notice.ljust(columns)
        count = f"{look.total} request{'' if look.total == 1 else 's'}"
        more = f" (the oldest {len(look.requests)} shown)" if look.total > len(look.requests) else ""
        whose = "" if look.everybodys else " of yours; sudo shows all clients'"
        return f"{_KEYS}  {count}{more}{whose}".ljust(columns)


def _title(look: Look) -> str:
    status = look.status
    up = number(status, "uptime_seconds")
    said = f"edged {text(status, 'version')}, {text(status, 'phase')}"
    since = f", up {duration(up)}" if up is not None else ""
    return f"{text(status, 'device_id')}  {said}{since}  {text(status, 'model', 'name') or 'no model'}"


def _key(request: Fields) -> _Key:
    return str(request["way"]), str(request["client"]), str(request["id"])


def _cells(request: Fields, columns: int, *, is_selected: bool) -> str:
    tokens, age, prompt = (number(request, name) for name in ("tokens", "age_seconds", "prompt_tokens"))
    return _row(
        (
            f"{'>' if is_selected else ' '}{request['client']}",
            str(request["way"]),
            str(request["state"]),
            f"{tokens or 0:.0f}",
            ago(age or 0.0),
            "-" if prompt is None else f"{prompt:.0f}",
            str(request["id"]),
        ),
        columns,
    )


def _row(texts: Sequence[str], columns: int) -> str:
    return cells(texts, _WIDTHS, columns, right=_RIGHT)
