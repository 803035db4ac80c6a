"""What one step minimises: the paper's cross-entropy, and what other methods against label noise build on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sln import method
from sln.config import Config
from sln.data import Data


def forward(network: nn.Module, images: Tensor, config: Config) -> Tensor:
    """(B, C) float32 logits; with `precision` bfloat16 the convolutions have bfloat16 operands."""
    if config.precision == "float32":
        return network(images)
    with torch.autocast(images.device.type, torch.bfloat16):
        return network(images).float()


@dataclass(frozen=True)
class Batch:
    """What one step sees.

    images : (B, channels, H, W) float32, augmented and normalised
    given : (B, C) targets without stochastic noise: one-hot given labels, unless label correction moved them
    targets : (B, C) the same with stochastic label noise
    at_logits : (B, C) noise on the gradient at the logits, sigma z of variant 2; None without
    index : (B,) which training examples these are
    epoch : from 1
    """

    images: Tensor
    given: Tensor
    targets: Tensor
    at_logits: Tensor | None
    index: Tensor
    epoch: int


class Objective:
    """Soft cross-entropy l(f, y + sigma z), the mean over the batch; variant 2's noise is a second term.

    Subclasses (`robust`) are other methods' objectives; what they remember from step to step is in
    `tensors`.
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
