"""Tables and pictures of finished runs: laws, and slow oracles."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from sln import analysis, plots, runs
from sln.analysis import confidence, label_correction, labels, results
from sln.config import Config
from sln.datasets.load import load_data
from sln.metrics import error_of
from sln.study.study import METHODS, VARIANTS, MethodRuns, Study
from sln.utils.files import figures_folder

SIGMAS = (0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A study's runs at smoke size, trained once for this module."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLN_RUNS", str(folder))
        patch.setenv("SLN_WORKERS", "1")
        study = Study("smoke")
        study.readings("sym")
        study.grid("sym", SIGMAS)
        study.runs("sym", 1.0, extra_alphas=[0.9])
    return folder


@pytest.fixture
def study(trained, monkeypatch):
    monkeypatch.setenv("SLN_RUNS", str(trained))
    monkeypatch.setenv("SLN_WORKERS", "1")
    return Study("smoke")


@pytest.fixture
def readings(study):
    return study.readings("sym")


@pytest.fixture
def corrected(study):
    """A run that is long enough for correction to move some labels."""
    return runs.get(Config(epochs=14, sigma=0.5, alpha=0.9, correction=10), quiet=True)


# --- tables over seeds


def test_means_and_deviations_are_those_of_the_last_epochs(readings):
    table = analysis.mean_and_std(readings, "test_accuracy")
    assert tuple(table.index) == METHODS
    for name, reading in readings.items():
        last = [run.of(reading.weights)["test_accuracy"][3] for run in reading.runs]
        assert table["mean"][name] == pytest.approx(sum(last) / 2)
        assert table["std"][name] == pytest.approx(abs(last[0] - last[1]) / 2**0.5)


def test_curves_have_a_row_for_each_method_and_epoch(readings):
    table = analysis.curves(readings, plots.views.CURVES)
    assert len(table) == len(METHODS) * 3
    row = table.query("method == 'SLN' and epoch == 2").iloc[0]
    each = [run.of("network")["test_accuracy"][2] for run in readings["SLN"].runs]
    assert row["test_accuracy_mean"] == pytest.approx(np.mean(each))


def test_over_sigma_zero_is_ce_and_the_rest_is_sln(study, readings):
    table = analysis.over_sigma(study.grid("sym", SIGMAS), ["test_accuracy"])
    at = table.set_index(["sigma", "weights"])["test_accuracy_mean"]
    assert at[0.0, "network"] == pytest.approx(readings["CE"].final("test_accuracy").mean())
    assert at[study.choose_sigma("sym"), "momentum"] == pytest.approx(
        readings["SLN-MO"].final("test_accuracy").mean()
    )


def test_momentum_models_by_alpha_are_sorted_and_start_with_the_network(study):
    averaged = study.runs("sym", 1.0, extra_alphas=[0.9])
    table = analysis.by_alpha(averaged)
    assert list(dict.fromkeys(table["alpha"])) == [0.0, 0.9, 0.99]
    network = MethodRuns("", averaged, "network").curve("test_accuracy").mean(axis=1)
    assert np.allclose(table.query("alpha == 0")["mean"], network)


def test_stacked_tables_say_which_is_which():
    tables = {"a": pd.DataFrame({"x": [1, 2]}), "b": pd.DataFrame({"x": [3]})}
    assert analysis.stacked(tables).to_dict("list") == {"method": ["a", "a", "b"], "x": [1, 2, 3]}


# --- choosing sigma


def test_sigma_is_chosen_on_given_validation_labels_and_a_tie_goes_to_the_smaller(study, monkeypatch):
    scores = study.validation_scores("sym")
    chosen = study.runs("sym", 0.5)[: study.profile.choice_seeds]
    oracle = np.mean([run.final("momentum")["validation_accuracy"] for run in chosen])
    assert scores[0.5] == pytest.approx(oracle)
    monkeypatch.setattr(Study, "validation_scores", lambda self, noise_mode: {1.0: 0.5, 0.5: 0.5, 0.1: 0.4})
    assert study.choose_sigma("sym") == 0.5


def test_a_claim_that_does_not_hold_fails_only_where_the_profile_asserts(study, capsys):
    study.check("the moon is cheese", False)
    assert "DOES NOT HOLD: the moon is cheese" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="the moon"):
        Study("quick").check("the moon is cheese", False)


# --- correction


def test_recovery_equals_a_count_by_hand(corrected):
    table = label_correction.by_epoch(corrected)
    epoch = table.index[-1]
    correction, split = corrected.correction(epoch), corrected.data.train
    moved, moved_wrong, true = 0, 0, 0
    for i in range(len(split)):
        given = torch.nn.functional.one_hot(split.given[i], 10).float()
        target = correction.w[i] * given + (1 - correction.w[i]) * correction.predictions[i]
        label = int(target.argmax())
        moved += label != int(split.given[i])
        moved_wrong += label != int(split.given[i]) and bool(split.wrong[i])
        true += label == int(split.true[i])
    assert moved_wrong > 0
    assert table["moved"][epoch] == pytest.approx(moved / len(split))
    assert table["precision"][epoch] == pytest.approx(moved_wrong / moved)
    assert table["recall"][epoch] == pytest.approx(moved_wrong / int(split.wrong.sum()))
    assert table["label_accuracy"][epoch] == pytest.approx(true / len(split))
    assert table["given_accuracy"][epoch] == pytest.approx(0.6)


def test_the_target_on_the_given_label_is_w_or_everything(corrected):
    table = label_correction.weights([corrected])
    on_given = table["on_given"].to_numpy()
    agrees = corrected.correction(14).predictions.argmax(dim=1) == corrected.data.train.given
    assert np.allclose(on_given[agrees], 1, atol=1e-6)
    assert np.allclose(on_given[~agrees], table["w"].to_numpy()[~agrees], atol=1e-6)
    summary = label_correction.weights_summary(table)
    assert summary["w"]["wrong"] == pytest.approx(table.loc[table["wrong"], "w"].mean())


def test_the_most_moved_come_first_and_are_no_more_than_asked_for(corrected):
    table = label_correction.most_moved(corrected, 14, 12)
    assert len(table) == 12
    assert table["distance"].is_monotonic_decreasing
    everything = label_correction.most_moved(corrected, 14, 10_000)
    assert table["distance"].iloc[-1] >= everything["distance"].iloc[12]
    assert np.array_equal(table["given"], corrected.data.train.given[torch.tensor(table.index.to_numpy())])


# --- confidence


def test_a_dissection_counts_every_example_once_and_sorts_by_loss(readings):
    run = readings["SLN"].runs[0]
    table = confidence.dissection(run, intervals=50)
    assert table.drop(columns="mean_loss").to_numpy().sum() == len(run.data.train)
    assert table["mean_loss"].is_monotonic_increasing
    assert set(table.drop(columns="mean_loss").sum(axis=1)) == {23}
    wrong = table[["wrong label, right prediction", "wrong label, wrong prediction"]].to_numpy().sum()
    assert wrong == int(run.data.train.wrong.sum())
    correct = (run.examples["momentum_prediction"] == run.examples["true"]).sum()
    table = confidence.dissection(run, "momentum", intervals=7)
    assert table[["right label, right prediction", "wrong label, right prediction"]].sum().sum() == correct


def test_histograms_are_shares_of_right_and_of_wrong_labels(study):
    table = confidence.histograms(study.grid("sym", SIGMAS))
    assert np.allclose(table.groupby(["sigma", "weights", "label"])["share"].sum(), 1)


def test_reliability_pools_the_test_images_of_all_seeds(readings):
    tables = confidence.reliability_tables(readings)
    for name, table in tables.items():
        assert table["examples"].sum() == 2 * 360
        correct = (table["accuracy"] * table["examples"]).sum() / (2 * 360)
        assert correct == pytest.approx(readings[name].final("test_accuracy").mean())
        assert 0 <= error_of(table) <= 1


def test_detection_is_the_auroc_of_the_loss(readings):
    table = confidence.detection({"CE": readings["CE"]})
    each = [
        roc_auc_score(run.examples["given"] != run.examples["true"], run.examples["network_loss"])
        for run in readings["CE"].runs
    ]
    assert table["auroc"]["CE"] == pytest.approx(np.mean(each))


# --- labels


def test_coins_scatter_and_counts_do_not():
    true = np.arange(200) % 10
    table = labels.exact_and_bernoulli(true, 10, rate=0.3, draws=40)
    assert set(table["exact"]) == {0.3}
    assert 0.5 < table["bernoulli"].std() / np.sqrt(0.3 * 0.7 / 200) < 1.5


def test_the_two_meanings_of_a_rate_differ_by_the_own_class():
    table = labels.rate_meanings(np.arange(1000) % 10, 10, rates=[0.0, 0.5, 1.0])
    assert np.allclose(table["other_classes"], [0, 0.5, 1])
    assert np.allclose(table["all_classes"], [0, 0.45, 0.9])


# --- results


def test_results_are_beside_the_papers_and_every_step_has_a_verdict(study, monkeypatch):
    monkeypatch.setattr(Study, "readings", lambda self, mode: {m: fake(m) for m in METHODS})
    monkeypatch.setattr(Study, "choose_sigma", lambda self, mode: 0.5)
    table = results.table(study)
    assert table.groupby("noise")["mean"].apply(list)["sym"] == pytest.approx([50, 50, 60, 70, 65])
    beside = results.beside_published(table, "digits")
    assert beside.loc[("sym", "SLN"), "paper (cifar10)"] == "80.00 ± 0.61"
    assert beside.loc[("sym", "CE-MO"), "paper (cifar10)"] == "not in the paper"
    steps = results.steps_of_the_order(study).set_index(["noise", "step"])
    assert steps["verdict"]["sym", "CE → SLN"] == "agrees"
    assert steps["verdict"]["sym", "SLN-MO → SLN-MO-LC"] == "disagrees"
    assert steps["verdict"]["openset", "SLN-MO → SLN-MO-LC"] == "agrees"
    assert steps["paper"]["sym", "CE → SLN"] == pytest.approx(80.00 - 53.16)
    assert "CE → SLN agrees (+10.0 ± 0.0)" in results.describe(steps.reset_index())


class fake:
    """A reading whose accuracy over two seeds is known."""

    def __init__(self, name):
        self.mean = {"CE": 0.5, "CE-MO": 0.5, "SLN": 0.6, "SLN-MO": 0.7, "SLN-MO-LC": 0.65}[name]

    def final(self, column):
        return np.array([self.mean - 0.01, self.mean + 0.01])


# --- pictures


def test_saving_writes_the_picture_and_the_numbers(tmp_path):
    ax = plots.new_axes()
    table = pd.DataFrame({"x": [0.1, 0.2]})
    assert plots.save(ax.figure, table, "09_test", "smoke") is ax.figure
    folder = figures_folder("smoke")
    assert sorted(path.name for path in folder.iterdir()) == ["09_test.csv", "09_test.png"]
    assert (folder / "09_test.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "09_test.csv").read_text() == "x\n0.1\n0.2\n"


def test_a_method_has_one_colour_and_no_two_share_it():
    assert set(plots.COLOURS) == set(plots.STYLES) == {*METHODS, *VARIANTS}
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)


@pytest.mark.parametrize("mode", ["none", "sym", "asym", "dependent", "openset"])
def test_label_noise_shows_the_realised_rate(mode, study):
    figure = plots.views.label_noise(Config(), mode, 0.4)
    realised = plots.views.draw_corruption(Config(noise_mode=mode, noise_rate=0.4)).realised_rate
    assert f"{100 * realised:.1f}% wrong" in figure.subfigs[0].axes[0].get_title()


def test_images_are_shown_as_training_sees_them_and_framed_by_their_labels(study, monkeypatch):
    config, shown = Config(noise_mode="openset"), {}
    monkeypatch.setattr(
        "sln.plots.base.gallery",
        lambda images, titles, wrong, **rest: shown.update(rest, images=images, wrong=wrong),
    )
    plots.views.labelled_images(config, np.arange(30))
    split = load_data(config).train
    assert torch.equal(shown["images"], split.images[:30])
    assert shown["wrong"] == split.wrong[:30].tolist()
    assert any(shown["wrong"])
    assert shown["scale"] == 16
    digits = load_data(config)
    assert plots.views.caption(digits, 3, -1) == "given 3\nis none"
    assert plots.views.caption(digits, 3, 3) == "3"
    assert plots.views.caption(digits, 3, 4) == "given 3\nis 4"
