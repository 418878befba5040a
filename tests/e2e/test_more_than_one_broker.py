"""A bridge is cut: what was asked is answered (tools.cluster, whose other trial takes a cluster of NATS)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.interop.programs import need
from tools.cluster.run import bridge


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_nothing_is_lost(tiny_model: Path, tmp_path: Path) -> None:
    need("mosquitto")
    verdict = await bridge(tmp_path, tiny_model, 20, 6.0, print)
    assert verdict.holds, verdict.faults
    assert verdict.errors == {}
    assert verdict.counts["answered"] == verdict.counts["asked"] > 40
