"""The paper's equations, against PyTorch, autograd, draws and plain loops."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.mixture import GaussianMixture
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sln import method
from sln.config import CORRECTION_WEIGHTS


def draws(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gradient_at(logits, objective):
    """(B, C): autograd's gradient of the sum of `objective(logits)`."""
    logits = logits.clone().requires_grad_()
    objective(logits).sum().backward()
    return logits.grad


def a_small_network():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    for seed, parameter in enumerate(network.parameters()):
        parameter.data = draws(*parameter.shape, seed=seed)
    return network


# --- losses -------------------------------------------------------------------------------------------------


def test_soft_cross_entropy_equals_torchs_with_probabilities():
    logits, targets = draws(50, 7), F.softmax(draws(50, 7, seed=1), dim=1)
    expected = F.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(method.soft_cross_entropy(logits, targets), expected)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_soft_cross_entropy_equals_a_plain_loop_also_for_targets_that_are_no_probabilities(scale):
    logits, targets = scale * draws(6, 4), 2 * draws(6, 4, seed=1)
    for n, (f, y) in enumerate(zip(logits.tolist(), targets.tolist(), strict=True)):
        log_total = max(f) + math.log(sum(math.exp(x - max(f)) for x in f))
        expected = -sum(target * (x - log_total) for target, x in zip(y, f, strict=True))
        assert method.soft_cross_entropy(logits, targets)[n].item() == pytest.approx(expected, rel=1e-12)


def test_soft_cross_entropy_of_a_certain_and_wrong_prediction_is_finite():
    loss = method.soft_cross_entropy(torch.tensor([[1000.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    assert loss.tolist() == [1000.0]


# --- the three variants of noise ----------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.0, 0.5, 2.0])
def test_label_noise_changes_the_gradient_at_the_logits_by_minus_sigma_z_plus_its_sum_times_p(sigma):
    logits, z = 2 * draws(40, 5), draws(40, 5, seed=1)
    targets = F.one_hot(torch.arange(40) % 5, 5).double()
    noisy = gradient_at(
        logits, lambda f: method.soft_cross_entropy(f, method.noisy_labels(targets, sigma, z))
    )
    p = F.softmax(logits, dim=1)
    expected = (targets.sum(1, True) + sigma * z.sum(1, True)) * p - targets - sigma * z
    torch.testing.assert_close(noisy, expected)
    change = noisy - gradient_at(logits, lambda f: method.soft_cross_entropy(f, targets))
    torch.testing.assert_close(change, -sigma * (z - z.sum(1, True) * p))


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_logit_noise_adds_sigma_z_to_the_gradient_at_the_logits(sigma):
    z = draws(40, 5, seed=1)
    change = gradient_at(draws(40, 5), lambda f: method.logit_noise(f, sigma, z))
    torch.testing.assert_close(change, sigma * z)
    assert method.logit_noise(draws(40, 5), sigma, z).shape == (40,)


@pytest.mark.parametrize(
    "p", [[0.2] * 5, [0.9, 0.05, 0.03, 0.01, 0.01], [0.5, 0.5, 0, 0, 0], [1, 0, 0, 0, 0]]
)
def test_the_noise_of_sln_has_mean_zero_and_the_stated_covariance(p):
    N, C, sigma = 200_000, 5, 0.7
    z, p = draws(N, C), torch.tensor(p, dtype=torch.float64)
    logits = torch.log(p.clamp_min(1e-300)).expand(N, C)
    targets = torch.zeros(N, C, dtype=torch.float64)  # without a label, only the noise's gradient is left
    noise = gradient_at(
        logits, lambda f: method.soft_cross_entropy(f, method.noisy_labels(targets, sigma, z))
    )
    # sampling error: deviation sqrt(v / N) of a mean, at most sqrt(2 v w / N) of a covariance; 5 of them
    stated = method.label_noise_covariance(p, sigma)
    variance = stated.diagonal()
    assert (noise.mean(dim=0).abs() < 5 * (variance / N).sqrt() + 1e-12).all()
    allowed = 5 * (2 * variance[:, None] * variance[None, :] / N).sqrt() + 1e-12
    assert ((torch.cov(noise.T) - stated).abs() < allowed).all()


def test_the_covariance_of_logit_noise_is_sigma_squared_for_any_prediction():
    N, C, sigma = 200_000, 4, 0.7
    z = draws(N, C)
    confident = torch.tensor([5.0, 0, 0, 0], dtype=torch.float64).expand(N, C)
    noise = gradient_at(confident, lambda f: method.logit_noise(f, sigma, z))
    allowed = 5 * sigma**2 * math.sqrt(2 / N)
    assert ((torch.cov(noise.T) - sigma**2 * torch.eye(C)).abs() < allowed).all()


@pytest.mark.parametrize("C", [2, 3, 10, 100])
def test_the_variance_of_sln_is_least_at_chance_and_grows_to_C_minus_1_at_certainty(C):
    p_j = torch.linspace(0, 1, 1001, dtype=torch.float64)
    p = torch.cat([p_j[:, None], ((1 - p_j) / (C - 1))[:, None].expand(-1, C - 1)], dim=1)
    chance = torch.full((1, C), 1 / C, dtype=torch.float64)
    variance = method.label_noise_covariance(torch.cat([p, chance]), 1.0)[:, 0, 0]
    assert variance[-1].item() == pytest.approx(1 - 1 / C)
    assert variance.min().item() == pytest.approx(1 - 1 / C)
    assert variance[-2].item() == pytest.approx(C - 1)
    assert variance.max().item() == pytest.approx(C - 1)


def test_the_covariance_is_symmetric_grows_with_sigma_squared_and_ignores_a_shift_of_the_logits():
    p = F.softmax(2 * draws(30, 6), dim=1)
    covariance = method.label_noise_covariance(p, 1.0)
    torch.testing.assert_close(covariance, covariance.mT)
    torch.testing.assert_close(method.label_noise_covariance(p, 3.0), 9 * covariance)
    # the noise is a gradient of a function of softmax, so its entries sum to zero
    torch.testing.assert_close(covariance.sum(dim=2), torch.zeros(30, 6, dtype=torch.float64))


def test_gradient_noise_has_mean_zero_and_deviation_sigma_and_is_added():
    parameter = nn.Parameter(torch.zeros(400, 500))
    parameter.grad = torch.full((400, 500), 2.0)
    method.add_gradient_noise([parameter], 0.3, torch.Generator().manual_seed(0))
    noise = parameter.grad - 2
    assert abs(noise.mean().item()) < 5 * 0.3 / math.sqrt(200_000)
    assert noise.std().item() == pytest.approx(0.3, rel=5 / math.sqrt(400_000))
    assert (parameter == 0).all()


def test_gradient_noise_leaves_parameters_without_gradient_alone_and_is_fresh_for_each_other():
    with_grad, without, another = (nn.Parameter(torch.zeros(50)) for _ in range(3))
    with_grad.grad, another.grad = torch.zeros(50), torch.zeros(50)
    method.add_gradient_noise([with_grad, without, another], 1.0, torch.Generator().manual_seed(0))
    assert without.grad is None
    assert (with_grad.grad != another.grad).all()


# --- momentum model -----------------------------------------------------------------------------------------


def test_the_momentum_model_starts_as_a_copy_that_shares_nothing():
    network = a_small_network()
    average = method.MomentumModel(network, 0.9).module
    for (name, mine), (_, theirs) in zip(
        network.state_dict().items(), average.state_dict().items(), strict=True
    ):
        assert torch.equal(mine, theirs), name
        assert mine.data_ptr() != theirs.data_ptr()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9, 0.999])
def test_the_momentum_model_is_the_exponential_average_of_weights_and_batchnorm_statistics(alpha):
    network = a_small_network()
    average = method.MomentumModel(network, alpha)
    numbers = {name: [value.clone()] for name, value in network.state_dict().items()}
    for step in range(1, 8):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(draws(*parameter.shape, seed=step))
            network(3 * draws(16, 3, seed=100 + step) + 1)  # moves the running statistics
        average.update_parameters(network)
        for name, value in network.state_dict().items():
            numbers[name].append(value.clone())
    for name, history in numbers.items():
        if name.endswith("num_batches_tracked"):
            continue
        # m_T = alpha^T theta_0 + sum_t (1 - alpha) alpha^(T - t) theta_t
        T = len(history) - 1
        expected = alpha**T * history[0]
        for t in range(1, T + 1):
            expected = expected + (1 - alpha) * alpha ** (T - t) * history[t]
        torch.testing.assert_close(average.module.state_dict()[name], expected, rtol=1e-12, atol=1e-12)
        assert not torch.equal(history[0], history[-1]), f"{name} did not move: nothing was tested"


@pytest.mark.parametrize("alpha", [0.0, 0.9])
def test_the_momentum_model_equals_torchs_averaged_model_bit_for_bit(alpha):
    network = a_small_network()
    ours = method.MomentumModel(network, alpha)
    torchs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(alpha), use_buffers=True)
    torchs.n_averaged.fill_(1)  # else its first update is a copy
    for step in range(1, 8):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(draws(*parameter.shape, seed=step))
            network(3 * draws(16, 3, seed=100 + step) + 1)
        ours.update_parameters(network)
        torchs.update_parameters(network)
        for name, value in ours.module.state_dict().items():
            if value.is_floating_point():
                assert torch.equal(value, torchs.module.state_dict()[name]), name
            else:  # counters, of which the average has no meaning
                assert value == network.state_dict()[name] == step


def test_updating_the_momentum_model_leaves_the_network_as_it_is():
    network = a_small_network()
    average = method.MomentumModel(network, 0.5)
    with torch.no_grad():
        network[0].weight.add_(1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    average.update_parameters(network)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


# --- label correction ---------------------------------------------------------------------------------------


def test_the_correction_weight_is_0_at_the_least_loss_1_at_the_greatest_and_linear_between():
    losses = torch.tensor([3.0, 1.0, 2.0, 5.0, 1.0])
    assert method.correction_weight(losses).tolist() == [0.5, 0.0, 0.25, 1.0, 0.0]


def test_the_correction_weight_does_not_depend_on_the_scale_of_the_losses():
    losses = draws(100)
    torch.testing.assert_close(
        method.correction_weight(7 * losses - 3), method.correction_weight(losses), rtol=1e-10, atol=1e-10
    )


def test_equal_losses_give_weight_0():
    assert method.correction_weight(torch.full((4,), 0.7)).tolist() == [0.0] * 4


def test_the_rules_of_the_weight_by_hand():
    losses = torch.tensor([3.0, 1.0, 2.0, 5.0])
    found = {name: rule(losses).tolist() for name, rule in method.CORRECTION_WEIGHTS.items()}
    assert tuple(found) == CORRECTION_WEIGHTS
    assert found["loss"] == [0.5, 0, 0.25, 1]
    assert found["reversed"] == [0.5, 1, 0.75, 0]
    assert found["none"] == [0, 0, 0, 0]


def test_the_mixture_gives_the_low_cluster_1_and_the_high_one_0():
    high = torch.arange(200) % 3 == 0
    losses = torch.where(high, 2.4, 0.3) + 0.05 * draws(200).float()
    w = method.CORRECTION_WEIGHTS["mixture"](losses)
    assert w.dtype == losses.dtype
    assert w[high].max() < 0.01
    assert w[~high].min() > 0.99


def test_the_mixtures_weight_is_the_posterior_by_bayes_rule():
    losses = torch.cat([draws(300).abs(), 3 + 0.5 * draws(100, seed=1)])
    x = ((losses - losses.min()) / (losses.max() - losses.min())).numpy()[:, None]
    fitted = GaussianMixture(2, reg_covar=5e-4, max_iter=1000, random_state=0).fit(x)
    means, deviations = fitted.means_[:, 0], fitted.covariances_[:, 0, 0] ** 0.5
    density = fitted.weights_ * np.exp(-(((x - means) / deviations) ** 2) / 2) / deviations
    expected = density[:, means.argmin()] / density.sum(axis=1)
    np.testing.assert_allclose(method.mixture_weight(losses).numpy(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("rule", CORRECTION_WEIGHTS)
@pytest.mark.parametrize("losses", [[0.7] * 4, [0.7], [0.0, 1.0], [2.0, 2.0, 2.0, 2.0001]])
def test_equal_and_few_losses_give_weights_in_the_unit_interval(rule, losses):
    w = method.CORRECTION_WEIGHTS[rule](torch.tensor(losses))
    assert w.shape == (len(losses),)
    assert ((w >= 0) & (w <= 1)).all()


def test_a_high_loss_keeps_the_given_label_and_a_low_loss_takes_the_prediction():
    given = torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0]])
    predictions = torch.tensor([[0, 1.0, 0], [0, 1.0, 0], [0.25, 0.25, 0.5]])
    corrected = method.corrected_targets(given, predictions, torch.tensor([1.0, 0.0, 0.5]))
    assert corrected.tolist() == [[1, 0, 0], [0, 1, 0], [0.125, 0.625, 0.25]]


def test_rows_of_corrected_targets_sum_to_one():
    given = F.one_hot(torch.arange(60) % 6, 6).double()
    w = method.correction_weight(draws(60))
    corrected = method.corrected_targets(given, F.softmax(draws(60, 6, seed=1), dim=1), w)
    torch.testing.assert_close(corrected.sum(dim=1), torch.ones(60, dtype=torch.float64))
    assert (corrected >= 0).all()
