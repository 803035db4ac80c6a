"""Drawn capital letters: as many images as wanted, a new training and test set for every fold.

The letters come from the text fonts that matplotlib ships, so nothing is downloaded. Every image has its own
font, rotation, shear, aspect, size, place and brightness, a faint piece of another letter, and pixel noise.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sln.data import SPLITS, Data, Split
from sln.utils.errors import require
from sln.utils.rng import torch_generator

# In pairs that look alike, that is, nearest neighbours confuse most of them. The first ones are the classes.
LETTERS = "EFOQIJCGPRMNUDKXVYBSHWTZAL"
SIZES = {"train": 1200, "validation": 300, "test": 4000}
OUTSIDE = 2000  # images for open-set noise
SIDE = 12  # pixels
BOX = 48  # side of the square in which a glyph is drawn once, in pixels
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmr10", "cmss10", "cmtt10", "cmb10"),
)


@functools.cache
def letters(classes: int, fold: int) -> Data:
    """The first `classes` of LETTERS with true labels: grey images of 12x12 pixels 0..255, classes balanced.

    Another `fold` has other images in all three parts.
    """
    require(2 <= classes <= 26, f"{classes} classes of letters were asked for, allowed are 2 to 26")
    parts = []
    for part, count in enumerate(SIZES.values()):
        generator = torch_generator(0, "letters", fold, part)
        true = torch.randperm(count, generator=generator) % classes
        parts.append(Split(draw(true, generator), true, true))
    pixels = parts[0].images.double() / 255
    return Data(*parts, tuple(LETTERS[:classes]), 255.0, (pixels.mean().item(),), (pixels.std().item(),))


@functools.cache
def outside_letters(classes: int, fold: int) -> Tensor:
    """(2000, 1, 12, 12) uint8: images of the other letters, for open-set noise."""
    left = len(LETTERS) - classes
    needed = "open-set noise needs other letters than the classes: classes is 26, allowed are 2 to 25"
    require(left > 0, needed)
    generator = torch_generator(0, "letters", fold, len(SPLITS))
    return draw(classes + torch.randperm(OUTSIDE, generator=generator) % left, generator)


def similar_letters(classes: int) -> dict[int, int]:
    """The class that each class becomes in asymmetric noise: the first of each pair becomes the second."""
    return {i: i + 1 for i in range(0, classes - 1, 2)}


def draw(letter: Tensor, generator: torch.Generator) -> Tensor:
    """(N, 1, 12, 12) uint8 images of the letters with indices `letter` (N,) in LETTERS."""
    N = len(letter)
    clutter = torch.randint(len(LETTERS), (N,), generator=generator)
    images = _placed(letter, 0.1, generator) * _uniform((N, 1, 1, 1), 0.6, 1, generator)
    aside = 0.3 * _placed(clutter, 1.0, generator)
    noise = 0.05 * torch.randn(images.shape, generator=generator)
    return ((torch.maximum(images, aside) + noise).clamp(0, 1) * 255).round().to(torch.uint8)


def _placed(letter: Tensor, shift: float, generator: torch.Generator) -> Tensor:
    """(N, 1, 12, 12) in [0, 1]: each letter in a random font under a random affine map.

    shift : largest shift, as a share of half the image's side
    """
    N = len(letter)
    font = torch.randint(len(FONTS), (N,), generator=generator)
    angle = _uniform((N,), -15, 15, generator) * (math.pi / 180)
    ranges = (-0.2, 0.2), (0.85, 1.18), (0.52, 0.7)
    shear, aspect, size = (_uniform((N,), *ends, generator) for ends in ranges)
    cos, sin, one, zero = angle.cos(), angle.sin(), torch.ones(N), torch.zeros(N)
    rotation, sheared = _matrix(cos, -sin, sin, cos), _matrix(one, shear, zero, one)
    # from places of the image to those of the glyph, so a smaller `size` is a larger letter
    A = rotation @ sheared @ _matrix(size * aspect, zero, zero, size / aspect)
    offset = A @ _uniform((N, 2, 1), -shift, shift, generator)
    # two samples for each pixel and direction, averaged, so that thin strokes do not break
    places = F.affine_grid(torch.cat([A, offset], dim=2), [N, 1, 2 * SIDE, 2 * SIDE], align_corners=False)
    return F.avg_pool2d(F.grid_sample(glyphs()[letter, font], places, align_corners=False), 2)


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """(N, 2, 2) with rows (a, b) and (c, d), each (N,)."""
    return torch.stack([a, b, c, d], dim=1).view(-1, 2, 2)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


@functools.cache
def glyphs() -> Tensor:
    """(26, fonts, 1, 48, 48) float32 in [0, 1]: LETTERS, upright and centred, in each of FONTS."""
    import matplotlib

    drawn = torch.zeros(len(LETTERS), len(FONTS), 1, BOX, BOX)
    for f, name in enumerate(FONTS):
        path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
        require(path.is_file(), f"matplotlib's font {name}.ttf is missing at {path}; reinstall matplotlib")
        font = ImageFont.truetype(str(path), 30)
        for i, letter in enumerate(LETTERS):
            picture = Image.new("L", (BOX, BOX))
            ImageDraw.Draw(picture).text((BOX / 2, BOX / 2), letter, font=font, fill=255, anchor="mm")
            drawn[i, f, 0] = torch.from_numpy(np.array(picture)) / 255
    return drawn
