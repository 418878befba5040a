"""Put edged under load: many clients, some of whom behave badly, while its engine is killed.

Clients ask over the daemon's Unix socket, prompts and answers of random lengths, most with one of a few
common system texts, some in sessions, with priorities and with too little time to live. Most read, some
slowly; some cancel; some hang up. The engine is killed in between. Afterwards every request must have ended
in exactly one terminal frame, of which its client was told, with the text that the daemon keeps; the daemon
must hold no more descriptors, threads and memory than before, the engine's cells must be what its books say,
and as many requests as before must be able to run at once.

With --minutes clients ask for so long instead, nothing is killed, and the memory of both processes is
sampled: its slope is printed with its 95 % interval, and --chart draws it.

Every choice comes from the seed; what comes of it also depends on the machine's timing.
The exit code is 0 if everything holds, else 1.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from tools import trials
from tools.load.footprint import Memory
from tools.load.house import PREFIX_BYTES
from tools.load.run import Options, run
from tools.load.trend import chart, slope

LINES = ("daemon, own", "daemon, RSS", "engine, own", "engine, RSS")


def main() -> int:
    """Read the options, run, and print figures and verdict; return the exit code."""
    options = _parse()
    what = Options(
        model=options.model,
        seed=options.seed,
        requests=options.requests,
        clients=options.clients,
        kills=0 if options.minutes else options.kills,
        seconds=60 * options.minutes,
        context=options.context,
        sequences=options.sequences,
        threads=options.threads,
        prefix_bytes=options.prefix_bytes,
    )

    def trial(directory: Path, tell: trials.Tell) -> trials.Report:
        outcome = asyncio.run(run(what, directory, tell))
        lines = _lines(outcome.samples)
        if options.chart:
            options.chart.write_text(chart(f"Memory under mixed load, seed {options.seed}", lines))
        return _report(outcome.verdict, lines)

    return trials.carry_out("load", options, trial)


def _parse() -> argparse.Namespace:
    parser = trials.options_of("load", __doc__)
    parser.add_argument("model", type=Path, help="the GGUF file")
    parser.add_argument("--requests", type=int, default=1000, help="how many (default %(default)s)")
    parser.add_argument("--clients", type=int, default=50, help="at once (default %(default)s)")
    parser.add_argument("--kills", type=int, default=5, help="of the engine (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=0.0, help="ask for so long, and kill nothing")
    parser.add_argument("--context", type=int, default=1024, help="tokens (default %(default)s)")
    parser.add_argument("--sequences", type=int, default=4, help="that run at once (default %(default)s)")
    parser.add_argument("--threads", type=int, help="that compute (default: as many as edged chooses)")
    parser.add_argument(
        "--prefix-bytes", type=int, default=PREFIX_BYTES, help="of the prefix cache (default %(default)s)"
    )
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the memory there as SVG")
    options = trials.parse(parser)
    if options.requests < 1 or options.clients < 1:
        parser.error("--requests and --clients must be at least 1")
    return options


def _lines(samples: Sequence[tuple[float, Memory, Memory]]) -> dict[str, Sequence[tuple[float, float]]]:
    figures = [(at, (d.anonymous, d.rss, e.anonymous, e.rss)) for at, d, e in samples]
    return {name: [(at, float(values[i])) for at, values in figures] for i, name in enumerate(LINES)}


def _report(verdict: trials.Verdict, lines: dict[str, Sequence[tuple[float, float]]]) -> trials.Report:
    """Return the verdict with each line's course and slope; in the fields, slopes are in bytes per hour."""
    slopes: dict[str, list[float]] = {}
    figures: dict[str, str] = {}
    for name, line in lines.items():
        values = [value / 1e6 for _, value in line]
        if not values:
            continue
        text = f"{values[0]:.1f} MB at first, {max(values):.1f} at most, {values[-1]:.1f} at last"
        if found := slope(line):
            slopes[name] = [round(found.per_hour), round(found.margin)]
            text += f"; {found.per_hour / 1e6:+.2f} ± {found.margin / 1e6:.2f} MB an hour"
        figures[name] = text
    return trials.Report(verdict, figures, {"slopes_per_hour": slopes})


if __name__ == "__main__":
    sys.exit(main())
