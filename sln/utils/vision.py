"""torchvision, imported where it is needed only: reading Clothing1M and CIFAR, and pretrained networks."""

from __future__ import annotations

import functools
import re
import sys
from types import ModuleType

import torch


@functools.cache
def torchvision() -> ModuleType:
    """The package torchvision, with `datasets`, `models` and `transforms`.

    A torchvision built for CUDA fails to import beside a CPU build of torch, because its compiled operators
    (for object detection; nothing here uses one) do not load. Those that it misses are declared first then.
    """
    for _ in range(10):
        try:
            import torchvision

            return torchvision
        except RuntimeError as error:
            missing = re.search(r"operator (torchvision::\w+) does not exist", str(error))
            if missing is None:
                raise
            torch.library.define(missing[1], "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]  # half imported
    raise ImportError("torchvision does not fit the installed torch; install both from the same source")
