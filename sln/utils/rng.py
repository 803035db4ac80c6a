"""Explicit random numbers: one seed, many independent streams.

No function in this package touches a global generator. Every draw comes from (seed, stream, counters), so a
run that is resumed at epoch 57 draws what it would have drawn without the break, and changing, say, the
shuffling cannot change the initial weights. Independence of the streams rests on NumPy's SeedSequence
(O'Neill's hash of the whole tuple).
"""

from __future__ import annotations

import numpy as np
import torch

# The position is part of the seed: append new names at the end, never reorder.
STREAMS = (
    "initialisation",  # of the network's weights
    "inherent noise",  # the wrong labels that the data set comes with
    "shuffling",  # order of the examples within an epoch
    "augmentation",  # crops and flips
    "stochastic noise",  # z of the paper: what training adds afresh at every step
    "landscape",  # random directions
    "bootstrap",  # resampling in the analysis
    "class-balanced draw",  # which of Clothing1M's images an epoch sees
    "matched strength",  # the batch and the z that the noise's expected norm is estimated from
    "mixup",  # partners and weights
    "cross-fitting",  # which fold judges an example, and the folds' training seeds
)


def _sequence(seed: int, stream: str, *counters: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, STREAMS.index(stream), *counters])


def numpy_generator(seed: int, stream: str, *counters: int) -> np.random.Generator:
    """A NumPy generator for `stream` (one of STREAMS); `counters` are for example the split or the epoch."""
    return np.random.Generator(np.random.PCG64(_sequence(seed, stream, *counters)))


def torch_generator(seed: int, stream: str, *counters: int) -> torch.Generator:
    """A CPU torch generator for `stream`. Drawn on the CPU, the numbers are the same on every device."""
    state = int(_sequence(seed, stream, *counters).generate_state(1, np.uint64)[0])
    # torch takes signed 64-bit seeds
    return torch.Generator().manual_seed(state >> 1)
