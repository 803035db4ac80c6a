"""How strong the noise is: schedules, strengths matched to SLN's, noise for right or wrong labels only."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sln import objective, train
from sln.config import NOISE_ON, SIGMA_SCHEDULES, Config

# one batch an epoch, of all 72 examples; no weight ever moves
STILL = Config(epochs=4, batch_size=72, lr=0.0, weight_decay=0.0, sigma=0.5, noise_seed=3, seed=5)
SMALL = Config(epochs=4, batch_size=16, lr=0.05, sigma=0.5, noise_seed=3, seed=5, measure_train_every=4)


# --- schedules ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("rising", [0, 0.25, 0.5, 0.75, 1]),
        ("falling", [1, 0.75, 0.5, 0.25, 0]),
        ("first-half", [1, 1, 0, 0, 0]),
        ("second-half", [0, 0, 1, 1, 1]),
        ("first-half", [1, 1, 0, 0]),
        ("second-half", [0, 0, 1, 1]),
    ],
)
def test_the_factors_of_every_schedule_by_hand(name, factors):
    epochs = len(factors)
    assert [objective.schedule(name, epoch, epochs) for epoch in range(1, epochs + 1)] == factors


@pytest.mark.parametrize("noise_on", NOISE_ON)
@pytest.mark.parametrize("schedule", SIGMA_SCHEDULES)
def test_the_history_says_the_sigma_of_every_epoch(schedule, noise_on, few_noisy_digits):
    config = SMALL.replace(sigma_schedule=schedule, sigma=0.25, noise_on=noise_on, correction=3)
    epochs = list(train.train(train.State(config, few_noisy_digits), few_noisy_digits, config))
    said = [[row["sigma"] for row in epoch.rows] for epoch in epochs]
    factors = {"constant": [1, 1, 1], "rising": [0, 1 / 3, 2 / 3], "falling": [1, 2 / 3, 1 / 3]}
    factors |= {"first-half": [1, 1, 0], "second-half": [0, 0, 1]}
    expected = [0.25 * factor for factor in factors[schedule]] + [0.0]  # corrected epochs have no noise
    assert said == [pytest.approx([sigma, sigma]) for sigma in expected]


def test_noise_in_the_first_half_only_equals_plain_training_from_there_on(few_noisy_digits):
    half, plain = SMALL.replace(sigma_schedule="first-half"), SMALL.replace(sigma=0.0)
    states = [train.State(half, few_noisy_digits) for _ in range(2)]
    for state in states:
        for epoch in itertools.islice(train.train(state, few_noisy_digits, half), 2):
            assert epoch.rows[0]["sigma"] == 0.5
    for state, config in zip(states, (half, plain), strict=True):
        for _ in train.train(state, few_noisy_digits, config):
            pass
    a, b = (state.tensors() for state in states)
    assert all(torch.equal(value, b[name]) for name, value in a.items())


def test_without_noise_its_settings_are_at_their_defaults():
    for settings in (
        {"noise_on": "logits"},
        {"noise_on": "gradient", "strength": "matched"},
        {"sigma_schedule": "rising"},
        {"noise_for": "wrong"},
    ):
        assert Config(sigma=0.0, **settings) == Config(sigma=0.0)
        assert Config(sigma=0.0, **settings).run_id == Config(sigma=0.0).run_id
        assert Config(sigma=0.1, **settings) != Config(sigma=0.1)


# --- expected norms -----------------------------------------------------------------------------------------


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def a_network(*, batchnorm):
    layers = [nn.Linear(5, 6), *([nn.BatchNorm1d(6)] if batchnorm else []), nn.Tanh(), nn.Linear(6, 4)]
    network = nn.Sequential(*layers).double()
    for seed, parameter in enumerate(network.parameters()):
        parameter.data = draws(*parameter.shape, seed=seed)
    return network


def slow_squared_norm(network, images, noise_on, z):
    """|gradient with noise - gradient without|^2 of one draw, two passes of a copy in training mode."""
    gradients = []
    for sigma in (0.0, 1.0):
        copied = copy.deepcopy(network).train()
        f = copied(images)
        y = F.one_hot(torch.arange(len(images)) % f.shape[1], f.shape[1])
        targets = y + sigma * z if noise_on == "labels" else y
        loss = -(targets * F.log_softmax(f, dim=1)).sum()
        if noise_on == "logits":
            loss = loss + (sigma * z * f).sum()
        (loss / len(images)).backward()
        gradients.append([parameter.grad for parameter in copied.parameters()])
    return sum(((a - b) ** 2).sum().item() for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize("noise_on", ["labels", "logits"])
def test_the_norm_is_a_mean_over_draws_of_the_gradients_difference(noise_on, batchnorm):
    network, images, z = a_network(batchnorm=batchnorm), draws(8, 5, seed=50), draws(6, 8, 4, seed=60)
    expected = sum(slow_squared_norm(network, images, noise_on, draw) for draw in z) / 6
    assert objective.expected_squared_norm(network, images, noise_on, z) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("batchnorm", [False, True])
@pytest.mark.parametrize("noise_on", ["labels", "logits"])
def test_the_mean_over_many_draws_is_the_expectation_from_the_jacobian(noise_on, batchnorm):
    """noise = (1/B) sum_i J_i' A z_i, so E|noise|^2 = (1/B^2) sum_i |J_i' A|^2: A is -(I - p 1') or I."""
    network, images, B, C, N = a_network(batchnorm=batchnorm).train(), draws(8, 5, seed=50), 8, 4, 3000
    logits, expected = network(images), 0.0
    for f in logits:
        rows = [torch.autograd.grad(f[k], list(network.parameters()), retain_graph=True) for k in range(C)]
        J = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])  # (C, P)
        A = (
            -(torch.eye(C) - F.softmax(f, dim=0)[:, None] * torch.ones(C))
            if noise_on == "labels"
            else torch.eye(C)
        )
        expected += (J.T @ A.double()).square().sum().item() / B**2
    z = draws(N, B, C, seed=60)
    mean = objective.expected_squared_norm(network, images, noise_on, z)
    each = [objective.expected_squared_norm(network, images, noise_on, draw[None]) for draw in z[:300]]
    error = torch.tensor(each).std().item() / math.sqrt(N)
    assert error < 0.02 * expected
    assert abs(mean - expected) < 5 * error


def test_noise_on_the_gradient_has_a_squared_norm_of_one_a_parameter(few_digits):
    network = train.State(SMALL, few_digits).network
    images, z = few_digits.normalise(few_digits.train.images[:4]), torch.zeros(1, 4, 10)
    assert objective.expected_squared_norm(network, images, "gradient", z) == 7514


def test_measuring_the_norm_leaves_weights_statistics_and_gradients_alone(few_digits):
    network = train.State(SMALL, few_digits).network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images, z = few_digits.normalise(few_digits.train.images[:16]), draws(2, 16, 10).float()
    objective.expected_squared_norm(network, images, "labels", z)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


# --- matched strengths --------------------------------------------------------------------------------------


def confident(config, clean):
    """A state whose network is sure of its predictions: there SLN's noise is larger than the variants'."""
    state = train.State(config, clean)
    state.network.linear.weight.data *= 30
    return state


def drawn_norms(config, clean, sigma, count):
    """(count,): |noise| in the gradients of training, a draw an epoch, at weights that never move."""
    state = confident(config, clean)

    def gradient(epoch, sigma):
        train.train_epoch(state, clean, config, epoch, sigma)
        return torch.cat([p.grad.flatten() for p in state.network.parameters()]).double()

    without = gradient(1, 0.0)
    return torch.stack([(gradient(epoch, sigma) - without).norm() for epoch in range(1, count + 1)])


@pytest.mark.parametrize("noise_on", ["logits", "gradient"])
def test_matched_noise_in_training_has_the_norm_of_slns(noise_on, few_noisy_digits, monkeypatch):
    monkeypatch.setattr(objective, "DRAWS", 400)  # its own error is then half of the test's
    matched = STILL.replace(noise_on=noise_on, strength="matched")
    network = confident(matched, few_noisy_digits).network
    sigma = objective.sigma_of(network, few_noisy_digits, matched, 1)
    squares = [
        drawn_norms(config, few_noisy_digits, strong, 100).square()
        for config, strong in ((STILL, 0.5), (matched, sigma))
    ]
    means = [values.mean().item() for values in squares]
    errors = [values.std().item() / math.sqrt(100) for values in squares]
    assert max(errors) < 0.1 * means[0]
    assert abs(means[0] - means[1]) < 4 * math.hypot(*errors, errors[0] / 2)
    # at its own sigma, the variant is not of that size: the matching did something
    own = drawn_norms(matched, few_noisy_digits, 0.5, 20).square().mean().item()
    assert abs(own - means[0]) > 10 * max(errors)


def test_a_matched_strength_follows_sigma_the_schedule_the_seed_and_the_epoch(few_digits):
    network = train.State(SMALL, few_digits).network
    matched = SMALL.replace(noise_on="logits", strength="matched")

    def sigma(config, epoch=4):
        return objective.sigma_of(network, few_digits, config, epoch)

    one = sigma(matched)
    assert sigma(matched) == one
    assert sigma(matched.replace(sigma=1.5)) == pytest.approx(3 * one)
    assert sigma(matched.replace(sigma_schedule="rising")) == one
    assert sigma(matched.replace(sigma_schedule="falling")) == 0
    assert sigma(matched.replace(seed=6)) != one
    assert sigma(matched, epoch=3) != one
    assert sigma(matched.replace(strength="fixed")) == 0.5
    # nearly the same for another batch and other draws
    assert sigma(matched.replace(seed=6)) == pytest.approx(one, rel=0.5)


def test_a_matched_strength_is_measured_anew_each_epoch_and_trains_like_that_sigma(few_noisy_digits):
    config = SMALL.replace(noise_on="logits", strength="matched")
    state, by_hand = train.State(config, few_noisy_digits), train.State(config, few_noisy_digits)
    said = []
    for epoch in train.train(state, few_noisy_digits, config):
        expected = objective.sigma_of(by_hand.network, few_noisy_digits, config, epoch.number)
        train.train_epoch(by_hand, few_noisy_digits, config, epoch.number, expected)
        assert epoch.rows[0]["sigma"] == expected
        said.append(expected)
    assert len(set(said)) == 4
    for name, value in by_hand.network.state_dict().items():
        assert torch.equal(value, state.network.state_dict()[name])


# --- noise for some examples --------------------------------------------------------------------------------


@pytest.mark.parametrize("noise_on", ["labels", "logits"])
@pytest.mark.parametrize("noise_for", ["all", "right", "wrong"])
def test_only_the_examples_that_are_meant_get_noise_and_it_is_the_same_noise(
    noise_for, noise_on, few_noisy_digits
):
    config, clean = SMALL.replace(noise_for=noise_for, noise_on=noise_on), few_noisy_digits
    state = train.State(config, clean)
    noise, gradient = torch.full((72, 10), math.nan), state.objective.gradient

    def note(batch):
        noise[batch.index] = batch.targets - batch.given if noise_on == "labels" else batch.at_logits
        return gradient(batch)

    state.objective.gradient = note
    train.train_epoch(state, clean, config, epoch=2, sigma=0.5)
    z = torch.randn(72, 10, generator=train.torch_generator(5, "stochastic noise", 2))
    wrong = clean.train.given != clean.train.true
    assert 20 < wrong.sum() < 40
    meant = {"all": wrong | ~wrong, "right": ~wrong, "wrong": wrong}[noise_for]
    torch.testing.assert_close(noise[meant], 0.5 * z[meant])
    assert (noise[~meant] == 0).all()
