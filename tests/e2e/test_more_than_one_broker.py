"""A cluster loses a node, a bridge is cut: what was asked is answered (tools.cluster)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.interop.programs import need
from tools.cluster.run import bridge, cluster
from tools.trials import Verdict

Trial = Callable[..., Coroutine[Any, Any, Verdict]]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("trial", "program", "seconds"),
    [
        (bridge, "mosquitto", 6.0),
        (cluster, "nats-server", 25.0),
    ],  # nodes take their time to agree on a leader
)
async def test_nothing_is_lost(
    trial: Trial, program: str, seconds: float, tiny_model: Path, tmp_path: Path
) -> None:
    need(program)
    verdict = await trial(tmp_path, tiny_model, 20, seconds, print)
    assert verdict.holds, verdict.faults
    assert verdict.errors == {}
    assert verdict.counts["answered"] == verdict.counts["asked"] > 40
