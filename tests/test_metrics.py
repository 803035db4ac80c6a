"""Numbers read from logits, against plain loops and cases worked out by hand."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sln import metrics
from sln.data import Split

some_predictions = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60)


def slow_bins(confidence, correct, bins):
    """For each bin (low, high] the confidences and verdicts in it; confidence 0 belongs to the first."""
    found = [[] for _ in range(bins)]
    for c, right in zip(confidence.tolist(), correct.tolist(), strict=True):
        for k in range(bins):
            if k / bins < c <= (k + 1) / bins or (c == 0 and k == 0):
                found[k].append((c, right))
    return found


def tensors(predictions):
    return torch.tensor([c for c, _ in predictions]), torch.tensor([right for _, right in predictions])


def a_split(given_labels, true):
    return Split(torch.zeros(len(true), 1, 1, 1), torch.tensor(given_labels), torch.tensor(true))


def logits_that_predict(classes, num_classes, p=0.9):
    """(N, C) logits whose softmax is p on `classes`, the rest equal."""
    rows = torch.full((len(classes), num_classes), (1 - p) / (num_classes - 1))
    rows[torch.arange(len(classes)), torch.tensor(classes)] = p
    return rows.log()


# --- calibration --------------------------------------------------------------------------------------------


@given(some_predictions, st.sampled_from([1, 4, 10, 15]))
def test_reliability_and_calibration_error_equal_a_plain_loop(predictions, bins):
    table = metrics.reliability(*tensors(predictions), bins)
    gap = 0.0
    expected = slow_bins(*tensors(predictions), bins)
    assert sum(map(len, expected)) == len(predictions)
    for row, found in zip(table.itertuples(), expected, strict=True):
        assert row.examples == len(found)
        if found:
            mean_confidence = sum(c for c, _ in found) / len(found)
            mean_accuracy = sum(right for _, right in found) / len(found)
            assert row.confidence == pytest.approx(mean_confidence)
            assert row.accuracy == pytest.approx(mean_accuracy)
            gap += len(found) / len(predictions) * abs(mean_accuracy - mean_confidence)
        else:
            assert math.isnan(row.confidence)
            assert math.isnan(row.accuracy)
    assert metrics.calibration_error(*tensors(predictions), bins) == pytest.approx(gap, abs=1e-9)


def test_the_bins_cover_0_to_1_without_gap():
    table = metrics.reliability(torch.tensor([0.5]), torch.tensor([True]), 10)
    assert table["low"].tolist() == pytest.approx([k / 10 for k in range(10)])
    assert table["high"].tolist() == pytest.approx([(k + 1) / 10 for k in range(10)])


@pytest.mark.parametrize(
    ("value", "bin_"), [(0.0, 0), (1e-9, 0), (0.25, 0), (0.25001, 1), (0.5, 1), (1.0, 3)]
)
def test_a_confidence_on_an_edge_belongs_to_the_bin_below(value, bin_):
    table = metrics.reliability(torch.tensor([value], dtype=torch.float64), torch.tensor([True]), 4)
    assert table["examples"].tolist() == [int(k == bin_) for k in range(4)]


def test_perfect_calibration_has_no_error_and_certain_mistakes_all_of_it():
    confidence = torch.tensor([0.75] * 4 + [0.5] * 2)
    correct = torch.tensor([True, True, True, False, True, False])
    assert metrics.calibration_error(confidence, correct) == 0
    assert metrics.calibration_error(torch.ones(5), torch.zeros(5, dtype=torch.bool)) == 1
    assert metrics.calibration_error(torch.ones(5), torch.ones(5, dtype=torch.bool)) == 0
    assert metrics.calibration_error(torch.zeros(5), torch.zeros(5, dtype=torch.bool)) == 0


def test_too_much_and_too_little_confidence_do_not_cancel_between_bins():
    confidence, correct = torch.tensor([0.9, 0.4]), torch.tensor([False, True])
    assert metrics.calibration_error(confidence, correct, 10) == pytest.approx((0.9 + 0.6) / 2)


# --- test images --------------------------------------------------------------------------------------------


def test_measure_test_by_hand():
    logits = torch.cat([logits_that_predict([0, 1], 4, 0.7), logits_that_predict([2, 3], 4, 0.4)])
    numbers = metrics.measure_test(logits, torch.tensor([0, 1, 2, 0]))
    assert numbers == pytest.approx(
        {
            "test_accuracy": 0.75,
            "test_loss": -(2 * math.log(0.7) + math.log(0.4) + math.log(0.2)) / 4,
            "test_confidence": 0.55,
            "test_calibration_error": (2 * 0.3 + 2 * 0.1) / 4,
        }
    )


def test_accuracy_is_the_share_of_right_predictions():
    logits = logits_that_predict([0, 1, 2, 2], 3)
    assert metrics.accuracy(logits, torch.tensor([0, 1, 2, 1])) == 0.75


# --- training images ----------------------------------------------------------------------------------------


def test_measure_train_by_hand():
    # right, right but missed, wrong and memorised, wrong and recovered, wrong and neither
    split = a_split([0, 1, 2, 3, 0], [0, 1, 1, 1, 3])
    numbers = metrics.measure_train(logits_that_predict([0, 2, 2, 1, 1], 4, 0.7), split)
    assert numbers == pytest.approx(
        {
            "train_loss": -(2 * math.log(0.7) + 3 * math.log(0.1)) / 5,
            "right_accuracy": 1 / 2,
            "wrong_memorised": 1 / 3,
            "wrong_recovered": 1 / 3,
            "right_confidence": (0.7 + 0.1) / 2,
            "wrong_confidence": (0.7 + 0.1 + 0.1) / 3,
        }
    )


def test_where_no_label_is_wrong_nothing_is_memorised_or_recovered():
    numbers = metrics.measure_train(logits_that_predict([0, 1], 3), a_split([0, 1], [0, 1]))
    assert numbers["right_accuracy"] == 1
    for name in ("wrong_memorised", "wrong_recovered", "wrong_confidence"):
        assert math.isnan(numbers[name])


def test_images_of_no_class_can_be_memorised_but_not_recovered():
    logits = logits_that_predict([0, 1, 2], 3)
    numbers = metrics.measure_train(logits, a_split([0, 1, 1], [0, -1, -1]))
    assert numbers["wrong_memorised"] == 0.5
    assert math.isnan(numbers["wrong_recovered"])
    assert numbers["right_accuracy"] == 1


def test_recovery_counts_only_images_that_have_a_class():
    numbers = metrics.measure_train(logits_that_predict([1, 0], 3), a_split([0, 0], [1, -1]))
    assert numbers["wrong_recovered"] == 1
    assert numbers["wrong_memorised"] == 0.5


@given(st.integers(0, 100))
def test_memorised_and_recovered_shares_never_exceed_one_together(seed):
    generator = torch.Generator().manual_seed(seed)
    given_labels, true = (torch.randint(3, (20,), generator=generator).tolist() for _ in range(2))
    logits = torch.randn(20, 3, generator=generator)
    numbers = metrics.measure_train(logits, a_split(given_labels, true))
    assert numbers["wrong_memorised"] + numbers["wrong_recovered"] <= 1 + 1e-12
    assert numbers["train_loss"] == pytest.approx(
        F.nll_loss(F.log_softmax(logits, dim=1), torch.tensor(given_labels)).item(), rel=1e-5
    )
