from __future__ import annotations

import pytest

from tools.bench import figures
from tools.bench.client import Client, Reply, Script
from tools.bench.loads import Beside
from tools.bench.prompts import Writer

TEXT = b'data: {"choices": [{"text": "word"}]}\n\n'
LAST = b'data: {"usage": {"prompt_tokens": 100, "completion_tokens": %d}}\n\ndata: [DONE]\n\n'


def nothing() -> Script:
    yield from ()


def answered(sent: float, *arrivals: float, ended: float | None = None) -> Client:
    """A client whose texts came at these times, and its end with the last of them."""
    end = arrivals[-1] if ended is None else ended
    reads = [*((at, TEXT) for at in arrivals), (end, LAST % len(arrivals))]
    return Client(nothing(), replies=[Reply(sent, end, reads)])


def test_served_counts_all_tokens_from_the_first_request_to_the_last_end() -> None:
    found = figures.served([answered(10.0, 10.5, 10.6), answered(11.0, 11.3, 11.5, ended=12.0)])
    assert found["tokens/s"] == pytest.approx(4 / 2.0)
    assert found["first token p50"] == pytest.approx(400)
    assert found["gap p50"] == pytest.approx(150)


def test_decode_goes_by_the_median_gap() -> None:
    found = figures.decode(answered(0.0, 1.0, 1.1, 1.2, 2.2))
    assert found["tokens/s"] == pytest.approx(10.0)
    assert found["tokens/s by the mean"] == pytest.approx(3 / 1.2)


def test_prefill_goes_by_the_wait_for_the_first_token() -> None:
    assert figures.prefill(answered(5.0, 5.25))["tokens/s"] == pytest.approx(400)


def test_streams_count_only_while_all_run() -> None:
    """Those that run alone, before or after, would be faster."""
    found = figures.streams([answered(0.0, 1.0, 2.0, 3.0, 4.0), answered(0.0, 2.0, 3.0, 4.0, 9.0)])
    assert found["tokens/s"] == pytest.approx(4 / 2.0)


def test_beside_looks_at_the_gaps_while_the_long_prompt_is_read() -> None:
    load = Beside(Writer("x"), 0.0)
    load.streams = [answered(0.0, 0.1, 1.0, 1.2, 1.5, 9.0)]
    load.reader = answered(1.1, 2.1)
    found = figures.beside(load, answered(20.0, 20.4))
    assert found["gap max"] == pytest.approx(7500)
    assert found["streams' tokens"] == 3
    assert found["times later"] == pytest.approx(2.5)


def test_processor_time_is_told_for_a_token() -> None:
    found = figures.cpu_per_token({"parent": 1.0}, {"parent": 1.5}, 100)
    assert found == {"cpu parent, ms a token": pytest.approx(5.0)}
