"""The device to compute on, from one environment variable, and torchvision, imported on first use.

The device decides the last bits of the numbers but is no setting of a run: a laptop finds a run that was
trained on a GPU. `versions.json` records the device.
"""

import contextlib
import functools
import importlib
import os
import sys
from types import ModuleType

import torch

from sln.utils.errors import require


def device() -> torch.device:
    """`SLN_DEVICE`: `auto` (default; the first GPU, else the CPU), `cpu`, `cuda`, `cuda:1`; or InputError."""
    asked = os.environ.get("SLN_DEVICE") or "auto"
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "cpu" or (asked == "auto" and not gpus):
        return torch.device("cpu")
    kind, _, number = asked.partition(":")
    allowed = asked == "auto" or (kind == "cuda" and (number or "0").isdecimal())
    require(allowed, f"device is {asked!r}, allowed are auto, cpu, cuda and cuda:N")
    n = int(number or 0)
    require(n < gpus, f"device is {asked!r}, but torch sees {gpus} GPUs here; use cpu or auto")
    return torch.device("cuda", n)


def current(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """A context in which torch makes streams and captures graphs on `device`, if it is a GPU."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


@functools.cache
def torchvision() -> ModuleType:
    """The package torchvision."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError:
        # one built for CUDA misses operators for object detection beside a CPU build of torch; none is called
        arguments = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", arguments)
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]  # half imported
        return importlib.import_module("torchvision")


def prediction_size(device: torch.device) -> int:
    """Batch size of predictions: what stays in a core's cache, or fills a GPU."""
    return 128 if device.type == "cpu" else 2000
