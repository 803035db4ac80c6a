"""A network's tensors: their names, bfloat16 copies, BatchNorm's counters."""

import contextlib
import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, detached."""
    return {name: tensor.detach() for name, tensor in (*network.named_parameters(), *network.named_buffers())}


class Operands:
    """The network with bfloat16 copies of its convolutions' weights; all other tensors are the network's own.

    The numbers are those of autocast, which casts each weight and each gradient in a kernel of its own.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = copy.deepcopy(network)
        self.weights, self.copies = [], []
        for ours, theirs in zip(self.network.modules(), network.modules(), strict=True):
            if isinstance(ours, nn.Conv2d):
                self.copies += ours.bfloat16().parameters(recurse=False)
                self.weights += theirs.parameters(recurse=False)
            else:
                ours._parameters, ours._buffers = theirs._parameters, theirs._buffers
        self.gradients = [torch.empty_like(weight, requires_grad=False) for weight in self.weights]

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the weights as they are now, and forget the last step's gradients."""
        if self.weights:
            torch._foreach_copy_(self.copies, self.weights)
        for copied in self.copies:
            copied.grad = None

    @torch.no_grad()
    def hand_back(self) -> None:
        """Give the copies' gradients to the network's own weights."""
        if self.weights:
            torch._foreach_copy_(self.gradients, [copied.grad for copied in self.copies])
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            weight.grad = gradient


@contextlib.contextmanager
def uncounted(*networks: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm does not count its batches, which takes two kernels per layer and nobody reads."""
    layers = [layer for layer in nn.ModuleList(networks).modules() if isinstance(layer, nn.BatchNorm2d)]
    counters = [layer.num_batches_tracked for layer in layers]
    for layer in layers:
        layer.num_batches_tracked = None
    try:
        yield
    finally:
        for layer, counter in zip(layers, counters, strict=True):
            layer.num_batches_tracked = counter
