"""Which classes the networks can judge: chance alone must not explain that they predict the given labels."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

LEVEL = 0.01  # of the tests: what has a larger p-value may be chance
SHOWN = 8  # classes that a sentence names
SUREST = 0.2  # share of the examples with the most confident predictions


def counts(p: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(C, C): examples by given (row) and predicted (column) class, from probabilities (N, C)."""
    table = np.zeros((p.shape[1], p.shape[1]), dtype=np.int64)
    np.add.at(table, (given, p.argmax(axis=1)), 1)
    return table


def by_class(p: np.ndarray, given: np.ndarray) -> pd.DataFrame:
    """One row per class: examples, agreement, p_value, judged.

    agreement : share of the examples labelled so whose label networks predict that were not trained on it
    p_value : of at least as many, if the class were predicted as often, regardless of the given labels
        (Fisher's exact test, one-sided)
    judged : whether p_value < LEVEL, and no other class is predicted more often for these examples. Else
        most of the class would be relabelled, by networks that cannot tell it from others
    """
    M = counts(p, given)
    n, hits = M.sum(axis=1), M.diagonal()
    p_value = hypergeom.sf(hits - 1, M.sum(), M.sum(axis=0), n)
    table = pd.DataFrame({"examples": n, "agreement": hits / np.maximum(n, 1), "p_value": p_value})
    return table.assign(judged=(p_value < LEVEL) & (hits == M.max(axis=1)))


def rows(p: np.ndarray, given: np.ndarray, suggested: np.ndarray) -> np.ndarray:
    """(N,) bool: whether both classes can be judged, and told apart if they differ.

    Networks tell i from j if predictions and labels of the examples that are labelled and predicted as i or
    j depend on each other (Fisher's exact test, one-sided, p < LEVEL).
    """
    M, able = counts(p, given), by_class(p, given)["judged"].to_numpy()
    i, j = given, suggested
    first, second, both = M[i, i] + M[i, j], M[i, i] + M[j, i], M[i, i] + M[i, j] + M[j, i] + M[j, j]
    apart = hypergeom.sf(M[i, i] - 1, both, first, second) < LEVEL
    return able[given] & able[suggested] & (apart | (i == j))


def surest_agreement(p: np.ndarray, given: np.ndarray) -> float:
    """Agreement of the examples with the most confident fifth of the predictions.

    If mistakes in the labels do not depend on the images, and the surest predictions are right, this is the
    share of right labels, and agreement / this the share of right predictions.
    """
    surest = np.argsort(-p.max(axis=1), kind="stable")[: max(1, round(SUREST * len(p)))]
    return float((p.argmax(axis=1) == given)[surest].mean())


def sentences(agreement: pd.DataFrame, least: int = 0) -> list[str]:
    """Agreement by class, lowest first, and which classes keep their labels (`by_class`, index: names).

    least : examples that a class should have; those with fewer that were judged are named, too
    """
    lowest = agreement.sort_values("agreement", kind="stable")
    shares = [f"{row.Index!r} {row.agreement:.0%} of {row.examples}" for row in lowest.itertuples()]
    kept = [repr(name) for name in lowest.index[~lowest["judged"]]]
    why = (
        f"{len(kept)} of {len(agreement)} classes cannot be judged and keep their labels in corrected.csv: "
        f"{_list(kept)}. They have too few images, or networks do not predict their labels better than "
        "chance, or predict another class more often."
    )
    small = [repr(name) for name in lowest.index[lowest["judged"] & (lowest["examples"] < least)]]
    look = f"Fewer than {least} images, but judged, so look at them first: {_list(small)}."
    told = [f"Predicted by class, the lowest first: {_list(shares)}."]
    return told + [why] * bool(kept) + [look] * bool(small)


def lost(given: Sequence[Hashable], corrected: Sequence[Hashable]) -> list[str]:
    """A warning if classes lose more than half of their labels in the corrected copy."""
    before, after = pd.Series(given).value_counts(), pd.Series(corrected).value_counts()
    left = after.reindex(before.index, fill_value=0)
    few = [f"{name!r} ({left[name]} of {before[name]} left)" for name in before.index[2 * left < before]]
    return (
        [f"Look at these classes first, corrected.csv loses most of their labels: {_list(few)}."]
        if few
        else []
    )


def _list(items: Sequence[str]) -> str:
    return ", ".join(items[:SHOWN]) + (f" and {len(items) - SHOWN} more" if len(items) > SHOWN else "")
