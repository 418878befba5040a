"""What the engine's process is given."""

from __future__ import annotations

import pytest

from edged.engine.supervision.process import child_environment


def test_the_engine_gets_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGED_MQTT__PASSWORD", "hunter2")
    assert "hunter2" not in child_environment().values()
