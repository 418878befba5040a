"""A chart of ratios with their intervals, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from tools.bench.bars import Outcome

_COLOURS = {"met": "#1a7f37", "missed": "#cf222e", "unproven": "#9a6700"}
_LABEL, _WIDTH, _ROW, _TOP, _EDGE = 330, 520, 20, 46, 20
_TICKS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)


def chart(title: str, outcomes: Sequence[Outcome]) -> str:
    """Return a picture of all ratios: a dot with its interval, and a mark where the bar is."""
    rows = [outcome for outcome in outcomes if outcome.bar.kind == "ratio"]
    ends = [end for row in rows for end in (row.compared.low, row.compared.high, row.bar.bar)]
    low, high = math.log(min([*ends, 0.9]) * 0.95), math.log(max([*ends, 1.1]) * 1.05)

    def x(ratio: float) -> float:
        return _LABEL + (math.log(ratio) - low) / (high - low) * _WIDTH

    height = _TOP + _ROW * len(rows) + _EDGE
    width = _LABEL + _WIDTH + _EDGE
    bottom = height - _EDGE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="18" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for tick in _TICKS:
        if low <= math.log(tick) <= high:
            at = x(tick)
            parts.append(
                f'<line x1="{at:.1f}" y1="{_TOP - 8}" x2="{at:.1f}" y2="{bottom}" stroke="#d0d7de"/>'
            )
            parts.append(
                f'<text x="{at:.1f}" y="{_TOP - 12}" text-anchor="middle" fill="#57606a">{tick:g}</text>'
            )
    for index, row in enumerate(rows):
        y = _TOP + _ROW * index + _ROW / 2
        colour = _COLOURS[row.verdict]
        found, bar = row.compared, x(row.bar.bar)
        side = "≥" if row.bar.at_least else "≤"
        label = f"{row.bar.load}: {row.bar.figure} {side} {row.bar.bar:g}"
        parts += [
            f'<text x="{_LABEL - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>',
            f'<line x1="{bar:.1f}" y1="{y - 8:.1f}" x2="{bar:.1f}" y2="{y + 8:.1f}" stroke="#000000" '
            f'stroke-width="2"/>',
            f'<line x1="{x(found.low):.1f}" y1="{y:.1f}" x2="{x(found.high):.1f}" y2="{y:.1f}" '
            f'stroke="{colour}" stroke-width="3"/>',
            f'<circle cx="{x(found.median):.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
