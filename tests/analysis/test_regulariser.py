"""What noise on the labels adds to the loss: the prediction against draws, and against other derivations."""

import pytest
import torch
from torch.func import grad, jacrev

from sln.analysis import regulariser
from sln.study.study import Study


@pytest.fixture(scope="module", params=[None, 0.6], ids=["squared", "softmax"])
def minimum(request):
    return regulariser.Minimum(Study("smoke").clean, request.param)


def test_it_is_a_minimum_with_the_curvature_of_gauss_and_newton(minimum):
    assert grad(minimum.mean_loss)(minimum.theta).abs().max() < 1e-12
    J, p = jacrev(minimum.logits)(minimum.theta), minimum.logits(minimum.theta).softmax(dim=1)
    A = torch.eye(minimum.C).to(J).expand(len(J), -1, -1)
    if minimum.loss is not regulariser.squared_error:
        A = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    torch.testing.assert_close(minimum.H, torch.einsum("bcp,bcd,bdq->pq", J, A, J) / len(J))


def test_the_covariance_is_that_of_the_gradients_noise(minimum):
    # the noise is linear in z: entry by entry it adds up to the whole covariance
    B, C = minimum.targets.shape
    units = torch.eye(B * C, dtype=torch.float64).view(-1, B, C)
    noise = torch.stack([grad(minimum.mean_loss)(minimum.theta, unit) for unit in units])
    torch.testing.assert_close(minimum.S, noise.T @ noise)
    if minimum.loss is regulariser.squared_error:
        torch.testing.assert_close(minimum.S, minimum.H / B)


def test_two_steps_are_those_of_second_differences(minimum):
    B, C = minimum.targets.shape
    eta, sigma, small, slope = minimum.eta, 0.7, 1e-3, grad(minimum.mean_loss)
    units = small * torch.eye(B * C, dtype=torch.float64).view(-1, B, C)
    move = extra = 0
    for unit in units:
        ends = [minimum.theta - sign * eta * slope(minimum.theta, unit) for sign in (1, -1)]
        move = move - eta * sum(slope(end) for end in ends) / 2 / small**2
        extra = extra + sum(minimum.mean_loss(end) - minimum.mean_loss(minimum.theta) for end in ends) / 2
    predicted, m = minimum.predicted(sigma, 2)
    torch.testing.assert_close(predicted[0], sigma**2 * extra / small**2, rtol=1e-3, atol=0)
    assert (m[0] == 0).all()
    torch.testing.assert_close(m[1], sigma**2 * move, rtol=1e-3, atol=1e-6 * m[1].norm().item())


def test_the_mean_goes_where_it_is_predicted_to_go(minimum):
    steps, pairs = 40, 100
    extra, m = minimum.predicted(0.02, steps)
    drawn, means = minimum.measured(0.02, steps, pairs)
    error = drawn[:, -1].std() / pairs**0.5
    assert abs(drawn[:, -1].mean() - extra[-1]) < 4 * error < extra[-1]
    assert torch.cosine_similarity(means[:, -1].mean(dim=0), m[-1], dim=0) > 0.97
    assert (minimum.measured(0.02, 2, 3)[1] == minimum.measured(0.02, 2, 3)[1]).all()


def test_for_the_squared_loss_the_extra_loss_rests_at_a_quarter_of_eta_times_the_noise():
    minimum = regulariser.Minimum(Study("smoke").clean, None)
    minimum.eta = 0.002  # the rest holds for small ones
    extra, _ = minimum.predicted(1.0, 3000)
    assert extra[-1] == pytest.approx(minimum.eta / 4 * minimum.S.trace().item(), rel=0.02)


def test_noise_over_curvature_at_both_ends():
    table = regulariser.noise_over_curvature(10, points=2)
    assert table["noise"].tolist() == pytest.approx([1, 1 + 100 / 9 * 0.895**2])
    assert table["curvature"].tolist() == pytest.approx([0.1, 0.995 * 0.005 / 0.9])
    assert (table["ratio"] == table["noise"] / table["curvature"]).all()


def test_the_table_has_a_row_per_network_and_tenth():
    table = regulariser.drift(Study("smoke").clean, steps=20, pairs=4)
    assert table.groupby("case").size().tolist() == [10] * 4
    assert regulariser.describe_drift(table).count("\n") == 3
