"""Give edged what nobody would send: requests over HTTP, messages of its engine, damaged models.

Bodies and headers of every address are damaged and sent to a real daemon: each must be answered, and never by
a status of 500 or more, and the engine must live. Messages of the engine are damaged and given to the
daemon's side: each is refused, or taken without harm. Headers of models are damaged and read; where that
succeeds the model is loaded: it is served, refused, or its engine dies and is given up, and the daemon lives
and serves the whole model afterwards.

Every choice comes from the seed; what comes of requests also depends on the machine's timing.
The exit code is 0 if everything holds, else 1.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from tools import trials
from tools.fuzz.run import Options, run


def main() -> int:
    """Read the options, run, and print figures and verdict; return the exit code."""
    options = _parse()
    what = Options(
        model=options.model,
        seed=options.seed,
        requests=options.requests,
        messages=options.messages,
        headers=options.headers,
        models=options.models,
        seconds=options.seconds,
    )
    return trials.carry_out(
        "fuzz", options, lambda directory, tell: trials.Report(asyncio.run(run(what, directory, tell)))
    )


def _parse() -> argparse.Namespace:
    parser = trials.options_of("fuzz", __doc__)
    parser.add_argument("model", type=Path, help="the GGUF file, a small one (tools/make_tiny_model.py)")
    for name, default, what in (
        ("requests", 20_000, "over HTTP, at most"),
        ("messages", 50_000, "of the engine"),
        ("headers", 20_000, "of models, to be read"),
        ("models", 1000, "to be loaded, at most"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{what} (default %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=120, help="for requests, and for models (default %(default)s)"
    )
    return trials.parse(parser)


if __name__ == "__main__":
    sys.exit(main())
