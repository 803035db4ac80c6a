"""How suspect a label is, from probabilities p (N, C) of networks that were not trained on it.

By Bayes' rule, j is the true class of example n, labelled i_n, with probability proportional to p[n, j]
T[j, i_n], where T[true, given] is the probability that an example of class `true` gets the label `given`. The
usual score, 1 - p[n, i_n], treats all mistakes as equally likely.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

TINY = 1e-9  # added to every probability, so that no division is by zero


def transition(p: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(C, C): T[true, given], counted over the examples with a confident prediction.

    An example is confidently class j if p[n, j] is at least the mean of p[., j] over the examples labelled j;
    of several such classes the most probable is taken. This is the confident joint of Northcutt, Jiang and
    Chuang, "Confident learning", JAIR 2021. Deviations: the counts are not calibrated to the label counts,
    and every row gets one more example, spread evenly, so that no mistake is impossible.
    """
    C = p.shape[1]
    usual = np.array([p[given == j, j].mean() if (given == j).any() else 1.0 for j in range(C)])
    confident = np.where(p >= usual - TINY, p, -1.0)  # TINY: the mean of equal values can exceed them
    counted = confident.max(axis=1) >= 0
    counts = np.full((C, C), 1 / C)
    np.add.at(counts, (confident.argmax(axis=1)[counted], given[counted]), 1)
    return counts / counts.sum(axis=1, keepdims=True)


def mistakes(p: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(C, C): relative probabilities of mistakes, used as T in Bayes' rule.

    The diagonal is the same for all classes, because unsure networks estimate class-wise rates badly. Off
    the diagonal, T is weighted by the squared share of the labels that are predicted, since wrong predictions
    spoil what is counted and what it is used on; the rest is uniform, which alone gives the usual score.
    """
    T, C = transition(p, given), p.shape[1]
    correct, trust = T.diagonal().mean(), (p.argmax(axis=1) == given).mean() ** 2
    weighted = trust * T + (1 - trust) * (1 - correct) / (C - 1)
    np.fill_diagonal(weighted, correct)
    return weighted


def posterior(p: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(N, C): probabilities of the true class given the label, p[n, j] T[j, i_n], normalised."""
    joint = p * mistakes(p, given)[:, given].T
    return joint / joint.sum(axis=1, keepdims=True)


def true_class(p: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(N, C): `posterior` of p that may have zeros; suggestions and the page rest on it."""
    p = p.astype(float) + TINY
    return posterior(p / p.sum(axis=1, keepdims=True), given)


def table(p: np.ndarray, given: np.ndarray) -> pd.DataFrame:
    """One row per example: given, suggested (the most probable class), probability (of it), suspect, rank.

    suspect : estimated probability that the given label is wrong
    rank : from 1, the most suspect; equal scores are ranked in the order of the examples
    """
    q = true_class(p, given)
    judged = pd.DataFrame({"given": given, "suggested": q.argmax(axis=1), "probability": q.max(axis=1)})
    judged["suspect"] = 1 - q[np.arange(len(given)), given]
    return judged.assign(rank=judged["suspect"].rank(ascending=False, method="first").astype(np.int64))
