"""How suspect a label is, from probabilities of networks that were not shown it.

Notation: p (N, C) the probabilities, i_n the given label of example n, T[true, given] the chance that class
`true` is given the label `given`.

A label is judged by Bayes' rule: the chance that class j is true, once label i is known to have been given,
is proportional to p[n, j] T[j, i]. So a doubt counts for more where the class's examples are often given that
label by mistake, and for less where such a mistake is never made. The usual score, 1 - p[n, i_n], takes every
mistake for as likely as any other.

T is counted (`transition`), but where the networks are poor it counts their own mistakes, too; so it is
trusted no further than they agree with the labels (`mistakes`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

TINY = 1e-9  # added to every probability, so that a class that nobody predicts divides nothing by zero


def transition(p: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(C, C): T[true, given], counted over the examples that the networks are sure of.

    Sure of class j is who gives it at least the mean of p[., j] over the examples that are labelled j; of
    several such classes the most probable counts. This is the confident joint of Northcutt, Jiang and Chuang,
    "Confident learning", JAIR 2021; networks trained by SLN are unsure, but where they are surest they are
    right. Deviations: no calibration to the labels' own counts, and each row has one example more, spread
    evenly, so that what was never seen is not impossible.
    """
    C = p.shape[1]
    usual = np.array([p[given == j, j].mean() if (given == j).any() else 1.0 for j in range(C)])
    sure = np.where(p >= usual - TINY, p, -1.0)  # a mean of equals may be above them by rounding
    counted = sure.max(axis=1) >= 0
    counts = np.full((C, C), 1 / C)
    np.add.at(counts, (sure.argmax(axis=1)[counted], given[counted]), 1)
    return counts / counts.sum(axis=1, keepdims=True)


def mistakes(p: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(C, C): how likely mistakes are, in comparison: what Bayes' rule takes for T.

    On the diagonal is the share of labels that are kept, for all classes alike: which class keeps more is
    told badly by networks that are unsure of some classes. Beside it, T counts for as much as there are
    labels that the networks predict; the rest are mistakes that are all alike, which leaves 1 - p[n, i_n].
    """
    T, C = transition(p, given), p.shape[1]
    kept, trust = T.diagonal().mean(), (p.argmax(axis=1) == given).mean()
    found = trust * T + (1 - trust) * (1 - kept) / (C - 1)
    np.fill_diagonal(found, kept)
    return found


def posterior(p: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(N, C): the true class's probabilities once the given label is known, p[n, j] T[j, i_n], normalised."""
    joint = p * mistakes(p, given)[:, given].T
    return joint / joint.sum(axis=1, keepdims=True)


def table(p: np.ndarray, given: np.ndarray) -> pd.DataFrame:
    """One row per example: given, suggested (the most probable class), probability (its), suspect, rank.

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
