"""What edged has promised, each promise with the samples that show it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tools.bench.lifetime import MEMORY, SMALL_MEMORY, START
from tools.bench.loads import BESIDE, SERVED
from tools.bench.results import Results
from tools.bench.statistics import Estimate, Verdict, estimate, ratios, verdict, worst_verdict

SERVER = "llama-server"
Kind = Literal["ratio", "value", "worst"]


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise.

    Attributes:
        load: under which it holds.
        figure: edged's.
        bar: what it is held against.
        at_least: whether the figure must be so much; else it may be so much at most.
        kind: the ratio to another side's, a value of its own, or the worst value of all rounds.
        other: the other side.
        other_figure: what of the other side it is compared with; None: the same figure.
        models: the beginning of the names of the files that it is promised for.
    """

    load: str
    figure: str
    bar: float
    at_least: bool = False
    kind: Kind = "ratio"
    other: str = SERVER
    other_figure: str | None = None
    models: tuple[str, ...] = ("",)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a promise stands.

    Attributes:
        bar: the promise.
        mine: edged's figure.
        theirs: the other side's, if there is one.
        compared: what the bar is held against.
        verdict: whether it is kept.
    """

    bar: Bar
    mine: Estimate
    theirs: Estimate | None
    compared: Estimate
    verdict: Verdict


def _bars() -> Iterator[Bar]:
    yield Bar("decode", "tokens/s", 0.95, at_least=True, other="llama-bench")
    yield Bar("prefill", "tokens/s", 0.95, at_least=True, other="llama-bench")
    yield Bar("eight streams", "tokens/s", 0.93, at_least=True, other="llama-batched-bench")
    for load in SERVED:
        rate, wait = {"the usual load": (1.2, 0.6)}.get(load.name, (1.0, 1.0))
        yield Bar(load.name, "tokens/s", rate, at_least=True)
        if not load.any_slots:
            yield Bar(load.name, "first token p50", wait)
        yield Bar(load.name, "first token p95", wait)
        if not load.any_slots:
            yield Bar(load.name, "gap p50", 1.05)
            yield Bar(load.name, "gap p95", 1.05)
    smollm2 = ("SmolLM2-135M-Instruct.Q4_0",)
    yield Bar(BESIDE, "gap max", 250, kind="worst", models=smollm2)
    yield Bar(BESIDE, "gap p95", 150, kind="value", models=smollm2)
    yield Bar(BESIDE, "times later", 2, kind="value", models=smollm2)
    yield Bar(MEMORY, "parent MB", 64, kind="value")
    yield Bar(MEMORY, "child over its need MB", 65, kind="value")
    yield Bar(MEMORY, "together MB", 1.0, other_figure="peak MB")
    yield Bar(SMALL_MEMORY, "together MB", 700, kind="value", models=("qwen2.5-0.5b-shaped.Q4_0",))
    yield Bar(START, "/health s", 0.5, kind="value")
    yield Bar(START, "first token over model load s", 0.5, kind="value")


BARS = tuple(_bars())


def outcomes(results: Results) -> list[Outcome]:
    """Return how the promises stand that were measured."""
    found = []
    for bar in BARS:
        mine = results.of(bar.load, "edged", bar.figure)
        theirs = results.of(bar.load, bar.other, bar.other_figure or bar.figure)
        if not mine or not results.model.startswith(bar.models) or (bar.kind == "ratio" and not theirs):
            continue
        compared = estimate(ratios(mine, theirs)) if bar.kind == "ratio" else estimate(mine)
        if bar.kind == "worst":
            stands = worst_verdict(mine, bar.bar)
            compared = estimate(mine, max)
        else:
            stands = verdict(compared, bar.bar, at_least=bar.at_least)
        found.append(Outcome(bar, estimate(mine), estimate(theirs) if theirs else None, compared, stands))
    return found


def unmeasured(results: Results) -> list[str]:
    """Return the loads with promises that nothing was measured for."""
    shown = {outcome.bar for outcome in outcomes(results)}
    promised = (bar for bar in BARS if results.model.startswith(bar.models) and bar not in shown)
    return list(dict.fromkeys(bar.load for bar in promised))
