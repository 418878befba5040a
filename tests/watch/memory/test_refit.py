"""The engine is loaded anew in another size between requests, where that is worth it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edged.core import Core
from edged.engine.plan import EnginePlan
from edged.errors import EdgedError, ErrorCode
from edged.watch.memory import refit as module
from edged.watch.memory.refit import WORTH_IT, Refit


def plan(needed: float) -> EnginePlan:
    load = SimpleNamespace(context=512, sequences=1, kv_type="f16")
    return cast(EnginePlan, SimpleNamespace(memory=SimpleNamespace(needed_bytes=needed), load=load))


class House:
    """A core whose engine takes 100; what runs ends when it is told to."""

    def __init__(self, planned: float | None) -> None:
        self.planned = planned
        self.freed: list[int] = []
        self.quiet = asyncio.Event()
        self.is_held = False
        self.restarts: list[str] = []
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.engine = SimpleNamespace(
            plan=plan(100), state="ready", held=self.held, restart=self.restarts.append
        )
        self.dispatcher = self.direct = SimpleNamespace(drained=self.quiet.wait, wait=self.quiet.wait)
        self.events = SimpleNamespace(emit=lambda type, **data: self.told.append((type, data)))
        self.refit = Refit(cast(Core, self), self.plan, lambda: 70)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self.is_held = True
        yield
        self.is_held = False

    def in_hand(self) -> list[Any]:
        return [] if self.quiet.is_set() else [SimpleNamespace(wait=self.quiet.wait)]

    def plan(self, freed_bytes: int) -> EnginePlan:
        self.freed.append(freed_bytes)
        if self.planned is None:
            raise EdgedError(ErrorCode.LOW_MEMORY, "even the least does not fit")
        return plan(self.planned)

    async def settled(self) -> None:
        task = self.refit._task
        assert task is not None
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROW_SECONDS", 0.0)


async def test_it_is_made_smaller_when_nothing_runs_any_more() -> None:
    house = House(60)
    house.refit.shrink()
    await asyncio.sleep(0)
    assert house.is_held, "nothing is begun meanwhile"
    assert house.restarts == []
    house.quiet.set()
    await house.settled()
    assert house.freed == [70]
    assert house.restarts == ["the engine is made smaller: memory is short"]
    [(type, data)] = house.told
    assert (type, data["context"], data["sequences"], data["kv_type"]) == ("engine_refit", 512, 1, "f16")


@pytest.mark.parametrize("planned", [100, 120, None])
async def test_it_stays_where_nothing_smaller_is_to_be_had(planned: float | None) -> None:
    house = House(planned)
    house.quiet.set()
    house.refit.shrink()
    await house.settled()
    assert house.restarts == []
    assert not house.is_held


@pytest.mark.parametrize(("planned", "restarts"), [(100 * WORTH_IT, 1), (100 * WORTH_IT - 1, 0), (None, 0)])
async def test_it_is_made_larger_only_where_that_is_worth_it(planned: float | None, restarts: int) -> None:
    house = House(planned)
    house.refit.grow()
    await asyncio.sleep(0.01)
    assert house.freed == [], "somebody is asking"
    house.quiet.set()
    await house.settled()
    assert len(house.restarts) == restarts


async def test_what_was_asked_for_last_counts() -> None:
    house = House(60)
    house.refit.shrink()
    await asyncio.sleep(0)
    first = house.refit._task
    house.refit.grow()
    house.quiet.set()
    await house.settled()
    assert first is not None
    assert first.cancelled()
    house.refit.grow()
    house.refit.cancel()
    await house.settled()
    assert house.restarts == []


async def test_an_engine_that_does_not_serve_is_left_alone() -> None:
    house = House(60)
    house.engine.state = "unloaded"
    house.quiet.set()
    house.refit.shrink()
    await house.settled()
    assert (house.freed, house.restarts) == ([], [])
