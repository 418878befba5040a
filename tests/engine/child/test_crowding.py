"""Threads give way where others keep the cores busy, and come back when those have gone."""

from __future__ import annotations

import pytest

from edged.engine.child.crowding import MOST_PAUSE_SECONDS, TRIAL_SECONDS, Crowding

PASS_SECONDS = 0.1


class Machine:
    """Stands in for a machine of some cores of which others keep some busy; its time is its own.

    As many threads as there are cores to spare have them all the time; one more, and all wait for it.
    """

    def __init__(self, threads: int, cores: int = 4) -> None:
        self.cores, self.others = cores, 0
        self.now = 0.0
        self.crowding = Crowding(threads, lambda: self.now)
        self.changes: list[int] = []

    def run(self, seconds: float) -> list[int]:
        """Compute for so long; return the numbers of threads that there was room for, as they came."""
        end, changes = self.now + seconds, []
        while self.now < end:
            self.now += PASS_SECONDS
            threads = self.crowding.threads
            share = 1.0 if threads <= self.cores - self.others or threads == 1 else 0.3
            if self.crowding.learn(threads, share * PASS_SECONDS, PASS_SECONDS):
                changes.append(self.crowding.threads)
        return changes


def test_an_idle_machine_has_room_for_all() -> None:
    assert Machine(threads=4).run(1000) == []


def test_threads_give_way_at_once_down_to_what_there_is_room_for() -> None:
    machine = Machine(threads=4)
    machine.others = 2
    assert machine.run(2) == [3, 2]


@pytest.mark.parametrize("others", [4, 40])
def test_one_thread_is_left_on_a_machine_that_is_full(others: int) -> None:
    machine = Machine(threads=4)
    machine.others = others
    machine.run(2)
    assert machine.crowding.threads == 1


def test_threads_come_back_when_the_others_have_gone() -> None:
    machine = Machine(threads=4)
    machine.others = 3
    machine.run(2)
    machine.others = 0
    assert machine.run(4 * TRIAL_SECONDS) == [2, 3, 4]


def test_trials_that_fail_become_rare() -> None:
    machine = Machine(threads=2, cores=2)
    machine.others = 1
    machine.run(600)
    hour = machine.run(3600)
    assert 0 < len(hour) <= 2 * (3600 / MOST_PAUSE_SECONDS + 1)


def test_a_number_that_is_set_is_a_ceiling() -> None:
    machine = Machine(threads=4)
    machine.crowding.limit(3)
    assert machine.crowding.threads == 3
    machine.others = 3
    machine.run(2)
    machine.crowding.limit(2)
    assert machine.crowding.threads == 1, "there is no more room for a new number"
    machine.others = 0
    machine.run(4 * TRIAL_SECONDS)
    assert machine.crowding.threads == 2
    machine.crowding.limit(4)
    assert machine.crowding.threads == 4


def test_passes_with_fewer_threads_say_nothing_of_more() -> None:
    crowding = Crowding(4, lambda: 0.0)
    assert not any(crowding.learn(1, 0.01, 1.0) for _ in range(100))
    assert crowding.threads == 4


def test_a_single_thread_is_left_alone() -> None:
    crowding = Crowding(1, lambda: 0.0)
    assert not any(crowding.learn(1, 0.01, 1.0) for _ in range(100))
