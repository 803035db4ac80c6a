"""Tables of notebook 12: what each part of the method adds in your own training loop.

A row of `found` is one measurement: data, sigma, corrected (with label correction), seed, epoch, weights
("network" or "momentum"), test_accuracy, validation_accuracy (by noisy labels), wrong_memorised.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from sln.study.statistics import interval

EARLY = {"CE": "CE early", "CE-MO": "CE-MO early"}  # at the epoch of the best accuracy on noisy labels
STEPS = (("SLN", "CE"), ("SLN-MO", "CE-MO"), ("SLN-MO", "CE early"), ("SLN-MO", "CE-MO early"))
STEPS += (("SLN-MO-LC", "SLN-MO"),)
KEYS = ["data", "method"]


def choose_sigma(found: Iterable[Mapping]) -> dict[str, float]:
    """By data set, the sigma above 0 whose average is best on noisy labels; of equals the least."""
    scores = _scores(found).query("sigma > 0")
    return {data: part["validation_accuracy"].idxmax()[1] for data, part in scores.groupby("data")}


def describe_choice(found: Iterable[Mapping], chosen: Mapping[str, float]) -> str:
    """The scores and the choice in words, one line per data set."""
    lines = []
    for data, part in _scores(found)["validation_accuracy"].groupby("data"):
        scores = ", ".join(f"{100 * score:.1f}% at σ = {sigma:g}" for (_, sigma), score in part.items())
        lines.append(f"{data}: {scores}; chosen: {chosen[data]:g}")
    return "\n".join(lines)


def _scores(found: Iterable[Mapping]) -> pd.DataFrame:
    table = pd.DataFrame(found).query("weights == 'momentum' and not corrected")
    return table[table["epoch"] == table["epoch"].max()].groupby(["data", "sigma"]).mean(numeric_only=True)


def methods(found: Iterable[Mapping], chosen: Mapping[str, float]) -> pd.DataFrame:
    """The rows at sigma 0 and at the chosen sigma, with the column "method": CE, CE-MO, SLN, ..."""
    table = pd.DataFrame(found)
    table = table[(table["sigma"] == 0) | (table["sigma"] == table["data"].map(chosen))]
    table = table[~table["corrected"] | (table["weights"] == "momentum")]
    method = np.where(table["sigma"] > 0, "SLN", "CE") + np.where(table["weights"] == "momentum", "-MO", "")
    return table.assign(method=method + np.where(table["corrected"], "-LC", ""))


def _final(runs: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy in per cent of the last epoch, and EARLY, by data set and method: a column per seed."""
    last = runs[runs["epoch"] == runs["epoch"].max()]
    plain = runs[runs["method"].isin(EARLY)].reset_index(drop=True)
    best = plain.loc[plain.groupby([*KEYS, "seed"])["validation_accuracy"].idxmax()]
    best = best.assign(method=best["method"].map(EARLY))
    return 100 * pd.concat([last, best]).pivot(index=KEYS, columns="seed", values="test_accuracy")


def accuracies(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean test accuracy in per cent with its interval over seeds, per data set and method."""
    rows = [
        {"data": data, "method": method, "seeds": len(values)} | interval(values).row()
        for (data, method), values in _final(runs).iterrows()
    ]
    return pd.DataFrame(rows)


def gains(runs: pd.DataFrame) -> pd.DataFrame:
    """Paired differences in points per data set, one row per pair of STEPS, with their intervals."""
    final = _final(runs)
    rows = []
    for data in final.index.unique("data"):
        for better, worse in STEPS:
            found = interval(final.loc[data, better] - final.loc[data, worse])
            row = {"data": data, "difference": f"{better} minus {worse}", "seeds": found.seeds}
            rows.append(row | found.row() | {"verdict": found.verdict()})
    return pd.DataFrame(rows)


def describe(table: pd.DataFrame) -> str:
    """The differences of `gains` in words, one line each."""
    verdicts = {"holds": "is ahead", "does not hold": "is behind"}
    return "\n".join(
        f"{row.data}: {row.difference}: {row.mean:+.1f} points ({row.low:+.1f} to {row.high:+.1f}): "
        + verdicts.get(row.verdict, row.verdict)
        for row in table.itertuples()
    )


def curves(found: Iterable[Mapping], data: str, sigma: float) -> pd.DataFrame:
    """Mean and std over seeds by method and epoch at sigma 0 and `sigma`, for `plots.training.curves`."""
    table = methods(found, {data: sigma}).query("data == @data and not corrected")
    groups = table.groupby(["method", "epoch"])[["test_accuracy", "wrong_memorised"]]
    ends = groups.mean().add_suffix("_mean").join(groups.std().add_suffix("_std"))
    return ends.assign(seeds=table["seed"].nunique()).reset_index()
