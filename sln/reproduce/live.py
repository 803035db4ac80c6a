"""Training in the page: the HTML of the element <sln-train>, its style and its script.

A page holds the fragment and, once, STYLE and, after the fragment, SCRIPT. Its policy allows SCRIPT by its
SHA-256, and `worker-src blob:` for the worker, which is made of the same text. No other right is needed.
"""

from __future__ import annotations

import base64
import zlib
from pathlib import Path

import jinja2
import torch
from torch import Tensor

from sln.data import SPLITS
from sln.datasets.images import digits

FOLDER = Path(__file__).parent
STYLE = (FOLDER / "train.css").read_text(encoding="utf-8")
SCRIPT = (FOLDER / "train.js").read_text(encoding="utf-8")
TITLES = ("right labels learnt", "wrong labels memorised", "test accuracy")  # in train.js's order


def images() -> tuple[Tensor, Tensor, int]:
    """Pixels 0..16 (1797, 64) uint8 and labels (1797,) int64, and how many, from the first, are trained on.

    The training images are the package's; all others are tested, for nothing is chosen here.
    """
    splits = [getattr(digits(), name) for name in SPLITS]
    pixels, labels = (torch.cat(parts) for parts in zip(*((s.images, s.true) for s in splits), strict=True))
    return pixels.flatten(1), labels, len(splits[0])


def pack(pixels: Tensor, labels: Tensor) -> str:
    """zlib, then base64: the bytes of `pixels`, a pixel of all images after the other, and of `labels`."""
    packer = zlib.compressobj(level=9, strategy=zlib.Z_FILTERED)  # a tenth smaller than row by row
    content = pixels.T.contiguous().numpy().tobytes() + labels.to(torch.uint8).numpy().tobytes()
    return base64.b64encode(packer.compress(content) + packer.flush()).decode()


def fragment(name: str = "train") -> str:
    """The element of id `name`: controls, empty panels, a sentence for readers without script, the digits."""
    pixels, labels, train = images()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    template = environment.get_template("train.html.j2")
    return template.render(name=name, train=train, titles=TITLES, data=pack(pixels, labels))
