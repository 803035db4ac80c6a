"""Where to compute: one name, one environment variable.

The device decides the last bits of the numbers but is no setting of a run: a run that was trained on a GPU is
found again on a laptop. `versions.json` records it.
"""

from __future__ import annotations

import contextlib
import os

import torch

from sln.utils.errors import InputError


def device() -> torch.device:
    """`SLN_DEVICE`: `auto` (default; the first GPU, else the CPU), `cpu`, `cuda` or `cuda:1`.

    Raises InputError for another name and for a GPU that is not there.
    """
    asked = os.environ.get("SLN_DEVICE") or "auto"
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "auto":
        return torch.device("cuda", 0) if gpus else torch.device("cpu")
    if asked == "cpu":
        return torch.device("cpu")
    kind, _, number = asked.partition(":")
    if kind != "cuda" or not (number or "0").isdecimal():
        raise InputError(f"device is {asked!r}, allowed are auto, cpu, cuda and cuda:N")
    if int(number or 0) >= gpus:
        raise InputError(f"device is {asked!r}, but torch sees {gpus} GPUs here; use cpu or auto")
    return torch.device("cuda", int(number or 0))


def current(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Inside, `device` is the one where torch makes streams and captures graphs, if it is a GPU."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
