"""Opinions besides the network's: scikit-learn's as oracles, and who has no vote."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from own_images import pictures
from scipy.stats import gmean
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import KNeighborsClassifier

from sln.relabel import crossfit, opinions
from sln.relabel.examples import checked

SEEDS = st.integers(0, 10_000)
OPINIONS = (opinions.discriminant, opinions.neighbours, opinions.regression)


def drawn(seed, N=120, D=6, C=3):
    """x (N, D), labels (N,) that x depends on, and new (N, D)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(N) % C
    x, new = rng.normal(size=(2, N, D)) + np.eye(C, D)[labels]
    return (torch.from_numpy(values.astype(np.float32)) for values in (x, labels, new))


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_the_discriminant_is_scikit_learns_with_halved_logits(seed):
    x, labels, new = drawn(seed)
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=6 / (6 + 120 / 4))
    logits = oracle.fit(x.numpy(), labels.numpy()).decision_function(new.numpy())
    expected = torch.softmax(opinions.CONFIDENCE * torch.from_numpy(logits), dim=1)
    found = opinions.discriminant(x, labels.long(), new, 3)
    torch.testing.assert_close(found, expected.float(), atol=1e-4, rtol=1e-3)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_the_neighbours_are_scikit_learns_of_brute_force(seed):
    x, labels, new = drawn(seed)
    centred, others = x - x.mean(dim=0), new - x.mean(dim=0)
    oracle = KNeighborsClassifier(
        6,  # a twentieth of 120
        metric="cosine",
        algorithm="brute",
        weights=lambda distance: np.exp(-distance / opinions.TEMPERATURE),
    )
    expected = oracle.fit(centred.numpy(), labels.numpy()).predict_proba(others.numpy())
    found = opinions.neighbours(x, labels.long(), new, 3)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from([40, 2000]))
def test_the_regression_is_scikit_learns_ridge_on_nystroem_features(seed, landmarks):
    x, labels, new = (values.numpy().astype(float) for values in drawn(seed))
    a, b = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (x, new) - x.mean(axis=0))
    some = a[:: len(a) // min(landmarks, len(a))]
    values, vectors = np.linalg.eigh(rbf_kernel(some, gamma=1))
    root = vectors / np.sqrt(values.clip(1e-9))
    y = np.eye(3)[labels.astype(int)]
    oracle = Ridge(opinions.RIDGE, fit_intercept=False).fit(rbf_kernel(a, some, gamma=1) @ root, y - 1 / 3)
    f = oracle.predict(rbf_kernel(b, some, gamma=1) @ root) + 1 / 3
    expected = torch.softmax(opinions.SHARPNESS * torch.from_numpy(f), dim=1).float()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opinions, "LANDMARKS", landmarks)
        x, labels, new = drawn(seed)
        found = opinions.regression(x, labels.long(), new, 3)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("opinion", OPINIONS[1:])
def test_blocks_change_nothing(monkeypatch, opinion):
    x, labels, new = drawn(0)
    whole = opinion(x, labels.long(), new, 3)
    monkeypatch.setattr(opinions, "BLOCK", 7 * len(x))
    torch.testing.assert_close(opinion(x, labels.long(), new, 3), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("opinion", OPINIONS)
def test_a_class_without_examples_and_constant_features_give_numbers(opinion):
    x, labels, new = drawn(0)
    p = opinion(x, labels.long(), new, 4)
    assert p[:, 3].max() < 1e-6
    torch.testing.assert_close(p.sum(dim=1), torch.ones(len(new)))
    assert opinion(torch.ones(20, 5), torch.arange(20) % 2, torch.ones(3, 5), 2).isfinite().all()


@settings(max_examples=30)
@given(SEEDS)
def test_opinions_are_pooled_by_the_product_of_their_powers(seed):
    p = torch.from_numpy(np.random.default_rng(seed).dirichlet(np.ones(4), (3, 30)))
    labels = p[0].argmax(dim=1).where(torch.arange(30) > 25, p[1].argmax(dim=1))
    p[2] = p[1]  # both predict more of the labels than the first
    found, powers = opinions.pooled(list(p), labels, (0.5, 0.25, 1)), np.array([0.5, 0.25, 1])
    product = np.prod((p.numpy() + opinions.FLOOR) ** powers[:, None, None], axis=0)
    np.testing.assert_allclose(found, product / product.sum(axis=1, keepdims=True))
    equal, mean = opinions.pooled(list(p), labels, [1 / 3] * 3), gmean(p.numpy() + opinions.FLOOR)
    np.testing.assert_allclose(equal, mean / mean.sum(axis=1, keepdims=True))


def test_a_worse_opinion_than_the_networks_is_left_out():
    labels = torch.arange(100) % 2
    right, guess = torch.eye(2)[labels] * 0.8 + 0.1, torch.tensor([[0.6, 0.4]]).expand(100, 2)
    alone = opinions.pooled([right], labels, [1])
    torch.testing.assert_close(opinions.pooled([right, right, guess], labels, (1, 2, 4)), alone)
    kept = opinions.pooled([guess, guess, right], labels, (1, 1, 1))
    assert (kept.argmax(dim=1) == labels).all()


def test_large_images_are_averaged_down_and_small_ones_kept():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(256, size=(5, 3, 32, 48), dtype=np.uint8))
    means = images.float().view(5, 3, 16, 2, 16, 3).mean(dim=(3, 5)).flatten(1)
    torch.testing.assert_close(opinions.compared(images), means)
    assert torch.equal(opinions.compared(images[:, :, :8, :9]), images[:, :, :8, :9].float().flatten(1))


def test_neither_the_own_label_nor_those_of_copies_count():
    """Flipping the labels of a fold's examples changes no opinion on them."""
    images, labels = pictures(60)
    images, labels = np.concatenate([images, images[:20]]), np.concatenate([labels, labels[:20]])
    examples = checked(images, labels)
    fitted = crossfit.fit(images, labels, sigma=0.5, folds=4, epochs=2, quiet=True)
    alone = dataclasses.replace(fitted, probabilities=crossfit.by_networks(examples, fitted.states))
    assert torch.equal(crossfit.with_opinions(alone, examples).probabilities, fitted.probabilities)
    copies = torch.tensor([0, 60])  # an image and its copy
    given = examples.given.clone()
    given[copies] = 1 - given[copies]
    other = crossfit.with_opinions(alone, dataclasses.replace(examples, given=given))
    assert torch.equal(other.probabilities[copies], fitted.probabilities[copies])
    assert not torch.equal(other.probabilities, fitted.probabilities)
