"""Snapshots of made-up devices."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, cast

import pytest

from edged.core import Core
from edged.engine.client import Engine
from edged.settings import Settings
from edged.telemetry.collect import Collector
from edged.telemetry.snapshot import Snapshot
from edged.watch.memory.policy import MemoryState
from edged.watch.memory.sensors import MemorySensors
from edged.watch.thermal.governor import Decision
from edged.watch.thermal.reading import ThermalReading
from edged.watch.thermal.sensors import ThermalSensors
from tests.core.conftest import FakeEngine
from tests.watch.memory.trees import lay

DEVICE = "pi-1"


@dataclass
class FakeMemory:
    """The watch over memory, as it is told of."""

    state: MemoryState = field(default_factory=MemoryState)
    engine_proportional_bytes: int | None = None


@dataclass
class FakeHeat:
    """The watch over heat, as it is told of."""

    reading: ThermalReading = field(default_factory=ThermalReading)
    decision: Decision = field(default_factory=lambda: Decision(2, 4, 1.0, state="unmeasured"))
    target: float = 75.0


class MakeSnapshot(Protocol):
    """Makes the snapshot of a device whose kernel shows these files."""

    def __call__(self, *trees: dict[str, str], engine_pid: int | None = None) -> Snapshot: ...


def make_core(directory: Path, **tables: Any) -> Core:
    """Return a core that serves nobody."""
    settings = Settings(device_id=DEVICE, state_dir=directory, runtime_dir=directory, **tables)
    engine = cast(Any, FakeEngine())
    engine.prefixes = None
    engine.plan = SimpleNamespace(**vars(engine.plan), library="llama-cpp-python 1")
    return Core(settings, cast(Engine, engine))


@pytest.fixture
def core(tmp_path: Path) -> Core:
    return make_core(tmp_path)


@pytest.fixture
def make_snapshot(core: Core, tmp_path: Path) -> MakeSnapshot:
    def make(*trees: dict[str, str], engine_pid: int | None = None) -> Snapshot:
        root = lay(tmp_path / "root", *trees)
        root.mkdir(exist_ok=True)
        memory = FakeMemory(MemoryState(reading=MemorySensors(root).read(engine_pid)))
        collector = Collector(
            core, memory=memory, thermal=FakeHeat(ThermalSensors(root).read()), alarms=tuple, root=root
        )
        return collector.snapshot()

    return make


@pytest.fixture
def snapshot(make_snapshot: MakeSnapshot) -> Snapshot:
    """A device of whose sensors nothing is known."""
    return make_snapshot()
