"""The real engine under a made-up sun: a board that warms twenty times as fast as a real one.

What the engine's process really computes warms the model of a board; what the board's thermometer says stands
in made-up files, which the real sensors read; the governor, whose clock runs as fast, tunes the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from edged.core import Core, Ticket
from edged.engine.client import Engine
from edged.engine.plan import Planner
from edged.protocol import Client, Done, Request
from edged.settings import Settings
from edged.settings.schema import EngineTable, ModelTable
from edged.watch.thermal.acting import EngineWatched, ThermalActions
from edged.watch.thermal.sensors import ThermalSensors
from edged.watch.thermal.watch import LOOK_SECONDS, EngineFacts, ThermalWatch
from tools.thermal.model import Board, Device

FACTOR = 20.0
"""So many seconds of the board are one of ours."""
_TICK_SECONDS = 0.01  # ours, between two looks at what the engine has computed
_HEAT_STEP_SECONDS = 0.1  # the board's
_NOISE = 0.25  # degrees, of the thermometer
_ZONE = "sys/class/thermal/thermal_zone0"
_FLAGS = "sys/devices/platform/soc/soc:firmware/get_throttled"
_CLIENT = Client("trial", "socket")
_PROMPT = "Tell a long story of a lighthouse keeper, his dog and the sea."


@dataclass(slots=True)
class Course:
    """What happened, a value for each look of the governor.

    Attributes:
        seconds: the board's.
        celsius: the chip's true temperature.
        tokens: that the engine has made until then.
        watts: above rest, in the mean since the look before.
        threads, duty: what the engine was told.
        states: the governor's.
    """

    seconds: list[float] = field(default_factory=list)
    celsius: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    watts: list[float] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    duty: list[float] = field(default_factory=list)
    states: list[str] = field(default_factory=list)

    def since(self, begin: float) -> Course:
        """Return the part from a time on."""
        first = next(i for i, at in enumerate(self.seconds) if at >= begin)
        names = ("seconds", "celsius", "tokens", "watts", "threads", "duty", "states")
        return Course(*(getattr(self, name)[first:] for name in names))

    @property
    def swing(self) -> float:
        """Return the degrees between the warmest and the coldest moment."""
        return max(self.celsius) - min(self.celsius)

    @property
    def speed(self) -> float:
        """Return the tokens a second of ours."""
        return (self.tokens[-1] - self.tokens[0]) / (self.seconds[-1] - self.seconds[0]) * FACTOR

    @property
    def mean_watts(self) -> float:
        """Return the mean power above rest."""
        return sum(self.watts) / len(self.watts)


class Trial:
    """An engine that answers without a break, and the board that it warms.

    Attributes:
        board: what gets warm.
        watch: what governs; it looks only while `governs`.
        course: what happened since it was made anew.

    Args:
        device: the board; its threads stand for as many of this machine's as the engine may use.
        core: the real one, with the real engine.
        air: the temperature around the board.
        root: where the made-up files go.
    """

    def __init__(self, device: Device, core: Core, *, air: float, root: Path) -> None:
        self.board = Board(device, air)
        self.governs = False
        self.course = Course()
        self._device = device
        self._core = core
        self._root = root
        self._chance = random.Random(1)
        self._tokens = 0  # of answers that have ended
        self._ticket: Ticket | None = None  # of the one that is being given
        self._started = time.monotonic()
        _write(root / "proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
        _write(root / f"{_ZONE}/type", "cpu-thermal\n")
        _write(root / _FLAGS, "0\n")
        self._show()
        self._facts = EngineWatched(core.engine, Path("/"))
        self.watch = ThermalWatch(
            core.settings.watch.thermal,
            ThermalSensors(root),
            ThermalActions(core),
            self._engine,
            clock=self.now,
        )
        self.threads, self.duty = 1, 1.0  # of the engine

    def now(self) -> float:
        """Return the board's seconds since the beginning."""
        return (time.monotonic() - self._started) * FACTOR

    async def constant(self, threads: int, duty: float, seconds: float) -> Course:
        """Return what happens in so many of the board's seconds at a constant setting."""
        self._core.engine.tune(threads, threads, duty)
        self.threads, self.duty = threads, duty
        return await self._run(seconds, governs=False)

    async def governed(self, seconds: float) -> Course:
        """Return what happens in so many of the board's seconds while it is governed."""
        decision = self.watch.decision
        self._core.engine.tune(decision.threads, decision.threads_batch, decision.duty)
        return await self._run(seconds, governs=True)

    async def run(self) -> None:
        """Answer, warm the board and look, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._ask())
            tasks.create_task(self._warm())

    async def _run(self, seconds: float, *, governs: bool) -> Course:
        self.course, self.governs = Course(), governs
        await asyncio.sleep(seconds / FACTOR)
        self.governs = False
        return self.course

    async def _ask(self) -> None:
        while True:
            request = Request.parse({"prompt": _PROMPT, "max_tokens": 400, "temperature": 1.0})
            ticket = (await self._core.submit(request, _CLIENT)).ticket
            self._ticket = ticket
            end = await ticket.wait()
            assert isinstance(end, Done), end
            self._tokens, self._ticket = self._tokens + end.usage.completion_tokens, None

    async def _warm(self) -> None:
        before, worked, looked = self.now(), self._engine().seconds or 0.0, self.now()
        joules = 0.0
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now, seconds = self.now(), self._engine().seconds or worked
            computed = max(0.0, seconds - worked)
            if self.governs:
                self.threads, self.duty = self.watch.decision.threads, self.watch.decision.duty
            busy = computed / self.threads
            heat = busy * self._device.shared_watts + computed * self._device.thread_watts
            self._heat(heat / (now - before), now - before)
            joules, before, worked = joules + heat, now, seconds
            if now - looked >= LOOK_SECONDS:
                self._look(joules / (now - looked))
                joules, looked = 0.0, now

    def _heat(self, watts: float, seconds: float) -> None:
        steps = max(1, round(seconds / _HEAT_STEP_SECONDS))
        for _ in range(steps):
            self.board.heat(watts, seconds / steps)

    def _look(self, watts: float) -> None:
        self._show()
        if self.governs:
            self.watch.look()
        course = self.course
        course.seconds.append(self.now())
        course.celsius.append(self.board.chip)
        course.tokens.append(self._tokens + (self._ticket.completion_tokens if self._ticket else 0))
        course.watts.append(watts)
        course.threads.append(self.threads)
        course.duty.append(self.duty)
        course.states.append(self.watch.decision.state)

    def _show(self) -> None:
        """Have the thermometer say what the chip has, as well as it can."""
        said = self.board.chip + self._chance.gauss(0.0, _NOISE)
        step = self._device.sensor_step
        _write(self._root / f"{_ZONE}/temp", f"{round(round(said / step) * step * 1000)}\n")

    def _engine(self) -> EngineFacts:
        facts = self._facts()
        return replace(facts, seconds=facts.seconds * FACTOR if facts.seconds is not None else None)


@asynccontextmanager
async def trial(
    model: Path, device: Device, *, air: float, threads: int, directory: Path
) -> AsyncIterator[Trial]:
    """Run an engine that answers without a break on a made-up board.

    Args:
        model: its file.
        device: the board.
        air: the temperature around it.
        threads: that the engine may use.
        directory: for the daemon's state and the made-up files.
    """
    settings = Settings(
        device_id="trial",
        state_dir=directory,
        runtime_dir=directory,
        model=ModelTable(path=model, context=1024, sequences=1),
        engine=EngineTable(threads=threads, threads_batch=threads),
    )
    engine = Engine(Planner(settings).plan, stall_seconds=settings.watch.liveness.engine_seconds)
    core = Core(settings, engine)
    ready = asyncio.Event()
    core.events.listeners.append(lambda event: ready.set() if event.type == "model_loaded" else None)
    task = asyncio.create_task(engine.run())
    working: asyncio.Task[None] | None = None
    try:
        await ready.wait()
        made = Trial(device, core, air=air, root=directory / "root")
        working = asyncio.create_task(made.run())
        yield made
    finally:
        for each in filter(None, (working, task)):
            each.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await each


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
