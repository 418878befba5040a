from __future__ import annotations

import random

import pytest

from tools.bench.statistics import estimate, percentile, ratios, verdict, worst_verdict


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 2.5), (0.95, 3.85), (1.0, 4.0)])
def test_a_percentile_lies_between_its_neighbours(share: float, expected: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], share) == pytest.approx(expected)


def test_a_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 0.95) == 7.0


def test_ratios_are_taken_pair_by_pair() -> None:
    """A machine that is slow for a while slows both sides of a pair, and the ratio stays."""
    assert ratios([100.0, 50.0], [200.0, 100.0]) == [0.5, 0.5]
    with pytest.raises(ValueError, match="longer"):
        ratios([1.0], [1.0, 2.0])


def test_an_estimate_is_the_same_at_each_call() -> None:
    samples = [1.0, 1.3, 0.9, 1.1, 1.2, 1.0]
    assert estimate(samples) == estimate(samples)


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    chance = random.Random(1)
    held = 0
    for _ in range(40):
        found = estimate([chance.gauss(1.0, 0.1) for _ in range(15)])
        held += found.low <= 1.0 <= found.high
    assert held >= 34  # 38 are expected


FASTER = [1.02, 1.04, 1.03, 1.05, 1.03]


@pytest.mark.parametrize(
    ("samples", "bar", "at_least", "expected"),
    [
        (FASTER, 1.0, True, "met"),
        (FASTER, 1.1, True, "missed"),
        (FASTER, 1.035, True, "unproven"),
        (FASTER, 1.1, False, "met"),
        (FASTER, 1.0, False, "missed"),
        (FASTER, 1.035, False, "unproven"),
        ([1.0] * 5, 1.0, True, "met"),
        ([1.0] * 5, 1.0, False, "met"),
    ],
)
def test_a_verdict_wants_the_whole_interval_on_one_side(
    samples: list[float], bar: float, at_least: bool, expected: str
) -> None:
    assert verdict(estimate(samples), bar, at_least=at_least) == expected


def test_few_samples_prove_nothing() -> None:
    assert verdict(estimate([9.0] * 4), 1.0, at_least=True) == "unproven"
    assert verdict(estimate([9.0] * 4), 1.0, at_least=False) == "unproven"


def test_one_sample_above_a_bar_for_all_is_enough() -> None:
    assert worst_verdict([1.0, 1.0, 1.0, 1.0, 251.0], 250) == "missed"
    assert worst_verdict([250.0] * 5, 250) == "met"
    assert worst_verdict([251.0], 250) == "missed"
    assert worst_verdict([1.0], 250) == "unproven"
