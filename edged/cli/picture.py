"""Charts of figures over time as a PNG, drawn by Pillow where it is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edged.cli.chart import Chart, condensed, label, span
from edged.cli.errors import CommandError, Exit

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

_WIDTH, _HEIGHT = 960, 180  # of one chart, in pixels
_LEFT, _TOP, _RIGHT, _BOTTOM = 80, 28, 16, 26
_INK, _FAINT, _LINE = "#333333", "#dddddd", "#c0392b"


def draw(charts: Sequence[Chart], path: Path) -> None:
    """Write the charts, one below the other, to a file.

    Raises:
        CommandError: Pillow isn't installed, or the file can't be written.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        raise CommandError(
            "--png needs Pillow, which isn't installed",
            Exit.FAILED,
            hint="pip install pillow, or apt install python3-pil",
        ) from None
    image = Image.new("RGB", (_WIDTH, _HEIGHT * len(charts)), "white")
    canvas = ImageDraw.Draw(image)
    for number, chart in enumerate(charts):
        _draw(canvas, chart, number * _HEIGHT)
    try:
        image.save(path, "PNG")
    except OSError as error:
        raise CommandError(f"{path} can't be written: {error.strerror or error}", Exit.FAILED) from None


def _draw(canvas: ImageDraw, chart: Chart, top: int) -> None:
    left, right = _LEFT, _WIDTH - _RIGHT
    high_y, low_y = top + _TOP, top + _HEIGHT - _BOTTOM
    canvas.text((left, top + 8), chart.title, fill=_INK)
    values = condensed(chart.values, right - left)
    bounds = span(values)
    if bounds is None:
        canvas.text((left, (high_y + low_y) / 2), "not known here", fill=_INK)
        return
    low, high = bounds
    for y, mark in ((high_y, high), ((high_y + low_y) / 2, (low + high) / 2), (low_y, low)):
        canvas.line((left, y, right, y), fill=_FAINT)
        canvas.text((left - 8, y), label(mark), fill=_INK, anchor="rm")
    canvas.text((left, low_y + 8), chart.first, fill=_INK)
    canvas.text((right, low_y + 8), chart.last, fill=_INK, anchor="ra")
    step = (right - left) / max(1, len(values) - 1)
    line: list[tuple[float, float]] = []
    for place, value in enumerate([*values, None]):
        if value is not None:
            line.append((left + place * step, low_y - (value - low) / (high - low) * (low_y - high_y)))
            continue
        if len(line) == 1:
            canvas.point(line, fill=_LINE)
        elif line:
            canvas.line(line, fill=_LINE, width=2)
        line = []
