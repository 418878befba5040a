from __future__ import annotations

from pathlib import Path

import pytest

from tools.thermal.model import PI4, Board, firmware_clock
from tools.thermal_curves import curves

PUBLISHED = (
    52,
    62,
    64,
    65,
    67,
    68,
    70,
    71,
    71,
    72,
    72,
    72,
    73,
    73,
    74,
    74,
    74,
    75,
    76,
    75,
    75,
    76,
    77,
    76,
    78,
    77,
    78,
)
"""Degrees of a Pi 4 under `stress -c 4`, each ten seconds (the log that the model names)."""


def test_the_model_of_the_pi_4_follows_the_published_log() -> None:
    board, reckoned = Board(PI4, air=PUBLISHED[0] - PI4.chip_rest), []
    for _ in PUBLISHED:
        reckoned.append(board.chip)
        for _ in range(100):
            board.heat(PI4.watts(4), 0.1)
    error = sum((a - b) ** 2 for a, b in zip(PUBLISHED, reckoned, strict=True)) / len(PUBLISHED)
    assert error**0.5 < 1.0


def test_heat_that_flows_in_flows_out() -> None:
    board = Board(PI4, air=20)
    for _ in range(40_000):
        board.heat(2.0, 0.1)
    assert board.chip == pytest.approx(PI4.settled(20, 2.0))
    for _ in range(40_000):
        board.heat(0.0, 0.1)
    assert board.chip == pytest.approx(PI4.settled(20, 0.0))


def test_the_firmware_slows_down_between_its_limits() -> None:
    assert [firmware_clock(celsius) for celsius in (79.9, 82.5, 90.0)] == pytest.approx([1.0, 0.7, 0.4])


def test_a_picture_has_the_curves(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    curves(PI4, tmp_path / "curves.png")
    written = (tmp_path / "curves.png").read_bytes()
    assert written.startswith(b"\x89PNG")
    assert len(written) > 20_000, "an empty one is smaller"
