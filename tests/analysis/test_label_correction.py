"""What correction does to the labels, against counts by hand."""

import numpy as np
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
    assert summary["w"]["wrong"] == pytest.approx(table.loc[table["wrong"], "w"].mean())


def test_the_most_moved_come_first_and_are_no_more_than_asked_for(corrected):
    table = label_correction.most_moved(corrected, 14, 12)
    assert len(table) == 12
    assert table["distance"].is_monotonic_decreasing
    everything = label_correction.most_moved(corrected, 14, 10_000)
    assert table["distance"].iloc[-1] >= everything["distance"].iloc[12]
    assert np.array_equal(table["given"], corrected.data.train.given[torch.tensor(table.index.to_numpy())])
