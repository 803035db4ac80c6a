"""Features of a pretrained network instead of pixels, for small sets of photographs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from sln.datasets import clothing1m, registry
from sln.runs import store
from sln.utils.devices import device, torchvision
from sln.utils.errors import InputError, choose, require

BACKBONES = ("resnet18", "resnet50")
SIDE = 224  # pixels, the size that the networks were trained on
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels


def encoder(backbone: str, weights: Path | None = None) -> Callable[[Tensor], Tensor]:
    """A function from images, uint8 (B, 3, 224, 224), to features, float32 (B, D), with D = 512 or 2,048.

    It is torchvision's network without the last layer, frozen, in evaluation mode, with the `weights` of a
    .safetensors file or of torch.save; None: torchvision's ImageNet weights, downloaded once for resnet50.
    Raises InputError for an unknown backbone and for weights that are missing, damaged or another network's.
    """
    choose("backbone", backbone, BACKBONES)
    with torch.random.fork_rng(devices=[]):  # these initial weights are replaced at once
        network = getattr(torchvision().models, backbone)(weights=None)
    network.fc = nn.Identity()
    state = _imagenet(backbone) if weights is None else read(weights)
    try:
        network.load_state_dict({name: value for name, value in state.items() if not name.startswith("fc.")})
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{weights or 'the data folder'} has no weights of {backbone}: {reason}") from None
    where = device()
    network = network.eval().to(where)
    mean, std = (torch.tensor(values, device=where).view(3, 1, 1) for values in (MEAN, STD))

    @torch.no_grad()
    def encode(images: Tensor) -> Tensor:
        return network((images.to(where).float() / 255 - mean) / std).cpu()

    return encode


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of torch.save. Raises InputError for other files and for code."""
    require(path.is_file(), f"weights {path} are missing; name a .safetensors file, or torchvision's .pth")
    try:
        if path.suffix == ".safetensors":
            return store.read_tensors(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  damaged files raise errors of many types
        kind = type(error).__name__
        raise InputError(
            f"{path} is refused and none of its code was run: it is no file of weights ({kind})"
        ) from None
    by_name = isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values())
    require(by_name, f"{path} holds no weights by name; expected is a state dict, as torchvision's")
    return state


def _imagenet(backbone: str) -> dict[str, Tensor]:
    if backbone in registry.NAMES and not any(map(Path.is_file, clothing1m.places(backbone))):
        registry.get(backbone)
    try:
        return clothing1m.imagenet_weights(backbone)
    except InputError as error:
        reason, name = str(error).partition(";")[0], clothing1m.IMAGENET[backbone]
        raise InputError(f"{reason}; name torchvision's {name} with --weights") from None
