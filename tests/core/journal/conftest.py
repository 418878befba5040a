"""Journals in temporary directories, with a clock that the tests set."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edged.clock import Clock
from edged.core.journal import Journal, Loss, RecordKey, Recovered


@dataclass
class Bounds:
    """A table [journal] with values that the settings would not allow."""

    max_bytes: int = 16 << 20
    keep_results_seconds: float = 600.0
    outbox_max_bytes: int = 4 << 20


class Time:
    """The device's clocks, set by hand."""

    def __init__(self) -> None:
        self.boottime = 1000.0
        self.wall = 1.7e9
        self.synchronised = True

    def clock(self, root: Path) -> Clock:
        return Clock(
            root,
            wall=lambda: self.wall,
            boottime=lambda: self.boottime,
            kernel_synchronised=lambda: self.synchronised,
        )


class Bench:
    """A directory, and journals on it one after the other.

    Attributes:
        bounds: of every journal that is opened next.
        time: the clocks of all of them.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "state"
        self.bounds = Bounds()
        self.time = Time()
        self._root = directory / "root"
        self._copies = (directory / f"copy-{number}" for number in itertools.count())
        self._journals: list[Journal] = []
        self.boot("first")

    def boot(self, boot_id: str) -> None:
        """Let the device boot, as far as the clock sees it."""
        path = self._root / "proc/sys/kernel/random/boot_id"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(boot_id)

    async def open(self, on_loss: Callable[[Loss], None] = lambda loss: None) -> tuple[Journal, Recovered]:
        journal = Journal(self.directory, settings=self.bounds, clock=self.time.clock(self._root))
        journal.on_loss = on_loss
        self._journals.append(journal)
        return journal, await journal.open()

    async def close(self) -> None:
        while self._journals:
            await self._journals.pop().close()

    def crash(self) -> None:
        """Go on with the files as they lie now: what is written to the former ones is not seen."""
        copy = next(self._copies)
        shutil.copytree(self.directory, copy)
        self.directory = copy

    async def crash_and_open(self) -> tuple[Journal, Recovered]:
        self.crash()
        return await self.open()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.close()


Ask = Callable[[Journal, str], Awaitable[int]]


def key(id_: str, client: str = "alice") -> RecordKey:
    return RecordKey("mqtt", client, id_)


async def ask(journal: Journal, id_: str, body: bytes = b"question") -> int:
    return await journal.accept(key(id_), b"h" * 16, body)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)
