"""Shake edged, its broker and the link between them under load, and see whether anything is lost.

Prompts come from clients of MQTT 5 and 3.1.1 in turn, with QoS 1 and sessions that the broker keeps, while
the broker is restarted, the daemon and its engine are killed, and connections are cut, reset and stalled by
a proxy. Afterwards every prompt must have exactly one distinct terminal frame at its requester, each text
must be whole and equal to its chunks joined by seq, equal prompts must have equal answers, and no prompt may
have been taken in hand again after its terminal frame had come.

With --broker-signal TERM the broker saves what it has, and no requester repeats an ask. With KILL it loses
what it has acknowledged since its last save: requesters ask again under the same id until a terminal frame
comes (`repeats`), and chunks may be missing of prompts that were under way (`holed`), never the end.

With --stall the broker hangs for so many seconds instead, under full load, while the daemon's memory is
watched.

The model should be a small one (tools/make_tiny_model.py). mosquitto must be installed; a free port is taken.
Every choice comes from the seed; what comes of it also depends on the machine's timing.
The exit code is 0 if everything holds, else 1.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tools.chaos.run import Options, run
from tools.chaos.stall import run_stall
from tools.chaos.verdict import Verdict

SHOWN = 20  # faults, at most


def main() -> int:
    """Read the options, run, and print figures and verdict; return the exit code."""
    options = _parse()
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", flush=True)

    directory = Path(tempfile.mkdtemp(prefix="edged-chaos-"))
    tell(f"states and logs are in {directory}, until everything holds")
    if options.stall:
        verdict = run_stall(options.model, directory, seconds=options.stall, tell=tell)
    else:
        number = signal.Signals[f"SIG{options.broker_signal}"]
        what = Options(options.model, options.seed, options.prompts, options.clients, number)
        verdict = run(what, directory, tell)
    _print(verdict)
    if verdict.holds:
        shutil.rmtree(directory)
    if options.out:
        fields = {"seed": options.seed, "broker_signal": options.broker_signal, **verdict.as_fields()}
        options.out.write_text(json.dumps(fields, indent=2) + "\n")
    return 0 if verdict.holds else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, required=True, help="the GGUF file")
    parser.add_argument("--prompts", type=int, default=500, help="how many (default %(default)s)")
    parser.add_argument("--clients", type=int, default=20, help="how many (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of every choice (default %(default)s)")
    parser.add_argument(
        "--broker-signal", choices=("TERM", "KILL"), default="TERM", help="(default %(default)s)"
    )
    parser.add_argument("--stall", type=float, metavar="SECONDS", help="let the broker hang instead")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures there as JSON")
    options = parser.parse_args()
    if not options.model.is_file():
        parser.error(
            f"--model: there is no file {options.model}; tools/make_tiny_model.py --out FILE makes one"
        )
    if options.clients < 1 or options.prompts < options.clients:
        parser.error("--prompts must be at least --clients, and that at least 1")
    return options


def _print(verdict: Verdict) -> None:
    print()
    for name, count in verdict.counts.items():
        print(f"{name:>28} {count:6}")
    for code, count in verdict.errors.items():
        print(f"{'error ' + code:>28} {count:6}")
    for fault in verdict.faults[:SHOWN]:
        print(f"FAULT  {fault}")
    if len(verdict.faults) > SHOWN:
        print(f"FAULT  … and {len(verdict.faults) - SHOWN} more")
    print("everything holds" if verdict.holds else f"{len(verdict.faults)} faults")


if __name__ == "__main__":
    sys.exit(main())
