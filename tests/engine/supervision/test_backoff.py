"""When an engine that died is started again: soon, later, or when the cause may be gone."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from edged.engine.messages import Load
from edged.engine.supervision.backoff import MEMORY_MARGIN, MOST_DEATHS, PAUSES, BackOff
from edged.engine.supervision.oom import Memory
from edged.engine.supervision.process import Death

CRASH = Death(pid=1, code=-signal.SIGSEGV, verdict=None)
KILLED = Death(pid=1, code=-signal.SIGKILL, verdict=None, oom="machine")
HUNG = Death(pid=1, code=-signal.SIGKILL, verdict="it gave no sign of life for 15.2 s")
TOTAL = 1_000_000_000


class Machine:
    """Has so much memory."""

    available = 200_000_000

    def __call__(self) -> Memory:
        return Memory(TOTAL, self.available)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def back_off(machine: Machine) -> BackOff:
    return BackOff(memory=machine)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    return Load(str(path), 1024, 2, 64, 64, 1, 1, "f16", False, True, False, 100, 0)


def die(back_off: BackOff, load: Load, death: Death, times: int = MOST_DEATHS) -> list[float]:
    return [back_off.died(load, death) for _ in range(times)]


def test_pauses_grow_and_the_last_holds_on(back_off: BackOff, load: Load) -> None:
    pauses = die(back_off, load, CRASH, times=len(PAUSES) + 2)
    assert pauses == [*PAUSES, PAUSES[-1], PAUSES[-1]]
    assert pauses == sorted(pauses)


def test_it_is_given_up_after_so_many_deaths_in_a_row_and_not_before(back_off: BackOff, load: Load) -> None:
    die(back_off, load, CRASH, times=MOST_DEATHS - 1)
    assert not back_off.has_given_up
    die(back_off, load, CRASH, times=1)
    assert back_off.has_given_up


def test_an_answer_in_between_begins_the_count_anew(back_off: BackOff, load: Load) -> None:
    die(back_off, load, CRASH)
    back_off.forgive()
    assert (back_off.deaths, back_off.has_given_up) == (0, False)
    assert die(back_off, load, CRASH, times=1) == [PAUSES[0]]


def test_the_same_plan_is_no_reason_to_try(back_off: BackOff, load: Load) -> None:
    die(back_off, load, CRASH)
    assert not back_off.may_cause_be_gone(load)


def test_another_model_file_or_setting_is_a_reason_to_try(
    back_off: BackOff, load: Load, tmp_path: Path
) -> None:
    die(back_off, load, CRASH)
    assert back_off.may_cause_be_gone(replace(load, path=str(tmp_path / "other.gguf")))
    assert back_off.may_cause_be_gone(replace(load, repack=False))
    assert back_off.may_cause_be_gone(replace(load, ubatch_tokens=32))


def test_another_file_at_the_same_path_is_a_reason_to_try(back_off: BackOff, load: Load) -> None:
    die(back_off, load, CRASH)
    stat = Path(load.path).stat()
    os.utime(load.path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert back_off.may_cause_be_gone(load)


def test_what_fits_the_memory_is_no_other_plan(back_off: BackOff, load: Load) -> None:
    die(back_off, load, CRASH)
    assert not back_off.may_cause_be_gone(replace(load, context=512, prefix_bytes=1 << 20))
    smaller = replace(load, sequences=1, kv_type="q8_0", flash_attention=True)
    assert not back_off.may_cause_be_gone(smaller)


def test_more_memory_is_a_reason_to_try_by_a_margin(back_off: BackOff, load: Load, machine: Machine) -> None:
    die(back_off, load, KILLED)
    machine.available += int(MEMORY_MARGIN * TOTAL) - 1
    assert not back_off.may_cause_be_gone(load)
    machine.available += 1
    assert back_off.may_cause_be_gone(load)


@pytest.mark.parametrize("death", [CRASH, HUNG], ids=["crash", "hang"])
def test_more_memory_is_none_where_the_deaths_were_of_something_else(
    back_off: BackOff, load: Load, machine: Machine, death: Death
) -> None:
    die(back_off, load, death)
    machine.available = TOTAL
    assert not back_off.may_cause_be_gone(load)


def test_it_is_told_how_often_why_and_what_to_do(back_off: BackOff, load: Load) -> None:
    die(back_off, load, CRASH)
    told = back_off.explain(CRASH)
    assert "died 5 times in a row" in told
    assert "killed by SIGSEGV" in told
    assert "edgectl model use" in told
    assert "memory" not in told


def test_want_of_memory_is_told_with_what_would_be_enough(back_off: BackOff, load: Load) -> None:
    die(back_off, load, KILLED)
    told = back_off.explain(KILLED)
    assert "out of memory" in told
    assert "lower model.context" in told
    assert "when 300 MB of memory are available" in told
