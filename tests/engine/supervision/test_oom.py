"""What the kernel counts of memory, from files as it writes them."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from edged.engine.supervision.oom import Cause, OomKills, memory, oom_kills
from edged.engine.supervision.process import Death

GROUP = "system.slice/edged.service"


def kernel(root: Path, files: dict[str, str]) -> Path:
    """Lay out what the kernel shows, the control group's files by their name alone."""
    for name, text in files.items():
        path = root / name if "/" in name else root / "sys/fs/cgroup" / GROUP / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMBER = {"proc/self/cgroup": f"4:memory:/elsewhere\n0::/{GROUP}\n"}
KILLS = {
    "proc/vmstat": "nr_free_pages 1234\noom_kill 3\n",
    "memory.events": "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\noom_group_kill 0\n",
}


def test_kills_are_counted_of_the_machine_and_of_the_own_group(tmp_path: Path) -> None:
    assert oom_kills(kernel(tmp_path, MEMBER | KILLS)) == OomKills(machine=3, own=1, limit=2)


@pytest.mark.parametrize("files", [{}, {"proc/vmstat": "torn"}, MEMBER], ids=["none", "torn", "no counts"])
def test_a_kernel_that_does_not_count_counts_nothing(tmp_path: Path, files: dict[str, str]) -> None:
    assert oom_kills(kernel(tmp_path, files)) == OomKills(0, 0, 0)


@pytest.mark.parametrize(
    ("after", "cause"),
    [
        (OomKills(3, 1, 2), None),
        (OomKills(4, 1, 2), "machine"),
        (OomKills(4, 2, 2), "machine"),
        (OomKills(4, 2, 3), "limit"),
        (OomKills(3, 1, 3), None),  # the limit was met, and nobody killed
    ],
)
def test_the_cause_is_what_has_grown(after: OomKills, cause: Cause | None) -> None:
    assert after.cause_since(OomKills(3, 1, 2)) == cause


@pytest.mark.parametrize(
    ("oom", "says"),
    [("machine", "to keep the machine alive"), ("limit", "MemoryMax="), (None, "by hand")],
)
def test_a_death_for_want_of_memory_is_told_as_such(oom: Cause | None, says: str) -> None:
    death = Death(pid=1, code=-9, verdict=None, oom=oom)
    assert death.reason.startswith("killed by SIGKILL")
    assert says in death.reason
    assert death.may_be_for_memory


def test_the_nearer_limit_is_the_groups_less_what_it_can_give_back(tmp_path: Path) -> None:
    files = {
        "memory.max": "1000000\n",
        "memory.current": "900000\n",
        "memory.stat": "anon 500000\ninactive_file 300000\nactive_file 50000\n",
    }
    assert memory(kernel(tmp_path, MEMBER | files)) == (1_000_000, 450_000)


def test_without_a_limit_it_is_the_machines(tmp_path: Path) -> None:
    files = {"memory.max": "max\n", "memory.current": "900000\n", "memory.stat": ""}
    assert memory(kernel(tmp_path, MEMBER | files)).total == psutil.virtual_memory().total
