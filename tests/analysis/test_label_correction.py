"""What correction does to the labels, against counts by hand."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from sln import runs
from sln.analysis import label_correction
from sln.config import Config
from sln.study.statistics import MethodRuns


@pytest.fixture(scope="module")
def corrected(tmp_path_factory):
    """A run that is long enough for correction to move some labels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLN_RUNS", str(tmp_path_factory.mktemp("corrected")))
        config = Config(epochs=14, sigma=0.5, alpha=0.9, correction=10)
        return runs.get(config, quiet=True)


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


def test_the_share_of_the_target_on_the_given_label_is_w_or_everything(corrected):
    table = label_correction.weights(MethodRuns("SLN-MO-LC", [corrected], "momentum"))
    on_given = table["on_given"].to_numpy()
    agrees = corrected.correction(14).predictions.argmax(dim=1) == corrected.data.train.given
    assert np.allclose(on_given[agrees], 1, atol=1e-6)
    assert np.allclose(on_given[~agrees], table["w"].to_numpy()[~agrees], atol=1e-6)
    summary = label_correction.weights_summary(table)
    wrong = label_correction.describe_weights(summary).splitlines()[1]
    assert wrong.startswith(f"wrong labels: w is {table['w'][table['wrong']].mean():.2f} on average")
    assert summary["w"]["wrong"] == pytest.approx(table.loc[table["wrong"], "w"].mean())


def test_the_most_moved_come_first_and_are_no_more_than_asked_for(corrected):
    table = label_correction.most_moved(corrected, 14, 12)
    assert len(table) == 12
    assert table["distance"].is_monotonic_decreasing
    everything = label_correction.most_moved(corrected, 14, 10_000)
    assert table["distance"].iloc[-1] >= everything["distance"].iloc[12]
    assert np.array_equal(table["given"], corrected.data.train.given[torch.tensor(table.index.to_numpy())])


def test_the_worked_example_is_a_row_of_the_targets_and_the_rules_disagree_on_it(corrected, monkeypatch):
    rules = {"a": MethodRuns("a", [corrected], "momentum"), "b": MethodRuns("b", [corrected], "momentum")}
    example = label_correction.telling_example(rules)
    split = corrected.data.train
    assert example == int(split.wrong.nonzero()[0])  # twice the same rule: the first wrong label
    table = label_correction.worked_example(rules, example).query("rule == 'b'").set_index("epoch")
    assert list(table.index) == corrected.corrected_epochs
    for epoch, row in table.iterrows():
        target = label_correction.targets_at(corrected, epoch)[example]
        assert row["on_given"] == pytest.approx(target[split.given[example]].item())
        assert row["on_true"] == pytest.approx(target[split.true[example]].item())
        assert row["w"] == pytest.approx(corrected.correction(epoch).w[example].item())
    last = table.iloc[-1]
    words = label_correction.describe_worked_example(table.reset_index())
    assert f"and {last.w:.2f} at epoch {last.name};" in words
    assert words.endswith(f"to {last.on_true:.2f}.")
    other = torch.nn.functional.one_hot(split.true, 10).float()  # a rule that makes every label true
    real = label_correction.targets_at
    monkeypatch.setattr(
        label_correction, "targets_at", lambda run, epoch: real(run, epoch) if run is corrected else other
    )
    truth = SimpleNamespace(data=corrected.data, corrected_epochs=[14])
    chosen = label_correction.telling_example({"a": rules["a"], "b": SimpleNamespace(first=truth)})
    stays = real(corrected, 14).argmax(dim=1) != split.true
    assert chosen == int((split.wrong & stays).nonzero()[0])


def test_rules_of_w_are_compared_with_the_first_seed_by_seed(monkeypatch):
    truth = {"w": [0.6, 0.7], "none": [0.9, 1.0]}
    monkeypatch.setattr(
        label_correction, "by_epoch", lambda run: pd.DataFrame({"label_accuracy": [0.0, run]}, index=[1, 2])
    )
    accuracy = {"w": [0.90, 0.92], "none": [0.95, 0.96]}
    rules = {
        name: SimpleNamespace(runs=truth[name], final=lambda column, name=name: np.array(accuracy[name]))
        for name in truth
    }
    table = label_correction.by_weight(rules).set_index("rule")
    assert table.loc["w", ["accuracy", "gain", "gain_low", "labels"]].to_list() == pytest.approx(
        [91, 0, 0, 65]
    )
    assert table.loc["none", ["accuracy", "gain", "labels"]].to_list() == pytest.approx([95.5, 4.5, 95])
    reach = 12.7062 * np.std([5, 4], ddof=1) / 2**0.5  # t of one degree of freedom
    assert table.loc["none", "gain_high"] == pytest.approx(4.5 + reach, abs=1e-3)
    lines = label_correction.describe_by_weight(table.reset_index()).splitlines()
    assert "none: +4.5 points" in lines[1]
    assert "no clear difference" in lines[1]


def test_the_sentences_on_the_rules_state_their_last_epoch_and_whether_labels_are_truer():
    rows = [
        {"reading": rule, "seed": seed, "epoch": epoch, "moved": 0.2, "precision": 0.5, "recall": 0.3,
         "given_accuracy": 0.6, "label_accuracy": after + 0.01 * seed if epoch == 2 else 0.0}
        for rule, after in (("good", 0.8), ("bad", 0.4)) for seed in (0, 1, 2) for epoch in (1, 2)
    ]  # fmt: skip
    good, bad = label_correction.describe(pd.DataFrame(rows), "here").splitlines()
    assert good.startswith("here, good: 20% of all labels move, of which 50% were wrong; 30% of the wrong")
    assert "60% before, 81% after, +21.0 (+18.5 to +23.5) points" in good
    assert good.endswith("truer: holds.")
    assert bad.endswith("truer: does not hold.")


def test_on_the_photographs_both_rules_make_labels_less_true():
    table = label_correction.on_photographs()
    last = table[table["epoch"] == table["epoch"].max()].groupby("reading")[
        ["label_accuracy", "given_accuracy"]
    ]
    assert (last.mean()["label_accuracy"] < last.mean()["given_accuracy"]).all()
