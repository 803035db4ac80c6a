"""The paper on one screen: Chen, Chen, Ye, Zhao, Heng, "Noise against noise", ICLR 2021.

Notation: logits f (B, C), p = softmax(f), target y (B, C) whose rows sum to one, z ~ N(0, I) drawn afresh
for every example and step, sigma the strength of the stochastic noise, B examples, C classes.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,): l(f, y) = -sum_i y_i log p_i, for any real y: noisy targets may be negative, with any sum."""
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1)


def noisy_labels(targets: Tensor, sigma: float, z: Tensor) -> Tensor:
    """(B, C): y + sigma z, the stochastic label noise (SLN), variant 3 of the paper.

    The gradient of l(f, y + sigma z) at the logits is (sum_i y_i + sigma z_i) p - y - sigma z: the noise in
    it is -sigma (z - (sum_i z_i) p), of mean zero and covariance `label_noise_covariance`.
    """
    return targets + sigma * z


def logit_noise(logits: Tensor, sigma: float, z: Tensor) -> Tensor:
    """(B,): sigma sum_i z_i f_i, which adds sigma z to the gradient at the logits: variant 2 of the paper."""
    return sigma * (z * logits).sum(dim=1)


def add_gradient_noise(parameters: Iterable[nn.Parameter], sigma: float, generator: torch.Generator) -> None:
    """Add sigma z, z ~ N(0, I) of the parameters' own shape, to every gradient in place: variant 1."""
    for parameter in parameters:
        if parameter.grad is not None:
            z = torch.randn(parameter.shape, generator=generator, device=generator.device)
            parameter.grad.add_(z.to(parameter.device), alpha=sigma)


def label_noise_covariance(p: Tensor, sigma: float) -> Tensor:
    """(..., C, C): sigma^2 (I - 1 p' - p 1' + C p p'), the covariance of SLN's noise at the logits.

    p : (..., C) predicted probabilities

    Entry j of the diagonal is sigma^2 (1 - 2 p_j + C p_j^2): least, sigma^2 (1 - 1/C), at p_j = 1/C, and
    most, sigma^2 (C - 1), at p_j = 1, so SLN pushes hardest against confidence. Variant 2 has sigma^2 I for
    every p. (Our algebra from the equation of `noisy_labels`; the tests and notebook 2 check it against
    draws.)
    """
    C, column, row = p.shape[-1], p.unsqueeze(-1), p.unsqueeze(-2)
    return sigma**2 * (torch.eye(C, dtype=p.dtype, device=p.device) - row - column + C * (column * row))


class MomentumModel(nn.Module):
    """The momentum model (MO): m <- alpha m + (1 - alpha) theta after every optimizer step.

    The average includes BatchNorm's running statistics, starts as a copy of `model`, and is read as
    `.module`. Integer counters (num_batches_tracked), which nothing reads, are copied. Deviation from the
    released code: none in the numbers. torch's AveragedModel can give the same numbers and is the tests'
    oracle; it groups its tensors again at every step, an eighth of a small network's training time.
    """

    def __init__(self, model: nn.Module, alpha: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(model)
        self.alpha = alpha

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """One step of the average, towards `model`'s parameters and buffers as they are now."""
        averaged, current = (_tensors(one, floating=True) for one in (self.module, model))
        get_ema_multi_avg_fn(self.alpha)(averaged, current, None)  # not kept: it cannot be pickled
        counters = _tensors(self.module, floating=False)
        if counters:
            torch._foreach_copy_(counters, _tensors(model, floating=False))


def _tensors(model: nn.Module, *, floating: bool) -> list[Tensor]:
    everything = itertools.chain(model.parameters(), model.buffers())
    return [tensor for tensor in everything if tensor.is_floating_point() == floating]


def correction_weight(losses: Tensor) -> Tensor:
    """(N,): w, the losses scaled to [0, 1] by their minimum and maximum over the training set.

    Mind the direction, which is the released code's: a high loss keeps the given label, a low loss takes the
    prediction. Where all losses are equal, which the released code divides by zero, w = 0.
    """
    low, high = losses.min(), losses.max()
    return (losses - low) / (high - low) if high > low else torch.zeros_like(losses)


def mixture_weight(losses: Tensor) -> Tensor:
    """(N,): w, the posterior of the component of low losses in a mixture of two Gaussians of the losses.

    The rule of DivideMix (Li, Socher, Hoi, ICLR 2020) and, with beta distributions, of Arazo et al. (ICML
    2019): a *low* loss keeps the given label. As in DivideMix's code losses are scaled to [0, 1] first, and
    5e-4 is added to the variances. Where all losses are equal there is nothing to separate, and w = 0.
    """
    from sklearn.mixture import GaussianMixture

    scaled = correction_weight(losses)
    if not scaled.any():
        return scaled
    values = scaled.double().cpu().numpy()[:, None]
    mixture = GaussianMixture(2, reg_covar=5e-4, max_iter=1000, random_state=0).fit(values)
    posterior = mixture.predict_proba(values)[:, mixture.means_.argmin()]
    return torch.from_numpy(posterior).to(losses)


# w by `Config.correction_weight`: the released rule, and what one might do instead
CORRECTION_WEIGHTS = {
    "loss": correction_weight,
    "reversed": lambda losses: 1 - correction_weight(losses),
    "none": torch.zeros_like,
    "mixture": mixture_weight,
}


def corrected_targets(given: Tensor, predictions: Tensor, w: Tensor) -> Tensor:
    """(N, C): w y + (1 - w) y_hat, label correction (LC).

    given : (N, C) one-hot given labels
    predictions : (N, C), one-hot (CIFAR) or probabilities (Clothing1M)
    w : (N,) weight of the given label
    """
    w = w.unsqueeze(1)
    return w * given + (1 - w) * predictions
