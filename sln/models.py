"""Networks. Their initial weights come from a seed of their own, not from the global generator."""

from __future__ import annotations

import threading

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sln.utils.rng import torch_generator

HIDDEN, FROZEN_SCALE = 2048, 3.0  # of `FrozenHidden`
_global_generator = threading.Lock()


def global_average(x: Tensor) -> Tensor:
    """(B, channels, H, W) -> (B, channels): the mean over all positions.

    As a pool, whose gradient has the images' own memory layout. That of `x.mean((2, 3))` has none, and on a
    CPU the ReLU before it then takes ten times as long: a twelfth of the small network's training.
    """
    return F.avg_pool2d(x, x.shape[-2:]).flatten(1)


def classify(linear: nn.Linear, x: Tensor) -> Tensor:
    """(B, channels, H, W) -> logits (B, C): global average and linear layer, in float32 under autocast too.

    A bfloat16 logit has 8 significant bits, so the two largest of an example would often be equal.
    """
    with torch.autocast(x.device.type, enabled=False):
        return linear(global_average(x.to(linear.weight.dtype)))


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
        return classify(self.linear, x)


class FrozenHidden(nn.Module):
    """For 8x8 images: 2,048 hidden ReLU units whose random weights are not trained, and a linear layer.

    A linear model of random features (Rahimi and Recht, NeurIPS 2007): its J does not depend on the weights.
    The hidden weights are N(0, 1) times FROZEN_SCALE sqrt(2 / 2048), so that the features' norm is about
    FROZEN_SCALE times the image's: of 1, 2, 3 the first at which plain training memorises most wrong labels.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        hidden = torch.randn(64 * in_channels, HIDDEN) * FROZEN_SCALE * (2 / HIDDEN) ** 0.5
        self.register_buffer("hidden", hidden)
        self.linear = nn.Linear(HIDDEN, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, in_channels, 8, 8) -> logits (B, num_classes)."""
        return classify(self.linear, torch.relu(x.flatten(1) @ self.hidden)[:, :, None, None])


class LinearHead(nn.Module):
    """Global average pool and one linear layer: for features (N, D, 1, 1) of a network trained elsewhere."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> logits (B, num_classes)."""
        return classify(self.linear, x)


class WideBlock(nn.Module):
    """BN-ReLU-conv3x3 twice, pre-activation, plus a shortcut from the raw input.

    As released: the *second* convolution has the stride, every convolution has a bias, and where the shape
    changes the shortcut is a 1x1 convolution without BatchNorm.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut.append(nn.Conv2d(in_channels, channels, 1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, channels, H / stride, W / stride)."""
        out = self.conv1(F.relu(self.bn1(x)))
        out = self.conv2(F.relu(self.bn2(out)))
        return out + self.shortcut(x)


class WideResNet(nn.Module):
    """WRN-depth-width (Zagoruyko & Komodakis, BMVC 2016) as in the released code, without dropout.

    WRN-28-2 has 1,469,642 parameters for 10 classes and 1,481,252 for 100. Names of its state dict are those
    of the released network, so that released weights load. Deviations from the published WRN, all as
    released: see WideBlock, biases beside BatchNorm, PyTorch's default initialisation, and a last BatchNorm
    of momentum 0.9, which forgets faster than the others' 0.1. Its 8x8 average pool is a mean over all
    positions here, the same for 32x32 images and defined for smaller ones too.
    """

    def __init__(self, depth: int = 28, width: int = 2, in_channels: int = 3, num_classes: int = 10) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        channels = (16, 16 * width, 32 * width, 64 * width)
        self.conv1 = nn.Conv2d(in_channels, channels[0], 3, padding=1)
        self.layer1 = self._layer(channels[0], channels[1], blocks, stride=1)
        self.layer2 = self._layer(channels[1], channels[2], blocks, stride=2)
        self.layer3 = self._layer(channels[2], channels[3], blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(channels[3], momentum=0.9)
        self.linear = nn.Linear(channels[3], num_classes)

    @staticmethod
    def _layer(in_channels: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
        first = WideBlock(in_channels, channels, stride)
        return nn.Sequential(first, *(WideBlock(channels, channels, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (B, in_channels, H, W) -> logits (B, num_classes)."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))  # (B, 64 width, H/4, W/4)
        x = F.relu(self.bn1(x))
        return classify(self.linear, x)


def build(
    name: str, *, in_channels: int, num_classes: int, seed: int, counters: tuple[int, ...] = ()
) -> nn.Module:
    """The network `name` (config.MODELS) with initial weights drawn from `seed`'s own stream and `counters`.

    Clothing1M's ResNets are built by `runs.clothing1m`, from ImageNet weights.
    """
    # torch's initialisers only know the global generator: borrow it, and give it back as it was
    with _global_generator, torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(torch_generator(seed, "initialisation", *counters).get_state())
        if name == "cnn":
            network = SmallCNN(in_channels, num_classes)
        elif name == "frozen":
            network = FrozenHidden(in_channels, num_classes)
        elif name == "linear":
            network = LinearHead(in_channels, num_classes)
        else:
            depth, width = map(int, name.removeprefix("wrn-").split("-"))
            network = WideResNet(depth, width, in_channels, num_classes)
    # a fifth to a quarter faster on a CPU, and what a GPU's tensor cores want
    return network.to(memory_format=torch.channels_last)
