"""Tables from runs: training, labels, confidence, correction, landscapes, sharpness, theory, results."""

from sln.analysis import (
    confidence,
    label_correction,
    landscape,
    results,
    sensitivity,
    sharpness,
    tables,
    theory,
)
from sln.analysis.tables import (
    accuracies,
    by_alpha,
    curves,
    describe_accuracies,
    exact_and_bernoulli,
    mean_and_std,
    over_sigma,
    rate_meanings,
    some_labels,
    stacked,
    transitions,
)

__all__ = [
    "accuracies",
    "by_alpha",
    "confidence",
    "curves",
    "describe_accuracies",
    "exact_and_bernoulli",
    "label_correction",
    "landscape",
    "mean_and_std",
    "over_sigma",
    "rate_meanings",
    "results",
    "sensitivity",
    "sharpness",
    "some_labels",
    "stacked",
    "tables",
    "theory",
    "transitions",
]
