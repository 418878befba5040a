"""What the watch over memory asks of core and engine, and when; a fake of both takes the orders."""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edged.engine.supervision.oom import memory
from edged.settings.watch import MemoryTable
from edged.watch.memory.actions import Happening, drop_cached
from edged.watch.memory.bounds import Bounds, Level
from edged.watch.memory.growth import LEAST_SECONDS_BETWEEN, REST_SECONDS, EngineFacts
from edged.watch.memory.policy import CRITICAL_AFTER, DWELL, LEAST_PERIOD, MOST_PERIOD
from edged.watch.memory.reading import MemoryReading
from edged.watch.memory.watch import EVICT_SECONDS, PROPORTIONAL_SECONDS, MemoryWatch
from tests.watch.memory.trees import MIB, PID, reading

OK, WARN, SHED, EVICT, CRITICAL = Level


class House:
    """A machine with an engine in it, which obeys; time goes only when it is told to."""

    def __init__(
        self,
        available: float = 500,
        *,
        engine: float | None = 100,
        planned: float = 200,
        idle_unload: float | None = None,
    ) -> None:
        self.available = available
        self.engine = engine
        self.pid = PID
        self.obeys = True
        self.now = 1000.0
        self.blind = False
        self.proportional = 0
        self.orders: list[str] = []
        self.told: list[tuple[Happening, Mapping[str, Any]]] = []
        self.planned = planned
        self.at_rest = False
        self.used_at = self.now
        self.watch = MemoryWatch(
            MemoryTable(),
            self,
            self,
            self.facts,
            idle_unload_seconds=idle_unload,
            clock=lambda: self.now,
        )

    def facts(self) -> EngineFacts:
        if self.engine is None:
            return EngineFacts()
        return EngineFacts(self.pid, int(self.planned * MIB), self.at_rest, self.used_at)

    def step(self, available: float | None = None, *, after: float = 0.0) -> list[str]:
        """Let time pass and the watch look once; return what it asked for."""
        self.now += after
        if available is not None:
            self.available = available
        before = len(self.orders)
        self.watch.step()
        return self.orders[before:]

    def rest(self, seconds: float) -> list[str]:
        """Let the watch look as often as it wants to."""
        until, before = self.now + seconds, len(self.orders)
        while self.now < until:
            self.now += self.watch.step()
        return self.orders[before:]

    # Sensors

    def read(self, engine_pid: int | None = None) -> MemoryReading | None:
        if self.blind:
            return None
        return reading(self.available, anonymous=self.engine if engine_pid else None, pid=self.pid)

    def proportional_bytes(self, pid: int) -> int | None:
        self.proportional += 1
        return 150 * MIB

    # Actions

    def keep_caches(self, allowed: bool) -> None:
        self.orders.append(f"caches {'kept' if allowed else 'dropped'}")

    def shed(self, reason: str) -> None:
        self.orders.append("shed")

    def serve_fully(self) -> None:
        self.orders.append("serve fully")

    def unload(self, reason: str) -> None:
        self.orders.append(f"unload: {reason}")
        self.engine = None

    def evict(self, reason: str) -> None:
        self.orders.append("evict")
        if self.obeys and self.engine is not None:
            self.available += self.engine
            self.engine = None

    def drop_file_cache(self) -> None:
        self.orders.append("drop the file's cache")

    def load_again(self) -> None:
        self.orders.append("load again")

    def restart_engine(self, reason: str) -> None:
        self.orders.append(f"restart: {reason}")
        self.pid, self.engine = self.pid + 1, 100

    def exit(self, reason: str) -> None:
        self.orders.append(f"exit: {reason}")

    def tell(self, happening: Happening, figures: Mapping[str, Any]) -> None:
        self.told.append((happening, figures))


def test_at_rest_nothing_is_asked_and_little_is_read() -> None:
    house = House(3000)
    assert house.rest(60) == []
    assert house.told == []
    assert house.watch.step() == MOST_PERIOD


def test_each_level_asks_for_its_own_step_by_step() -> None:
    house = House()
    asked = [house.step(available, after=5) for available in (500, 78, 62)]
    assert asked == [[], ["caches dropped"], ["shed"]]
    house.obeys = False
    assert house.step(50, after=5) == ["evict"]


def test_a_fall_at_once_asks_for_all_that_lies_between() -> None:
    house = House()
    house.step()
    assert house.step(30, after=1) == ["caches dropped", "shed", "evict"]
    assert [figures["now"] for happening, figures in house.told if happening == "memory_level"] == ["evict"]


def test_the_files_cache_is_dropped_once_the_engines_memory_is_gone() -> None:
    house = House()
    house.obeys = False
    house.step(55)
    house.step(50, after=0.1)
    house.available = 2000  # far from the floor, it still looks closely until the engine is gone
    house.now += 0.1
    assert house.watch.step() == LEAST_PERIOD
    assert house.step(after=0.1) == []
    house.engine = None
    assert house.step(150, after=0.1) == ["drop the file's cache"]
    [figures] = [figures for happening, figures in house.told if happening == "memory_evicted"]
    assert figures["seconds"] == pytest.approx(0.3)
    assert house.step(after=0.1) == []


def test_an_engine_that_keeps_its_memory_is_told_once() -> None:
    house = House()
    house.obeys = False
    house.step(48)  # above the floor: else the daemon itself would end
    for _ in range(20):
        house.step(after=EVICT_SECONDS / 4)
    [figures] = [figures for happening, figures in house.told if happening == "memory_held"]
    assert figures["pid"] == PID
    assert "drop the file's cache" not in house.orders


def test_after_pressure_has_gone_the_engine_comes_back_and_then_all_else() -> None:
    house = House()
    house.step(30)
    house.step(600, after=1)
    orders = house.rest(DWELL[EVICT] + DWELL[SHED] - 2)
    assert orders == []
    assert house.rest(3) == ["load again", "serve fully"]
    assert house.rest(DWELL[WARN] + 3) == ["caches kept"]
    levels = [figures["now"] for happening, figures in house.told if happening == "memory_level"]
    assert levels == ["evict", "shed", "warn", "ok"]


def test_shed_alone_loads_nothing_again() -> None:
    house = House()
    house.step(62)
    assert house.rest(1) == []
    house.available = 500
    assert house.rest(60) == ["serve fully", "caches kept"]


def test_a_second_fall_during_recovery_ends_what_has_come_back_and_loads_nothing() -> None:
    house = House()
    house.step(30)
    house.step(600, after=1)
    house.rest(DWELL[EVICT] + 2)
    assert house.watch.level is SHED
    house.engine = 100
    assert house.step(30, after=1) == ["evict"]
    assert house.step(after=0.1) == ["drop the file's cache"]
    assert "load again" not in house.orders


def test_where_ending_the_engine_does_not_help_the_daemon_ends() -> None:
    house = House(engine=None)
    house.step(5)
    assert house.orders == ["caches dropped", "shed", "evict", "drop the file's cache"]
    [order] = house.rest(CRITICAL_AFTER + 1)
    assert order == "exit: 5 MB of 950 MB of memory are available, 5 MB without the weights in use"


def test_every_change_is_told_with_figures_and_reason() -> None:
    house = House()
    house.step(30)
    happening, figures = house.told[0]
    assert happening == "memory_level"
    assert figures["before"] == "ok"
    assert figures["now"] == "evict"
    assert figures["cause"] == "available"
    assert figures["available_bytes"] == 30 * MIB
    assert figures["engine_anonymous_bytes"] == 100 * MIB
    assert figures["reason"] == "31 MB of 950 MB of memory are available, 31 MB without the weights in use"


def test_readings_that_fail_make_it_careful_and_that_is_told() -> None:
    house = House()
    house.step()
    house.blind = True
    assert house.rest(30) == ["caches dropped"]
    [(_, figures)] = house.told
    assert figures["reason"] == "/proc/meminfo can't be read"
    house.blind = False
    assert house.rest(30) == ["caches kept"]


def test_a_refused_request_is_told_when_to_come_back() -> None:
    house = House()
    house.step()
    assert house.watch.retry_after_seconds == 0
    house.step(30, after=1)
    assert house.watch.retry_after_seconds == DWELL[EVICT] + DWELL[SHED]
    house.step(600, after=1)
    house.step(after=10)
    assert house.watch.retry_after_seconds == DWELL[EVICT] + DWELL[SHED] - 10


def test_what_may_be_taken_leaves_the_level_as_it_is() -> None:
    house = House(engine=None)
    total, room = house.watch.memory()
    assert total == reading(1).total
    assert 380 * MIB < room < 450 * MIB
    house.step(500 - room / MIB)
    assert house.watch.level is OK
    house.step(500 - room / MIB - 1, after=60)
    assert house.watch.level is WARN
    house.blind = True
    assert house.watch.memory() == pytest.approx(memory(), rel=0.5)


# Idle unload


def test_a_model_that_nobody_uses_is_unloaded_if_that_is_wanted() -> None:
    for wanted, orders in ((None, []), (3600.0, ["unload: nobody has asked for 3600 s"])):
        house = House(3000, idle_unload=wanted)
        house.at_rest = True
        assert house.rest(3599) == []
        assert house.step(after=3600 - (house.now - 1000)) == orders


def test_a_model_that_is_used_stays() -> None:
    house = House(3000, idle_unload=60)
    house.at_rest = True
    for _ in range(10):
        house.used_at = house.now
        assert house.rest(55) == []
    house.at_rest = False
    assert house.rest(600) == []


# Growth


def grown_house(engine: float) -> House:
    house = House(2000, engine=100, planned=150)
    house.at_rest = True
    house.rest(30)
    house.engine = engine
    return house


def test_an_engine_that_has_grown_at_rest_is_started_anew() -> None:
    house = grown_house(engine=150 + 65)
    [order] = house.rest(10)
    assert order == "restart: it has grown by 68 MB too much at rest"
    assert [happening for happening, _ in house.told] == ["engine_grown"]


@pytest.mark.parametrize("engine", [149, 150 + 63])
def test_what_was_planned_and_a_little_more_is_no_growth(engine: float) -> None:
    assert grown_house(engine).rest(60) == []


def test_an_engine_is_not_started_anew_while_it_works_or_has_only_just_ended() -> None:
    house = grown_house(engine=400)
    house.at_rest = False
    assert house.rest(60) == []
    house.at_rest = True
    assert house.rest(REST_SECONDS - 1) == []
    assert len(house.rest(10)) == 1


def test_an_engine_that_had_more_than_planned_from_the_first_is_left_alone() -> None:
    """The estimate was wrong, then, and a restart would bring the same again."""
    house = House(2000, engine=400, planned=150)
    house.at_rest = True
    assert house.rest(60) == []


def test_growth_is_mended_now_and_then_only() -> None:
    house = grown_house(engine=400)
    assert len(house.rest(10)) == 1
    house.rest(10)
    house.engine = 400
    assert house.rest(LEAST_SECONDS_BETWEEN / 2) == []
    assert len(house.rest(LEAST_SECONDS_BETWEEN)) == 1


# The rest


def test_the_engines_share_is_asked_for_seldom_and_never_in_need() -> None:
    house = House(3000)
    house.rest(PROPORTIONAL_SECONDS * 3 - 1)
    assert house.proportional == 3
    assert house.watch.fields()["engine_proportional_bytes"] == 150 * MIB
    house.available = 62
    house.rest(2)
    house.now += PROPORTIONAL_SECONDS
    house.rest(10)
    assert house.proportional == 3


def test_status_has_level_figures_and_the_reason_while_there_is_one() -> None:
    house = House()
    house.step()
    assert "reason" not in house.watch.fields()
    assert house.watch.fields()["level"] == "ok"
    house.step(78, after=5)
    fields = house.watch.fields()
    assert (fields["level"], fields["total_bytes"]) == ("warn", 906 * MIB)
    assert fields["evicts_below_bytes"] == {"available": Bounds.of(906 * MIB).evict}
    assert "82 MB of 950 MB" in fields["reason"]


def test_near_the_end_it_looks_ten_times_a_second() -> None:
    house = House()
    house.available = 56
    assert house.watch.step() == LEAST_PERIOD


async def test_it_runs_until_it_is_cancelled() -> None:
    house, seen = House(), asyncio.Event()
    house.available = 56
    facts = house.watch._engine

    def count() -> EngineFacts:
        looks.append(house.now)
        if len(looks) == 3:
            seen.set()
        return facts()

    looks: list[float] = []
    house.watch._engine = count
    async with asyncio.timeout(10):
        task = asyncio.create_task(house.watch.run())
        await seen.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_files_cache_can_be_given_up(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(os.urandom(MIB))
    # mincore looks on: a read, even one that mustn't wait, would start to read ahead and find its own pages.
    with path.open("r+b") as file, mmap.mmap(file.fileno(), MIB) as pages:
        os.fsync(file.fileno())
        start = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(pages)))
        resident = (ctypes.c_ubyte * (MIB // mmap.PAGESIZE))()

        def cached() -> int:
            assert ctypes.CDLL(None).mincore(start, ctypes.c_size_t(MIB), resident) == 0
            return sum(page & 1 for page in resident)

        assert cached() == len(resident)
        assert drop_cached(path)
        assert cached() == 0


def test_the_cache_of_a_file_that_is_gone_need_not_be_given_up(tmp_path: Path) -> None:
    assert not drop_cached(tmp_path / "none")
