"""The governor's promise, kept with the real engine and its real duty cycle, twenty times as fast."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.thermal.compressed import trial
from tools.thermal_run import device_for

# The promise is 2 degrees and 0.9, which the tool measures on a quiet machine; others may use this one.
OVERSHOOT = SWING = 3.0
SHARE_OF_BEARABLE = 0.8
AIR = 38
SETTLING, SETTLED = 300.0, 200.0  # of the board's seconds


@pytest.mark.slow
async def test_the_real_engine_is_kept_at_the_target(smollm2: Path, tmp_path: Path) -> None:
    """What it gets done at that power depends on who else uses the machine: the tool measures it."""
    device = device_for(2)
    async with trial(smollm2, device, air=AIR, threads=2, directory=tmp_path) as made:
        course = await made.governed(SETTLING + SETTLED)
        settled = course.since(course.seconds[0] + SETTLING)
        assert course.states[-1] == "governing"
        assert max(course.celsius) <= made.watch.target + OVERSHOOT
        assert settled.swing <= SWING
        assert settled.mean_watts >= SHARE_OF_BEARABLE * device.bearable(AIR, made.watch.target)
        assert settled.tokens[-1] > settled.tokens[0]
