"""What a bench has measured, as a table and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edged.cli.bench_plan import Plan
from edged.cli.output import print_rows, size


@dataclass(slots=True)
class Batch:
    """Requests that were asked at once, some times over.

    Attributes:
        count: how many.
        prompt_tokens: of the longest prompt.
        prompt_speeds: tokens of prompts that were read in a second, all together, by run.
        first_tokens: seconds from each request to its first token.
        answer_speeds: tokens that were answered in a second, all together, by run.
    """

    count: int
    prompt_tokens: int = 0
    prompt_speeds: list[float] = field(default_factory=list)
    first_tokens: list[float] = field(default_factory=list)
    answer_speeds: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Measured:
    """The whole measurement.

    Attributes:
        status: of the daemon, afterwards.
        plan: what was measured.
        batches: the figures.
        engine_peak_bytes: resident memory of the engine, the most that was seen.
        others: requests of others that were in hand meanwhile.
        restarts: of the engine meanwhile.
    """

    status: Mapping[str, Any]
    plan: Plan
    batches: Sequence[Batch]
    engine_peak_bytes: int
    others: int
    restarts: int

    @property
    def warnings(self) -> list[str]:
        """Return why the figures are not what they could be."""
        found = list(self.plan.notes)
        if self.others:
            were = "1 request of others was" if self.others == 1 else f"{self.others} requests of others were"
            found.append(f"{were} in hand meanwhile: the daemon is faster than measured")
        if self.restarts:
            found.append("the engine was restarted meanwhile: measure again (the log says why)")
        if any(not batch.answer_speeds for batch in self.batches):
            found.append("the model ended answers too early to tell their speed: measure again")
        return found


def fields(measured: Measured) -> dict[str, Any]:
    """Return everything as JSON has it; times are in ms, speeds in tokens per second."""
    status = measured.status
    engine = {name: status["engine"].get(name) for name in _ENGINE}
    return {
        "edged": status["version"],
        "model": status["model"],
        "engine": engine,
        "runs": measured.plan.runs,
        "answer_tokens": measured.plan.answer_tokens,
        "batches": [_batch_fields(batch) for batch in measured.batches],
        "memory": {**status["memory"], "engine_peak_bytes": measured.engine_peak_bytes},
        "others": measured.others,
        "warnings": measured.warnings,
    }


def print_table(measured: Measured) -> None:
    """Print it for a person; where runs differ the least and the most stand beside the median."""
    status, plan = measured.status, measured.plan
    model, engine, memory = status["model"], status["engine"], status["memory"]
    shape = f"{model['quantisation']}, {model['sequences']} × {model['context']} tokens"
    prompts = f"prompts of {measured.batches[0].prompt_tokens} tokens, answers of {plan.answer_tokens}"
    print_rows(
        [
            ("model", f"{model['name']}, {shape}"),
            ("engine", _engine(engine)),
            ("load", f"{prompts}, {'once' if plan.runs == 1 else f'{plan.runs} times'}"),
            ("memory", f"daemon {size(memory['daemon_bytes'])}, engine {size(measured.engine_peak_bytes)}"),
        ]
    )
    print()
    rows: list[tuple[str, ...]] = [("AT ONCE", "PROMPT t/s", "FIRST TOKEN ms", "ANSWER t/s", "EACH t/s")]
    for batch in measured.batches:
        each = [speed / batch.count for speed in batch.answer_speeds]
        first = [seconds * 1000 for seconds in batch.first_tokens]
        figures = (batch.prompt_speeds, first, batch.answer_speeds, each)
        rows.append((str(batch.count), *map(_figure, figures)))
    print_rows(rows, right=frozenset(range(5)))


_ENGINE = ("library", "threads", "threads_batch", "repack", "kernels", "flash_attention", "deterministic")


def _engine(engine: Mapping[str, Any]) -> str:
    parts = [
        engine["library"] or "",
        f"threads {engine['threads']} ({engine['threads_batch']} for prompts)",
        "weights repacked" if engine["repack"] else "weights not repacked",
        "flash attention" if engine["flash_attention"] else "",
        "deterministic" if engine["deterministic"] else "",
    ]
    return ", ".join(part for part in parts if part)


def _batch_fields(batch: Batch) -> dict[str, Any]:
    return {
        "requests": batch.count,
        "prompt_tokens": batch.prompt_tokens,
        "prompt_tokens_per_second": _summary(batch.prompt_speeds),
        "first_token_ms": _summary([seconds * 1000 for seconds in batch.first_tokens]),
        "tokens_per_second": _summary(batch.answer_speeds),
    }


def _summary(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    rounded = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 2) for name, value in rounded.items()}


def _figure(values: Sequence[float]) -> str:
    summary = _summary(values)
    if summary is None:
        return "-"
    digits = 0 if summary["median"] >= 100 else 1
    median, least, most = (f"{summary[name]:.{digits}f}" for name in ("median", "min", "max"))
    return median if least == most else f"{median} ({least}–{most})"
