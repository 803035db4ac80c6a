"""The regression with v∘v: gradients and sizes against autograd and draws, and the law of label noise."""

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian

from sln.analysis import quadratic
from sln.analysis.quadratic import GAUSSIAN, LABELS, METHODS, PENALTY, PLAIN, Setting, train

SMALL = Setting(steps=100, n=6, d=10, nonzero=2, sigma=0.7)


@pytest.fixture(scope="module")
def runs():
    return [train(Setting(inherent=noise), range(3)) for noise in (0.0, 0.5)]


@pytest.fixture(scope="module")
def table(runs):
    return quadratic.table(runs)


def loss(v, X, y):
    return ((X @ (v * v) - y) ** 2).mean() / 2


def some(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_the_gradient_is_autograds():
    v, X, y = some(2, 3, 10), some(2, 6, 10, seed=1), some(2, 3, 6, seed=2)
    found = quadratic.gradient(v, X, y)
    for s in range(2):
        for m in range(3):
            leaf = torch.tensor(v[s, m], requires_grad=True)
            loss(leaf, torch.tensor(X[s]), torch.tensor(y[s, m])).backward()
            assert np.allclose(found[s, m], leaf.grad)


def test_where_all_labels_fit_the_trace_is_autograds():
    v, X = torch.tensor(some(10)), torch.tensor(some(6, 10, seed=1))
    y = X @ (v * v)
    expected = hessian(lambda v: loss(v, X, y), v).trace().item()
    assert quadratic.trace(v[None].numpy(), (X**2).mean(dim=0).numpy()) == pytest.approx(expected)


def test_noise_on_labels_has_the_size_that_is_said_and_the_hessians_shape():
    v, X, sigma = some(10), some(6, 10, seed=1), 0.7
    y = X @ (v * v)
    drawn = quadratic.gradient(v[None], X, y + sigma * some(40_000, 6, seed=3))
    size = quadratic.noise_size(v[None], (X**2).mean(axis=0), sigma, n=6)
    assert (drawn**2).sum(axis=1).mean() == pytest.approx(size.item() ** 2, rel=0.03)
    inputs = torch.tensor(X), torch.tensor(y)
    curved = sigma**2 / 6 * hessian(lambda v: loss(v, *inputs), torch.tensor(v)).numpy()
    assert np.linalg.norm(np.cov(drawn.T) - curved) < 0.03 * np.linalg.norm(curved)


def test_one_step_of_either_noise_moves_as_far_in_the_mean():
    run = train(Setting(steps=1, n=6, d=10, nonzero=2), range(1500))
    moved = run.v[-1] - run.v[-1][:, [list(METHODS).index(PLAIN)]]
    squares = dict(zip(METHODS, (moved**2).sum(axis=-1).mean(axis=0), strict=True))
    assert squares[GAUSSIAN] == pytest.approx(squares[LABELS], rel=0.1)
    assert squares["Gaussian, own weights"] == pytest.approx(squares[GAUSSIAN])  # the weights are still equal
    assert squares[quadratic.STRONG] == pytest.approx(9 * squares[GAUSSIAN])


def test_without_noise_all_methods_are_gradient_descent():
    run = train(Setting(steps=100, n=6, d=10, nonzero=2, sigma=0.0), range(2))
    assert (run.v == run.v[:, :, :1]).all()
    v = np.ones(10)
    for _ in range(100):
        v = v - 0.04 * 2 / 6 * ((run.X[1] @ v**2 - run.y[1]) @ run.X[1]) * v
    assert np.allclose(run.v[-1, 1, 0], v)


def test_a_seeds_numbers_are_the_same_again_and_in_company():
    alone, pair = train(SMALL, [1]), train(SMALL, [0, 1])
    assert np.allclose(alone.v[:, 0], pair.v[:, 1], rtol=1e-9)
    assert not np.allclose(pair.v[-1, 0], pair.v[-1, 1])
    assert (train(SMALL, [1]).v == alone.v).all()


def test_inherent_noise_changes_the_labels_and_nothing_else():
    (X, y), (again, noisy) = (quadratic.data(Setting(inherent=noise), range(50)) for noise in (0.0, 0.5))
    assert (again == X).all()
    assert np.allclose(y, X @ Setting().truth)
    assert Setting().truth.sum() == 5
    assert (noisy - y).std() == pytest.approx(0.5, rel=0.05)


def test_the_error_is_the_expected_one_on_new_inputs(runs, table):
    rows = quadratic.last(table).set_index(["inherent", "method", "seed"])
    new = some(100_000, 100, seed=5)
    for method in (PLAIN, LABELS):
        wrong = new @ (runs[0].found(method)[2] - runs[0].setting.truth)
        assert (wrong**2).mean() == pytest.approx(rows.loc[(0.0, method, 2), "error"], rel=0.03)
    v = runs[1].v[-1, 1, list(METHODS).index(LABELS)]
    assert rows.loc[(0.5, LABELS, 1), "loss"] == pytest.approx(loss(v, runs[1].X[1], runs[1].y[1]))
    assert rows.loc[(0.5, LABELS, 1), "sum_v2"] == pytest.approx((v**2).sum())


def test_noise_on_labels_flattens_as_the_penalty_does_and_gaussian_noise_does_not(table):
    for _, part in quadratic.last(table).groupby("inherent"):
        found = part.pivot_table(index="seed", columns="method", values="sum_v2")
        assert (found[LABELS] < found[PLAIN] / 5).all()
        assert (found[LABELS] / found[PENALTY]).mean() == pytest.approx(1, abs=0.05)
        assert (found[GAUSSIAN] > found[LABELS] * 5).all()
        assert (part[part["method"] == LABELS]["loss"] < 0.1).all()  # it was about 50 at the start


def test_a_small_start_helps_without_noise_too():
    found = quadratic.last(quadratic.table([train(Setting(start=0.1), [0])])).set_index("method")["error"]
    assert found[PLAIN] < 1 < found[GAUSSIAN]


def test_means_are_geometric_and_ratios_paired(table):
    ends = quadratic.last(table)
    found = ends[ends["inherent"] == 0.5].pivot_table(index="seed", columns="method", values="error")
    row = quadratic.over_seeds(ends, "error").set_index(["inherent", "method"]).loc[(0.5, PLAIN)]
    assert row["mean"] == pytest.approx(found[PLAIN].prod() ** (1 / 3))
    ratio = quadratic.ratios(table).set_index(["inherent", "method"]).loc[(0.5, GAUSSIAN)]
    times = found[GAUSSIAN] / found[LABELS]
    assert ratio["ratio"] == pytest.approx(times.prod() ** (1 / 3))
    margin = 4.3027 * np.log10(times).std() / np.sqrt(3)  # t for two degrees of freedom
    assert np.log10([ratio["low"], ratio["high"]]) == pytest.approx(
        np.log10(ratio["ratio"]) + np.array([-margin, margin]), abs=1e-3
    )


def test_the_sentences_take_their_numbers_from_the_table(table):
    words = quadratic.describe(table)
    ratio = quadratic.ratios(table).query("method == @GAUSSIAN")["ratio"]
    assert all(f"“{GAUSSIAN}” has {quadratic.short(value)} times" in words for value in ratio)
    assert "over 3 seeds" in words
    assert [quadratic.short(x) for x in (0.0583, 1.234, 4283.3)] == ["0.058", "1.2", "4,283"]
