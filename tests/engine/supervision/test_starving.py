"""How long others keep a process from the cores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from edged.engine.supervision.starving import CoreWaits

PID = 12


def tell(proc: Path, **threads: str) -> None:
    for name, text in threads.items():
        task = proc / str(PID) / "task" / name
        task.mkdir(parents=True, exist_ok=True)
        (task / "schedstat").write_text(text)


def test_the_thread_that_waited_longest_counts(tmp_path: Path) -> None:
    tell(tmp_path, t1="5 1000000000 7\n", t2="5 2000000000 7\n")
    waits = CoreWaits(PID, tmp_path)
    tell(tmp_path, t1="6 4000000000 9\n", t2="6 2500000000 9\n", t3="0 100 1\n")
    assert waits.more() == 3.0
    assert waits.more() == 0.0


def test_what_is_not_counted_or_garbled_is_no_wait(tmp_path: Path) -> None:
    assert CoreWaits(PID, tmp_path).more() == 0.0
    tell(tmp_path, t1="what", t2="", t3="1 x 2")
    assert CoreWaits(PID, tmp_path).more() == 0.0


def test_a_busy_process_on_a_core_that_another_has_too_is_seen_to_wait() -> None:
    """The real kernel's file: of two that spin on one core each waits for the other."""
    core = str(min(os.sched_getaffinity(0)))
    spin = ["taskset", "-c", core, sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(spin) as one, subprocess.Popen(spin) as other:
        waits = CoreWaits(one.pid)
        waited = 0.0
        while one.poll() is None and waited < 0.1:
            waited += waits.more()
        one.kill()
        other.kill()
    assert waited >= 0.1
