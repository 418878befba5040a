"""Broker, daemon and link fail under load: every prompt is answered once, and whole."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tools.chaos.faults import Kind
from tools.chaos.run import Options, run

pytestmark = pytest.mark.slow

FAULTS: dict[Kind, int] = {
    "broker_restart": 1,
    "daemon_kill": 1,
    "stall_and_kill": 1,
    "link_cut": 1,
    "link_reset": 1,
}


@pytest.mark.parametrize("broker_signal", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_lost_and_nothing_is_answered_twice(
    tmp_path: Path, tiny_model: Path, broker_signal: signal.Signals
) -> None:
    """Where the broker can save what it has, no requester needs to ask again."""
    options = Options(
        tiny_model,
        seed=7,
        prompts=60,
        clients=20,
        broker_signal=broker_signal,
        faults=FAULTS,
        patience_seconds=30,
    )
    verdict = run(options, tmp_path)
    assert verdict.faults == []
    assert verdict.counts["answers"] == 60
    assert (
        verdict.counts["daemon_connections"] >= 5
    )  # every fault of the link or the daemon made it connect anew
