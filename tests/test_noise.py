"""Inherent label noise: exact counts, the asked-for matrix, bad arguments."""

import functools
import hashlib
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sln import noise

rates = st.floats(0, 1)
classes = st.integers(2, 30)


def labels_of(counts):
    """Labels with `counts[i]` examples of class i, in a mixed order."""
    return np.random.default_rng(5).permutation(np.repeat(np.arange(len(counts)), counts))


def counted(true, given_labels, num_classes):
    """(C, C) numbers of examples by true and given label, by a plain loop."""
    table = [[0] * num_classes for _ in range(num_classes)]
    for i, j in zip(true, given_labels, strict=True):
        table[i][j] += 1
    return np.array(table)


@functools.cache
def random_matrix(num_classes, seed):
    return np.random.default_rng(seed).dirichlet(np.ones(num_classes), size=num_classes)


# --- transition matrices ------------------------------------------------------------------------------------


@given(classes, rates, st.booleans())
def test_rows_of_symmetric_T_sum_to_one_and_all_wrong_classes_are_equally_likely(C, rate, own_class):
    T = noise.symmetric_matrix(C, rate, own_class=own_class)
    assert T.sum(axis=1) == pytest.approx(np.ones(C))
    off_diagonal = T[~np.eye(C, dtype=bool)]
    assert (off_diagonal == off_diagonal[0]).all()
    assert (T >= 0).all()


@given(classes, rates)
def test_rate_is_the_true_rate_unless_the_own_class_is_redrawn_too(C, rate):
    assert 1 - noise.symmetric_matrix(C, rate).diagonal() == pytest.approx([rate] * C)
    redrawn = noise.symmetric_matrix(C, rate, own_class=True)
    assert 1 - redrawn.diagonal() == pytest.approx([rate * (1 - 1 / C)] * C)
    assert redrawn[0, 1] == pytest.approx(rate / C)


@given(st.integers(2, 12).flatmap(lambda C: st.tuples(st.just(C), st.dictionaries(
    st.integers(0, C - 1), st.integers(0, C - 1)))), rates)  # fmt: skip
def test_asymmetric_T_moves_the_rate_along_the_map_and_nothing_else(C_and_map, rate):
    C, class_map = C_and_map
    T = noise.asymmetric_matrix(C, rate, class_map)
    assert T.sum(axis=1) == pytest.approx(np.ones(C))
    for i, j in itertools.product(range(C), range(C)):
        target = class_map.get(i, i)
        expected = (1.0 if i == j else 0.0) if target == i else {i: 1 - rate, target: rate}.get(j, 0.0)
        assert T[i, j] == pytest.approx(expected)


@pytest.mark.parametrize("C", [2, 3, 100])
def test_next_class_map_goes_once_round(C):
    steps = noise.next_class_map(C)
    visited = [0]
    for _ in range(C):
        visited.append(steps[visited[-1]])
    assert visited == [*range(C), 0]


def test_the_map_of_the_released_cifar10_labels_has_cats_and_dogs_trade_places():
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    named = {names[i]: names[j] for i, j in noise.CIFAR10_MAP.items()}
    assert named == {
        "truck": "automobile",
        "bird": "airplane",
        "deer": "horse",
        "cat": "dog",
        "dog": "cat",
    }


# --- exact counts -------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 40), min_size=2, max_size=12).filter(any), rates, st.integers(0, 99))
def test_exactly_the_rounded_number_of_labels_flips_and_each_class_within_one(counts, rate, seed):
    true, C = labels_of(counts), len(counts)
    corruption = noise.symmetric(true, C, rate, seed=seed)
    assert corruption.changed.sum() == round(len(true) * rate)
    for i, n in enumerate(counts):
        assert abs(corruption.changed[true == i].sum() - n * rate) < 1


@pytest.mark.parametrize(("N", "rate"), [(35, 0.1), (45, 0.1), (25, 0.1), (15, 0.1), (15, 0.3), (1150, 0.4)])
def test_a_half_is_rounded_as_python_rounds_it_for_every_kind_of_noise(N, rate):
    true = np.arange(N) % 5
    expected = round(N * rate)
    assert noise.symmetric(true, 5, rate, seed=0).changed.sum() == expected
    everywhere = noise.next_class_map(5)
    assert noise.asymmetric(true, 5, rate, everywhere, seed=0).changed.sum() == expected
    assert noise.open_set(true, 5, 99, rate, seed=0).changed.sum() == expected
    assert noise.instance_dependent(true, np.eye(5)[true], rate, seed=0).changed.sum() == expected


@pytest.mark.parametrize(
    ("C", "each", "rate"), [(120, 10, 0.2), (100, 500, 0.4), (120, 7, 0.05), (300, 3, 0.3)]
)
def test_many_classes_lose_no_flips_to_rounding(C, each, rate):
    true = np.repeat(np.arange(C), each)
    given_labels = noise.symmetric(true, C, rate, seed=0).given
    assert (given_labels != true).sum() == round(C * each * rate)


@given(st.integers(2, 8), st.integers(0, 30))
def test_any_matrix_is_realised_within_one_example_per_cell_and_row(C, seed):
    T, true = random_matrix(C, seed), labels_of([30 + 7 * i for i in range(C)])
    table = counted(true, noise.flip(true, T, np.random.default_rng(seed)), C)
    sizes = np.bincount(true)
    stays = table.diagonal()
    assert (np.abs(stays - sizes * T.diagonal()) < 1).all()
    for i, j in itertools.permutations(range(C), 2):
        share = T[i, j] / (1 - T[i, i]) * (sizes[i] - stays[i])
        assert abs(table[i, j] - share) < 1


@pytest.mark.parametrize("exact", [True, False])
def test_a_class_that_cannot_be_given_never_is(exact):
    T = np.array([[0.5, 0.5, 0, 0], [0, 1, 0, 0], [0.2, 0.8, 0, 0], [0.3, 0.4, 0.3, 0]])
    table = counted(
        labels_of([99] * 4), noise.flip(labels_of([99] * 4), T, np.random.default_rng(0), exact=exact), 4
    )
    assert (table[T == 0] == 0).all()
    assert (table[T > 0] > 0).all()


def test_symmetric_flips_are_spread_evenly_over_the_wrong_classes():
    true = labels_of([113] * 10)
    table = counted(true, noise.symmetric(true, 10, 0.4, seed=1).given, 10)
    for i in range(10):
        wrong = np.delete(table[i], i)
        assert wrong.max() - wrong.min() <= 1


def test_flips_are_decided_at_once_so_that_cats_and_dogs_trade_places():
    true = labels_of([50] * 10)
    swapped = noise.asymmetric(true, 10, 1.0, noise.CIFAR10_MAP, seed=0).given
    assert (swapped[true == 3] == 5).all()
    assert (swapped[true == 5] == 3).all()
    some = noise.asymmetric(true, 10, 0.4, noise.CIFAR10_MAP, seed=0).given
    table = counted(true, some, 10)
    assert table[3, 5] == table[5, 3] == 20
    assert table[3, 3] == table[5, 5] == 30


def test_asymmetric_noise_leaves_the_other_classes_alone():
    true = labels_of([40] * 10)
    corruption = noise.asymmetric(true, 10, 0.5, noise.DIGITS_MAP, seed=0)
    assert set(true[corruption.changed]) == set(noise.DIGITS_MAP)
    assert corruption.changed.sum() == 5 * 20


def test_rate_0_flips_no_label_and_rate_1_flips_all():
    true = labels_of([20] * 4)
    assert (noise.none(true, 4).given == true).all()
    assert (noise.symmetric(true, 4, 0.0, seed=0).given == true).all()
    assert (noise.symmetric(true, 4, 1.0, seed=0).given != true).all()


def test_the_true_labels_that_were_passed_in_stay_as_they_were():
    true = labels_of([20] * 4)
    before = true.copy()
    noise.symmetric(true, 4, 0.5, seed=0)
    noise.asymmetric(true, 4, 0.5, {0: 1, 1: 0}, seed=0)
    noise.open_set(true, 4, 9, 0.5, seed=0)
    noise.instance_dependent(true, np.random.default_rng(0).random((80, 4)), 0.5, seed=0)
    assert (true == before).all()


# --- every example by its own draw --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_bernoulli_flips_follow_T(seed):
    T, true = random_matrix(5, seed), np.repeat(np.arange(5), 4000)
    table = counted(true, noise.flip(true, T, np.random.default_rng(seed), exact=False), 5)
    for i in range(5):
        assert stats.chisquare(table[i], 4000 * T[i]).pvalue > 1e-3


@pytest.mark.parametrize(("own_class", "rate"), [(False, 0.4), (True, 0.4 * 0.9)])
def test_bernoulli_counts_are_binomial_in_mean_and_spread(own_class, rate):
    true, N = labels_of([100] * 10), 1000
    counts = [
        noise.symmetric(true, 10, 0.4, seed=s, exact=False, own_class=own_class).changed.sum()
        for s in range(400)
    ]
    deviation = np.sqrt(N * rate * (1 - rate))
    assert abs(np.mean(counts) - N * rate) < 4 * deviation / np.sqrt(400)
    assert 0.85 < np.std(counts) / deviation < 1.15


def test_bernoulli_open_set_replaces_each_image_by_its_own_draw():
    true = labels_of([100] * 4)
    counts = [noise.open_set(true, 4, 500, 0.3, seed=s, exact=False).changed.sum() for s in range(200)]
    assert abs(np.mean(counts) - 120) < 4 * np.sqrt(400 * 0.3 * 0.7 / 200)
    assert len(set(counts)) > 10


# --- streams and positions ----------------------------------------------------------------------------------


def test_seeds_and_splits_draw_different_flips_and_one_seed_the_same():
    true = labels_of([50] * 10)
    masks = {
        key: noise.symmetric(true, 10, 0.4, seed=key[0], split=key[1]) for key in ((0, 0), (0, 1), (1, 0))
    }
    for a, b in itertools.combinations(masks.values(), 2):
        both = (a.changed & b.changed).sum()
        assert 40 < both < 120  # 80 if the masks are independent, 200 if they are equal
    again = noise.symmetric(true, 10, 0.4, seed=0)
    assert (again.given == masks[0, 0].given).all()


def test_classes_do_not_flip_at_the_same_positions():
    true = np.repeat(np.arange(10), 100)
    changed = noise.symmetric(true, 10, 0.4, seed=0).changed.reshape(10, 100)
    shared = [(changed[i] & changed[j]).sum() for i, j in itertools.combinations(range(10), 2)]
    assert max(shared) < 30  # 40 if every class uses the same positions
    assert np.mean(shared) == pytest.approx(16, abs=2)


def test_every_position_within_a_class_flips_equally_often():
    true = np.repeat(np.arange(5), 40)
    often = sum(noise.symmetric(true, 5, 0.25, seed=s).changed for s in range(400))
    assert stats.chisquare(often).pvalue > 1e-3


# --- instance-dependent and open-set ------------------------------------------------------------------------


@pytest.mark.parametrize(("N", "C", "rate"), [(200, 10, 0.1), (37, 3, 0.2), (50, 4, 0.0)])
def test_instance_dependent_noise_flips_the_examples_that_most_resemble_a_wrong_class(N, C, rate):
    rng = np.random.default_rng(N)
    true, scores = rng.integers(C, size=N), rng.dirichlet(np.ones(C), size=N)
    ranked = []
    for n in range(N):
        score, label = max((scores[n, j], j) for j in range(C) if j != true[n])
        ranked.append((score, n, label))
    expected = true.copy()
    for _, n, label in sorted(ranked, reverse=True)[: round(rate * N)]:
        expected[n] = label
    corruption = noise.instance_dependent(true, scores, rate, seed=0)
    assert (corruption.given == expected).all()
    assert corruption.changed.sum() == round(rate * N)


@given(st.integers(0, 1000), st.floats(0, 0.45))
def test_the_true_label_stays_the_most_frequent_given_one_under_instance_dependent_noise(seed, rate):
    rng = np.random.default_rng(seed)
    true = np.arange(120) % 3
    scores = rng.dirichlet((8, 1, 3), size=120)  # every class is most like the first or the third
    corruption = noise.instance_dependent(true, scores, rate, seed=0)
    assert corruption.changed.sum() == round(rate * 120)
    T = corruption.transition_matrix
    assert (T.diagonal() > (T - np.diag(T.diagonal())).max(axis=1)).all()
    passed_over = ~corruption.changed
    wrong = np.where(np.eye(3, dtype=bool)[true], -1, scores).max(axis=1)
    for i in range(3):  # only a class that is full passes an example over
        kept, gone = wrong[passed_over & (true == i)], wrong[corruption.changed & (true == i)]
        if len(gone) and kept.max() > gone.min():
            assert T[i, i] - np.delete(T[i], i).max() < 3 / 40


def test_instance_dependent_noise_that_would_hide_a_class_is_refused(refused):
    true, scores = np.arange(40) % 2, np.full((40, 2), 0.5)
    with refused("noise rate 0.5 would leave a class", "the highest possible for these scores is 0.450"):
        noise.instance_dependent(true, scores, 0.5, seed=0)


@given(st.integers(1, 200), rates, st.integers(0, 50))
def test_open_set_noise_replaces_exactly_that_many_images_by_distinct_ones_and_keeps_labels(N, rate, seed):
    true = np.arange(N) % 4
    corruption = noise.open_set(true, 4, 200, rate, seed=seed)
    assert (corruption.given == true).all()
    replaced = corruption.replaced_by >= 0
    assert replaced.sum() == round(N * rate) == corruption.changed.sum()
    assert (corruption.true == np.where(replaced, -1, true)).all()
    used = corruption.replaced_by[replaced]
    assert len(set(used)) == len(used)
    assert set(corruption.replaced_by[~replaced]) <= {-1}
    assert (used < 200).all()


def test_open_set_noise_repeats_outside_images_only_if_there_are_too_few():
    true = np.zeros(50, dtype=int)
    corruption = noise.open_set(true, 2, 3, 0.8, seed=0)
    assert (corruption.replaced_by >= 0).sum() == 40
    assert set(corruption.replaced_by) == {-1, 0, 1, 2}


def test_the_seed_fixes_which_images_are_replaced_and_by_what():
    true = labels_of([30] * 4)
    draws = [noise.open_set(true, 4, 500, 0.4, seed=s).replaced_by for s in (7, 7, 8)]
    assert (draws[0] == draws[1]).all()
    assert (draws[0] != draws[2]).any()


# --- realised rates -----------------------------------------------------------------------------------------


def test_the_realised_matrix_and_rate_are_those_of_a_plain_count():
    true = labels_of([30, 50, 0, 20])
    corruption = noise.from_matrix(true, random_matrix(4, 1), seed=2)
    table = counted(true, corruption.given, 4)
    assert corruption.realised_rate == pytest.approx((table.sum() - table.trace()) / 100)
    assert corruption.transition_matrix[[0, 1, 3]] == pytest.approx(
        table[[0, 1, 3]] / np.array([[30], [50], [20]])
    )
    assert corruption.transition_matrix[2].tolist() == [0, 0, 1, 0]  # no examples: the identity's row
    assert corruption.rate == pytest.approx(1 - random_matrix(4, 1)[true, true].mean())


def test_images_of_no_class_are_left_out_of_the_realised_matrix():
    true = labels_of([30] * 4)
    corruption = noise.open_set(true, 4, 99, 0.5, seed=0)
    assert (corruption.transition_matrix == np.eye(4)).all()
    assert corruption.realised_rate == 0.5


# --- files --------------------------------------------------------------------------------------------------


def test_the_csv_has_the_columns_of_the_released_files_and_the_manifest_the_facts(tmp_path):
    corruption = noise.asymmetric(labels_of([20] * 5), 5, 0.3, {0: 1}, seed=9)
    corruption.save(tmp_path / "labels.csv")
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    assert lines[0] == "label,label_noisy"
    assert lines[1:] == [f"{i},{j}" for i, j in zip(corruption.true, corruption.given, strict=True)]
    manifest = json.loads((tmp_path / "labels.json").read_text())
    assert manifest["kind"] == "asym"
    assert manifest["examples"] == 100
    assert manifest["realised_rate"] == 0.06
    assert manifest["seed"] == 9
    little_endian = b"".join(int(label).to_bytes(8, "little") for label in corruption.given)
    assert manifest["sha256_given"] == hashlib.sha256(little_endian).hexdigest()


# --- bad arguments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [-0.1, 1.2, float("nan"), float("inf")])
def test_a_rate_outside_0_to_1_is_refused_by_every_kind_of_noise(rate, refused):
    true = labels_of([5] * 3)
    for draw in (
        lambda: noise.symmetric(true, 3, rate, seed=0),
        lambda: noise.symmetric_matrix(3, rate, own_class=True),
        lambda: noise.asymmetric(true, 3, rate, {0: 1}, seed=0),
        lambda: noise.instance_dependent(true, np.eye(3)[true], rate, seed=0),
        lambda: noise.open_set(true, 3, 9, rate, seed=0),
    ):
        with refused(f"rate is {rate}", "[0, 1]"):
            draw()


@pytest.mark.parametrize(
    ("T", "words"),
    [
        ([[0.9, 0.1, 0], [0.1, 0.8, 0.2], [0, 0, 1]], ["row 1 ", "sums to 1.1"]),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 0.5]], ["row 2 ", "sums to 0.5"]),
        ([[1.5, -0.5, 0], [0, 1, 0], [0, 0, 1]], ["outside [0, 1]"]),
        ([[0.7, 0.5, -0.2], [0, 1, 0], [0, 0, 1]], ["outside [0, 1]"]),
        ([[np.nan, 1, 0], [0, 1, 0], [0, 0, 1]], ["outside [0, 1]"]),
        ([[1, 0, 0], [0, 1, 0]], ["shape (2, 3)"]),
    ],
)
@pytest.mark.parametrize("exact", [True, False])
def test_a_matrix_that_is_no_transition_matrix_is_refused(T, words, exact, refused):
    with refused(*words):
        noise.flip(np.array([0, 1, 1]), np.array(T), np.random.default_rng(0), exact=exact)


@pytest.mark.parametrize(
    ("true", "words"),
    [
        ([0, 1, 3, 2], ["label 3 at row 2", "0..2"]),
        ([0, -1, 1], ["label -1 at row 1"]),
        ([0.0, 1.0], ["float64", "whole numbers"]),
        ([], ["shape (0,)"]),
        ([[0, 1], [1, 0]], ["shape (2, 2)"]),
    ],
)
def test_true_labels_outside_the_classes_are_refused(true, words, refused):
    with refused("true labels", *words):
        noise.flip(np.array(true), np.eye(3), np.random.default_rng(0))


def test_other_impossible_arguments_are_refused_by_value(refused):
    true = np.array([0, 1, 2])
    with refused("num_classes is 1"):
        noise.symmetric_matrix(1, 0.5)
    with refused("2 -> 3", "0..2"):
        noise.asymmetric_matrix(3, 0.5, {2: 3})
    with refused("(2, 3)", "(3, classes)"):
        noise.instance_dependent(true, np.eye(3)[:2], 0.5, seed=0)
    with refused("at least one outside image"):
        noise.open_set(true, 3, 0, 0.5, seed=0)
