"""Crops and flips of training images, drawn for a whole epoch."""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class CropsAndFlips:
    """One epoch's draws for N images.

    top, left : (N,) int64 in 0..2 padding, where in the padded image the crop starts
    flip : (N,) bool, left to right
    """

    top: Tensor
    left: Tensor
    flip: Tensor

    def of(self, index: Tensor | slice) -> Self:
        """The draws of some of the images."""
        return CropsAndFlips(self.top[index], self.left[index], self.flip[index])

    def to(self, device: torch.device) -> Self:
        """The draws on `device`."""
        return CropsAndFlips(self.top.to(device), self.left.to(device), self.flip.to(device))


def draw_crops(count: int, padding: int, generator: torch.Generator) -> CropsAndFlips:
    """Independent draws for `count` images: crops uniform over all (2 padding + 1)^2, flips with 1/2."""
    places = 2 * padding + 1
    top, left, flip = (torch.randint(n, (count,), generator=generator) for n in (places, places, 2))
    return CropsAndFlips(top, left, flip.bool())


def crop_and_flip(images: Tensor, draws: CropsAndFlips, padding: int) -> Tensor:
    """Images (B, channels, H, W), zero-padded, cropped to H x W and flipped by `draws` (of B images)."""
    B, _, H, W = images.shape
    image, y, x = (torch.arange(size, device=images.device) for size in (B, H, W))
    columns = torch.where(draws.flip[:, None], W - 1 - x, x) + draws.left[:, None]  # (B, W)
    rows = y + draws.top[:, None]  # (B, H)
    padded = F.pad(images, (padding,) * 4)
    # one gather; index tensors on both sides of the slice put the channels last, hence the permutation
    return padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
