"""A core whose engine is a fake that the tests drive by hand.

The fake has the interface of edged.engine.client.Engine. It stands in so that order, limits and sessions
can be tested without the chance of a real model's speed; the real engine under the same core is tested
in tests/e2e.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edged.core import Core, Ticket
from edged.engine.client import Engine
from edged.engine.generation import Generation, Prompt
from edged.engine.messages import Delta
from edged.engine.supervision.patience import Patience
from edged.errors import EdgedError
from edged.protocol import Client, Done, Frame, Request
from edged.settings import Settings

ALICE = Client("alice", "socket")
BOB = Client("bob", "socket")


class FakeEngine:
    """Counts words as tokens and answers when it is told to."""

    def __init__(self, slots: int = 1, context: int = 100) -> None:
        load = SimpleNamespace(sequences=slots, context=context, kv_type="f16")
        self.plan = SimpleNamespace(load=load, key="model", name="fake", notes=("a note",))
        self.context = context
        self.n_tokens = 1000
        self.is_ready = True
        self.state = "ready"
        self.supervisor = SimpleNamespace(
            pid=None, reason=None, patience=Patience(0.0), deaths=0, next_try_seconds=None
        )
        self.on_change: Callable[[], None] = lambda: None
        self.prepared: list[Any] = []
        self.running: list[Generation] = []
        self.started: list[str] = []
        self.refuse: EdgedError | None = None
        self._began = asyncio.Event()
        self.gate = asyncio.Event()  # prompts are prepared while it is set
        self.gate.set()
        self.asked = asyncio.Event()
        self.leaving: dict[Generation, asyncio.Future[bool]] = {}
        self.lets_go = True  # at once what is to be put back
        self.wakes = 0
        self.evictions: list[str] = []

    def evict(self, reason: str) -> None:
        """End all at once: what ran is out, to go on later."""
        self.evictions.append(reason)
        self.is_ready, self.state = False, "low_memory"
        self.supervisor.reason = reason
        self.let_go()
        self.on_change()

    def admit(self) -> None:
        """Let it be started again; the tests say when it is ready."""
        self.state, self.supervisor.reason = "starting", None

    def becomes_ready(self) -> None:
        """Serve from now on."""
        self.is_ready, self.state = True, "ready"
        self.on_change()

    def wake(self) -> None:
        self.wakes += 1

    async def prepare(self, messages: list[dict[str, str]] | None, raw: str | None = None) -> Prompt:
        self.asked.set()
        await self.gate.wait()
        if self.refuse:
            raise self.refuse
        self.prepared.append(messages if raw is None else raw)
        words = " ".join(m["content"] for m in messages or ()) if raw is None else raw
        return Prompt(list(range(len(words.split()))))

    def generate(self, generation: Generation) -> None:
        self.running.append(generation)
        self.started.append(cast(Any, generation.watcher).id)
        self._began.set()

    async def begun(self) -> None:
        """Wait until something runs."""
        while not self.running:
            self._began.clear()
            await self._began.wait()

    def cancel(self, generation: Generation) -> bool:
        is_here = generation in self.running
        if is_here:
            self._end(generation, Delta(0, [], "", [], "cancelled"))
        return is_here

    def put_back(self, generation: Generation) -> asyncio.Future[bool]:
        leaving = self.leaving[generation] = asyncio.get_running_loop().create_future()
        if self.lets_go:
            self.let_go()
        return leaving

    def let_go(self) -> None:
        """Let all leave that are to be put back."""
        for generation, leaving in self.leaving.items():
            self.running.remove(generation)
            leaving.set_result(True)
        self.leaving.clear()

    def find(self, id: str) -> Generation:
        """Return what runs for a request."""
        return next(g for g in self.running if cast(Any, g.watcher).id == id)

    def say(self, text: str, generation: Generation | None = None, *, finish: str | None = None) -> None:
        """Let a generation (the oldest by default) produce a token."""
        generation = generation or self.running[0]
        generation.produced.append(1)
        delta = Delta(0, [1], text, [], cast(Any, finish))
        if finish:
            self._end(generation, delta)
        else:
            generation.watcher.on_delta(delta)

    def _end(self, generation: Generation, delta: Delta) -> None:
        self.running.remove(generation)
        if leaving := self.leaving.pop(generation, None):
            leaving.set_result(False)
        generation.watcher.on_delta(delta)

    def answer(self, text: str = "yes") -> None:
        """Let the oldest generation end with a text."""
        self.say(text, finish="stop")


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


MakeCore = Callable[..., Core]


@pytest.fixture
def make_core(engine: FakeEngine, tmp_path: Any) -> MakeCore:
    """Return a function that makes a core with settings' tables as given."""

    def make(**tables: Any) -> Core:
        settings = Settings(device_id="d", state_dir=tmp_path, runtime_dir=tmp_path, **tables)
        return Core(settings, cast(Engine, engine))

    return make


@pytest.fixture
def core(make_core: MakeCore) -> Core:
    return make_core()


def ask(prompt: str = "hello there", **fields: Any) -> Request:
    """Return a request."""
    return Request.parse({"prompt": prompt, **fields})


async def frames_of(ticket: Ticket) -> list[Frame]:
    """Return the frames of a ticket that are left, up to its end."""
    frames = [await ticket.next_frame()]
    while frames[-1].type not in ("done", "error"):
        frames.append(await ticket.next_frame())
    return frames


async def say(core: Core, engine: FakeEngine, text: str, answer: str, **fields: Any) -> Done:
    """Have a turn of Alice's conversation answered."""
    ticket = (await core.submit(ask(text, session="s", **fields), ALICE)).ticket
    await engine.begun()
    engine.answer(answer)
    end = await ticket.wait()
    assert isinstance(end, Done)
    return end


def contents(messages: list[dict[str, str]]) -> list[str]:
    """Return the texts of messages that the engine was given."""
    return [m["content"] for m in messages]
