"""How strong the stochastic noise is in an epoch: sigma's schedule, and strengths matched to SLN's."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sln import method
from sln.config import Config
from sln.data import Data
from sln.streams import torch_generator

# Draws of the noise, on one batch, that a matched strength is estimated from.
DRAWS = 8


def sigma_of(network: nn.Module, data: Data, config: Config, epoch: int) -> float:
    """The sigma of `epoch`: that of the schedule, and where strengths are matched, what equals SLN's there.

    Matched: sigma' with E|sigma' noise|^2 = E|sigma SLN noise|^2, both on the gradient of one mini-batch at
    the weights that the epoch starts from. So the variants differ in the noise's shape, not in its size.
    """
    sigma = config.sigma * schedule(config.sigma_schedule, epoch, config.epochs)
    if sigma == 0 or config.strength == "fixed":
        return sigma
    generator = torch_generator(config.seed, "matched strength", epoch)
    index = torch.randperm(len(data.train), generator=generator)[: config.batch_size]
    images = data.normalise(data.train.images[index.to(data.device)])
    z = torch.randn(DRAWS, len(index), data.num_classes, generator=generator).to(data.device)
    wanted = expected_squared_norm(network, images, "labels", z)
    return sigma * math.sqrt(wanted / expected_squared_norm(network, images, config.noise_on, z))


def schedule(name: str, epoch: int, epochs: int) -> float:
    """The factor on sigma in `epoch` of 1..epochs (defaults.SIGMA_SCHEDULES).

    constant 1; rising from 0 to 1 and falling from 1 to 0 in equal steps; first-half, second-half: 1 in that
    half and 0 in the other.
    """
    done = (epoch - 1) / max(1, epochs - 1)
    late = epoch > epochs / 2
    factors = {"constant": 1.0, "rising": done, "falling": 1 - done}
    factors |= {"first-half": float(not late), "second-half": float(late)}
    return factors[name]


def expected_squared_norm(network: nn.Module, images: Tensor, noise_on: str, z: Tensor) -> float:
    """E|noise|^2 on the mini-batch's gradient at sigma = 1, in training mode: a mean over draws.

    images : (B, channels, H, W), normalised
    noise_on : labels (SLN), logits (variant 2) or gradient (variant 1)
    z : (draws, B, C) of N(0, 1)

    SLN's noise is linear in z, so it is the gradient of l(f, sigma z) alone. Variant 1 has one N(0, 1) for
    every parameter: their number, exactly. `theory.expected_squared_norm` is the same from the Jacobian.
    """
    weights = dict(network.named_parameters())
    if noise_on == "gradient":
        return float(sum(weight.numel() for weight in weights.values()))
    # BatchNorm updates its statistics at every pass in training mode: those of copies
    statistics = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.train()
    logits = functional_call(network, weights | statistics, (images,))
    total = torch.zeros((), dtype=torch.float64, device=images.device)
    for draw in z:
        if noise_on == "labels":
            losses = method.soft_cross_entropy(logits, draw)
        else:
            losses = method.logit_noise(logits, 1.0, draw)
        noise = torch.autograd.grad(losses.mean(), list(weights.values()), retain_graph=True)
        total += sum(part.double().square().sum() for part in noise)
    return total.item() / len(z)  # read once: a GPU need not wait for us at every draw
