"""Tables: training, labels, confidence, correction, landscapes, sharpness, spirals, theory, results."""

# ruff: noqa: F401
from sln.analysis import (
    confidence,
    flatness,
    label_correction,
    landscape,
    own_loop,
    quadratic,
    regulariser,
    results,
    sensitivity,
    sharpness,
    spirals,
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
    readable,
    some_labels,
    stacked,
    transitions,
)
