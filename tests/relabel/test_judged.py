"""Classes are judged by networks that predict their labels better than chance, and only by those."""

import numpy as np
import pytest
from scipy.stats import fisher_exact

from sln.relabel import judged


def example(counts):
    """p (N, C) and given (N,) with those counts (C, C) of given and predicted classes."""
    given, predicted = (
        np.repeat(values, np.ravel(counts)) for values in np.indices(np.shape(counts)).reshape(2, -1)
    )
    return np.eye(len(counts))[predicted], given


def test_the_p_value_is_that_of_fishers_exact_test():
    counts = np.array([[5, 3, 2], [4, 9, 1], [1, 2, 6]])
    table = judged.by_class(*example(counts))
    for k in range(3):
        hits, label, prediction = counts[k, k], counts[k].sum(), counts[:, k].sum()
        four = [[hits, label - hits], [prediction - hits, counts.sum() - label - prediction + hits]]
        assert table["p_value"][k] == pytest.approx(fisher_exact(four, alternative="greater").pvalue)
    assert table["examples"].tolist() == [10, 14, 9]
    assert table["agreement"].tolist() == pytest.approx([0.5, 9 / 14, 6 / 9])


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([[190, 0], [10, 0]], [False, False]),  # a rare class that is never predicted
        ([[180, 10], [9, 1]], [False, False]),  # predicted as often for the others
        ([[190, 0], [2, 8]], [True, True]),  # learnt, although rare
        ([[100, 0], [0, 2]], [True, True]),  # few images suffice if all are recognised
        ([[30, 0], [0, 1]], [False, False]),  # one image can always be chance
        ([[185, 5], [6, 4]], [True, False]),  # better than chance, but most would be relabelled
        (np.full((10, 10), 7) + 60 * np.eye(10, dtype=int), [True] * 10),  # 50% symmetric noise
        ([[60, 0], [40, 100]], [True, True]),  # 40% of class 0 are labelled 1
    ],
)
def test_a_class_is_judged_if_chance_does_not_explain_its_agreement(counts, expected):
    assert judged.by_class(*example(counts))["judged"].tolist() == expected


def test_labels_are_kept_between_classes_that_are_not_told_apart():
    p, given = example([[26, 24, 0], [25, 25, 0], [0, 1, 49]])
    assert judged.by_class(p, given)["judged"].tolist() == [True, True, True]
    suggested = p.argmax(axis=1)
    expected = (given == suggested) | (given == 2)
    assert judged.rows(p, given, suggested).tolist() == expected.tolist()


def test_agreement_where_networks_are_sure_is_that_of_the_most_confident_fifth():
    given = np.arange(10) % 2
    p = np.eye(2)[given] * 0.2 + 0.4
    p[:2] = [[0.1, 0.9], [0.05, 0.95]]
    assert judged.surest_agreement(p, given) == 0.5


def test_long_lists_of_classes_are_cut():
    table = judged.by_class(*example(np.eye(20, dtype=int))).set_axis([f"class {k}" for k in range(20)])
    shares, kept = judged.sentences(table)
    assert shares.count("class") == kept.count("'class") + 1 == judged.SHOWN + 1
    assert "and 12 more" in shares
    assert "20 of 20 classes cannot be judged" in kept


def test_small_classes_that_are_judged_are_named():
    table = judged.by_class(*example([[190, 0], [2, 8]])).set_axis(["many", "few"])
    assert judged.sentences(table, 11)[1:] == [
        "Fewer than 11 images, but judged, so look at them first: 'few'."
    ]
    assert len(judged.sentences(table, 10)) == 1


def test_a_class_that_loses_more_than_half_of_its_labels_is_named():
    assert judged.lost(["a", "a", "b"], ["a", "b", "b"]) == []
    (warning,) = judged.lost(["a", "a", "a", "b"], ["a", "b", "b", "b"])
    assert "'a' (1 of 3 left)" in warning
    assert "'b'" not in warning
