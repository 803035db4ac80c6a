"""Explicit random numbers: one seed, many independent streams.

No function in this package touches a global generator. Every draw comes from (seed, stream, counters). So a
run that is resumed at epoch 57 draws what it would have drawn without the break, and a change of the
shuffling cannot change the initial weights. NumPy's SeedSequence makes the streams independent (O'Neill's
hash of the whole tuple). It ignores zeros at the end: counters (3,) and (3, 0) are the same.
"""

import numpy as np
import torch

# The position is part of the seed: append new names at the end, never reorder.
STREAMS = (
    "initialisation",  # of the network's weights
    "inherent noise",  # the wrong labels that the data set comes with
    "shuffling",  # order of the examples within an epoch
    "augmentation",  # crops and flips
    "stochastic noise",  # z of the paper, which training adds at every step
    "landscape",  # random directions
    "bootstrap",  # resampling in the analysis
    "class-balanced draw",  # Clothing1M's images of one epoch
    "matched strength",  # batch and z for the estimate of the noise's expected norm
    "mixup",  # partners and weights
    "cross-fitting",  # the fold of an example, and the training seeds of the folds
    "instance-dependent noise",  # the seeds of the networks that give its scores
    "letters",  # the drawn letters: font, place, clutter and noise of every image
    "regression",  # inputs of the regression with v∘v
    "spirals",  # points of the three spirals
)


def _sequence(seed: int, stream: str, *counters: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, STREAMS.index(stream), *counters])


def numpy_generator(seed: int, stream: str, *counters: int) -> np.random.Generator:
    """A NumPy generator for `stream`, one of STREAMS; `counters` are for example the split or the epoch."""
    return np.random.Generator(np.random.PCG64(_sequence(seed, stream, *counters)))


def torch_generator(seed: int, stream: str, *counters: int) -> torch.Generator:
    """A CPU torch generator for `stream`. Drawn on the CPU, the numbers are the same on every device."""
    state = int(_sequence(seed, stream, *counters).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state >> 1)  # torch takes signed 64-bit seeds
