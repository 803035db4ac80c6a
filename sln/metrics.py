"""Numbers read from logits: accuracy, loss, confidence, calibration, memorisation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from sln.data import Split

CALIBRATION_BINS = 15


def reliability(confidence: Tensor, correct: Tensor, bins: int = CALIBRATION_BINS) -> pd.DataFrame:
    """Accuracy against confidence, in `bins` equal intervals of (0, 1] (Guo et al., ICML 2017).

    confidence : (N,) probability of the predicted class
    correct : (N,) bool

    Returns one row per bin: low, high (edges), examples, confidence, accuracy (means, NaN in an empty bin).
    """
    edges = np.linspace(0, 1, bins + 1)
    confidence, correct = confidence.double().numpy(), correct.double().numpy()
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = {"confidence": np.bincount(index, confidence, bins) / counts}
        means["accuracy"] = np.bincount(index, correct, bins) / counts
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "examples": counts, **means})


def calibration_error(confidence: Tensor, correct: Tensor, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error: sum over `reliability`'s bins of examples / N |accuracy - confidence|."""
    table = reliability(confidence, correct, bins)
    gaps = (table["accuracy"] - table["confidence"]).abs() * table["examples"]
    examples = table["examples"].sum()
    return float(gaps.sum() / examples) if examples else math.nan


def _mean(values: Tensor) -> float:
    """Mean as float, NaN where there is nothing to average."""
    return values.double().mean().item() if len(values) else math.nan


def measure_test(logits: Tensor, true: Tensor) -> dict[str, float]:
    """Accuracy, loss, mean confidence and calibration error of logits (N, C) against true labels (N,)."""
    confidence, prediction = F.softmax(logits, dim=1).max(dim=1)
    correct = prediction == true
    return {
        "test_accuracy": _mean(correct),
        "test_loss": F.cross_entropy(logits, true).item(),
        "test_confidence": _mean(confidence),
        "test_calibration_error": calibration_error(confidence, correct),
    }


def measure_train(logits: Tensor, split: Split) -> dict[str, float]:
    """What the network has learnt of right and of wrong given labels, from logits (N, C) in data-set order.

    right_accuracy : on examples whose given label is right (given and true agree there)
    wrong_memorised : on examples whose given label is wrong, the share predicted as *given*
    wrong_recovered : the same examples, the share predicted as *true* (NaN for open-set images, which have
        no true class)
    """
    prediction = logits.argmax(dim=1)
    p_given = F.softmax(logits, dim=1)[torch.arange(len(split)), split.given]
    wrong = split.wrong
    with_class = wrong & (split.true >= 0)
    return {
        "train_loss": F.cross_entropy(logits, split.given).item() if len(split) else math.nan,
        "right_accuracy": _mean(prediction[~wrong] == split.given[~wrong]),
        "wrong_memorised": _mean(prediction[wrong] == split.given[wrong]),
        "wrong_recovered": _mean(prediction[with_class] == split.true[with_class]),
        "right_confidence": _mean(p_given[~wrong]),
        "wrong_confidence": _mean(p_given[wrong]),
    }


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of the predictions of logits (N, C) that equal labels (N,)."""
    return _mean(logits.argmax(dim=1) == labels)
