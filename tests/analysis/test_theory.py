"""The theory of the gradient noise: exact covariances against draws, plain loops and other algebra."""

import copy
import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sln import method, models
from sln.analysis import theory
from sln.config import NOISE_ON, Config
from sln.data import Split
from sln.datasets.images import digits
from sln.method import label_noise_covariance

SIGMA = 0.7


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def batch():
    return theory.small_images(digits(), 8)


@pytest.fixture(scope="module")
def networks():
    """One of each size, fitted for a moment: some predictions are confident, others not."""
    images, targets = theory.small_images(digits(), 60)
    return [theory.fitted(theory.small_network(size, 10), images, targets, steps=40) for size in theory.SIZES]


def gradient_of(network, objective):
    """(P,): what `backward` leaves in the network's parameters."""
    network.zero_grad()
    objective.backward(retain_graph=True)
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


# --- exact against drawn ------------------------------------------------------------------------------------


def test_the_exact_covariance_is_the_drawn_one_at_three_sizes_of_network(networks, batch):
    table = theory.verification(networks, *batch, sigma=SIGMA, draws=1000)
    assert table["parameters"].unique().tolist() == [122, 521, 1956]
    assert len(table) == 3 * 2 * 3  # sizes, one example and the batch, variants
    assert set(table["noise_on"]) == set(theory.VARIANTS)
    assert theory.within_sampling_error(table)
    # the errors are neither larger nor, on the whole, smaller than sampling makes them
    assert 0.8 < table["error_ratio"].mean() < 1.2
    assert 0.8 < (table["mean_error"] ** 2).mean() ** 0.5 < 1.2


def test_the_variants_are_those_that_can_be_trained():
    assert set(theory.VARIANTS) <= set(NOISE_ON)


MUTANTS = {
    "without C p p'": lambda p, sigma: label_noise_covariance(p, sigma) - sigma**2 * 10 * outer(p, p),
    "with p p' for C p p'": lambda p, sigma: label_noise_covariance(p, sigma) - sigma**2 * 9 * outer(p, p),
    "without the cross terms": lambda p, sigma: sigma**2 * (torch.eye(10).double() + 10 * outer(p, p)),
    "that of variant 2": lambda p, sigma: sigma**2 * torch.eye(10).double().expand(*p.shape, 10),
    "twice as large": lambda p, sigma: 2 * label_noise_covariance(p, sigma),
}


def outer(a, b):
    return a.unsqueeze(-1) * b.unsqueeze(-2)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_covariance_is_noticed_for_one_example_and_for_a_batch(name, networks, batch, monkeypatch):
    network = copy.deepcopy(networks[1])
    # all logits move equally, which leaves softmax as it is: a fitted network hardly does, and then the terms
    # 1 p' and p 1' are too small in parameter space for these draws
    network[-1].weight.data += 0.5
    assert theory.within_sampling_error(theory.verification([network], *batch, sigma=SIGMA, draws=2000))
    monkeypatch.setattr(method, "label_noise_covariance", MUTANTS[name])
    table = theory.verification([network], *batch, sigma=SIGMA, draws=2000)
    wrong = table["noise_on"] == "labels"
    for _, row in table[wrong].groupby("batch"):
        assert not theory.within_sampling_error(row)
    assert theory.within_sampling_error(table[~wrong])


def test_noise_with_a_mean_of_another_size_or_of_other_directions_is_noticed():
    S = torch.diag(torch.tensor([4.0, 1.0, 0.25]).double())
    noise = torch.randn(2000, 3, generator=generator(), dtype=torch.float64) @ S.sqrt()
    assert abs(theory.errors(noise, S)["norm_error"]) < 4
    assert theory.errors(noise, S)["mean_error"] < 3
    assert theory.errors(noise + 0.2, S)["mean_error"] > 4
    assert abs(theory.errors(1.1 * noise, S)["norm_error"]) > 4
    turned = theory.errors(noise[:, [2, 1, 0]], S)
    assert turned["error_ratio"] > 10
    assert abs(turned["norm_error"]) < 4  # the trace is the same


def test_the_expected_error_is_the_root_mean_square_of_what_draws_give():
    S = torch.diag(torch.tensor([4.0, 1.0, 0.25]).double())
    z = torch.randn(500, 100, 3, generator=generator(), dtype=torch.float64) @ S.sqrt()
    found = [theory.errors(noise, S) for noise in z]
    for name in ("error_ratio", "norm_error", "mean_error"):
        assert np.mean([row[name] ** 2 for row in found]) == pytest.approx(1, abs=0.15)


# --- the exact ones, against plain loops --------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("B", [1, 5])
def test_slns_covariance_is_the_sum_of_outer_products_of_gradients_of_log_p(training, B, networks, batch):
    network, images = networks[0].train(training), batch[0][:B]
    log_p = F.log_softmax(network(images), dim=1)
    gradients = torch.stack([gradient_of(network, entry) for entry in log_p.flatten()])
    expected = SIGMA**2 / B**2 * sum(torch.outer(g, g) for g in gradients)
    found = theory.noise_covariance(network, images, "labels", SIGMA)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("training", [False, True])
def test_the_covariance_of_logit_noise_is_sigma_squared_J_J(training, networks, batch):
    network, images = networks[0].train(training), batch[0][:5]
    J = torch.stack([gradient_of(network, entry) for entry in network(images).flatten()])
    found = theory.noise_covariance(network, images, "logits", SIGMA)
    torch.testing.assert_close(found, SIGMA**2 / 25 * J.T @ J, rtol=1e-8, atol=1e-10)


def test_the_covariance_of_gradient_noise_is_sigma_squared_for_any_batch(networks, batch):
    found = theory.noise_covariance(networks[0], batch[0], "gradient", SIGMA)
    assert torch.equal(found, SIGMA**2 * torch.eye(122).double())


def test_batch_statistics_matter_and_running_ones_are_left_alone(networks, batch):
    network = networks[0]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    norms = [
        theory.expected_squared_norm(network.train(training), batch[0], "labels", 1.0)
        for training in (False, True)
    ]
    assert norms[0] != pytest.approx(norms[1], rel=0.01)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("variant", theory.VARIANTS)
def test_the_expected_squared_norm_is_the_trace_of_the_covariance(variant, training, networks, batch):
    network = networks[1].train(training)
    norm = theory.expected_squared_norm(network, batch[0], variant, SIGMA)
    covariance = theory.noise_covariance(network, batch[0], variant, SIGMA)
    assert norm == pytest.approx(covariance.trace().item(), rel=1e-9)
    assert theory.expected_squared_norm(network, batch[0], variant, 3 * SIGMA) == pytest.approx(9 * norm)


@pytest.mark.parametrize("variant", ["logits", "labels"])
def test_the_studys_own_network_has_the_noise_that_backward_passes_give(variant):
    """SmallCNN in training mode, float32: by `backward`, without torch.func."""
    network, draws = models.build("cnn", in_channels=1, num_classes=10, seed=0).train(), 200
    images = torch.randn(6, 1, 8, 8, generator=generator())
    logits, z = network(images), torch.randn(draws, 6, 10, generator=generator(1))
    nothing = torch.zeros(6, 10)
    objectives = {
        "labels": lambda z: method.soft_cross_entropy(logits, method.noisy_labels(nothing, SIGMA, z)),
        "logits": lambda z: method.logit_noise(logits, SIGMA, z),
    }
    norms = torch.stack([gradient_of(network, objectives[variant](row).mean()).square().sum() for row in z])
    error = norms.std().item() / math.sqrt(draws)
    exact = theory.expected_squared_norm(network, images, variant, SIGMA)
    assert abs(norms.mean().item() - exact) < 4 * error < 0.4 * exact


def test_expected_norms_name_the_strength_that_is_as_large_as_slns(networks, batch):
    table = theory.expected_norms(networks[:1], batch[0], sigma=0.5).set_index("noise_on")
    assert table["matched_sigma"]["labels"] == 0.5
    for variant in theory.VARIANTS:
        norm = theory.expected_squared_norm(
            networks[0].train(), batch[0], variant, table["matched_sigma"][variant]
        )
        assert norm == pytest.approx(table["expected_squared_norm"]["labels"])


# --- the draws, against plain backward ----------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["logits", "labels"])
def test_drawn_noise_is_what_backward_gives_with_noise_minus_without(variant, networks, batch):
    network, (images, targets) = networks[0].train(), batch
    found = theory.drawn_noise(network, batch, variant, SIGMA, 3, generator())
    logits = network(images)
    clean = gradient_of(network, method.soft_cross_entropy(logits, targets).mean())
    for noise, z in zip(
        found, torch.randn(3, 8, 10, generator=generator(), dtype=torch.float64), strict=True
    ):
        if variant == "labels":
            losses = method.soft_cross_entropy(logits, method.noisy_labels(targets, SIGMA, z))
        else:
            losses = method.soft_cross_entropy(logits, targets) + method.logit_noise(logits, SIGMA, z)
        torch.testing.assert_close(noise, gradient_of(network, losses.mean()) - clean)


def test_drawn_gradient_noise_is_what_add_gradient_noise_adds(networks, batch):
    network, (images, targets) = networks[0].eval(), batch
    found = theory.drawn_noise(network, batch, "gradient", SIGMA, 1, generator())
    clean = gradient_of(network, method.soft_cross_entropy(network(images), targets).mean())
    method.add_gradient_noise(network.parameters(), SIGMA, generator())
    noisy = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
    torch.testing.assert_close(found[0], noisy - clean)


# --- small networks -----------------------------------------------------------------------------------------


def test_small_images_are_grey_and_8x8_for_any_data_set(few_digits):
    images, targets = theory.small_images(few_digits, 5)
    plain = few_digits.normalise(few_digits.train.images[:5]).double()
    torch.testing.assert_close(images, plain)
    assert targets.argmax(dim=1).tolist() == few_digits.train.given[:5].tolist()
    # the same pictures as photographs: every pixel four by four times, in three equal channels
    large = few_digits.train.images.repeat_interleave(4, 2).repeat_interleave(4, 3).repeat(1, 3, 1, 1)
    split = Split(large, few_digits.train.given, few_digits.train.true)
    coloured = dataclasses.replace(few_digits, train=split, mean=3 * few_digits.mean, std=3 * few_digits.std)
    torch.testing.assert_close(theory.small_images(coloured, 5)[0], plain)


def test_a_small_networks_weights_come_from_its_seed_and_not_from_the_global_generator():
    before = torch.random.get_rng_state()
    first, again, other = (theory.small_network((2, 3), 10, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first[0].weight, again[0].weight)
    assert not torch.equal(first[0].weight, other[0].weight)


# --- noise and confidence -----------------------------------------------------------------------------------


class Logits(nn.Module):
    """A network whose parameters are its logits for any image: J J' = I, or without their mean."""

    def __init__(self, logits, centred):
        super().__init__()
        self.f = nn.Parameter(torch.tensor(logits).double())
        self.centred = centred

    def forward(self, images):
        f = self.f - self.f.mean() if self.centred else self.f
        return f.expand(len(images), -1)


@pytest.mark.parametrize("centred", [False, True])
def test_where_all_logits_are_equally_sensitive_the_ratio_is_that_at_the_logits(centred):
    network, images = Logits([3.0, 0.0, -1.0, 0.5], centred), torch.zeros(2, 1, 8, 8)
    row = theory.by_confidence(network, images, SIGMA).iloc[0]
    p = F.softmax(network.f.detach(), dim=0)
    assert row["confidence"] == pytest.approx(p.max().item())
    assert row["logit_variance"] == pytest.approx(SIGMA**2 * (1 - 2 * p[0] + 4 * p[0] ** 2).item())
    assert row["logits"] == pytest.approx(SIGMA**2 * (3 if centred else 4))
    assert row["common"] == pytest.approx(0 if centred else 1 / 4)
    assert row["ratio"] == pytest.approx(row["ratio_of_differences" if centred else "ratio_at_logits"])
    by_hand = 4 - 2 + 4 * p.square().sum().item()  # the trace of Sigma / sigma^2
    assert row["labels"] == pytest.approx(SIGMA**2 * by_hand)
    assert row["logit_size"] == pytest.approx((network.f - network.f.mean()).square().sum().item())


@pytest.mark.parametrize("C", [2, 3, 10])
def test_slns_covariance_at_the_logits_has_the_eigenvalues_0_and_1_and_C_p_squared(C):
    p = F.softmax(3 * torch.randn(20, C, generator=generator(), dtype=torch.float64), dim=1)
    values = torch.linalg.eigvalsh(label_noise_covariance(p, 1.0))
    expected = torch.ones(20, C, dtype=torch.float64)
    expected[:, 0], expected[:, -1] = 0, C * p.square().sum(dim=1)
    torch.testing.assert_close(values, expected)


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_each_images_norm_is_that_of_a_batch_of_it_alone(sigma, networks, batch):
    network = networks[1].eval()
    table = theory.by_confidence(network, batch[0], sigma)
    for variant in ("logits", "labels"):
        alone = [theory.expected_squared_norm(network, image[None], variant, sigma) for image in batch[0]]
        assert np.allclose(table[variant], alone)
    assert (table["ratio"] <= table["bound"] * (1 + 1e-9)).all()


def test_a_wide_resnet_can_be_looked_at_too():
    network = models.build("wrn-10-1", in_channels=3, num_classes=10, seed=0)
    images = torch.randn(2, 3, 16, 16, generator=generator())
    table = theory.by_confidence(network, images, 1.0)
    alone = theory.expected_squared_norm(network.eval(), images[1:], "labels", 1.0)
    assert table["labels"][1] == pytest.approx(alone, rel=1e-4)


def test_bins_hold_five_images_or_more_and_their_means(networks):
    images, _ = theory.small_images(digits(), 60)
    table = theory.by_confidence(networks[0].eval(), images, 1.0)
    edges = (0, 0.3, 0.5, 0.7, 0.9, 1)
    bins = theory.binned(table, edges)
    counts = np.histogram(table["confidence"], edges)[0]
    assert bins["images"].tolist() == [count for count in counts if count >= 5]
    low = table["confidence"].between(0.3, 0.5, inclusive="right")
    assert np.isclose(bins["ratio"], table["ratio"][low].mean()).sum() == 1
    words = theory.describe_by_confidence({"a": table}, {"a": bins})
    grows = bins["labels"].iloc[-1] / bins["labels"].iloc[0]
    assert f"E|noise|² grows {grows:.1f} times for SLN" in words
    assert f"ratio goes from {bins['ratio'].iloc[0]:.1f} to {bins['ratio'].iloc[-1]:.1f}" in words


def test_the_networks_of_the_notebook_are_the_small_ones_fitted(batch):
    assert [theory.parameter_count(net) for net in theory.fitted_networks(*batch)] == [122, 521, 1956]


def test_the_first_test_images_of_a_run_are_looked_at(smoke_study):
    run = smoke_study.runs("sym", 1.0)[0]
    table = theory.over_test_images({"SLN": run}, count=7)["SLN"]
    p = run.network()(run.data.normalise(run.data.test.images[:7])).softmax(dim=1)
    assert np.allclose(table["confidence"], p.amax(dim=1).detach(), atol=1e-5)


# --- at the logits ------------------------------------------------------------------------------------------


def test_the_drawn_covariance_is_the_formulas_within_sampling_error():
    table = theory.covariance_check(sigma=0.7, num_classes=4, draws=20_000)
    assert theory.within_sampling_error(table)
    ratio = table["error_ratio"]
    words = f"5 covariances: the error is {ratio.min():.2f} to {ratio.max():.2f} times"
    assert theory.describe_errors(table).startswith(words)
    assert table["std_formula"].iloc[0] == pytest.approx(0.7 * (1 - 1 / 4) ** 0.5)


def test_another_covariance_would_be_noticed(monkeypatch):
    monkeypatch.setattr(method, "label_noise_covariance", lambda p, sigma: sigma**2 * torch.eye(4).double())
    table = theory.covariance_check(sigma=0.7, num_classes=4, draws=20_000)
    assert (table["error_ratio"].iloc[2:] > 10).all()


def test_noise_at_a_logit_is_the_root_of_the_stated_variance():
    p = np.array([0.0, 0.1, 0.5, 1.0])
    assert np.allclose(theory.noise_at_logit(p, 2.0, 10), 2 * np.sqrt(1 - 2 * p + 10 * p**2))


def test_the_noise_at_a_certain_class_grows_with_the_root_of_the_other_classes():
    table = theory.by_classes(0.5, (2, 10, 100), (0.5, 0.999), draws=2000)
    assert table["limit"].tolist() == pytest.approx([0.5, 0.5, 1.5, 1.5, 0.5 * 99**0.5, 0.5 * 99**0.5])
    assert (table["error"].abs() < 4).all()
    certain = table[table["p"] == 0.999]
    assert np.allclose(certain["std_formula"], certain["limit"], rtol=0.002)


def test_one_step_has_the_gradients_of_the_equation(few_noisy_digits):
    network = models.build("cnn", in_channels=1, num_classes=10, seed=0).eval()
    run = SimpleNamespace(data=few_noisy_digits, config=Config(), network=lambda: network)
    table, sigma = theory.one_step(run, 5, 0.7), 0.7
    y, z, p = (table[name].to_numpy() for name in ("y", "z", "p"))
    image = few_noisy_digits.normalise(few_noisy_digits.train.images[5:6])
    assert np.allclose(p, network(image).softmax(dim=1).detach()[0], atol=1e-6)
    assert y.argmax() == few_noisy_digits.train.given[5]
    assert np.allclose(table["gradient"], p - y, atol=1e-6)
    assert np.allclose(table["noisy_label"], y + sigma * z, atol=1e-6)
    assert np.allclose(table["noisy_gradient"], (1 + sigma * z.sum()) * p - y - sigma * z, atol=1e-6)
    assert 0.3 < z.std() < 2
