"""Logits of images by one captured pass on a GPU."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from sln.utils.devices import prediction_size
from sln.utils.graphs import captured, compiled
from sln.utils.networks import tensors
from sln.utils.speeds import SPEEDS, Speed, chosen, uses_graphs


class Passes:
    """Logits of images in evaluation mode, by one captured pass of a batch on a GPU.

    It has a network of its own, with bfloat16 convolutions, that any weights of the same architecture are
    copied into: the trained network's, an average's, those of a point of a loss landscape.
    """

    def __init__(
        self, network: nn.Module, images: Tensor, view: Callable[[Tensor], Tensor], speed: Speed
    ) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        for layer in self.network.modules():
            if speed.bfloat16 and isinstance(layer, nn.Conv2d):
                layer.bfloat16()
        self.view, self.bfloat16 = view, speed.bfloat16
        size = (prediction_size(images.device), *images.shape[1:])
        self.images = torch.zeros(size, dtype=images.dtype, device=images.device)
        view(self.images[:1])  # what it keeps is made here: inside, it would break the compiled code in two
        self.compute = compiled(self._compute) if speed.compiled else self._compute
        (self.part,) = captured([self._pass])

    def __call__(self, weights: Mapping[str, Tensor], batches: Iterable[Tensor]) -> Tensor:
        """(N, C) float32 on the CPU: the logits of batches of images, with `weights` by name."""
        pairs = [
            (mine, weights[name]) for name, mine in tensors(self.network).items() if mine.is_floating_point()
        ]
        for kind in {mine.dtype for mine, _ in pairs}:
            mine, theirs = zip(*(pair for pair in pairs if pair[0].dtype == kind), strict=True)
            torch._foreach_copy_(mine, theirs)
        found = []
        for batch in batches:
            self.images[: len(batch)] = batch
            self.part()
            found.append(self.logits[: len(batch)].clone())
        return torch.cat(found).cpu() if found else torch.zeros(0, self.logits.shape[1])

    @torch.no_grad()
    def _pass(self) -> None:
        self.logits = self.compute()

    def _compute(self) -> Tensor:
        with torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.network(self.view(self.images)).float()


_passes: weakref.WeakKeyDictionary[nn.Module, Passes] = weakref.WeakKeyDictionary()


def passes(network: nn.Module, images: Tensor) -> Passes | None:
    """The captured pass of `network` over such normalised images; None if the speed captures nothing."""
    speed = SPEEDS[chosen(images.device)]
    if not uses_graphs(speed, images.device):
        return None
    if network not in _passes:
        _passes[network] = Passes(network, images, lambda batch: batch, speed)
    return _passes[network]
