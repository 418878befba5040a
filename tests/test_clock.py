"""Clocks that jump, boots that change, and what may be said of the time in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.clock import Clock, Stamp, elapsed

YEAR = 365.25 * 86400
MakeRoot = Callable[..., Path]


@pytest.fixture
def make_root(tmp_path: Path) -> MakeRoot:
    """Return a function that makes a file tree with a boot's id."""

    def make(boot_id: str | None = "first", *, timesyncd: bool = False) -> Path:
        root = tmp_path / f"{boot_id}-{timesyncd}"
        for directory in ("proc/sys/kernel/random", "run/systemd/timesync"):
            (root / directory).mkdir(parents=True)
        if boot_id:
            (root / "proc/sys/kernel/random/boot_id").write_text(boot_id + "\n")
        if timesyncd:
            (root / "run/systemd/timesync/synchronized").touch()
        return root

    return make


def stamp(boot: str = "first", boottime: float = 100, wall: float = 1e9, synchronised: bool = False) -> Stamp:
    return Stamp(boot, boottime, wall, synchronised)


@pytest.mark.parametrize("jump", [-30 * YEAR, -1, 0, 3600, 30 * YEAR])
@pytest.mark.parametrize("synchronised", [(False, False), (False, True), (True, True)])
def test_within_a_boot_a_jump_of_the_wall_clock_changes_nothing(
    jump: float, synchronised: tuple[bool, bool]
) -> None:
    before, after = synchronised
    since = stamp(boottime=100, wall=1e9, synchronised=before)
    now = stamp(boottime=107.5, wall=1e9 + jump, synchronised=after)
    assert elapsed(since, now) == 7.5


def test_time_switched_off_counts_where_both_clocks_were_right() -> None:
    since = stamp("first", boottime=5000, wall=1e9, synchronised=True)
    assert elapsed(since, stamp("second", boottime=20, wall=1e9 + 3600, synchronised=True)) == 3600


@pytest.mark.parametrize(("before", "after"), [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("jump", [-30 * YEAR, 0, 3600, 30 * YEAR])
def test_time_switched_off_counts_for_nothing_where_one_clock_was_not(
    before: bool, after: bool, jump: float
) -> None:
    since = stamp("first", boottime=5000, wall=1e9, synchronised=before)
    assert elapsed(since, stamp("second", boottime=20, wall=1e9 + jump, synchronised=after)) == 20


def test_a_synchronised_clock_that_went_back_still_leaves_the_time_since_the_boot() -> None:
    since = stamp("first", boottime=5000, wall=1e9, synchronised=True)
    assert elapsed(since, stamp("second", boottime=20, wall=1e9 - YEAR, synchronised=True)) == 20


stamps = st.builds(
    Stamp,
    st.sampled_from(["first", "second"]),
    st.floats(0, 1e9),
    st.floats(-1e10, 1e10),
    st.booleans(),
)


@given(stamps, stamps)
def test_time_never_runs_backwards(since: Stamp, now: Stamp) -> None:
    assert elapsed(since, now) >= 0


def test_now_reads_every_clock(make_root: MakeRoot) -> None:
    clock = Clock(make_root(), wall=lambda: 1e9, boottime=lambda: 12.5, kernel_synchronised=lambda: True)
    assert clock.now() == Stamp("first", 12.5, 1e9, True)


def test_timesyncd_is_believed_where_the_kernel_may_not_be_asked(make_root: MakeRoot) -> None:
    def forbidden() -> bool:
        return False

    assert Clock(make_root(timesyncd=True), kernel_synchronised=forbidden).synchronised
    assert not Clock(make_root(), kernel_synchronised=forbidden).synchronised


def test_without_a_boot_id_every_start_counts_as_another_boot(make_root: MakeRoot) -> None:
    root = make_root(None)
    assert Clock(root).now().boot_id != Clock(root).now().boot_id


def test_the_real_clocks_can_be_read() -> None:
    first, second = Clock().now(), Clock().now()
    assert first.boot_id == second.boot_id
    assert 0 <= elapsed(first, second) < 60


def test_published_stamps_say_whether_the_clock_was_right(make_root: MakeRoot) -> None:
    clock = Clock(make_root(), wall=lambda: 1795269600.1234, kernel_synchronised=lambda: False)
    assert clock.fields() == {"time": "2026-11-21T14:00:00.123Z", "clock_synchronised": False}
