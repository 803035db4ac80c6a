"""Intervals and verdicts, and the three accuracies of a run."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sln.study.statistics import Estimate, MethodRuns, interval, paired

numbers = st.lists(st.floats(-100, 100), min_size=2, max_size=9)


@given(numbers)
def test_intervals_are_those_of_the_t_test(values):
    found = interval(values)
    assert found.mean == pytest.approx(np.mean(values))
    if np.std(values) > 1e-6:
        low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)
        holds = found.verdict() == "holds"
        assert holds == bool(stats.ttest_1samp(values, 0).pvalue < 0.05 and found.mean > 0)


def test_one_seed_concludes_nothing():
    found = interval([3.0])
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert found.verdict() == "cannot be told with 1 seed"


@pytest.mark.parametrize(
    ("low", "high", "claimed", "verdict"),
    [
        (1, 3, 1, "holds"),
        (1, 3, -1, "does not hold"),
        (-3, -1, -1, "holds"),
        (-3, -1, 2.5, "does not hold"),
        (-1, 3, 1, "cannot be told with 5 seeds"),
        (-1, 3, -1, "cannot be told with 5 seeds"),
    ],
)
def test_a_verdict_needs_an_interval_on_one_side_of_zero(low, high, claimed, verdict):
    assert Estimate((low + high) / 2, low, high, 1.0, 5).verdict(claimed) == verdict


def method(accuracy, validation, every=1):
    """Runs with these histories (seeds x epochs) of test and validation accuracy."""
    runs = []
    for seed, columns in enumerate(zip(accuracy, validation, strict=True)):
        history = pd.DataFrame(dict(zip(("test_accuracy", "validation_accuracy"), columns, strict=True)))
        history.index = range(1, len(history) + 1)
        of = lambda weights, table=history: table  # noqa: E731
        final = lambda weights, table=history: table.iloc[-1]  # noqa: E731
        config = SimpleNamespace(seed=seed, epochs=len(history), measure_test_every=every)
        runs.append(SimpleNamespace(config=config, of=of, final=final))
    return MethodRuns("any", runs)


def test_last_epoch_mean_of_the_last_ten_and_epoch_of_the_best_noisy_validation():
    epochs = np.arange(1, 13) / 100
    found = method([epochs, epochs + 0.5], [[0.1, 0.9, 0.9] + [0.2] * 9, [0.1] * 11 + [0.3]])
    assert found.final("test_accuracy") == pytest.approx([0.12, 0.62])
    assert found.last10("test_accuracy") == pytest.approx([0.075, 0.575])
    assert found.best_epochs() == [2, 12]
    assert found.early("test_accuracy") == pytest.approx([0.02, 0.62])


def test_early_stopping_needs_every_epoch_that_the_configuration_asks_for():
    accuracy, validation = np.arange(1, 25) / 100, np.arange(1, 25) / 100
    thinned = np.where((np.arange(1, 25) % 5 == 0) | (np.arange(1, 25) > 14), validation, np.nan)
    assert np.isnan(method([accuracy], [thinned]).early("test_accuracy")).all()
    assert method([accuracy], [thinned], every=5).early("test_accuracy") == pytest.approx([0.24])
    assert method([accuracy], [validation], every=5).early("test_accuracy") == pytest.approx([0.24])


def test_without_validation_images_there_is_no_early_stopping():
    found = method([[0.1, 0.2]], [[math.nan] * 2])
    assert np.isnan(found.early("test_accuracy")).all()


def test_differences_are_paired_over_seeds_in_points():
    one = method([[0.5], [0.9]], [[0.1]] * 2)
    other = method([[0.4], [0.8]], [[0.1]] * 2)
    found = paired(one, other)
    assert (found.mean, found.low, found.high) == pytest.approx((10, 10, 10))
