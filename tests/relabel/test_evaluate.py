"""Data with known wrong labels, and scores of how well they are found."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sln import plots
from sln.datasets import images as source
from sln.relabel import evaluate, images
from sln.study.study import Study


def test_the_noisy_digits_are_the_training_and_validation_images_with_exactly_that_noise():
    split = evaluate.noisy_digits("sym", 0.1)
    clean = source.digits()
    assert torch.equal(split.true, torch.cat([clean.train.true, clean.validation.true]))
    assert int(split.wrong.sum()) == round(0.1 * 1150) + round(0.1 * 287)
    grey = torch.cat([clean.train.images, clean.validation.images])
    assert split.images.shape == (1437, 3, 8, 8)
    assert all(torch.equal(split.images[:, [c]], (grey.float() * 255 / 16).round().byte()) for c in range(3))
    assert torch.equal(evaluate.unseen_digits().true, clean.test.true)


def test_exported_images_are_read_back_pixel_by_pixel_and_row_by_row(tmp_path):
    split = evaluate.noisy_digits("sym", 0.1)[:60]
    folder = evaluate.export(split, tmp_path / "digits")
    before = evaluate.checksum(folder)
    found = images.read(folder, quiet=True)
    rows = evaluate.rows(pd.DataFrame({"path": [entry.name for entry in found.entries]}))
    assert sorted(rows) == list(range(60))
    assert torch.equal(found.images, split.images[rows])
    assert found.labels == [str(label) for label in split.given[rows].tolist()]
    evaluate.export(split, folder)
    assert evaluate.checksum(folder) == before
    (folder / "0").rename(folder / "zero")
    assert evaluate.checksum(folder) != before


@given(
    st.lists(
        st.tuples(st.integers(0, 1000), st.booleans()), min_size=2, max_size=30, unique_by=lambda x: x[0]
    )
)
def test_detection_is_the_mean_precision_at_the_wrong_labels_and_the_share_of_ordered_pairs(pairs):
    scores, wrong = (np.array(values) for values in zip(*pairs, strict=True))
    if wrong.all() or not wrong.any():
        wrong[0] = not wrong[0]
    found = evaluate.detection(scores, wrong)
    order = np.argsort(-scores)
    precisions = [wrong[order[: k + 1]].mean() for k in range(len(order)) if wrong[order[k]]]
    assert found["average_precision"] == pytest.approx(np.mean(precisions))
    ordered = [a > b for a in scores[wrong] for b in scores[~wrong]]
    assert found["auroc"] == pytest.approx(np.mean(ordered))


def test_over_threshold_counts_flagged_labels_and_true_labels_after_the_correction():
    labels = pd.DataFrame(
        {"given": ["a", "a", "b", "b"], "suggested": ["b", "a", "b", "a"], "suspect": [0.9, 0.5, 0.1, 0.6]}
    )
    table = evaluate.over_threshold(labels, np.array(["b", "a", "b", "b"])).set_index("threshold")
    expected = {"flagged": 0.5, "precision": 0.5, "recall": 1.0, "true_after": 0.75}
    assert table.loc[0.55].to_dict() == pytest.approx(expected)
    assert table.loc[0.9].to_dict() == pytest.approx(
        {"flagged": 0.25, "precision": 1.0, "recall": 1.0, "true_after": 1.0}
    )
    assert np.isnan(table.loc[0.95, "precision"])
    assert evaluate.describe_thresholds(table.reset_index(), (0.9,)) == (
        "threshold 0.9: 100% of the wrong labels are flagged, so 0% are missed; 0% of the flagged are right. "
        "In the corrected copy 100.0% are true."
    )


def test_photographs_that_are_missing_give_a_reason_and_no_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SLN_DATA", str(tmp_path))
    assert evaluate.photographs(Study("full")) is None
    assert "data get cifar10" in capsys.readouterr().out
    assert evaluate.photographs(Study("smoke")) is None
    assert "Not at smoke" in capsys.readouterr().out


def test_the_figures_show_ranks_labels_and_whether_they_are_wrong():
    images, true = torch.zeros(20, 3, 8, 8, dtype=torch.uint8), np.array(["a"] * 20)
    labels = pd.DataFrame({"given": ["b"] * 4 + ["a"] * 16, "suggested": "a"})
    labels["suspect"] = np.linspace(1, 0, 20)
    labels["rank"] = np.arange(1, 21)
    figure = plots.labels.suspects(images, labels, true, first=3, count=8)
    (ax,) = figure.axes
    assert ax.get_title() == "given → suggested, ranks 3 to 10, suspect 0.89 to 0.53; 2 are wrong"
    assert len(ax.images) == 8
    assert ax.texts[0].get_text() == "b → a"
    assert [text.get_color() for text in ax.texts] == 2 * [plots.WRONG] + 6 * [plots.RIGHT]
    table = evaluate.over_threshold(labels, true)
    ax = plots.labels.suspect_threshold(table).axes[0]
    assert [line.get_xdata().tolist() for line in ax.lines[:3]] == 3 * [table["threshold"].tolist()]
    assert np.array_equal(ax.lines[1].get_ydata(), table["recall"])
