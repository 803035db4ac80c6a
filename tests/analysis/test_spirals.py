"""The spirals: their points, and their training against one that is written out."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sln import noise
from sln.analysis import spirals
from sln.utils.rng import torch_generator


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch):
    """Two epochs, and nothing kept from another test."""
    monkeypatch.setattr(spirals, "EPOCHS", (1, 2))
    spirals.TRAINED.clear()
    yield
    spirals.TRAINED.clear()


def alone(networks, place):
    """One of several networks as torch's own layers."""
    layers = []
    for W, b in networks.layers:
        layer = nn.Linear(*W.shape[1:])
        layer.weight.data, layer.bias.data = W[place].detach().T.clone(), b[place, 0].detach().clone()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_the_arms_are_balanced_and_turn_about_the_origin():
    points, true = spirals.spirals(300, seed=0)
    assert np.bincount(true).tolist() == [100, 100, 100]
    radius = points.norm(dim=1).numpy()
    assert spirals.INNER <= radius.min() < radius.max() <= spirals.OUTER
    share = (radius - spirals.INNER) / (spirals.OUTER - spirals.INNER)
    x, y = points.numpy().T
    angle = np.arctan2(y, x) - spirals.TURN * share
    off = (angle - 2 * np.pi * true / 3 + np.pi) % (2 * np.pi) - np.pi
    assert abs(off.mean()) < 4 * spirals.SPREAD / 300**0.5
    assert off.std() == pytest.approx(spirals.SPREAD, rel=0.2)
    assert not torch.equal(points, spirals.spirals(300, seed=0, split=1)[0])
    assert not torch.equal(points, spirals.spirals(300, seed=1)[0])


def test_both_networks_and_averages_are_those_of_a_training_written_out():
    training = spirals.trained(0.7, 0.4, 3)
    points, true = spirals.spirals(spirals.POINTS, 3)
    given = torch.from_numpy(noise.symmetric(true, 3, 0.4, seed=3).given)
    assert (given.numpy() != true).mean() == pytest.approx(0.4)
    for place, sigma in enumerate((0.0, 0.7)):
        network = alone(spirals.untrained([3]), 0)
        average = copy.deepcopy(network)
        sgd = torch.optim.SGD(network.parameters(), lr=spirals.LEARNING_RATE, momentum=spirals.MOMENTUM)
        shuffling, drawing = torch_generator(3, "shuffling"), torch_generator(3, "stochastic noise")
        for _ in range(2):
            for index in torch.randperm(spirals.POINTS, generator=shuffling).split(spirals.BATCH):
                z = torch.randn(len(index), 3, generator=drawing)
                log_p = F.log_softmax(network(points[index]), dim=1)
                labels = F.one_hot(given[index], 3) + sigma * z
                sgd.zero_grad()
                (-(labels * log_p).sum() / len(index)).backward()
                sgd.step()
                for m, theta in zip(average.parameters(), network.parameters(), strict=True):
                    m.data = spirals.ALPHA * m + (1 - spirals.ALPHA) * theta
        found = training.probabilities(2, points)
        names = {0: ("CE", "CE-MO"), 1: ("SLN", "SLN-MO")}[place]
        for name, expected in zip(names, (network, average), strict=True):
            p = F.softmax(expected(points), dim=1).detach().numpy()
            assert np.allclose(found[name], p, atol=1e-5), name


def test_many_that_train_together_are_those_that_train_alone_bit_for_bit():
    settings = [(sigma, rate, seed) for sigma in (0.5, 1.0) for rate in (0.2, 0.4) for seed in (1, 2)]
    spirals.train(settings)
    together = dict(spirals.TRAINED)
    assert list(together) == settings
    for setting in settings:
        spirals.TRAINED.clear()
        alone = spirals.trained(*setting).kept[2]
        for weights, pair in together[setting].kept[2].items():
            theirs = alone[weights].parameters()
            assert all(map(torch.equal, pair.parameters(), theirs)), (setting, weights)


def test_without_noise_on_the_labels_sln_is_plain_training():
    p = (training := spirals.trained(0.0, 0.4)).probabilities(2, training.points)
    assert np.array_equal(p["SLN"], p["CE"])
    assert np.array_equal(p["SLN-MO"], p["CE-MO"])
    assert not np.array_equal(p["CE"], p["CE-MO"])


def test_the_scores_count_the_wrong_labels_that_are_predicted():
    training = spirals.trained(1.0, 0.4)
    scores = training.scores(2)
    fresh, true = spirals.spirals(spirals.FRESH, 0, split=1)
    predicted = training.probabilities(2, training.points)["SLN"].argmax(axis=1)
    wrong = [n for n in range(spirals.POINTS) if training.labels.given[n] != training.labels.true[n]]
    kept = sum(predicted[n] == training.labels.given[n] for n in wrong)
    assert len(wrong) == 120
    assert scores.loc["SLN", "memorised"] == pytest.approx(100 * kept / 120)
    right = training.probabilities(2, fresh)["SLN"].argmax(axis=1) == true
    assert scores.loc["SLN", "true_accuracy"] == pytest.approx(100 * right.mean())
    clean = spirals.trained(1.0, 0.0).scores(2)
    assert clean["memorised"].isna().all()
    assert clean["true_accuracy"].between(0, 100).all()


def test_the_table_and_its_words(monkeypatch):
    monkeypatch.setattr(spirals.Training.scores, "__defaults__", (2,))
    table = spirals.over_seeds([0, 1])
    assert table["seed"].tolist() == [0] * 4 + [1] * 4
    accuracy = spirals.by_method(table, "true_accuracy")
    assert accuracy.loc[1, "SLN"] == spirals.trained(1.0, 0.4, 1).scores(2).loc["SLN", "true_accuracy"]
    assert not np.allclose(accuracy.loc[0], accuracy.loc[1])
    gain = (accuracy["SLN"] - accuracy["CE"]).mean()
    assert f"SLN minus CE, true accuracy: {gain:+.1f}" in spirals.describe(table)
