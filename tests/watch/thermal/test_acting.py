"""The thermal watch's hold on a real core and engine client; the engine itself is a fake one."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from edged.clock import Clock
from edged.core import Core
from edged.core.durable import Durable
from edged.core.events import Event
from edged.core.journal import Journal
from edged.engine.messages import Prefixes
from edged.errors import EdgedError
from edged.protocol import Client, Failed, Request
from edged.settings import Settings
from edged.watch.thermal.acting import EngineWatched, ThermalActions, processor_seconds
from edged.watch.thermal.sensors import ThermalSensors
from edged.watch.thermal.threads import counted_speeds
from edged.watch.thermal.watch import EngineFacts, ThermalWatch
from tests.engine.misbehaving import running
from tests.watch.memory.trees import lay
from tests.watch.thermal.trees import PI4, ZONE

ALICE = Client("alice", "socket")
RETRY = 60.0


def settings(directory: Path) -> Settings:
    return Settings(device_id="d", state_dir=directory, runtime_dir=directory)


def ask(text: str = "hello") -> Request:
    return Request.parse({"prompt": text})


async def told(core: Core) -> Prefixes:
    """Return what the fake engine was told, which it says in the place of its cache's figures."""
    core.engine.trim(11)
    while core.engine.prefixes is None or core.engine.prefixes.bytes != 11:
        await asyncio.sleep(0)
    return core.engine.prefixes


async def test_a_hot_device_has_its_engine_rest(tmp_path: Path) -> None:
    root = lay(tmp_path / "root", PI4, {f"{ZONE}/temp": "78000\n"})
    async with running("serves") as engine:
        core = Core(settings(tmp_path), engine)
        engine.on_change = lambda: None  # the fake one's plan has nothing to tell of
        await engine.prepare(None, "until it is ready")
        events: list[Event] = []
        core.events.listeners.append(events.append)
        watch = ThermalWatch(
            core.settings.watch.thermal,
            ThermalSensors(root),
            ThermalActions(core),
            EngineWatched(engine, root),
        )
        watch.look()
        assert (await told(core)).prompts == 30, "thousandths of the time"
    assert [event.type for event in events] == ["thermal", "undervoltage", "throttled"]
    assert (events[0].data["state"], events[0].data["celsius"]) == ("governing", 78.0)


async def test_new_requests_are_refused_while_it_is_too_hot(tmp_path: Path) -> None:
    async with running("serves") as engine:
        core = Core(settings(tmp_path), engine)
        actions = ThermalActions(core)
        earlier = await core.submit(Request.parse({"prompt": "hello", "id": "a"}), ALICE)
        actions.refuse("80.1 °C, the target is 75 °C", RETRY)
        with pytest.raises(EdgedError, match=r"too hot: 80\.1 °C.*cool it") as refusal:
            await core.submit(ask(), ALICE)
        assert (refusal.value.code, refusal.value.retry_after_s) == ("too_hot", RETRY)
        again = await core.submit(Request.parse({"prompt": "hello", "id": "a"}), ALICE)
        assert again.ticket is earlier.ticket, "what was let in before is answered"
        actions.refuse(None, RETRY)
        assert (await core.submit(ask(), ALICE)).ticket.id


async def test_a_prompt_from_mqtt_is_refused_for_now_and_its_refusal_written_down(tmp_path: Path) -> None:
    clock = Clock()
    journal = Journal(tmp_path, settings=settings(tmp_path).journal, clock=clock)
    durable = Durable(journal, clock)
    async with running("serves") as engine:
        core = Core(settings(tmp_path), engine, durable, clock=clock)
        await durable.open()
        ThermalActions(core).refuse("80.1 °C, the target is 75 °C", RETRY)
        taken = await durable.take(ask(), Client("alice", "mqtt"), {"topic": "t"}, made_id="x")
        end = taken.ticket.terminal
        assert isinstance(end, Failed)
        assert (end.code, end.retry_after_s) == ("too_hot", RETRY)
        await journal.close()


async def test_the_watch_knows_the_engine_by_its_plan_and_what_was_measured(tmp_path: Path) -> None:
    (tmp_path / "proc").symlink_to("/proc")
    async with running("serves") as engine:
        watched = EngineWatched(engine, tmp_path)
        assert watched() == EngineFacts(None, (1.0,), 1), "there is no plan yet"
        await engine.prepare(None, "until it is ready")
        facts = watched()
        assert facts.seconds is not None
        assert facts.speeds == engine.speeds


def test_threads_are_counted_as_they_are_configured() -> None:
    assert counted_speeds((32.4, 33.8, 29.4, 27.3), fixed=False) == (27.3,) * 4, "all, while it is cool"
    assert counted_speeds((1.0, 1.8), fixed=True) == (0.0, 1.8), "heat leaves them alone"


def test_a_process_s_time_is_that_of_all_its_threads() -> None:
    before = processor_seconds(os.getpid())
    assert before is not None
    used = time.process_time() + 0.2
    while time.process_time() < used:
        pass
    after = processor_seconds(os.getpid())
    assert after is not None
    assert after - before == pytest.approx(0.2, abs=0.1)


@pytest.mark.parametrize("stat", ["", "1 (a) b c", "1 (a name) S 1 2 3 4 5 6 7 8 9 0 x y"])
def test_a_process_that_can_t_be_read_has_taken_an_unknown_time(tmp_path: Path, stat: Any) -> None:
    lay(tmp_path, {"proc/7/stat": stat})
    assert processor_seconds(7, tmp_path) is None
