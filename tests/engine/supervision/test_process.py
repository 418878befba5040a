"""What the engine's process is given."""

from __future__ import annotations

import pytest

from edged.engine.supervision.process import child_environment


def test_the_engine_gets_no_secret_and_waits_as_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGED_MQTT__PASSWORD", "hunter2")
    monkeypatch.setenv("GOMP_SPINCOUNT", "0")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    given = child_environment()
    assert "hunter2" not in given.values()
    assert int(given["GOMP_SPINCOUNT"]) > 0
    assert "OMP_WAIT_POLICY" not in given
