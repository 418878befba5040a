"""A broker that hangs under full load: the daemon's memory must not grow, and no answer may be lost."""

from __future__ import annotations

import random
import time
from pathlib import Path

from tools.chaos.house import House
from tools.chaos.ledger import Ledger
from tools.chaos.prompts import draw_prompts
from tools.chaos.requesters import Requesters
from tools.chaos.run import PATIENCE_SECONDS
from tools.chaos.verdict import judge
from tools.trials import Tell, Verdict

MOST_GROWTH_BYTES = 10_000_000
SAMPLE_SECONDS = 0.25


def run_stall(
    model: Path,
    directory: Path,
    *,
    seconds: float,
    prompts: int = 240,
    clients: int = 20,
    tell: Tell = lambda line: None,
) -> Verdict:
    """Stop the broker for so long while a third of the prompts is answered, and judge.

    Half of the prompts are asked and answered first: what a daemon takes once is not growth.
    """
    asked = draw_prompts(prompts, clients, random.Random(1), long_share=0.8)
    ledger = Ledger(asked)
    with House(directory, model).running() as house:
        requesters = Requesters(
            asked,
            house.requester_link.port,
            ledger,
            repeat_seconds=None,
            keepalive_seconds=round(2 * seconds) + 60,
        )
        with requesters:
            requesters.release(prompts // 2)
            answered = ledger.wait_answered(prompts // 2, PATIENCE_SECONDS)
            requesters.release(prompts)
            answered = answered and ledger.wait_answered(prompts // 2 + prompts // 10, PATIENCE_SECONDS)
            before = resident_bytes(house.daemon_pid)
            tell(f"{ledger.answered} answered; the broker hangs now, the daemon has {before:,} B")
            house.broker.pause()
            try:
                most = _watch(house.daemon_pid, seconds)
            finally:
                house.broker.resume()
            tell(f"the broker goes on; the daemon had at most {most:,} B")
            answered = answered and ledger.wait_answered(prompts, PATIENCE_SECONDS)
            most = max(most, resident_bytes(house.daemon_pid))
    verdict = judge(ledger, house.log(), repeats_allowed=False)
    verdict.counts |= {"bytes_before": before, "bytes_most": most, "growth": most - before}
    if not answered:
        verdict.faults.insert(0, f"nothing came for {PATIENCE_SECONDS:g} s, and answers are missing")
    if most - before >= MOST_GROWTH_BYTES:
        verdict.faults.append(f"the daemon grew by {most - before:,} B; {MOST_GROWTH_BYTES:,} are allowed")
    return verdict


def resident_bytes(pid: int) -> int:
    """Return a process's proportional share of memory (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"the kernel tells no Pss of process {pid}")


def _watch(pid: int, seconds: float) -> int:
    most, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        most = max(most, resident_bytes(pid))
        time.sleep(SAMPLE_SECONDS)
    return most
