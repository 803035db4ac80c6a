"""Tables over seeds and of labels: each number is that of the runs."""

import numpy as np
import pandas as pd
import pytest

from sln import analysis
from sln.study.study import METHODS

COLUMNS = ["right_accuracy", "wrong_memorised", "test_accuracy"]


@pytest.fixture
def methods(smoke_study):
    return smoke_study.methods("sym")


def test_means_and_deviations_are_those_of_the_last_epochs(methods):
    table = analysis.mean_and_std(methods, "test_accuracy")
    assert tuple(table.index) == METHODS
    for name, method in methods.items():
        last = [run.of(method.weights)["test_accuracy"][3] for run in method.runs]
        assert table["mean"][name] == pytest.approx(sum(last) / 2)
        assert table["std"][name] == pytest.approx(abs(last[0] - last[1]) / 2**0.5)


def test_curves_have_a_row_for_each_method_and_epoch(methods):
    table = analysis.curves(methods, COLUMNS)
    assert len(table) == len(METHODS) * 3
    row = table.query("method == 'SLN' and epoch == 2").iloc[0]
    each = [run.of("network")["test_accuracy"][2] for run in methods["SLN"].runs]
    assert row["test_accuracy_mean"] == pytest.approx(np.mean(each))


def test_over_sigma_zero_is_ce_and_the_rest_is_sln(smoke_study, methods):
    table = analysis.over_sigma(smoke_study.grid("sym", (0.0, 0.5, 1.0)), ["test_accuracy"])
    at = table.set_index(["sigma", "weights"])["test_accuracy_mean"]
    assert at[0.0, "network"] == pytest.approx(methods["CE"].final("test_accuracy").mean())
    assert at[smoke_study.choose_sigma("sym"), "momentum"] == pytest.approx(
        methods["SLN-MO"].final("test_accuracy").mean()
    )


def test_momentum_models_by_alpha_are_sorted_and_start_with_the_network(smoke_study):
    averaged = smoke_study.averaged("sym")
    table = analysis.by_alpha(averaged)
    assert list(dict.fromkeys(table["alpha"])) == [0.0, 0.9, 0.99]
    network = averaged.through("network").curve("test_accuracy").mean(axis=1)
    assert np.allclose(table.query("alpha == 0")["mean"], network)


def test_stacked_tables_say_which_is_which():
    tables = {"a": pd.DataFrame({"x": [1, 2]}), "b": pd.DataFrame({"x": [3]})}
    assert analysis.stacked(tables).to_dict("list") == {"method": ["a", "a", "b"], "x": [1, 2, 3]}


def test_coins_scatter_and_counts_do_not():
    true = np.arange(200) % 10
    table = analysis.exact_and_bernoulli(true, 10, rate=0.3, draws=40)
    assert set(table["exact"]) == {0.3}
    assert 0.5 < table["bernoulli"].std() / np.sqrt(0.3 * 0.7 / 200) < 1.5


def test_the_two_meanings_of_a_rate_differ_by_the_own_class():
    table = analysis.rate_meanings(np.arange(1000) % 10, 10, rates=[0.0, 0.5, 1.0])
    assert np.allclose(table["other_classes"], [0, 0.5, 1])
    assert np.allclose(table["all_classes"], [0, 0.45, 0.9])
