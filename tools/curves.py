"""Line charts as PNG, one above the other with a common axis of minutes; they need matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_COLOURS = ("#1b6ca8", "#c8553d", "#9a9a9a")
_INCHES, _DOTS = (9.0, 2.6), 100  # of one chart; dots an inch


@dataclass(frozen=True, slots=True)
class Curve:
    """A line: its name, the minutes and the values."""

    name: str
    minutes: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart: what its curves count, and a value that a dashed line marks."""

    unit: str
    curves: Sequence[Curve]
    mark: float | None = None


def draw(path: Path, title: str, panels: Sequence[Panel]) -> None:
    """Write the picture of the charts."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = _INCHES
    figure = Figure(figsize=(width, height * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize="medium")
    axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    told: list[str] = []  # what the colours stand for
    for axis, panel in zip(axes, panels, strict=True):
        for curve, colour in reversed(list(zip(panel.curves, _COLOURS, strict=False))):
            axis.plot(curve.minutes, curve.values, color=colour, linewidth=1.2, label=curve.name)
        if panel.mark is not None:
            axis.axhline(panel.mark, color="#333333", linestyle="--", linewidth=1)
        axis.set_ylabel(panel.unit)
        axis.grid(alpha=0.3)
        names = [curve.name for curve in panel.curves]
        if len(names) > 1 and names != told:
            axis.legend(loc="lower right", fontsize="small")
            told = names
    axes[-1].set_xlabel("minutes")
    figure.savefig(path, dpi=_DOTS)
