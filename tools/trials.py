"""What trials by a seed have in common (tools.chaos, tools.fuzz, tools.load): options, progress, verdict."""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SHOWN = 20  # faults, at most

Tell = Callable[[str], None]
"""Takes a line that says how far a trial is."""


@dataclass(slots=True)
class Verdict:
    """What became of a run.

    Attributes:
        counts: figures by name.
        errors: terminal frames without an answer, by code.
        faults: what does not hold, a line each.
    """

    counts: dict[str, int]
    errors: dict[str, int]
    faults: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Say whether everything holds."""
        return not self.faults

    def as_fields(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"holds": self.holds, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Report:
    """A verdict, and what else is to be told.

    Attributes:
        verdict: what became of the run.
        figures: printed below its counts, by name.
        fields: written beside it as JSON.
    """

    verdict: Verdict
    figures: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)


def options_of(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser for the trial of that name, with the options that all trials have."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tools.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="of every choice (default %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures there as JSON")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the options of the command line, or end with what is wrong with them."""
    options = parser.parse_args()
    if not options.model.is_file():
        parser.error(f"there is no file {options.model}; tools/make_tiny_model.py --out FILE makes one")
    return options


def carry_out(name: str, options: argparse.Namespace, trial: Callable[[Path, Tell], Report]) -> int:
    """Run a trial in a directory of its own, print figures and verdict, and return the exit code.

    The directory is removed if everything holds.
    """
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)

    directory = Path(tempfile.mkdtemp(prefix=f"edged-{name}-"))
    tell(f"states and logs are in {directory}, until everything holds")
    report = trial(directory, tell)
    verdict = report.verdict
    verdict.counts.setdefault("seconds", round(time.monotonic() - began))
    _print(report)
    if options.out:
        fields = {"seed": options.seed, **report.fields, **verdict.as_fields()}
        options.out.write_text(json.dumps(fields, indent=2) + "\n")
    if verdict.holds:
        shutil.rmtree(directory)
    return 0 if verdict.holds else 1


def _print(report: Report) -> None:
    verdict = report.verdict
    print()
    for name, count in verdict.counts.items():
        print(f"{name:>28} {count:6}")
    for code, count in verdict.errors.items():
        print(f"{'error ' + code:>28} {count:6}")
    for name, text in report.figures.items():
        print(f"{name:>28} {text}")
    for fault in verdict.faults[:SHOWN]:
        print(f"FAULT  {fault}")
    if len(verdict.faults) > SHOWN:
        print(f"FAULT  … and {len(verdict.faults) - SHOWN} more")
    print("everything holds" if verdict.holds else f"{len(verdict.faults)} faults")
