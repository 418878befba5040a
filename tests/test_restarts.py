"""Starts that come to nothing, one after the other."""

from __future__ import annotations

from pathlib import Path

from edged.restarts import Restarts


def test_each_start_after_some_that_failed_waits_longer_up_to_a_minute(tmp_path: Path) -> None:
    pauses = [Restarts(tmp_path).begin() for _ in range(12)]

    assert pauses == [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_start_that_came_to_something_ends_it(tmp_path: Path) -> None:
    for _ in range(5):
        Restarts(tmp_path).begin()
    Restarts(tmp_path).settle()

    assert Restarts(tmp_path).begin() == 0


def test_a_broken_count_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "starts").write_text("\0\0")

    assert Restarts(tmp_path).begin() == 0
    assert Restarts(tmp_path).begin() == 0


def test_where_nothing_can_be_counted_it_waits_a_little(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert Restarts(tmp_path / "file").begin() > 0
    Restarts(tmp_path / "file").settle()
