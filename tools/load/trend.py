"""Memory over time: its slope, with an interval, and a picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

WARM_UP_SHARE = 1 / 6
"""Of the time: caches fill, and allocators come to their peak."""
BLOCKS = 30
"""Samples that follow each other are alike: the interval is that of so many means in turn."""
_T = 2.05  # Student's, of 28 degrees of freedom, for 95 %
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 900, 320, 70, 40, 40
_COLOURS = ("#0969da", "#cf222e", "#1a7f37", "#9a6700")


@dataclass(frozen=True, slots=True)
class Slope:
    """How fast a figure grows.

    Attributes:
        per_hour: in its unit.
        margin: half of the interval that holds it in 95 of 100 cases.
    """

    per_hour: float
    margin: float


def slope(samples: Sequence[tuple[float, float]]) -> Slope | None:
    """Return the slope of samples (seconds, value) after the warm-up; None: there are too few."""
    end = samples[-1][0] if samples else 0.0
    kept = [sample for sample in samples if sample[0] >= end * WARM_UP_SHARE]
    if len(kept) < 2 * BLOCKS:
        return None
    edges = [round(number * len(kept) / BLOCKS) for number in range(BLOCKS + 1)]
    blocks = [kept[low:high] for low, high in pairwise(edges)]
    hours = [statistics.fmean(at for at, _ in block) / 3600 for block in blocks]
    values = [statistics.fmean(value for _, value in block) for block in blocks]
    found = statistics.linear_regression(hours, values)
    rest = [v - (found.intercept + found.slope * h) for h, v in zip(hours, values, strict=True)]
    middle = statistics.fmean(hours)
    spread = sum((hour - middle) ** 2 for hour in hours)
    error = math.sqrt(sum(r * r for r in rest) / (BLOCKS - 2) / spread)
    return Slope(found.slope, _T * error)


def chart(title: str, lines: dict[str, Sequence[tuple[float, float]]]) -> str:
    """Return a picture of lines of (seconds, bytes) as SVG."""
    longest = max((at for line in lines.values() for at, _ in line), default=1.0) or 1.0
    most = max((value for line in lines.values() for _, value in line), default=1.0) * 1.1

    def x(seconds: float) -> float:
        return _LEFT + seconds / longest * (_WIDTH - _LEFT - 20)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / most * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="10" y="18" font-size="14" font-weight="bold">{title}</text>',
    ]
    for quarter in range(5):
        value, seconds = most * quarter / 4, longest * quarter / 4
        across, down = x(seconds), y(value)
        parts += [
            f'<line x1="{_LEFT}" y1="{down:.1f}" x2="{_WIDTH - 20}" y2="{down:.1f}" stroke="#d0d7de"/>',
            f'<text x="{_LEFT - 8}" y="{down + 4:.1f}" text-anchor="end">{value / 1e6:.0f} MB</text>',
            f'<text x="{across:.1f}" y="{_HEIGHT - 15}" text-anchor="middle">{seconds / 60:.0f} min</text>',
        ]
    for index, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in line)
        parts += [
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>',
            f'<text x="{_LEFT + 10 + 150 * index}" y="{_TOP - 6}" fill="{colour}">{name}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
