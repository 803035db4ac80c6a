"""Means with their intervals, and what may be concluded from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sln.config import Config
from sln.runs.run import Run
from sln.train import ALWAYS_TESTED

LEVEL = 0.95  # of intervals
LAST = 10  # epochs whose mean is reported beside the last one


@dataclass(frozen=True)
class Arm:
    """One method of an experiment: a configuration for every seed, and the weights it is evaluated with."""

    configs: list[Config]
    weights: str = "network"


@dataclass(frozen=True)
class MethodRuns:
    """One method: its runs over seeds, evaluated with the weights of the network or of its momentum model.

    weights : "network", "momentum", or "momentum 0.9" for one of `Config.extra_alphas`
    """

    method: str
    runs: list[Run]
    weights: str = "network"

    @property
    def first(self) -> Run:
        """The run of the first seed."""
        return self.runs[0]

    def through(self, weights: str) -> MethodRuns:
        """The same runs, evaluated with other weights."""
        return dataclasses.replace(self, weights=weights)

    def first_seeds(self, count: int) -> MethodRuns:
        """The runs of the first `count` seeds."""
        return dataclasses.replace(self, runs=self.runs[:count])

    def final(self, column: str) -> np.ndarray:
        """(seeds,): the last epoch's value of a history column, as the paper reports it."""
        return np.array([run.final(self.weights)[column] for run in self.runs], dtype=float)

    def last10(self, column: str) -> np.ndarray:
        """(seeds,): the mean of a history column over the last ten epochs."""
        return self.curve(column).tail(LAST).mean().to_numpy()

    def early(self, column: str) -> np.ndarray:
        """(seeds,): a history column at each run's epoch of the best accuracy on *noisy* validation labels.

        That is early stopping without a clean label. Of equal epochs the first; NaN without validation, and
        for a run that was validated less often than its configuration asks (`measure_test_every`).
        """
        values = [
            run.of(self.weights)[column].get(epoch, math.nan)
            for run, epoch in zip(self.runs, self.best_epochs(), strict=True)
        ]
        return np.array(values, dtype=float)

    def best_epochs(self) -> list[float]:
        """The epochs of `early`, one per seed."""
        found = []
        for run in self.runs:
            scores = run.of(self.weights)["validation_accuracy"].dropna()
            last, every = run.config.epochs, run.config.measure_test_every
            asked = {*range(every, last + 1, every), *range(max(1, last - ALWAYS_TESTED + 1), last + 1)}
            found.append(scores.idxmax() if len(scores) >= len(asked) else math.nan)
        return found

    def curve(self, column: str) -> pd.DataFrame:
        """Epochs x seeds: a history column."""
        return pd.DataFrame({run.config.seed: run.of(self.weights)[column] for run in self.runs})


def accuracies(method: MethodRuns) -> dict[str, float]:
    """Test accuracy in per cent over seeds, as a row of a table.

    mean, low, high, std : after the last epoch, its t interval and deviation
    last10 : mean over the last ten epochs; early : at the epoch chosen on noisy validation labels; both with
        their intervals (last10_low, ...)
    """
    found = interval(100 * method.final("test_accuracy"))
    row = found.row() | {"std": found.std}
    for read in ("last10", "early"):
        row |= interval(100 * getattr(method, read)("test_accuracy")).row(read, f"{read}_")
    return row | {"seeds": found.seeds}


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its t interval (`low`, `high`; infinite for one seed) and sample deviation.

    Seed s tests fold s of the data, so the interval includes the test set's own error.
    """

    mean: float
    low: float
    high: float
    std: float
    seeds: int

    def row(self, name: str = "mean", prefix: str = "") -> dict[str, float]:
        """Three columns of a table: `name`, and `prefix` before "low" and "high"."""
        return {name: self.mean, f"{prefix}low": self.low, f"{prefix}high": self.high}

    def __str__(self) -> str:
        """As a difference: "+31.6 (+24.5 to +38.7)"."""
        return f"{self.mean:+.1f} ({self.low:+.1f} to {self.high:+.1f})"

    def verdict(self, claimed: float = 1.0) -> str:
        """Whether a difference of `claimed` sign is there: "holds", "does not hold", or "cannot be told"."""
        low, high = (self.low, self.high) if claimed > 0 else (-self.high, -self.low)
        untold = f"cannot be told with {self.seeds} seed{'s' * (self.seeds != 1)}"
        return "holds" if low > 0 else "does not hold" if high < 0 else untold


def span(low: float, high: float, form: str = "+.1f") -> str:
    """An interval in a sentence, as "(+24.5 to +38.7)"; a single run has none."""
    return f"({low:{form}} to {high:{form}})" if math.isfinite(high) else "(one run)"


def interval(values: Sequence[float] | np.ndarray, level: float = LEVEL) -> Estimate:
    """The mean of independent values (n,) with its Student t interval; of NaN, all NaN."""
    from scipy.special import stdtrit  # Student's t: its quantile; slow to load

    values = np.asarray(values, dtype=float)
    n, mean = len(values), float(values.mean())
    std = float(values.std(ddof=1)) if n > 1 else math.nan
    margin = float(stdtrit(n - 1, (1 + level) / 2)) * std / math.sqrt(n) if n > 1 else math.inf
    return Estimate(mean, mean - margin, mean + margin, std, n)


def paired(better: MethodRuns, worse: MethodRuns, read: str = "final") -> Estimate:
    """How much more test accuracy `better` has than `worse`, in points, paired over their seeds.

    read : "final", "last10" or "early"
    """
    one, other = (getattr(method, read)("test_accuracy") for method in (better, worse))
    return interval(100 * (one - other))
