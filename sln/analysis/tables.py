"""Tables over seeds, which the figures of training start from, and tables of given labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from decimal import Decimal

import numpy as np
import pandas as pd

from sln import noise
from sln.config import NOISE_NAMES
from sln.noise import Corruption
from sln.study.statistics import MethodRuns, interval
from sln.utils.rng import numpy_generator

# How a run's accuracy is read, and the method of MethodRuns that does it.
READINGS = {"last epoch": "final", "mean of the last ten": "last10", "stopped early": "early"}
SLN_AND_RIVALS = (("SLN", "CE"), ("SLN-MO", "CE"), ("SLN-MO", "CE-MO"), ("SLN-MO-LC", "CE-MO"))

# --- over seeds ---------------------------------------------------------------------------------------------


def accuracies(methods: Mapping[str, MethodRuns]) -> pd.DataFrame:
    """Test accuracy (%) in three readings, with t intervals over seeds: one row per method and reading.

    The last epoch is what the paper reports. "stopped early" reads each run at its best accuracy on *noisy*
    validation labels, `epoch` on average (NaN without validation images).
    """
    rows = []
    for name, method in methods.items():
        for reading, read in READINGS.items():
            row = {"method": name, "reading": reading}
            row["epoch"] = float(np.mean(method.best_epochs())) if read == "early" else np.nan
            rows.append(row | dataclasses.asdict(interval(100 * getattr(method, read)("test_accuracy"))))
    return pd.DataFrame(rows)


def describe_accuracies(methods: Mapping[str, MethodRuns]) -> str:
    """By how much SLN's methods, over their last ten epochs, beat plain training that is stopped early."""
    lines = []
    for better, worse in SLN_AND_RIVALS:
        early = methods[worse].early("test_accuracy")
        if np.isnan(early).any():
            return "No image is held out here, so plain training cannot be stopped early."
        gain = interval(100 * (methods[better].last10("test_accuracy") - early))
        lines.append(
            f"{better} (last ten epochs) minus {worse} stopped early: {gain} points. "
            f"That {better} is better {gain.verdict()}."
        )
    return "\n".join(lines)


def mean_and_std(methods: Mapping[str, MethodRuns], column: str) -> pd.DataFrame:
    """A column's last epoch: mean and sample standard deviation over seeds, one row per method."""
    finals = {name: method.final(column) for name, method in methods.items()}
    rows = [{"mean": x.mean(), "std": x.std(ddof=1), "seeds": len(x)} for x in finals.values()]
    return pd.DataFrame(rows, index=pd.Index(finals, name="method"))


def curves(methods: Mapping[str, MethodRuns], columns: Sequence[str]) -> pd.DataFrame:
    """History columns over epochs: mean and standard deviation over seeds, one row per method and epoch."""
    parts = []
    for name, method in methods.items():
        table = pd.DataFrame(
            {"method": name, "seeds": len(method.runs)}, index=method.curve(columns[0]).index
        )
        for column in columns:
            values = method.curve(column)
            table[f"{column}_mean"], table[f"{column}_std"] = values.mean(axis=1), values.std(axis=1)
        parts.append(table.reset_index())
    return pd.concat(parts, ignore_index=True)


def over_sigma(grid: Mapping[float, MethodRuns], columns: Sequence[str]) -> pd.DataFrame:
    """Last-epoch history columns: mean and standard deviation over seeds, one row per sigma and weights.

    ceiling : share of the validation images whose given label is right, which a perfect classifier scores
    """
    rows = []
    for sigma, found in grid.items():
        for method in (found.through("network"), found.through("momentum")):
            row: dict[str, object] = {"sigma": sigma, "weights": method.weights, "seeds": len(found.runs)}
            for column in columns:
                values = interval(method.final(column))
                row[f"{column}_mean"], row[f"{column}_std"] = values.mean, values.std
            right = [1 - run.data.validation.wrong.double().mean().item() for run in found.runs]
            rows.append(row | {"ceiling": np.mean(right)})
    return pd.DataFrame(rows)


def by_alpha(averaged: MethodRuns) -> pd.DataFrame:
    """Test accuracy of all momentum models of the same runs, by epoch and alpha (0: network).

    Columns: epoch, alpha, mean and std (standard deviation) over seeds, seeds.
    """
    config = averaged.first.config
    weights = {0.0: "network", config.alpha: "momentum"}
    weights |= {alpha: f"momentum {alpha:g}" for alpha in config.extra_alphas}
    parts = []
    for alpha in sorted(weights):
        values = averaged.through(weights[alpha]).curve("test_accuracy")
        parts.append(pd.DataFrame({"alpha": alpha, "mean": values.mean(axis=1), "std": values.std(axis=1)}))
    return pd.concat(parts).reset_index().assign(seeds=len(averaged.runs))


def stacked(tables: Mapping[str, pd.DataFrame], name: str = "method") -> pd.DataFrame:
    """Several tables of the same columns as one, the key of each in a first column `name`."""
    parts = []
    for key, table in tables.items():
        part = table if isinstance(table.index, pd.RangeIndex) else table.reset_index()
        parts.append(part.assign(**{name: key}))
    together = pd.concat(parts, ignore_index=True)
    return together[[name, *(column for column in together if column != name)]]


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """A table to be read: three significant digits, except in columns whose values are all rounded to 0.001.

    The names of rows and columns are in words.
    """

    def numbers(column: pd.Series) -> pd.Series:
        if column.dtype == float and column.equals(column.round(3)):
            return column
        return column.map(lambda x: f"{Decimal(f'{x:.2e}'):f}" if isinstance(x, float) else x)

    def words(name: object) -> object:
        return NOISE_NAMES.get(name, name.replace("_", " ")) if isinstance(name, str) else name

    return table.apply(numbers).rename(index=words, columns=words).rename_axis(columns=None)


# --- of given labels ----------------------------------------------------------------------------------------


def transitions(corruptions: Mapping[str, Corruption]) -> pd.DataFrame:
    """Realised T[true, given] of several corruptions: one row per kind and true label."""
    parts = []
    for kind, corruption in corruptions.items():
        T = corruption.transition_matrix
        part = pd.DataFrame(T, columns=[f"given_{j}" for j in range(len(T))])
        part.insert(0, "true", range(len(T)))
        part.insert(0, "realised_rate", corruption.realised_rate)
        part.insert(0, "kind", kind)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def some_labels(corruption: Corruption, count: int) -> pd.DataFrame:
    """`count` random examples: given and true label, and whether the given one is wrong."""
    columns = {"given": corruption.given, "true": corruption.true, "wrong": corruption.changed}
    sample = numpy_generator(0, "bootstrap").permutation(len(corruption.true))[:count]
    return pd.DataFrame(columns).rename_axis("example").loc[sample]


def exact_and_bernoulli(true: np.ndarray, num_classes: int, *, rate: float, draws: int) -> pd.DataFrame:
    """Realised rates of `draws` symmetric corruptions of labels (N,), by exact count and by coin flips."""
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
