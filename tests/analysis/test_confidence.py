"""Confidence: counts by hand, shares that sum to one, scikit-learn's scores."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sln.analysis import confidence
from sln.metrics import error_of


@pytest.fixture
def methods(smoke_study):
    return smoke_study.methods("sym")


def test_a_dissection_counts_every_example_once_and_sorts_by_loss(methods):
    run = methods["SLN"].runs[0]
    table = confidence.dissection(run, intervals=50)
    assert table.drop(columns="mean_loss").to_numpy().sum() == len(run.data.train)
    assert table["mean_loss"].is_monotonic_increasing
    assert set(table.drop(columns="mean_loss").sum(axis=1)) == {23}
    wrong = table[["wrong label, right prediction", "wrong label, wrong prediction"]].to_numpy().sum()
    assert wrong == int(run.data.train.wrong.sum())
    correct = (run.examples["momentum_prediction"] == run.examples["true"]).sum()
    table = confidence.dissection(run, "momentum", intervals=7)
    assert table[["right label, right prediction", "wrong label, right prediction"]].sum().sum() == correct


def test_histograms_are_shares_of_right_and_of_wrong_labels(smoke_study):
    table = confidence.histograms(smoke_study.grid("sym", (0.0, 0.5, 1.0)))
    assert np.allclose(table.groupby(["sigma", "weights", "label"])["share"].sum(), 1)


def test_reliability_pools_the_test_images_of_all_seeds(methods):
    tables = confidence.reliability_tables(methods)
    for name, table in tables.items():
        assert table["examples"].sum() == 2 * 360
        correct = (table["accuracy"] * table["examples"]).sum() / (2 * 360)
        assert correct == pytest.approx(methods[name].final("test_accuracy").mean())
        assert 0 <= error_of(table) <= 1


def test_detection_is_the_auroc_of_the_loss(methods):
    table = confidence.detection({"CE": methods["CE"]})
    each = [
        roc_auc_score(run.examples["given"] != run.examples["true"], run.examples["network_loss"])
        for run in methods["CE"].runs
    ]
    assert table["auroc"]["CE"] == pytest.approx(np.mean(each))
