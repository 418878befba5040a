"""Many clients, some of whom behave badly, while the engine is killed: nothing is lost, and nothing stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.load.run import Options, run

pytestmark = pytest.mark.slow


async def test_every_request_ends_once_and_nothing_is_held_afterwards(
    tmp_path: Path, tiny_model: Path
) -> None:
    options = Options(tiny_model, seed=5, requests=150, clients=25, kills=3, threads=1)
    verdict = (await run(options, tmp_path)).verdict
    assert verdict.faults == []
    assert verdict.counts["requests"] == 150
    assert verdict.counts["end_length"] + verdict.counts["end_stop"] > 75
    assert verdict.counts["left"] > 5
