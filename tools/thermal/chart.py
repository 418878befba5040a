"""A small writer of line charts as SVG, one above the other with a common axis of minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 860, 260  # of one chart, in pixels
_LEFT, _RIGHT, _TOP, _BETWEEN = 60, 20, 64, 46
_COLOURS = ("#1b6ca8", "#c8553d", "#9a9a9a")
_TICKS = 5


@dataclass(frozen=True, slots=True)
class Curve:
    """A line: its name, the minutes and the values."""

    name: str
    minutes: Sequence[float]
    values: Sequence[float]


def chart(title: str, panels: Sequence[tuple[str, Sequence[Curve], float | None]]) -> str:
    """Return the SVG of charts, each a unit, its curves and a value that a dashed line marks."""
    height = _TOP + len(panels) * (_HEIGHT + _BETWEEN)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
        f'height="{height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        _text(_LEFT, 22, title, "start", size=15),
    ]
    for index, curve in enumerate(panels[0][1]):
        x = _LEFT + 150 * index
        parts.append(f'<path d="M{x} 42h24" stroke="{_COLOURS[index]}" stroke-width="3"/>')
        parts.append(_text(x + 30, 46, curve.name, "start"))
    for index, (unit, curves, mark) in enumerate(panels):
        parts += _panel(_TOP + index * (_HEIGHT + _BETWEEN), unit, curves, mark)
    return "\n".join([*parts, "</svg>", ""])


def _panel(top: float, unit: str, curves: Sequence[Curve], mark: float | None) -> list[str]:
    values = [value for curve in curves for value in curve.values]
    low, high = min(0.0, *values) if mark is None else min(values), max(values) * 1.05
    last = max(minute for curve in curves for minute in curve.minutes)
    wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - 20

    def x(minute: float) -> float:
        return round(_LEFT + wide * minute / last, 1)

    def y(value: float) -> float:
        return round(top + tall * (1 - (value - low) / (high - low)), 1)

    parts = [f'<rect x="{_LEFT}" y="{top}" width="{wide}" height="{tall}" fill="none" stroke="#bbb"/>']
    for tick in range(_TICKS + 1):
        value, minute = low + (high - low) * tick / _TICKS, last * tick / _TICKS
        parts.append(_text(_LEFT - 6, y(value) + 4, f"{value:.0f}", "end"))
        parts.append(_text(x(minute), top + tall + 18, f"{minute:.0f} min", "middle"))
    parts.append(_text(_LEFT + 6, top + 16, unit, "start"))
    if mark is not None:
        parts.append(f'<path d="M{_LEFT} {y(mark)}h{wide}" stroke="#333" stroke-dasharray="6 4"/>')
    for index in reversed(range(len(curves))):
        points = zip(curves[index].minutes, curves[index].values, strict=True)
        line = " ".join(f"{x(minute)},{y(value)}" for minute, value in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{_COLOURS[index]}" stroke-width="2"/>')
    return parts


def _text(x: float, y: float, text: str, anchor: str, size: int = 13) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
