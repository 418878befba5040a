"""Values are counted by size, and what was usual is found again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.core.histogram import Histogram


def test_a_bound_belongs_to_its_bucket() -> None:
    """As Prometheus has it: le is "less or equal"."""
    histogram = Histogram(1, 2, 5)
    for value in (0.5, 1, 2, 2.1, 99):
        histogram.observe(value)
    assert histogram.cumulative == [2, 3, 4]
    assert (histogram.count, histogram.sum) == (5, 104.6)


def test_without_values_no_quantile_is_made_up() -> None:
    assert Histogram(1, 2).quantile(0.5) is None


@given(st.lists(st.floats(0, 20), min_size=1), st.sampled_from([0.0, 0.5, 0.95, 1.0]))
def test_a_quantile_lies_in_the_bucket_of_the_value_it_stands_for(values: list[float], share: float) -> None:
    histogram = Histogram(1, 2, 5, 10)
    for value in values:
        histogram.observe(value)
    true = sorted(values)[max(0, -(-int(share * 100) * len(values) // 100) - 1)]
    upper = next((bound for bound in histogram.bounds if true <= bound), 10)
    lower = max((bound for bound in (0, 1, 2, 5) if bound < min(true, 10)), default=0)
    found = histogram.quantile(share)
    assert found is not None
    assert lower <= found <= upper


def test_a_quantile_is_parted_within_its_bucket() -> None:
    histogram = Histogram(10, 20)
    for value in (12, 14, 16, 18):
        histogram.observe(value)
    assert histogram.quantile(0.5) == pytest.approx(15)
