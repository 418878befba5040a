"""Who stands still is named, replaced or given up, and the watchdog is fed only while all get on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from edged.core import Core
from edged.core.events import Event, Events
from edged.engine.supervision.patience import Patience
from edged.progress import STANDS_STILL, Progress
from edged.settings.watch import LivenessTable
from edged.systemd import Notifier
from edged.watch.liveness import aside
from edged.watch.liveness.judge import EXTENSION_SECONDS, Judge
from edged.watch.liveness.part import MOST_REBUILDS, Part

BOUND = 30.0
WATCHDOG = 60.0


@dataclass
class FakeCore:
    """As much of the core as the judge sees."""

    engine: Any = field(
        default_factory=lambda: SimpleNamespace(
            supervisor=SimpleNamespace(patience=Patience(15.0)), is_waiting=lambda: True
        )
    )
    phase: str = "ready"
    running: int = 0
    queue: list[int] = field(default_factory=list)
    model: Any = field(default_factory=lambda: SimpleNamespace(name="tiny"))
    settings: Any = field(
        default_factory=lambda: SimpleNamespace(watch=SimpleNamespace(liveness=LivenessTable()))
    )
    stalled: tuple[str, ...] = ()
    events: Events = field(default_factory=Events)
    status_parts: dict[str, Callable[[], Any]] = field(default_factory=dict)


class Bench:
    """A judge in virtual time, on a loop whose turns the test gives.

    Attributes:
        progress: of the part `journal`, which can't be replaced.
        told: events.
        exits: the codes that the process was to end with.
    """

    def __init__(self, heard: socket.socket, notifier: Notifier) -> None:
        self.core = FakeCore()
        self.told: list[Event] = []
        self.core.events.listeners.append(self.told.append)
        self.exits: list[int] = []
        self.progress = Progress()
        self.now = 1000.0
        self.judge = Judge(cast(Core, self.core), notifier, clock=lambda: self.now, exit=self.exits.append)
        self.judge.extends = False
        self.judge.begin(asyncio.get_running_loop())
        self.judge.watch(Part("journal", lambda: self.progress, lambda: BOUND))
        self._heard = heard
        self._lines: list[str] = []

    @property
    def stalled(self) -> list[str]:
        """Return the parts of which the core is told that they stand still."""
        return list(self.core.stalled)

    async def go_on(self, seconds: float, *, each: Callable[[], None] = lambda: None) -> None:
        """Let time pass, with a look each period; `each` comes before a look, the event loop's turn after."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + self.judge.period_seconds)
            each()
            self.judge.step()
            self._hear()
            await asyncio.sleep(0)

    def heard(self) -> list[str]:
        """Return what the service manager was told since the last time, line by line."""
        lines, self._lines = self._lines, []
        return lines

    def _hear(self) -> None:
        """Take what was sent: the queue of a socket is short."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._lines += self._heard.recv(4096, socket.MSG_DONTWAIT).decode().split("\n")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(name)
        yield heard, name


@pytest.fixture
async def bench(manager: tuple[socket.socket, str]) -> Bench:
    """With a watchdog."""
    heard, name = manager
    return Bench(heard, Notifier(name, watchdog_seconds=WATCHDOG))


@pytest.fixture
async def alone(manager: tuple[socket.socket, str]) -> Bench:
    """Without one."""
    heard, name = manager
    return Bench(heard, Notifier(name))


async def test_a_part_that_rests_is_alive_however_long(bench: Bench) -> None:
    await bench.go_on(3600)
    assert bench.stalled == []
    assert bench.told == []


async def test_a_part_that_works_and_gets_on_is_alive(bench: Bench) -> None:
    bench.progress.step()
    await bench.go_on(20 * BOUND, each=bench.progress.step)
    assert bench.stalled == []


async def test_a_part_that_stands_still_is_named_with_figures_and_all_stacks(bench: Bench) -> None:
    bench.progress.step()
    await bench.go_on(BOUND)
    assert bench.stalled == []
    with capture_logs() as log:
        await bench.go_on(2 * bench.judge.period_seconds)
    assert bench.stalled == ["journal"]
    [named] = [entry for entry in log if entry["event"] == "a part of the daemon stands still"]
    assert (named["part"], named["outcome"]) == ("journal", "given_up")
    assert BOUND < named["still_seconds"] <= BOUND + 2 * bench.judge.period_seconds
    stacks = {entry["thread"]: entry["frames"] for entry in log if entry["event"].startswith("stack of")}
    assert stacks.keys() == {thread.name for thread in threading.enumerate()} | {"liveness words"}
    assert any("go_on" in frame for frame in stacks["MainThread"])
    [event] = bench.told
    assert event.type == "part_stalled"
    assert event.data == {key: named[key] for key in ("part", "still_seconds", "outcome")}
    assert bench.judge.fields()["parts"]["journal"]["state"] == "stalled"


async def test_it_is_named_once_and_forgiven_when_it_gets_on(bench: Bench) -> None:
    bench.progress.step()
    with capture_logs() as log:
        await bench.go_on(2 * BOUND)
        bench.progress.rest()
        await bench.go_on(BOUND)
    assert bench.stalled == []
    own = [entry["event"] for entry in log if "a part of the daemon" in entry["event"]]
    assert own == ["a part of the daemon stands still", "a part of the daemon gets on again"]
    assert bench.judge.fields()["parts"]["journal"]["stalls"] == 1


async def test_a_step_that_is_known_to_be_long_has_more_time(bench: Bench) -> None:
    bench.progress.step(allowance=200.0)
    await bench.go_on(200.0 + BOUND)
    assert bench.stalled == []
    await bench.go_on(2 * bench.judge.period_seconds)
    assert bench.stalled == ["journal"]


async def test_work_that_nobody_begins_is_a_part_that_stands_still(bench: Bench) -> None:
    await bench.go_on(BOUND)
    bench.progress.expect()
    await bench.go_on(BOUND + 2 * bench.judge.period_seconds)
    assert bench.stalled == ["journal"]


async def test_a_process_that_slept_as_a_whole_is_not_blamed(bench: Bench) -> None:
    bench.progress.step()
    for _ in range(2):
        await bench.go_on(bench.judge.period_seconds)
        bench.now += 86_400  # SIGSTOP, a frozen cgroup
    await bench.go_on(bench.judge.period_seconds)
    assert bench.stalled == []


async def test_watchdog_is_fed_in_time_and_only_while_all_get_on(bench: Bench) -> None:
    assert bench.judge.period_seconds <= WATCHDOG / 2
    await bench.go_on(BOUND)
    assert bench.heard().count("WATCHDOG=1") >= BOUND / (WATCHDOG / 2)
    bench.progress.step()
    await bench.go_on(BOUND + 2 * bench.judge.period_seconds)
    bench.heard()
    await bench.go_on(BOUND / 2)
    assert bench.heard() == []
    bench.progress.rest()
    await bench.go_on(bench.judge.period_seconds)
    assert "WATCHDOG=1" in bench.heard()


@pytest.mark.parametrize("seconds", [3.0, 600.0])
async def test_watchdog_bounds_the_period(manager: tuple[socket.socket, str], seconds: float) -> None:
    judge = Bench(manager[0], Notifier(manager[1], watchdog_seconds=seconds)).judge
    assert judge.period_seconds <= min(seconds / 2, 5.0)


async def test_without_a_watchdog_the_daemon_ends_itself_with_a_last_line(alone: Bench) -> None:
    alone.progress.step()
    await alone.go_on(2 * BOUND)
    assert alone.exits == []
    with capture_logs() as log:
        await alone.go_on(2 * alone.judge.period_seconds)
    assert alone.exits[0] == STANDS_STILL
    assert log[-1]["event"] == "edged ends itself: a part stands still"
    assert (log[-1]["log_level"], log[-1]["part"]) == ("critical", "journal")


async def test_a_watchdog_has_time_to_bite_first(bench: Bench) -> None:
    bench.progress.step()
    await bench.go_on(2 * BOUND + 2 * WATCHDOG)
    assert bench.exits == []
    await bench.go_on(2 * bench.judge.period_seconds)
    assert bench.exits[0] == STANDS_STILL


async def test_a_log_that_takes_nothing_does_not_save_the_daemon(
    alone: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "WAIT_SECONDS", 0.01)
    held = threading.Event()
    monkeypatch.setattr("edged.watch.liveness.judge._log.critical", lambda *_, **__: held.wait())
    monkeypatch.setattr("edged.watch.liveness.judge._log.error", lambda *_, **__: held.wait())
    alone.progress.step()
    await alone.go_on(3 * BOUND)
    held.set()
    assert alone.exits[0] == STANDS_STILL


async def test_who_can_be_replaced_is_but_not_for_ever(bench: Bench) -> None:
    """Each that is replaced leaves a thread behind: at last it takes a new process."""
    made = [Progress()]

    def rebuild() -> None:
        made.append(Progress())
        made[-1].step()

    bench.judge.watch(Part("mqtt", lambda: made[-1], lambda: BOUND, rebuild))
    made[0].step()
    await bench.go_on(MOST_REBUILDS * (BOUND + 3 * bench.judge.period_seconds))
    assert len(made) == 1 + MOST_REBUILDS
    assert [event.data["outcome"] for event in bench.told] == ["rebuilt"] * MOST_REBUILDS
    assert bench.stalled == []
    await bench.go_on(2 * BOUND)
    assert len(made) == 1 + MOST_REBUILDS
    assert bench.told[-1].data["outcome"] == "given_up"
    assert bench.stalled == ["mqtt"]


async def test_an_engine_that_its_supervisor_finds_hung_is_told_and_costs_no_feed(bench: Bench) -> None:
    bench.judge.engine_hangs(16.04)
    await bench.go_on(bench.judge.period_seconds)
    [event] = bench.told
    assert event.data == {"part": "engine", "still_seconds": 16.0, "outcome": "restarted"}
    engine = bench.judge.fields()["parts"]["engine"]
    assert (engine["state"], engine["stalls"]) == ("ok", 1)
    assert "WATCHDOG=1" in bench.heard()


async def test_status_is_told_in_one_line_when_it_changes(bench: Bench) -> None:
    await bench.go_on(60)
    assert [line for line in bench.heard() if line.startswith("STATUS")] == [
        "STATUS=ready, tiny, 0 running, 0 queued"
    ]
    bench.core.running, bench.core.queue = 1, [1, 2]
    await bench.go_on(60)
    assert [line for line in bench.heard() if line.startswith("STATUS")] == [
        "STATUS=ready, tiny, 1 running, 2 queued"
    ]


async def test_a_start_or_stop_that_gets_on_is_given_time_and_no_other(bench: Bench) -> None:
    extension = f"EXTEND_TIMEOUT_USEC={EXTENSION_SECONDS * 1e6:.0f}"
    bench.judge.extends = True
    await bench.go_on(10 * EXTENSION_SECONDS)
    assert bench.judge.period_seconds * bench.heard().count(extension) >= 10 * EXTENSION_SECONDS
    bench.progress.step()
    await bench.go_on(BOUND + 2 * bench.judge.period_seconds)
    bench.heard()
    await bench.go_on(BOUND / 2)
    assert bench.heard() == []


async def test_an_event_loop_that_is_held_is_seen_from_outside(alone: Bench) -> None:
    """The judge runs in another thread, while a callback holds the loop."""

    def hold_the_loop() -> None:
        async def watch() -> None:
            await alone.go_on(3 * BOUND)

        thread = threading.Thread(target=lambda: asyncio.run(watch()))
        thread.start()
        thread.join()

    with capture_logs() as log:
        hold_the_loop()
    [named] = [entry for entry in log if entry["event"] == "a part of the daemon stands still"]
    assert named["part"] == "event_loop"
    [main] = [entry["frames"] for entry in log if entry.get("thread") == "MainThread"]
    assert any("hold_the_loop" in frame for frame in main)
    assert alone.exits[0] == STANDS_STILL
    await asyncio.sleep(0)
    alone.judge.step()
    assert alone.stalled == []
    assert [event.data["part"] for event in alone.told] == ["event_loop"]
