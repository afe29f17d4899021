"""Bounds hold as often as they say, say so where they cannot, and are refused what they were not made for."""

import json
import math

import numpy as np
import pytest

from medseg_gan.errors import MedsegError
from medseg_gan.evaluation.conformal import UpperBound, conformal_quantile, coverage, needed


def draw(rng, count, factor=1.0):
    """Predictions that know little, and skewed errors whose spread grows with them."""
    predicted = rng.uniform(0.005, 0.1, count)
    return predicted, np.clip(factor * predicted * rng.lognormal(0, 0.7, count), 0, 1)


@pytest.mark.parametrize(("level", "examples"), [(0.95, 30), (0.95, 19), (0.8, 50)])
def test_marginal_coverage_on_exchangeable_data(level, examples):
    rng = np.random.default_rng(0)
    held = []
    for _ in range(2000):
        bound = UpperBound.calibrated(*draw(rng, examples), level=level, softening=0.02)
        predicted, errors = draw(rng, 20)
        held.append((errors <= bound.of(predicted)).mean())
    # between level and level + 1 / (n + 1); four standard errors of the mean around
    slack = 4 * np.std(held) / math.sqrt(len(held))
    assert level - slack <= np.mean(held) <= level + 1 / (examples + 1) + slack


def test_coverage_does_not_hang_on_the_prediction():
    rng = np.random.default_rng(1)
    held = []
    for _ in range(1000):
        predicted, errors = draw(rng, 60)
        bound = UpperBound.calibrated(rng.permutation(predicted)[:40], errors[:40], level=0.9, softening=0.02)
        held.append((errors[40:] <= bound.of(rng.permutation(predicted)[:20])).mean())
    assert np.mean(held) >= 0.88


def test_other_data_than_calibrated_on_break_the_bound():
    rng = np.random.default_rng(2)
    bound = UpperBound.calibrated(*draw(rng, 500), level=0.95)
    predicted, errors = draw(rng, 2000, factor=3.0)
    assert coverage(bound.of(predicted), errors)["share"] < 0.8


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_the_fewest_examples_are_needed_and_suffice(level):
    least = needed(level)
    assert math.isfinite(conformal_quantile(np.arange(least), level))
    assert math.isinf(conformal_quantile(np.arange(least - 1), level))


def test_nineteen_examples_for_95_percent_and_their_largest_residual():
    assert needed(0.95) == 19
    assert conformal_quantile(np.random.default_rng(0).permutation(19), 0.95) == 18
    assert conformal_quantile(np.arange(99), 0.95) == 94


def test_too_few_examples_give_no_bound_and_say_how_many_are_missing():
    bound = UpperBound.calibrated(np.full(18, 0.1), np.full(18, 0.1))
    assert not bound.exists
    assert bound.of(np.array([0.0, 0.2])).tolist() == [1.0, 1.0]
    assert bound.sentence() == "no bound: 18 annotated pairs to calibrate on, 95 % needs at least 19"
    assert UpperBound.calibrated(np.zeros(0), np.zeros(0)).of(np.array([0.5])).tolist() == [1.0]


def test_bounds_are_shares_and_rise_with_the_prediction():
    bound = UpperBound.calibrated(np.full(40, 0.1), np.linspace(0, 0.9, 40), softening=0.01)
    values = bound.of(np.linspace(0, 1, 50))
    assert (np.diff(values) >= 0).all() and values.min() >= 0 and values.max() == 1


def test_plain_values_survive_json():
    for examples in (5, 40):
        predicted, errors = draw(np.random.default_rng(3), examples)
        bound = UpperBound.calibrated(predicted, errors, softening=0.01)
        again = UpperBound.from_plain(json.loads(json.dumps(bound.plain(), allow_nan=False)))
        assert again == bound


def test_coverage_counts_and_its_interval_contains_it():
    found = coverage(np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.1, 0.3, 0.1, 0.1]))
    assert found["share"] == 0.75 and found["examples"] == 4
    assert found["interval"][0] < 0.75 < found["interval"][1]
    assert coverage(np.ones(100), np.zeros(100))["interval"] == [pytest.approx(0.9638, abs=1e-4), 1.0]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: UpperBound.calibrated(np.array([0.1]), np.array([0.1, 0.2])), "one of each per example"),
        (lambda: UpperBound.calibrated(np.array([0.1]), np.array([1.5])), "found 1.5"),
        (lambda: UpperBound.calibrated(np.array([math.nan]), np.array([0.5])), "found nan"),
        (lambda: UpperBound.calibrated(np.zeros(20), np.zeros(20), level=95), "such as 0.95"),
        (lambda: UpperBound.calibrated(np.zeros(20), np.zeros(20), softening=-1), "at least 0"),
        (lambda: coverage(np.zeros(0), np.zeros(0)), "at least one"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, words):
    with pytest.raises(MedsegError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
