"""Figures, one module per subject; `style` has what they share.

Most functions take values and return a Figure in well under half a second, so that a slider can call them.
"""

# ruff: noqa: F401 (names for notebooks and tests)

from sln.config import NOISE_NAMES
from sln.plots import (
    ablations,
    comparisons,
    confidence,
    flatness,
    labels,
    landscape,
    own_loop,
    quadratic,
    regulariser,
    results,
    spirals,
    theory,
    training,
)
from sln.plots.style import COLOURS, RIGHT, STYLES, WRONG, Figure, seeds_of
