"""From results to the page that people read."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tools.bench.bars import Outcome, outcomes, unmeasured
from tools.bench.chart import chart
from tools.bench.results import Results
from tools.bench.statistics import CONFIDENCE, LEAST_SAMPLES

PAGE = "performance.md"
HEAD = f"""# Performance

How edged stands beside llama.cpp's own tools, on the same library files, with the same threads and client.
`python -m tools.bench` made this page; nothing in it is written by hand.

A figure is the median of the rounds, with the least and the greatest in brackets. A ratio is the median of
the rounds' ratios (both sides in turn within a round), with its {CONFIDENCE:.0%} bootstrap interval.
**met** and **missed** mean that the whole interval lies on that side of the bar; what straddles it, or has
fewer than {LEAST_SAMPLES} rounds, is *unproven*. Waits and gaps are in milliseconds, as a client on a Unix
socket sees them; llama-server's are those of its best setting for that load, with the same cells. Memory is
the proportional share (PSS), the model's file counted in full; what the child needs is the weights once, the
KV cache and the buffers, as llama.cpp's log states them.
"""


def write(results: Sequence[Results], directory: Path) -> None:
    """Write the page and a chart of each model."""
    parts = [HEAD]
    for one in results:
        found = outcomes(one)
        picture = f"performance-{one.model.removesuffix('.gguf').lower()}.svg"
        (directory / picture).write_text(chart(one.model, found))
        parts.append(_model(one, found, picture))
    (directory / PAGE).write_text("\n".join(parts))


def verdicts(found: Sequence[Outcome]) -> str:
    """Return how many bars stand how."""
    counts = Counter(outcome.verdict for outcome in found)
    return ", ".join(f"{counts[name]} {name}" for name in ("met", "missed", "unproven"))


def _model(results: Results, found: Sequence[Outcome], picture: str) -> str:
    lines = [f"## {results.model}", "", f"{len(found)} bars: {verdicts(found)}.", ""]
    if missing := unmeasured(results):
        lines += [f"Not measured: {'; '.join(missing)}.", ""]
    lines += [f"- {name}: {_plain(value)}" for name, value in results.about.items()]
    lines += ["", f"![ratios with their intervals]({picture})", ""]
    lines += _table(
        ("load", "figure", "edged", "other", "compared", "bar", "rounds", "verdict"),
        [_bar(results, outcome) for outcome in found],
    )
    lines += ["", "### All figures", ""]
    lines += _table(
        ("load", "figure", *(sides := _sides(results))),
        [
            (load, figure, *(_spread(results.of(load, side, figure)) for side in sides))
            for load, by_side in results.samples.items()
            for figure in dict.fromkeys(name for figures in by_side.values() for name in figures)
        ],
    )
    lines += ["", "### llama-server's settings", ""]
    lines += _table(("load", "arguments"), [(load, f"`{text}`") for load, text in results.settings.items()])
    return "\n".join([*lines, ""])


def _bar(results: Results, outcome: Outcome) -> tuple[str, ...]:
    bar, found = outcome.bar, outcome.compared
    theirs = results.of(bar.load, bar.other, bar.other_figure or bar.figure)
    compared = f"{_number(found.median)} ({_number(found.low)} to {_number(found.high)})"
    if bar.kind == "worst":
        compared = f"{_number(max(results.of(bar.load, 'edged', bar.figure)))} (the worst)"
    mark = {"met": "**met**", "missed": "**missed**", "unproven": "*unproven*"}[outcome.verdict]
    return (
        bar.load,
        bar.figure,
        _spread(results.of(bar.load, "edged", bar.figure)),
        f"{bar.other} {_spread(theirs)}" if theirs else "",
        compared,
        f"{'≥' if bar.at_least else '≤'} {bar.bar:g}",
        str(found.count),
        mark,
    )


def _sides(results: Results) -> list[str]:
    return list(dict.fromkeys(side for by_side in results.samples.values() for side in by_side))


def _spread(samples: Sequence[float]) -> str:
    if not samples:
        return ""
    median, least, greatest = statistics.median(samples), min(samples), max(samples)
    if least == greatest:
        return _number(median)
    return f"{_number(median)} ({_number(least)} to {_number(greatest)})"


def _number(value: float) -> str:
    """Return a figure to three significant digits, without an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else f"`{json.dumps(value)}`"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
