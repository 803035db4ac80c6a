"""Tables over seeds, from readings: what every figure of training starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from sln.runs.run import Run
from sln.study.study import MethodRuns


def mean_and_std(readings: Mapping[str, MethodRuns], column: str) -> pd.DataFrame:
    """A column's last epoch: mean and sample standard deviation over seeds, one row per method."""
    finals = {name: reading.final(column) for name, reading in readings.items()}
    rows = [{"mean": x.mean(), "std": x.std(ddof=1), "seeds": len(x)} for x in finals.values()]
    return pd.DataFrame(rows, index=pd.Index(finals, name="method"))


def curves(readings: Mapping[str, MethodRuns], columns: Sequence[str]) -> pd.DataFrame:
    """History columns over epochs as mean and standard deviation over seeds: one row per method and epoch."""
    parts = []
    for name, reading in readings.items():
        table = pd.DataFrame({"method": name}, index=reading.curve(columns[0]).index)
        for column in columns:
            values = reading.curve(column)
            table[f"{column}_mean"], table[f"{column}_std"] = values.mean(axis=1), values.std(axis=1)
        parts.append(table.reset_index())
    return pd.concat(parts, ignore_index=True)


def over_sigma(grid: Mapping[float, list[Run]], columns: Sequence[str]) -> pd.DataFrame:
    """Last-epoch history columns over sigma: a row per sigma and network, mean and deviation over seeds."""
    rows = []
    for sigma, runs in grid.items():
        for weights in ("network", "momentum"):
            reading = MethodRuns("", runs, weights)
            row: dict[str, object] = {"sigma": sigma, "weights": weights, "seeds": len(runs)}
            for column in columns:
                values = reading.final(column)
                row[f"{column}_mean"], row[f"{column}_std"] = values.mean(), values.std(ddof=1)
            rows.append(row)
    return pd.DataFrame(rows)


def by_alpha(runs: list[Run]) -> pd.DataFrame:
    """Test accuracy of every momentum model of the same runs.

    Columns epoch, alpha (0: the network), mean, std.
    """
    config = runs[0].config
    networks = {0.0: "network", config.alpha: "momentum"}
    networks |= {alpha: f"momentum {alpha:g}" for alpha in config.extra_alphas}
    parts = []
    for alpha, weights in sorted(networks.items()):
        values = MethodRuns("", runs, weights).curve("test_accuracy")
        parts.append(pd.DataFrame({"alpha": alpha, "mean": values.mean(axis=1), "std": values.std(axis=1)}))
    return pd.concat(parts).reset_index()


def stacked(tables: Mapping[str, pd.DataFrame], name: str = "method") -> pd.DataFrame:
    """Several tables of the same columns as one, with a first column that says which is which."""
    parts = []
    for key, table in tables.items():
        part = table if isinstance(table.index, pd.RangeIndex) else table.reset_index()
        parts.append(part.assign(**{name: key}))
    together = pd.concat(parts, ignore_index=True)
    return together[[name, *(column for column in together if column != name)]]
