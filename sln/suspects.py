"""How suspect a label is, from probabilities of networks that were not shown it.

Notation: p (N, C) the probabilities, i_n the given label of example n, T[true, given] the chance that class
`true` is given the label `given`, rows sum to one.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

TINY = 1e-9  # added to every probability, so that a class that nobody predicts divides nothing by zero


def transition(p: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(C, C): T[true, given] = sum_n p[n, true] [i_n = given] / sum_n p[n, true]."""
    C = p.shape[1]
    T = p.T @ np.eye(C)[given]
    return T / T.sum(axis=1, keepdims=True)


def posterior(p: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(N, C): the true class's probabilities once the given label is known, p[n, j] T[j, i_n], normalised."""
    joint = p * transition(p, given)[:, given].T
    return joint / joint.sum(axis=1, keepdims=True)


def table(p: np.ndarray, given: np.ndarray) -> pd.DataFrame:
    """One row an example: given, suggested (the most probable class), probability (its), suspect, rank.

    suspect : estimated probability that the given label is wrong
    rank : from 1, the most suspect; of equals the first
    """
    p = p.astype(float) + TINY
    q = posterior(p / p.sum(axis=1, keepdims=True), given)
    suspect = 1 - q[np.arange(len(given)), given]
    rank = np.empty(len(given), dtype=np.int64)
    rank[np.argsort(-suspect, kind="stable")] = np.arange(1, len(given) + 1)
    return pd.DataFrame(
        {
            "given": given,
            "suggested": q.argmax(axis=1),
            "probability": q.max(axis=1),
            "suspect": suspect,
            "rank": rank,
        }
    )
