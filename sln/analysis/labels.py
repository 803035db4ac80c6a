"""Tables about given labels: what a corruption changed, and what a noise rate means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from sln import noise
from sln.noise import Corruption


def transition_table(corruptions: Mapping[str, Corruption]) -> pd.DataFrame:
    """Realised T[true, given] of several corruptions: a row per kind and true label."""
    parts = []
    for kind, corruption in corruptions.items():
        T = corruption.transition_matrix
        part = pd.DataFrame(T, columns=[f"given_{j}" for j in range(len(T))])
        part.insert(0, "true", range(len(T)))
        part.insert(0, "realised_rate", corruption.realised_rate)
        part.insert(0, "kind", kind)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def label_table(corruption: Corruption) -> pd.DataFrame:
    """One row per example: given and true label, and whether the given one is wrong."""
    columns = {"given": corruption.given, "true": corruption.true, "wrong": corruption.changed}
    return pd.DataFrame(columns).rename_axis("example")


def exact_and_bernoulli(true: np.ndarray, num_classes: int, *, rate: float, draws: int) -> pd.DataFrame:
    """Realised rates of `draws` symmetric corruptions of labels (N,), by exact count and by coins."""
    realised = {"exact": [], "bernoulli": []}
    for seed in range(draws):
        for name, rates in realised.items():
            corruption = noise.symmetric(true, num_classes, rate, seed=seed, exact=name == "exact")
            rates.append(corruption.realised_rate)
    return pd.DataFrame(realised)


def rate_meanings(true: np.ndarray, num_classes: int, *, rates: Sequence[float]) -> pd.DataFrame:
    """Realised share of wrong labels for both meanings of a rate: other classes, or all classes."""
    rows = []
    for rate in rates:
        row = {"rate": rate}
        for name, own_class in (("other_classes", False), ("all_classes", True)):
            corruption = noise.symmetric(true, num_classes, rate, seed=0, own_class=own_class)
            row[name] = corruption.realised_rate
        rows.append(row)
    return pd.DataFrame(rows)
