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
import signal
import sys
from pathlib import Path

from tools import trials
from tools.chaos.run import Options, run
from tools.chaos.stall import run_stall


def main() -> int:
    """Read the options, run, and print figures and verdict; return the exit code."""
    options = _parse()

    def trial(directory: Path, tell: trials.Tell) -> trials.Report:
        if options.stall:
            verdict = run_stall(options.model, directory, seconds=options.stall, tell=tell)
        else:
            number = signal.Signals[f"SIG{options.broker_signal}"]
            what = Options(options.model, options.seed, options.prompts, options.clients, number)
            verdict = run(what, directory, tell)
        return trials.Report(verdict, fields={"broker_signal": options.broker_signal})

    return trials.carry_out("chaos", options, trial)


def _parse() -> argparse.Namespace:
    parser = trials.options_of("chaos", __doc__)
    parser.add_argument("--model", type=Path, required=True, help="the GGUF file")
    parser.add_argument("--prompts", type=int, default=500, help="how many (default %(default)s)")
    parser.add_argument("--clients", type=int, default=20, help="how many (default %(default)s)")
    parser.add_argument(
        "--broker-signal", choices=("TERM", "KILL"), default="TERM", help="(default %(default)s)"
    )
    parser.add_argument("--stall", type=float, metavar="SECONDS", help="let the broker hang instead")
    options = trials.parse(parser)
    if options.clients < 1 or options.prompts < options.clients:
        parser.error("--prompts must be at least --clients, and that at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
