"""The methods against label noise that SLN is compared with, each from its paper's equations.

Notation: logits f (B, C), p = softmax(f), y (B, C) the targets (one-hot given labels; with stochastic label
noise, y + sigma z), y_k the entry of class k. The one setting that each method varies here is
`Config.robust_setting`; its published default is in `defaults.ROBUST`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sln.config import Config
from sln.data import Data
from sln.objective import Objective


def sgd(network: nn.Module, config: Config) -> torch.optim.SGD:
    """SGD with momentum and weight decay on every parameter of `network`, as `config` says."""
    return torch.optim.SGD(
        network.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        fused=True,  # one kernel a step instead of several a parameter
    )


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


def objective(config: Config, network: nn.Module, data: Data) -> Objective:
    """The objective that `config.robust` names, for `network`."""
    return Objective(config, network)
