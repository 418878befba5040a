"""How long each stage of a request is said to have taken."""

from __future__ import annotations

from edged.core.timings import Stopwatch
from edged.protocol import Timings


def test_each_stage_is_timed_from_admission_in_earlier_daemons_on() -> None:
    now = 100.0
    stopwatch = Stopwatch(waited=5.0, clock=lambda: now)
    now = 101.0
    assert stopwatch.waited == 6.0
    assert stopwatch.timings(0, 0) == Timings(6000.0)
    stopwatch.note_start()
    now = 103.0
    stopwatch.note_token()
    assert stopwatch.timings(40, 1) == Timings(6000.0, 8000.0, 20.0, None)
    now = 105.0
    stopwatch.note_token()
    assert stopwatch.timings(40, 11) == Timings(6000.0, 8000.0, 20.0, 5.0)


def test_wait_is_corrected() -> None:
    stopwatch = Stopwatch(waited=5.0, clock=lambda: 100.0)
    stopwatch.waited = 50.0
    stopwatch.note_start()
    assert stopwatch.timings(1, 0).queued_ms == 50_000.0


def test_pauses_are_time_in_the_queue_and_no_time_of_generating() -> None:
    now = 0.0
    stopwatch = Stopwatch(clock=lambda: now)
    stopwatch.note_start()
    now = 1.0
    stopwatch.note_pause()
    now = 5.0
    stopwatch.note_start()
    now = 6.0
    stopwatch.note_token()
    assert stopwatch.timings(40, 1) == Timings(4000.0, 6000.0, 20.0, None)
    now = 7.0
    stopwatch.note_pause()
    now = 10.0
    stopwatch.note_start()
    now = 11.0
    stopwatch.note_token()
    assert stopwatch.timings(40, 11) == Timings(4000.0, 6000.0, 20.0, 5.0)
