"""A broker that hangs under full load: the daemon keeps its size, and loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.chaos.stall import run_stall

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("seconds", "prompts"),
    [(8, 60), pytest.param(60, 240, marks=[pytest.mark.slow, pytest.mark.timeout(300)])],
)
def test_a_broker_that_hangs(tmp_path: Path, tiny_model: Path, seconds: int, prompts: int) -> None:
    verdict = run_stall(tiny_model, tmp_path, seconds=seconds, prompts=prompts)
    assert verdict.faults == []
    assert verdict.counts["answers"] == verdict.counts["prompts"]
