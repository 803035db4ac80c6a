"""How fast runs are trained: the speeds of `fast`, and the one that `SLN_SPEED` and the device choose."""

import importlib.util
import os
import shutil
from dataclasses import dataclass

import torch

from sln.utils.errors import choose


@dataclass(frozen=True)
class Speed:
    """Which of the changes of `fast` are made; `graph` has no effect on a CPU."""

    static: bool = False
    bfloat16: bool = False
    graph: bool = False
    compiled: bool = False


SPEEDS = {
    "reference": Speed(),
    "static": Speed(static=True),
    "bfloat16": Speed(static=True, bfloat16=True, graph=True),
    "compiled": Speed(static=True, bfloat16=True, graph=True, compiled=True),
}
NAMES = ("auto", *SPEEDS, "fast")


def chosen(device: torch.device) -> str:
    """The one of SPEEDS that `SLN_SPEED`, one of NAMES, asks for; `auto`: fast on a GPU, else reference."""
    asked = os.environ.get("SLN_SPEED") or "auto"
    choose("speed", asked, NAMES)
    if asked == "auto":
        asked = "fast" if device.type == "cuda" else "reference"
    if asked != "fast":
        return asked
    if not has_bfloat16(device):
        return "static"
    return "compiled" if device.type == "cuda" and compiles(device) else "bfloat16"


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 numbers itself; where it does not, they are slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def compiles(gpu: torch.device) -> bool:
    """Whether torch.compile can work for this GPU: it needs Triton, and Triton a C compiler."""
    if importlib.util.find_spec("triton") is None or torch.cuda.get_device_capability(gpu) < (7, 0):
        return False
    return any(map(shutil.which, filter(None, (os.environ.get("CC"), "cc", "gcc", "clang"))))


def uses_graphs(speed: Speed, device: torch.device) -> bool:
    """Whether steps and passes are CUDA graphs."""
    return speed.graph and device.type == "cuda"
