"""What operators hear of the engine: each crash, and each change."""

from __future__ import annotations

from edged.core import Core
from edged.core.events import Event

from .conftest import FakeEngine


def test_changes_are_told_once_and_crashes_each_time(core: Core, engine: FakeEngine) -> None:
    heard: list[Event] = []
    core.events.listeners.append(heard.append)
    for state, reason in (
        ("ready", None),
        ("ready", None),
        ("restarting", "signal 11"),
        ("restarting", "signal 11"),
        ("failed", "no file"),
        ("failed", "no file"),
        ("failed", "bad file"),
        ("low_memory", "10 MB are available"),
        ("low_memory", "11 MB are available"),
    ):
        engine.state, engine.supervisor.reason = state, reason
        engine.on_change()
    assert [(event.type, *event.data.values()) for event in heard] == [
        ("model_loaded", "fake", 100, 1, "f16", ["a note"]),
        ("engine_crashed", "signal 11"),
        ("engine_crashed", "signal 11"),
        ("model_unavailable", "no file"),
        ("model_unavailable", "bad file"),
        ("low_memory", "10 MB are available"),
    ]
