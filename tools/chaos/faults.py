"""What fails, and when: the schedule of a run, drawn from its seed, and who carries it out."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from tools.chaos.house import House
from tools.chaos.ledger import Ledger
from tools.chaos.requesters import Requesters

Kind = Literal[
    "broker_restart",
    "daemon_kill",
    "daemon_restart",
    "engine_kill",
    "link_cut",
    "link_reset",
    "link_stall",
    "stall_and_kill",
    "requesters_cut",
    "requesters_reset",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
LONGEST_SECONDS: dict[Kind, float] = {
    "broker_restart": 1.5,
    "daemon_kill": 1.0,
    "daemon_restart": 1.0,
    "link_stall": 7.0,
    "stall_and_kill": 2.0,
}
SHARE_BEFORE = 0.7  # of a share's prompts are answered at most when its fault strikes


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that fails.

    Attributes:
        kind: what.
        share: how much of its share of the prompts is answered when it strikes.
        pause: seconds between that moment, when the next share is let go, and the strike.
        seconds: how long it lasts, where it lasts.
    """

    kind: Kind
    share: float
    pause: float
    seconds: float


def draw_faults(counts: Counter[Kind], rng: random.Random) -> list[Fault]:
    """Return so many faults of each kind, in an order of chance."""
    kinds = [kind for kind in KINDS for _ in range(counts[kind])]
    rng.shuffle(kinds)
    return [
        Fault(
            kind,
            share=rng.uniform(0, SHARE_BEFORE),
            pause=rng.uniform(0, 0.1),
            seconds=rng.uniform(0, LONGEST_SECONDS.get(kind, 0)),
        )
        for kind in kinds
    ]


class Shaker:
    """Carries the faults out, spread over the prompts: each fault has a share of them.

    A share's prompts are let go just before the fault before it strikes, so that prompts are coming in then
    and while something is down; its own fault strikes when some of them are answered.

    Attributes:
        struck: faults that have struck, by kind.
        broker_kills: from when to when, in unix time, the broker was down after a SIGKILL.

    Args:
        house: what is shaken.
        broker_signal: what the broker is ended by.
        tell: told what happens, in words.
    """

    def __init__(self, house: House, broker_signal: signal.Signals, tell: Callable[[str], None]) -> None:
        self.struck: Counter[Kind] = Counter()
        self.broker_kills: list[tuple[float, float]] = []
        self._house = house
        self._broker_signal = broker_signal
        self._tell = tell

    def run(
        self, faults: list[Fault], requesters: Requesters, ledger: Ledger, patience_seconds: float
    ) -> bool:
        """Carry the faults out, then let the rest be answered; return False if answers stay away."""
        total = len(ledger.accounts)
        share = total / (len(faults) + 1)
        for number, fault in enumerate(faults):
            requesters.release(round((number + 1) * share))
            if not ledger.wait_answered(int((number + fault.share) * share), patience_seconds):
                return False
            requesters.release(round((number + 2) * share))
            time.sleep(fault.pause)
            self._tell(f"{ledger.answered:4} of {total} answered; {fault.kind} {fault.seconds:.2f} s")
            self._strike(fault)
            self.struck[fault.kind] += 1
        return ledger.wait_answered(total, patience_seconds)

    def _strike(self, fault: Fault) -> None:
        house = self._house
        match fault.kind:
            case "broker_restart":
                self._restart_broker(fault.seconds)
            case "daemon_kill" | "daemon_restart":
                house.end_daemon(signal.SIGKILL if fault.kind == "daemon_kill" else signal.SIGTERM)
                time.sleep(fault.seconds)
                house.start_daemon()
            case "engine_kill":
                house.kill_engine()
            case "link_cut":
                house.daemon_link.cut()
            case "link_reset":
                house.daemon_link.reset()
            case "link_stall":
                house.daemon_link.stall()
                time.sleep(fault.seconds)
                house.daemon_link.resume()
            case "stall_and_kill":  # answers end, and the broker has heard nothing of them
                house.daemon_link.stall()
                time.sleep(fault.seconds)
                house.end_daemon(signal.SIGKILL)
                house.daemon_link.resume()
                house.start_daemon()
            case "requesters_cut":
                house.requester_link.cut()
            case "requesters_reset":
                house.requester_link.reset()

    def _restart_broker(self, seconds: float) -> None:
        began = time.time()
        if self._broker_signal is signal.SIGKILL:
            self._house.broker.kill()
        else:
            self._house.broker.stop()
        time.sleep(seconds)
        self._house.broker.start()
        if self._broker_signal is signal.SIGKILL:
            self.broker_kills.append((began, time.time()))
