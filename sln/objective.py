"""What one step minimises: the paper's cross-entropy, and what other methods against label noise build on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sln import method
from sln.config import Config
from sln.data import Data
from sln.utils.rng import torch_generator


def forward(network: nn.Module, images: Tensor, config: Config) -> Tensor:
    """(B, C) float32 logits; with `precision` bfloat16 the convolutions have bfloat16 operands."""
    if config.precision == "float32":
        return network(images)
    with torch.autocast(images.device.type, torch.bfloat16):
        return network(images).float()


@dataclass(frozen=True)
class Batch:
    """What one step sees."""

    images: Tensor  # (B, channels, H, W) float32, augmented and normalised
    given: Tensor  # (B, C) targets without stochastic noise: one-hot given labels, or label correction's
    targets: Tensor  # (B, C) the same with stochastic label noise
    at_logits: Tensor | None  # (B, C) noise on the gradient at the logits, sigma z of variant 2
    index: Tensor  # (B,) which training examples these are
    epoch: int  # from 1


class Objective:
    """Soft cross-entropy l(f, y + sigma z), the mean over the batch; variant 2's noise is a second term.

    Subclasses (`baselines`) are other methods' objectives; `tensors` is what they remember between steps.
    """

    def __init__(self, config: Config, network: nn.Module, data: Data) -> None:
        self.config, self.network = config, network

    def gradient(self, batch: Batch) -> Tensor:
        """Leave the gradient in the network's parameters, and return the mean loss (), detached."""
        loss = self.losses(forward(self.network, batch.images, self.config), batch).mean()
        self.network.zero_grad()
        loss.backward()
        return loss.detach()

    def losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """(B,): each example's loss for its logits (B, C)."""
        losses = method.soft_cross_entropy(logits, batch.targets)
        if batch.at_logits is not None:
            losses = losses + method.logit_noise(logits, 1.0, batch.at_logits)
        return losses

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold besides the network, by name."""
        return {}

    def restore(self, named: dict[str, Tensor]) -> None:
        """Continue from `tensors()`."""


def sgd(network: nn.Module, config: Config) -> torch.optim.SGD:
    """SGD with momentum and weight decay on every parameter of `network`, by `config`."""
    settings = {"lr": config.lr, "momentum": config.momentum, "weight_decay": config.weight_decay}
    # fused: one kernel a step instead of several a parameter
    return torch.optim.SGD(network.parameters(), **settings, fused=True)


def momentum_buffers(network: nn.Module, optimizer: torch.optim.SGD) -> dict[str, Tensor]:
    """SGD's momentum by parameter name; empty before the first step."""
    buffers = {n: optimizer.state[p].get("momentum_buffer") for n, p in network.named_parameters()}
    return {name: buffer for name, buffer in buffers.items() if buffer is not None}


def restore_momentum(network: nn.Module, optimizer: torch.optim.SGD, buffers: dict[str, Tensor]) -> None:
    """Put `momentum_buffers` back, in their parameters' device and memory layout, as SGD makes them."""
    for name, parameter in network.named_parameters():
        if name in buffers:
            buffer = torch.empty_like(parameter, requires_grad=False).copy_(buffers[name])
            optimizer.state[parameter]["momentum_buffer"] = buffer


def grouped(named: dict[str, Tensor], group: str) -> dict[str, Tensor]:
    """The tensors called "group/..." by the rest of their names."""
    found = {name: value for name, value in named.items() if name.startswith(f"{group}/")}
    return {name.removeprefix(f"{group}/"): value for name, value in found.items()}


DRAWS = 8  # of the noise, on one batch, that a matched strength is estimated from


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
    """The factor on sigma in `epoch` of 1..epochs (config.Config.sigma_schedule).

    constant 1; rising from 0 to 1 and falling from 1 to 0 in equal steps; first-half, second-half: 1 in that
    half and 0 in the other.
    """
    done, late = (epoch - 1) / max(1, epochs - 1), epoch > epochs / 2
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
        labels = noise_on == "labels"
        losses = method.soft_cross_entropy(logits, draw) if labels else method.logit_noise(logits, 1.0, draw)
        noise = torch.autograd.grad(losses.mean(), list(weights.values()), retain_graph=True)
        total += sum(part.double().square().sum() for part in noise)
    return total.item() / len(z)  # read once: a GPU need not wait for us at every draw
