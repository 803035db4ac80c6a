"""How suspect a label is: Bayes' rule written out, and laws of the ranks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sln.relabel import scores

SEEDS = st.integers(0, 10_000)


def drawn(seed, count=40, classes=4):
    """Probabilities (N, C), none of them 1, and labels (N,)."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(classes, 0.5), count).clip(1e-6), rng.integers(classes, size=count)


@given(SEEDS)
def test_the_transition_matrix_is_counted_over_confident_predictions(seed):
    p, labels = drawn(seed)
    counts = np.full((4, 4), 1 / 4)
    for n, label in enumerate(labels):
        sure = [j for j in range(4) if p[n, j] >= np.mean([p[m, j] for m in range(40) if labels[m] == j])]
        if sure:
            counts[max(sure, key=lambda j: p[n, j]), label] += 1
    T = scores.transition(p, labels)
    np.testing.assert_allclose(T, counts / counts.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(T.sum(axis=1), 1)


@given(SEEDS)
def test_the_posterior_is_bayes_rule_entry_by_entry(seed):
    p, labels = drawn(seed)
    T, q = scores.mistakes(p, labels), scores.posterior(p, labels)
    for n, label in enumerate(labels):
        evidence = sum(p[n, true] * T[true, label] for true in range(4))
        for true in range(4):
            assert q[n, true] == pytest.approx(p[n, true] * T[true, label] / evidence)


@given(SEEDS)
def test_the_counts_are_weighted_by_the_squared_share_of_predicted_labels(seed):
    p, labels = drawn(seed)
    T, found = scores.transition(p, labels), scores.mistakes(p, labels)
    trust = (sum(p[n].argmax() == labels[n] for n in range(40)) / 40) ** 2
    kept = sum(T[j, j] for j in range(4)) / 4
    for true in range(4):
        for label in range(4):
            uniform = (1 - kept) / 3
            expected = kept if true == label else trust * T[true, label] + (1 - trust) * uniform
            assert found[true, label] == pytest.approx(expected)


@given(SEEDS)
def test_suggestions_and_suspicion_are_those_of_the_classes_probabilities(seed):
    p, labels = drawn(seed)
    q, table = scores.true_class(p, labels), scores.table(p, labels)
    assert q.argmax(axis=1).tolist() == table["suggested"].tolist()
    np.testing.assert_allclose(q.max(axis=1), table["probability"])
    np.testing.assert_allclose(1 - q[np.arange(40), labels], table["suspect"], atol=1e-12)


def test_the_ranks_are_the_usual_ones_if_the_networks_predict_no_label():
    p, labels = drawn(0)
    labels = np.where(p.argmax(axis=1) == labels, (labels + 1) % 4, labels)
    suspect = scores.table(p, labels)["suspect"].to_numpy()
    usual = -p[np.arange(40), labels] / p.sum(axis=1)
    assert np.array_equal(np.argsort(suspect, kind="stable"), np.argsort(usual, kind="stable"))


def test_the_transition_matrix_is_found_although_the_networks_are_unsure():
    rng = np.random.default_rng(0)
    T = np.array([[0.7, 0.3, 0], [0, 1, 0], [0.1, 0.1, 0.8]])
    true = rng.integers(3, size=20_000)
    labels = (rng.random(20_000)[:, None] >= T[true].cumsum(axis=1)[:, :-1]).sum(axis=1)
    sure = rng.uniform(0.5, 0.9, 20_000)[:, None]  # right, but unsure
    p = np.where(np.eye(3)[true] == 1, sure, (1 - sure) / 2)
    np.testing.assert_allclose(scores.transition(p, labels), T, atol=0.03)
    naive = p.T @ np.eye(3)[labels]
    assert np.abs(naive / naive.sum(axis=1, keepdims=True) - T).max() > 0.1


def test_a_label_that_is_often_a_mistake_is_more_suspect_than_one_that_never_is():
    """The networks doubt both labels equally."""
    rng = np.random.default_rng(0)
    true = rng.integers(3, size=3000)
    labels = np.where((true == 0) & (rng.random(3000) < 0.4), 1, true)  # 0 is given as 1, nothing else
    p = 0.02 + 0.94 * np.eye(3)[true]
    p = np.concatenate([p, [[0.6, 0.38, 0.02], [0.6, 0.02, 0.38]]])
    table = scores.table(p, np.append(labels, [1, 2]))
    assert table["suspect"].iloc[-2] > table["suspect"].iloc[-1] + 0.2


@settings(max_examples=100)
@given(SEEDS)
def test_ranks_are_a_permutation_from_the_most_suspect_down_and_numbers_are_probabilities(seed):
    p, labels = drawn(seed)
    table = scores.table(p, labels)
    assert sorted(table["rank"]) == list(range(1, len(p) + 1))
    by_rank = table.sort_values("rank")["suspect"]
    assert by_rank.is_monotonic_decreasing
    assert table[["suspect", "probability"]].stack().between(0, 1).all()
    agrees = table["suggested"] == table["given"]
    np.testing.assert_allclose(table["probability"][agrees], 1 - table["suspect"][agrees])
    assert (table["probability"][~agrees] <= table["suspect"][~agrees] + 1e-12).all()


def test_equal_scores_are_ranked_in_the_order_of_the_examples():
    p = np.tile([0.7, 0.3], (5, 1))
    assert scores.table(p, np.zeros(5, dtype=int))["rank"].tolist() == [1, 2, 3, 4, 5]


def test_probabilities_of_exactly_zero_or_one_give_numbers():
    p, labels = np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 1])
    table = scores.table(p, labels)
    assert table["suspect"].between(0, 1).all()
    assert table["rank"].iloc[3] == 1
    one_class_unused = scores.table(np.eye(3)[[0, 1, 0, 1]], np.array([0, 1, 2, 2]))
    assert one_class_unused["suspect"].between(0, 1).all()
