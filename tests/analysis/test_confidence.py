"""Confidence: floors against simulation, counts by hand, identities of calibration, scikit-learn's scores."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss, roc_auc_score

from sln import noise
from sln.analysis import confidence
from sln.analysis.confidence import Floors, Outputs


@pytest.fixture
def methods(smoke_study):
    return smoke_study.methods("sym")


@pytest.fixture
def asymmetric():
    """An uneven T of three classes, and their shares."""
    return np.array([[0.7, 0.2, 0.1], [0.0, 0.6, 0.4], [0.3, 0.0, 0.7]]), np.array([0.5, 0.2, 0.3])


# --- floors -------------------------------------------------------------------------------------------------


def test_the_floors_of_symmetric_noise_are_the_formulas():
    floors = Floors(noise.symmetric_matrix(10, 0.4), np.full(10, 0.1))
    assert floors.entropy == pytest.approx(-0.6 * np.log(0.6) - 0.4 * np.log(0.4 / 9))
    assert floors.entropy == pytest.approx(1.552, abs=5e-4)
    for share in (floors.accuracy, floors.best_accuracy, floors.p_right):
        assert share == pytest.approx(0.6)
    assert floors.p_wrong == pytest.approx(0.4 / 9)


def test_the_floors_are_what_a_classifier_that_answers_T_reaches(asymmetric):
    T, shares = asymmetric
    floors = Floors(T, shares)
    true = np.repeat([0, 1, 2], (1000 * shares).astype(int))
    given = noise.flip(true, T, np.random.default_rng(0))  # exact counts, so its realised T is T
    p = T[true]
    assert floors.entropy == pytest.approx(log_loss(given, p))
    of_given, right = p[np.arange(len(true)), given], true == given
    assert floors.accuracy == pytest.approx(right.mean())
    assert floors.best_accuracy == pytest.approx((p.argmax(axis=1) == given).mean())
    assert floors.p_right == pytest.approx(of_given[right].mean())
    assert floors.p_wrong == pytest.approx(of_given[~right].mean())


def test_the_floors_of_data_are_those_of_their_realised_matrix(smoke_study):
    table = confidence.floors_by_noise(smoke_study)
    for mode, corruption in smoke_study.corruptions().items():
        assert table["accuracy"][mode] == pytest.approx(1 - corruption.realised_rate)
    assert table["entropy"]["sym"] == pytest.approx(1.552, abs=0.01)
    assert (table["best_accuracy"] >= table["accuracy"]).all()
    assert table["p_right"]["openset"] == 1  # images of a class keep their labels, the others have a row
    assert table["p_wrong"]["openset"] == pytest.approx(0.1, abs=0.01)
    lines = confidence.describe_floors(table).splitlines()
    assert lines[0].startswith(
        "symmetric: 60.0% of the given labels are right. From the true class at most 60.0%"
    )
    assert lines[0].endswith(f"{table['entropy']['sym']:.2f} nats.")


def test_true_labels_have_no_floor(few_digits):
    floors = confidence.floors(few_digits)
    assert (floors.entropy, floors.accuracy, floors.p_right) == (0, 1, 1)
    assert np.isnan(floors.p_wrong)


def test_memorised_nats_are_the_floor_minus_the_loss_on_given_labels(methods):
    table = confidence.memorised_nats(methods).set_index("method")
    for name, method in methods.items():
        loss = [run.examples[f"{method.weights}_loss"].mean() for run in method.runs]
        floor = [confidence.floors(run.data).entropy for run in method.runs]
        assert table["loss"][name] == pytest.approx(np.mean(loss), rel=1e-4)
        assert table["below"][name] == pytest.approx(np.mean(floor) - np.mean(loss), rel=1e-4)
    rows = [("a", 1.0, 0.5, 0.4, 0.6), ("b", 1.7, -0.2, -0.3, -0.1), ("c", 1.5, 0.0, -0.1, 0.1)]
    made = pd.DataFrame(rows, columns=["method", "loss", "below", "low", "high"]).assign(floor=1.5)
    text = confidence.describe_memorised_nats(made)
    assert "makes 1.500: a 1.00, 0.50 [0.40, 0.60] below the floor" in text
    assert "b 1.70, 0.20 [0.10, 0.30] above the floor" in text
    assert "c 1.50, no clear difference" in text


def test_the_words_say_whom_a_temperature_helps_and_whom_it_makes_less_sure():
    rows = [("a", "as trained", 1.0, 0.3), ("b", "as trained", 1.0, 0.1)]
    rows += [("a", "temperature, through T", 0.4, 0.2), ("b", "temperature, through T", 1.5, 0.2)]
    table = pd.DataFrame(rows, columns=["method", "remedy", "temperature", "error"])
    text = confidence.describe_temperatures(table)
    assert text == (
        "Temperature, through T, by means over seeds: it lowers the error of a; it raises that of b; "
        "it lowers the confidence of b."
    )
    assert "No image is held out" in confidence.describe_temperatures(table.iloc[:2])


# --- on training labels -------------------------------------------------------------------------------------


def test_a_dissection_counts_every_example_of_every_seed_once_and_sorts_by_loss(methods):
    method = methods["SLN"]
    table = confidence.dissection(method, intervals=50)
    assert set(table.drop(columns="mean_loss").sum(axis=1)) == {23 * len(method.runs)}
    wrong = table[["wrong label, right prediction", "wrong label, wrong prediction"]].to_numpy().sum()
    assert wrong == sum(int(run.data.train.wrong.sum()) for run in method.runs)
    one = dataclasses.replace(method.through("momentum"), runs=method.runs[1:])
    run, table = one.first, confidence.dissection(one, intervals=7)
    assert table["mean_loss"].is_monotonic_increasing
    correct = (run.examples["momentum_prediction"] == run.examples["true"]).sum()
    assert table[["right label, right prediction", "wrong label, right prediction"]].sum().sum() == correct
    lowest = run.examples.nsmallest(table.iloc[0, 1:].sum(), "momentum_loss")
    assert table["mean_loss"][0] == pytest.approx(lowest["momentum_loss"].mean())


def test_histograms_are_shares_of_right_and_of_wrong_labels(smoke_study):
    table = confidence.histograms(smoke_study.grid("sym", (0.0, 0.5, 1.0)))
    assert np.allclose(table.groupby(["sigma", "weights", "label"])["share"].sum(), 1)


def test_over_epochs_a_corrected_method_starts_where_correction_does(methods):
    starts = confidence.over_epochs(methods).groupby("method")["epoch"].min()
    assert starts.pop("SLN-MO-LC") == methods["SLN-MO-LC"].first.config.correction
    assert (starts == methods["CE"].curve("test_confidence").index.min()).all()


# --- calibration --------------------------------------------------------------------------------------------


def test_reliability_pools_the_images_of_all_seeds_on_true_and_on_given_labels(methods):
    outputs = confidence.outputs(methods)
    tables = confidence.reliability_tables(outputs).assign(
        correct=lambda t: (t["accuracy"] * t["examples"]).fillna(0)
    )
    sums = tables.groupby(["labels", "method"])[["examples", "correct"]].sum()
    columns = {confidence.TEST: "test_accuracy", confidence.VALIDATION: "validation_accuracy"}
    for (labels, name), row in sums.iterrows():
        wanted = methods[name].final(columns[labels]).mean()
        # folds may differ by one image
        assert row["correct"] / row["examples"] == pytest.approx(wanted, abs=2e-3)
    calibration = confidence.calibration(outputs).pivot(index="method", columns="quantity", values="mean")
    for column, of_history in {"accuracy": "accuracy", "confidence": "confidence"}.items():
        wanted = [methods[name].final(f"test_{of_history}").mean() for name in calibration.index]
        np.testing.assert_allclose(calibration[column], wanted, rtol=1e-4)


def made_outputs(T, *, sharpen=1.0, N=20_000):
    """Outputs whose softmax, at temperature `sharpen`, is the probability of the *true* label."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(N, len(T), generator=generator)
    true = torch.multinomial(F.softmax(logits, dim=1), 1, generator=generator)[:, 0]
    T = torch.from_numpy(T)
    given = torch.multinomial(T[true], 1, generator=generator)[:, 0]
    return Outputs(sharpen * logits, true, sharpen * logits, given, T)


def test_a_temperature_fitted_through_T_finds_the_truth_in_given_labels(asymmetric):
    made = made_outputs(asymmetric[0], sharpen=3.0)
    assert confidence.temperature(made.validation, made.true) == pytest.approx(3, rel=0.05)
    assert confidence.temperature(made.validation, made.given, made.T) == pytest.approx(3, rel=0.05)
    assert confidence.temperature(made.validation, made.given) > 4  # the given labels' own
    table = confidence.temperatures({"CE": [made, made]}).set_index("remedy")
    assert table["error"]["temperature, through T"] < 0.02 < table["error"]["as trained"]
    assert table["error"]["temperature, given labels"] > 0.05


def test_inverting_T_recovers_the_probabilities_of_true_labels(asymmetric):
    T = torch.from_numpy(asymmetric[0])
    p = torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(confidence.without_noise(p @ T, T), p)
    found = confidence.without_noise(torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64), T)
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(1)


def test_a_network_calibrated_to_given_labels_adds_nothing_of_its_own():
    T = noise.symmetric_matrix(10, 0.4)
    made = made_outputs(T)
    # logits of p T: calibrated to the given labels
    of_given = (F.softmax(made.test.double(), dim=1) @ made.T).log()
    honest = dataclasses.replace(made, test=of_given, validation=of_given)
    table = confidence.calibration({"honest": [honest, honest], "sure": [made, made]})
    mean = table.pivot(index="method", columns="quantity", values="mean")
    np.testing.assert_allclose(
        mean["from_noise"] + mean["added"], mean["accuracy"] - mean["confidence"], atol=1e-12
    )
    assert mean.loc["honest", "added"] == pytest.approx(0, abs=0.01)
    assert mean.loc["honest", "error_given"] < 0.02
    assert mean.loc["honest", "error"] == pytest.approx(mean.loc["honest", "from_noise"], abs=0.02)
    assert mean.loc["sure", "error"] < 0.02
    assert mean.loc["sure", "added"] == pytest.approx(-mean.loc["sure", "from_noise"], abs=0.02)


def test_the_sentence_on_calibration_has_a_verdict_only_where_the_interval_allows_one():
    def rows(method, low, high):
        quantities = {"accuracy": 0.9, "confidence": 0.5, "error": 0.4, "accuracy_given": 0.56}
        found = [{"method": method, "quantity": q, "mean": v} for q, v in quantities.items()]
        added = {"quantity": "added", "mean": (low + high) / 2, "low": low, "high": high}
        return [*found, {"method": method} | added]

    made = rows("shy", 0.02, 0.1) + rows("bold", -0.1, -0.02) + rows("fair", -0.1, 0.02)
    shy, bold, fair = confidence.describe_calibration(pd.DataFrame(made)).split("% sure: ")[1:]
    assert shy.startswith("0.06 [0.02, 0.10] of under-confidence is its own")
    assert bold.startswith("it is surer by 0.06 [0.02, 0.10]")
    assert fair.startswith("no clear difference")


def test_without_validation_images_only_true_labels_are_used(asymmetric):
    made = made_outputs(asymmetric[0], N=50)
    alone = dataclasses.replace(made, validation=made.validation[:0], given=made.given[:0])
    outputs = {"CE": [alone, alone]}
    assert set(confidence.reliability_tables(outputs)["labels"]) == {confidence.TEST}
    assert set(confidence.temperatures(outputs)["remedy"]) == {"as trained", "T inverted"}
    assert confidence.calibration(outputs).set_index("quantity")["mean"].isna().sum() == 1


def test_detection_is_the_auroc_of_the_loss(methods):
    table = confidence.detection({"CE": methods["CE"]})
    each = [
        roc_auc_score(run.examples["given"] != run.examples["true"], run.examples["network_loss"])
        for run in methods["CE"].runs
    ]
    assert table["auroc"]["CE"] == pytest.approx(np.mean(each))
