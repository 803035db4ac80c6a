"""How suspect a label is: Bayes' rule, written out, and what ranks must be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sln import suspects

SEEDS = st.integers(0, 10_000)


def drawn(seed, count=40, classes=4):
    """Probabilities (N, C), no row sure, and labels (N,)."""
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(classes, 0.5), count).clip(1e-6), rng.integers(classes, size=count)


@given(SEEDS)
def test_the_posterior_is_bayes_rule_entry_by_entry(seed):
    p, labels = drawn(seed)
    T = np.zeros((4, 4))
    for n, label in enumerate(labels):
        for true in range(4):
            T[true, label] += p[n, true]
    for true in range(4):
        T[true] /= sum(p[n, true] for n in range(len(p)))
    np.testing.assert_allclose(suspects.transition(p, labels), T)
    np.testing.assert_allclose(T.sum(axis=1), 1)
    q = suspects.posterior(p, labels)
    for n, label in enumerate(labels):
        evidence = sum(p[n, true] * T[true, label] for true in range(4))
        for true in range(4):
            assert q[n, true] == pytest.approx(p[n, true] * T[true, label] / evidence)


def test_of_networks_that_are_sure_the_transition_matrix_is_the_count_of_their_disagreements():
    true, labels = np.array([0, 0, 0, 1, 1, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 2, 1, 2])
    expected = [[2 / 3, 1 / 3, 0], [0, 3 / 4, 1 / 4], [0, 0, 1]]
    np.testing.assert_allclose(suspects.transition(np.eye(3)[true], labels), expected, atol=1e-6)


def test_a_class_that_others_are_mistaken_for_is_more_suspect_than_one_that_is_never_wrong():
    """Of two labels that the networks doubt alike, that of the class which took in others is the worse."""
    rng = np.random.default_rng(0)
    true = rng.integers(3, size=3000)
    labels = np.where((true == 0) & (rng.random(3000) < 0.4), 1, true)  # 0 is given as 1, nothing else
    p = 0.02 + 0.94 * np.eye(3)[true]
    p = np.concatenate([p, [[0.6, 0.38, 0.02], [0.6, 0.02, 0.38]]])
    table = suspects.table(p, np.append(labels, [1, 2]))
    assert table["suspect"].iloc[-2] > table["suspect"].iloc[-1] + 0.2


@settings(max_examples=100)
@given(SEEDS)
def test_ranks_are_a_permutation_from_the_most_suspect_down_and_numbers_are_probabilities(seed):
    p, labels = drawn(seed)
    table = suspects.table(p, labels)
    assert sorted(table["rank"]) == list(range(1, len(p) + 1))
    by_rank = table.sort_values("rank")["suspect"]
    assert by_rank.is_monotonic_decreasing
    assert table[["suspect", "probability"]].stack().between(0, 1).all()
    agrees = table["suggested"] == table["given"]
    np.testing.assert_allclose(table["probability"][agrees], 1 - table["suspect"][agrees])
    assert (table["probability"][~agrees] <= table["suspect"][~agrees] + 1e-12).all()


def test_of_equals_the_first_comes_first():
    p = np.tile([0.7, 0.3], (5, 1))
    assert suspects.table(p, np.zeros(5, dtype=int))["rank"].tolist() == [1, 2, 3, 4, 5]


def test_probabilities_that_are_exactly_zero_or_one_give_no_gaps():
    p, labels = np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 1])
    table = suspects.table(p, labels)
    assert table["suspect"].between(0, 1).all()
    assert table["rank"].iloc[3] == 1
    one_class_unused = suspects.table(np.eye(3)[[0, 1, 0, 1]], np.array([0, 1, 2, 2]))
    assert one_class_unused["suspect"].between(0, 1).all()
