"""Tables over seeds and of labels: each number is that of the runs."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sln import analysis
from sln.study.study import METHODS

COLUMNS = ["right_accuracy", "wrong_memorised", "test_accuracy"]


def test_a_readable_table_has_three_digits_and_words_and_keeps_what_is_rounded():
    table = pd.DataFrame({"true_loss": [28499.3, 0.033316, 0.7], "mean": [100.0, 95.5, 1.0]})
    table.index, table.columns.name = ["sym", "logit noise", "CE"], "measure"
    expected = pd.DataFrame({"true loss": ["28500", "0.0333", "0.700"], "mean": [100.0, 95.5, 1.0]})
    expected.index = ["symmetric", "logit noise", "CE"]
    pd.testing.assert_frame_equal(analysis.readable(table), expected, check_dtype=False)


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


def test_accuracies_are_read_in_three_ways_and_early_stopping_sees_no_true_label(methods):
    table = analysis.accuracies(methods).set_index(["method", "reading"])
    for name, method in methods.items():
        histories = [run.of(method.weights) for run in method.runs]
        tested = [100 * history["test_accuracy"] for history in histories]
        early = [history["validation_accuracy"].idxmax() for history in histories]
        expected = {
            "last epoch": [test.iloc[-1] for test in tested],
            "mean of the last ten": [test.mean() for test in tested],  # three epochs in all
            "stopped early": [test[epoch] for test, epoch in zip(tested, early, strict=True)],
        }
        for reading, values in expected.items():
            low, high = stats.t.interval(0.95, 1, np.mean(values), stats.sem(values))
            row = table.loc[name, reading]
            assert (row["mean"], row["seeds"]) == (pytest.approx(np.mean(values)), 2)
            assert row[["low", "high"]].to_list() == pytest.approx([low, high])
        assert table.loc[name, "stopped early"]["epoch"] == np.mean(early)


def fake(last10, early):
    read = {"last10": lambda column: np.array(last10), "early": lambda column: np.array(early)}
    return type("Method", (), {name: staticmethod(function) for name, function in read.items()})


def test_the_sentence_states_the_paired_difference_and_whether_it_can_be_told():
    methods = {
        "CE": fake([0.5] * 3, [0.86, 0.87, 0.88]),
        "CE-MO": fake([0.6] * 3, [0.80, 0.90, 0.95]),
        "SLN": fake([0.80, 0.82, 0.81], [0.9] * 3),
        "SLN-MO": fake([0.92, 0.93, 0.93], [0.9] * 3),
        "SLN-MO-LC": fake([0.95, 0.95, 0.96], [0.9] * 3),
    }
    lines = analysis.describe_accuracies(methods).splitlines()
    assert lines[0].startswith("SLN (last ten epochs) minus CE stopped early: -6.0 (-8.5 to -3.5) points")
    assert lines[0].endswith("is better does not hold.")
    assert lines[1].endswith("is better holds.")
    assert lines[2].endswith("is better cannot be told with 3 seeds.")
    methods["CE"] = fake([0.5] * 3, [np.nan] * 3)
    assert "cannot be stopped early" in analysis.describe_accuracies(methods)


def test_curves_have_a_row_for_each_method_and_epoch(methods):
    table = analysis.curves(methods, COLUMNS)
    assert len(table) == len(METHODS) * 3
    row = table.query("method == 'SLN' and epoch == 2").iloc[0]
    each = [run.of("network")["test_accuracy"][2] for run in methods["SLN"].runs]
    assert row["test_accuracy_mean"] == pytest.approx(np.mean(each))


def test_over_sigma_zero_is_ce_and_the_rest_is_sln(smoke_study, methods):
    table = analysis.over_sigma(smoke_study.grid("sym", (0.0, 0.5, 1.0)), ["test_accuracy"])
    right = [
        (run.data.validation.given == run.data.validation.true).float().mean() for run in methods["CE"].runs
    ]
    assert np.allclose(table["ceiling"], np.mean(right))
    at = table.set_index(["sigma", "weights"])["test_accuracy_mean"]
    assert at[0.0, "network"] == pytest.approx(methods["CE"].final("test_accuracy").mean())
    assert at[smoke_study.choose_sigma("sym"), "momentum"] == pytest.approx(
        methods["SLN-MO"].final("test_accuracy").mean()
    )


def test_momentum_models_by_alpha_are_sorted_and_start_with_the_network(smoke_study):
    averaged = smoke_study.averaged("sym")
    table = analysis.by_alpha(averaged)
    assert list(dict.fromkeys(table["alpha"])) == [0.0, 0.9, 0.99]
    assert set(table["seeds"]) == {len(averaged.runs)}
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
