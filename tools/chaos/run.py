"""A run: a house, requesters, faults, a verdict."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tools.chaos.faults import Kind, Shaker, draw_faults
from tools.chaos.house import House
from tools.chaos.ledger import Ledger
from tools.chaos.prompts import draw_prompts
from tools.chaos.requesters import Requesters
from tools.chaos.verdict import judge
from tools.trials import Tell, Verdict

REPEAT_SECONDS = 3.0
PATIENCE_SECONDS = 60.0
FULL: dict[Kind, int] = {
    "broker_restart": 3,
    "daemon_kill": 5,
    "daemon_restart": 1,
    "engine_kill": 1,
    "link_cut": 2,
    "link_reset": 2,
    "link_stall": 2,
    "stall_and_kill": 1,
    "requesters_cut": 1,
    "requesters_reset": 1,
}


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is to be.

    Attributes:
        model: the GGUF file.
        seed: of every choice.
        prompts: how many.
        clients: how many.
        broker_signal: SIGTERM, and nobody repeats an ask; or SIGKILL, and repeats are counted.
        faults: how many of each kind.
        patience_seconds: a run ends when nothing has come for so long.
    """

    model: Path
    seed: int
    prompts: int = 500
    clients: int = 20
    broker_signal: signal.Signals = signal.SIGTERM
    faults: dict[Kind, int] = field(default_factory=lambda: dict(FULL))
    patience_seconds: float = PATIENCE_SECONDS


def run(options: Options, directory: Path, tell: Tell = lambda line: None) -> Verdict:
    """Run and judge; states and logs stay in the directory."""
    rng = random.Random(options.seed)
    prompts = draw_prompts(options.prompts, options.clients, rng)
    faults = draw_faults(Counter(options.faults), rng)
    ledger = Ledger(prompts)
    repeats = options.broker_signal is signal.SIGKILL
    began = time.monotonic()
    with House(directory, options.model).running() as house:
        requesters = Requesters(
            prompts,
            house.requester_link.port,
            ledger,
            repeat_seconds=REPEAT_SECONDS if repeats else None,
        )
        shaker = Shaker(house, options.broker_signal, tell)
        with requesters:
            answered = shaker.run(faults, requesters, ledger, options.patience_seconds)
            seconds = time.monotonic() - began
    verdict = judge(ledger, house.log(), broker_kills=shaker.broker_kills, repeats_allowed=repeats)
    verdict.counts |= {str(kind): shaker.struck[kind] for kind in options.faults}
    verdict.counts["seconds"] = round(seconds)
    if not answered:
        verdict.faults.insert(0, f"nothing came for {options.patience_seconds:g} s, and answers are missing")
    return verdict
