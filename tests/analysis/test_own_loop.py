"""The tables of notebook 12, from made-up measurements whose answers are seen at once."""

import itertools

import numpy as np
import pytest
from scipy import stats

from sln.analysis import own_loop

ROW = {"data": "images", "sigma": 0.0, "corrected": False, "seed": 0, "epoch": 2, "weights": "momentum"}
ROW |= {"test_accuracy": 0.5, "validation_accuracy": 0.5, "wrong_memorised": 0.5}


@pytest.fixture
def found():
    """Two epochs, three seeds, three sigmas and one correction, with numbers drawn at random."""
    rng = np.random.default_rng(0)
    keys = itertools.product((0.0, 0.5, 1.0), range(3), (1, 2), ("network", "momentum"))
    rows = [
        {"data": "images", "sigma": s, "corrected": c, "seed": seed, "epoch": epoch, "weights": weights}
        for s, seed, epoch, weights in keys
        for c in ((False, True) if s == 1 else (False,))
    ]
    columns = ("test_accuracy", "validation_accuracy", "wrong_memorised")
    return [row | dict(zip(columns, rng.random(3), strict=True)) for row in rows]


def values(found, column, **facts):
    """The values of a column by seed, where all facts hold."""
    return np.array([row[column] for row in found if facts.items() <= row.items()])


def test_sigma_is_chosen_by_the_average_after_the_last_epoch_on_noisy_labels_alone():
    better = ROW | {"sigma": 0.5, "validation_accuracy": 0.7}
    rows = [ROW | {"validation_accuracy": 0.9}, better, ROW | {"sigma": 1.0, "test_accuracy": 1.0}]
    rows += [ROW | {"sigma": 1.0, "validation_accuracy": 1.0} | other for other in (
        {"weights": "network"}, {"corrected": True}, {"epoch": 1}
    )]  # fmt: skip
    assert own_loop.choose_sigma(rows) == {"images": 0.5}
    assert own_loop.describe_choice(rows, {"images": 0.5}) == (
        "images: 90.0% at σ = 0, 70.0% at σ = 0.5, 50.0% at σ = 1; chosen: 0.5"
    )
    assert own_loop.choose_sigma([*rows, ROW | {"sigma": 0.2, "validation_accuracy": 0.7}]) == {"images": 0.2}


def test_accuracies_are_means_over_seeds_and_early_sees_no_true_label(found):
    table = own_loop.accuracies(own_loop.methods(found, {"images": 1.0})).set_index("method")["mean"]
    last = {"sigma": 1.0, "epoch": 2, "corrected": False}
    expected = {
        "CE": values(found, "test_accuracy", sigma=0.0, epoch=2, weights="network"),
        "SLN-MO": values(found, "test_accuracy", **last, weights="momentum"),
        "SLN-MO-LC": values(found, "test_accuracy", **last | {"corrected": True}, weights="momentum"),
    }
    for method, weights in (("CE early", "network"), ("CE-MO early", "momentum")):
        test, held_out = (
            np.array([values(found, column, sigma=0.0, epoch=e, weights=weights) for e in (1, 2)])
            for column in ("test_accuracy", "validation_accuracy")
        )
        expected[method] = test[held_out.argmax(axis=0), range(3)]
    for method, accuracy in expected.items():
        assert table[method] == pytest.approx(100 * accuracy.mean()), method
    assert set(table.index) == {*expected, "CE-MO", "SLN"}


def test_gains_are_paired_over_seeds_and_said_in_words(found):
    table = own_loop.gains(own_loop.methods(found, {"images": 1.0})).set_index("difference")
    facts = {"epoch": 2, "corrected": False, "weights": "network"}
    one, other = (values(found, "test_accuracy", sigma=sigma, **facts) for sigma in (1.0, 0.0))
    expected = stats.ttest_rel(100 * one, 100 * other).confidence_interval(0.95)
    row = table.loc["SLN minus CE"]
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
    lines = own_loop.describe(table.reset_index()).splitlines()
    assert len(lines) == 5
    assert lines[0].startswith(f"images: SLN minus CE: {row['mean']:+.1f} points (")


def test_curves_are_means_at_zero_and_at_the_sigma_asked_for(found):
    table = own_loop.curves(found, "images", 0.5).set_index(["method", "epoch"])
    assert set(table.index.unique("method")) == {"CE", "CE-MO", "SLN", "SLN-MO"}
    expected = values(found, "wrong_memorised", sigma=0.5, epoch=1, weights="network").mean()
    assert table["wrong_memorised_mean"]["SLN", 1] == pytest.approx(expected)
    assert (table["seeds"] == 3).all()
    assert set(own_loop.curves(found, "images", 0.0)["method"]) == {"CE", "CE-MO"}
