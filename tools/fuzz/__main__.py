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
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tools.fuzz.run import Options, run

SHOWN = 20  # faults, at most


def main() -> int:
    """Read the options, run, and print figures and verdict; return the exit code."""
    options = _parse()
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)

    directory = Path(tempfile.mkdtemp(prefix="edged-fuzz-"))
    tell(f"state and log are in {directory}, until everything holds")
    what = Options(
        model=options.model,
        seed=options.seed,
        requests=options.requests,
        messages=options.messages,
        headers=options.headers,
        models=options.models,
        seconds=options.seconds,
    )
    verdict = asyncio.run(run(what, directory, tell))
    for name, count in verdict.counts.items():
        print(f"{name:>28} {count:6}")
    for fault in verdict.faults[:SHOWN]:
        print(f"FAULT  {fault}")
    print("everything holds" if verdict.holds else f"{len(verdict.faults)} faults")
    if options.out:
        options.out.write_text(json.dumps({"seed": options.seed, **verdict.as_fields()}, indent=2) + "\n")
    if verdict.holds:
        shutil.rmtree(directory)
    return 0 if verdict.holds else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="the GGUF file, a small one (tools/make_tiny_model.py)")
    parser.add_argument("--seed", type=int, default=1, help="of every choice (default %(default)s)")
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
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures there as JSON")
    options = parser.parse_args()
    if not options.model.is_file():
        parser.error(f"there is no file {options.model}; tools/make_tiny_model.py --out FILE makes one")
    return options


if __name__ == "__main__":
    sys.exit(main())
