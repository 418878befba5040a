"""The engine's client against an engine that misbehaves on purpose (see fake_worker.py)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from edged.engine.generation import Prompt
from edged.engine.messages import Prefixes
from edged.engine.quirks import Quirks
from edged.engine.supervision.oom import OomKills
from edged.errors import EdgedError, ErrorCode
from tests.engine.misbehaving import Model, Watcher, changed, generation, running


async def until(condition: Callable[[], object]) -> None:
    """Wait for what no event tells; the test's own timeout bounds it."""
    while not condition():
        await asyncio.sleep(0.01)


async def test_prompts_are_prepared_and_answered() -> None:
    async with running("serves") as engine:
        assert await engine.prepare([{"role": "user", "content": "hi"}]) == Prompt([1, 2, 3], 2)
        watcher = Watcher()
        asked = generation(watcher)
        engine.generate(asked)
        await watcher.ended.wait()
        assert [d.text for d in watcher.deltas] == ["seven"]
        assert asked.produced == [7]
        assert watcher.readings == [(3, 2)]  # the boundary went there, and came back as what was cached
        assert not engine.is_waiting()


async def test_what_was_put_back_goes_on_where_it_was() -> None:
    async with running("pauses") as engine:
        watcher = Watcher()
        asked = generation(watcher)
        engine.generate(asked)
        await watcher.begun.wait()
        assert await engine.put_back(asked)
        assert not engine.is_waiting()
        assert not watcher.ended.is_set()
        engine.generate(asked)
        await watcher.ended.wait()
        assert watcher.text == "seven seven "
        assert asked.produced == [7, 7]
        assert not await engine.put_back(asked), "it has ended"


async def test_what_is_cancelled_while_it_is_put_back_ends_once() -> None:
    async with running("pauses") as engine:
        watcher = Watcher()
        asked = generation(watcher)
        engine.generate(asked)
        await watcher.begun.wait()
        leaving = engine.put_back(asked)
        engine.cancel(asked)
        assert not await leaving
        assert [delta.finish for delta in watcher.deltas] == [None, "cancelled"]


async def test_what_is_put_back_for_nobody_goes_on() -> None:
    async with running("pauses") as engine:
        watcher = Watcher()
        asked = generation(watcher)
        engine.generate(asked)
        await watcher.begun.wait()
        engine.put_back(asked).cancel()
        await watcher.ended.wait()
        assert watcher.text == "seven seven "


async def test_what_was_being_put_back_when_the_engine_died_is_out() -> None:
    async with running("keeps-silent") as engine:
        watcher = Watcher()
        asked = generation(watcher)
        engine.generate(asked)
        await watcher.begun.wait()
        leaving = engine.put_back(asked)
        engine.restart()
        assert await leaving
        engine.generate(asked)
        assert engine.is_waiting() or engine.state != "ready"


async def test_orders_hold_for_later_processes_too() -> None:
    async with running("serves") as engine:
        await engine.prepare(None, "until it is ready")
        engine.tune(3, 2, 0.0)
        engine.trim(11)
        for _ in range(2):
            await engine.prepare(None, "what is asked later is answered later")
            assert engine.prefixes == Prefixes(11, 3, 2, 10, 0, 0, 0), "what the fake one was told"
            engine.restart()


async def test_speeds_are_measured_once_for_a_model() -> None:
    async with running("serves") as engine:
        await engine.prepare(None, "until it is ready")
        first, pid = engine.speeds, engine.supervisor.pid
        engine.restart()
        await engine.prepare(None, "until it is ready again")
        assert (engine.speeds, first) == ((pid,), (pid,)), "the fake one measures its process"
        assert engine.supervisor.pid != pid


async def test_childs_lines_come_through_the_log_by_level() -> None:
    structlog.reset_defaults()
    with capture_logs() as logs:
        async with running("serves") as engine:
            await engine.prepare(None, "hi")
    lines = [(e["log_level"], e["event"], e.get("place"), e.get("source")) for e in logs]
    assert ("warning", "a line of the child", "fake", None) in lines
    assert ("warning", "what a dying library writes", None, "stderr") in lines


async def test_illegal_kernel_is_survived_without_repacking_and_remembered(tmp_path: Path) -> None:
    path = tmp_path / "quirks.json"
    async with running("bad-kernel", Quirks(path)) as engine:
        assert await engine.prepare(None, "hi") == Prompt([1, 2, 3], 2)
        assert engine.plan is not None
        assert engine.plan.load.repack is False
        assert engine.supervisor.restarts == 1
    async with running("bad-kernel", Quirks(path)) as engine:
        await engine.prepare(None, "hi")
        assert engine.supervisor.restarts == 0, "the next start knows it"


async def test_hung_engine_is_replaced_and_its_request_ends_clearly() -> None:
    async with running("hangs", stall=0.3) as engine:
        watcher = Watcher()
        engine.generate(generation(watcher))
        await watcher.ended.wait()
        assert watcher.error is not None
        assert watcher.error.code is ErrorCode.ENGINE_CRASHED
        assert "no sign of life" in watcher.error.message
        assert engine.supervisor.restarts >= 1


async def test_request_that_kills_the_engine_twice_is_ended_and_others_are_served() -> None:
    async with running("dies-of-requests") as engine:
        watcher = Watcher()
        engine.generate(generation(watcher))
        await watcher.ended.wait()
        assert watcher.error is not None
        assert "SIGABRT" in watcher.error.message
        assert await engine.prepare(None, "still there?") == Prompt([1, 2, 3], 2)


async def test_model_that_is_refused_fails_what_waits_with_the_librarys_words() -> None:
    async with running("refuses") as engine:
        with pytest.raises(EdgedError, match="unknown model architecture") as refused:
            await engine.prepare(None, "hi")
        assert refused.value.code is ErrorCode.MODEL_UNAVAILABLE
        assert engine.state == "failed"


async def test_engine_that_dies_at_every_start_is_backed_off_and_stated() -> None:
    async with running("dies-at-load") as engine:
        died = asyncio.Event()
        deaths = 0

        def on_change() -> None:
            nonlocal deaths
            deaths += 1
            if deaths == 2:
                died.set()

        engine.on_change = on_change
        await died.wait()
        assert engine.state == "restarting"
        assert engine.supervisor.reason == "ended with exit code 3; the log says more"


async def test_cancel_ends_a_generation_wherever_it_is() -> None:
    async with running("keeps-silent") as engine:
        here = Watcher()
        waiting = generation(here)
        engine.generate(waiting)  # the engine is not ready yet
        engine.cancel(waiting)
        assert here.deltas[-1].finish == "cancelled"
        await engine.prepare(None, "ready now")
        there = Watcher()
        running_one = generation(there)
        engine.generate(running_one)
        await there.begun.wait()
        engine.cancel(running_one)
        engine.cancel(running_one)
        await there.ended.wait()
        assert [d.finish for d in there.deltas] == ["cancelled"]
        assert not engine.is_waiting()


# --- what operators order ---


async def test_restart_takes_a_new_process_and_what_ran_goes_on_where_it_was() -> None:
    async with running("pauses") as engine:
        watcher = Watcher()
        asked = generation(watcher)
        engine.generate(asked)
        await watcher.begun.wait()
        before = engine.supervisor.pid
        engine.restart()
        await watcher.ended.wait()
        assert watcher.text == "seven seven "
        assert engine.supervisor.pid != before
        assert (asked.deaths, engine.supervisor.restarts) == (0, 0), "nobody died"


async def test_restarts_by_command_are_nobodys_fault_however_many() -> None:
    async with running("keeps-silent") as engine:
        watcher = Watcher()
        engine.generate(generation(watcher))
        for _ in range(3):
            await watcher.begun.wait()
            watcher.begun.clear()
            engine.restart()
        await watcher.begun.wait()
        assert watcher.error is None


async def test_unloaded_engine_has_no_process_until_something_is_asked() -> None:
    async with running("serves") as engine:
        await engine.prepare(None, "hi")
        pid = engine.supervisor.pid
        engine.unload()
        await changed(engine, "unloaded")
        assert engine.supervisor.pid is None
        assert not Path(f"/proc/{pid}").exists()
        assert not engine.is_ready
        watcher = Watcher()
        engine.generate(generation(watcher))
        await watcher.ended.wait()
        assert (watcher.text, engine.state) == ("seven", "ready")


async def test_what_is_asked_while_the_engine_is_being_unloaded_is_answered() -> None:
    async with running("serves") as engine:
        await engine.prepare(None, "hi")
        engine.unload()
        assert await engine.prepare(None, "already again") == Prompt([1, 2, 3], 2)


async def test_unload_ends_a_pause_between_two_starts() -> None:
    model = Model("missing")
    async with running(model) as engine:
        await changed(engine, "failed")
        engine.unload()
        assert engine.state == "unloaded"
        model.behaviour = "serves"
        engine.wake()
        await changed(engine, "ready")


async def test_restart_loads_at_once_what_could_not_be_loaded_before() -> None:
    model = Model("refuses")
    async with running(model) as engine:
        await changed(engine, "failed")
        model.behaviour = "serves"
        engine.restart()
        await changed(engine, "ready")


async def test_held_engine_begins_nothing_and_says_when_it_does_again() -> None:
    async with running("serves") as engine:
        await changed(engine, "ready")
        told: list[bool] = []
        engine.on_change = lambda: told.append(engine.is_ready)
        with engine.held():
            assert not engine.is_ready
        assert told == [True]


async def test_another_plan_is_taken_and_ends_what_still_runs_by_the_old_one() -> None:
    model = Model("pauses")
    async with running(model) as engine:
        running_on = Watcher()
        engine.generate(generation(running_on))
        await running_on.begun.wait()
        await engine.try_plan(model.changed_to("serves"))
        assert engine.is_ready
        assert running_on.error is not None
        assert running_on.error.code is ErrorCode.MODEL_UNAVAILABLE
        assert model.behaviour == "serves"


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ("refuses", "unknown model architecture"),
        ("dies-at-load", "ended with exit code 3"),
        ("missing", "there is no file"),
    ],
)
async def test_plan_that_fails_changes_nothing(other: str, reason: str) -> None:
    model = Model("pauses")
    async with running(model) as engine:
        watcher = Watcher()
        engine.generate(generation(watcher))
        await watcher.begun.wait()
        states: set[str] = set()
        engine.on_change = lambda: states.add(engine.state)
        with pytest.raises(EdgedError, match=reason) as refused:
            await engine.try_plan(model.changed_to(other))
        assert refused.value.code is ErrorCode.MODEL_UNAVAILABLE
        assert engine.state != "failed"
        preparing = asyncio.create_task(engine.prepare(None, "and others wait"))
        await watcher.ended.wait()
        assert watcher.text == "seven seven "
        assert await preparing == Prompt([1, 2, 3], 2)
        assert "failed" not in states, "who waits must not be refused"


async def test_engine_that_talks_nonsense_is_ended_and_the_next_one_serves() -> None:
    model = Model("talks-nonsense")
    async with running(model) as engine:
        watcher = Watcher()
        engine.generate(generation(watcher))
        await watcher.ended.wait()
        assert watcher.error is not None
        assert watcher.error.code == ErrorCode.ENGINE_CRASHED
        assert "its messages could not be read" in watcher.error.message
        model.behaviour = "serves"
        engine.restart()
        await changed(engine, "ready")
        after = Watcher()
        engine.generate(generation(after))
        await after.ended.wait()
        assert after.text == "seven"


# --- want of memory ---


async def test_what_is_evicted_is_started_by_nobody_until_it_is_admitted() -> None:
    async with running("serves") as engine:
        await changed(engine, "ready")
        engine.evict("12 MB are available")
        await changed(engine, "low_memory")
        assert engine.supervisor.reason == "12 MB are available"
        watcher = Watcher()
        engine.generate(generation(watcher))
        for order in (engine.wake, engine.restart, engine.supervisor.retry_now):
            order()
            await asyncio.sleep(0)
            assert (engine.state, engine.supervisor.pid) == ("low_memory", None)
        engine.admit()
        await watcher.ended.wait()
        assert watcher.text == "seven"


async def test_what_was_unloaded_before_it_was_evicted_waits_to_be_asked() -> None:
    async with running("serves") as engine:
        await changed(engine, "ready")
        engine.unload()
        await changed(engine, "unloaded")
        engine.evict("12 MB are available")
        engine.admit()
        await until(lambda: engine.state == "unloaded")
        assert await engine.prepare(None, "hi") == Prompt([1, 2, 3], 2)


async def test_a_plan_that_fits_no_memory_fails_nothing_and_is_made_again() -> None:
    model = Model("starved")
    async with running(model) as engine:
        watcher = Watcher()
        engine.generate(generation(watcher))
        await changed(engine, "low_memory")
        assert watcher.error is None
        model.behaviour = "serves"
        engine.supervisor.retry_now()
        await watcher.ended.wait()
        assert watcher.text == "seven"


async def test_a_model_that_is_tried_when_memory_ends_is_given_up() -> None:
    model = Model("serves")
    async with running(model) as engine:
        await changed(engine, "ready")
        trial = asyncio.create_task(engine.try_plan(model.changed_to("loads-for-ever")))
        await until(lambda: engine.supervisor.load_progress is not None)
        engine.evict("12 MB are available")
        with pytest.raises(EdgedError) as refused:
            await trial
        assert refused.value.code is ErrorCode.LOW_MEMORY
        engine.admit()
        await changed(engine, "ready")
        assert model.behaviour == "serves"


async def test_an_engine_that_the_kernel_killed_for_memory_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kills = itertools.count()
    monkeypatch.setattr(
        "edged.engine.supervision.life.oom_kills", lambda: OomKills(machine=next(kills), own=0, limit=0)
    )
    model = Model("is-killed")
    async with running(model) as engine:
        await until(lambda: model.ooms)
        assert engine.supervisor.deaths == 0, "the next plan is another: that is no reason to wait"
        model.behaviour = "serves"
        await changed(engine, "ready")
