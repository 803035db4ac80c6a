"""Networks. Their initial weights come from a seed of their own, not from the global generator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sln.streams import torch_generator


class SmallCNN(nn.Module):
    """For 8x8 images: three 3x3 convolutions of 16, 16 and 32 channels with BatchNorm and ReLU.

    One max-pool after the second, global average pool, linear: 7,514 parameters for one input channel and
    ten classes. PyTorch's default initialisation.
    """

    def __init__(self, in_channels: int = 1, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.conv3 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(32)
        self.linear = nn.Linear(32, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, in_channels, H, W) -> logits (B, num_classes)."""
        x = torch.relu(self.bn1(self.conv1(x)))  # (B, 16, H, W)
        x = torch.relu(self.bn2(self.conv2(x)))  # (B, 16, H, W)
        x = torch.max_pool2d(x, 2)  # (B, 16, H/2, W/2)
        x = torch.relu(self.bn3(self.conv3(x)))  # (B, 32, H/2, W/2)
        return self.linear(x.mean(dim=(2, 3)))


def build(name: str, *, in_channels: int, num_classes: int, seed: int) -> nn.Module:
    """The network `name` (config.MODELS) with initial weights drawn from `seed`'s own stream."""
    # torch's initialisers only know the global generator: borrow it, and give it back as it was
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(torch_generator(seed, "initialisation").get_state())
        match name:
            case "cnn":
                return SmallCNN(in_channels, num_classes)
    raise AssertionError(f"config.MODELS lists {name!r}, models.build does not")
