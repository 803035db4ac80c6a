"""Questions that the paper leaves open: for each an experiment, its table, and a sentence from the table."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from sln.config import NOISE_NAMES
from sln.study.statistics import Arm, MethodRuns, paired
from sln.study.study import Study

# Class counts are compared at this noise rate: at 0.4 two classes would hardly differ from chance.
CLASS_COUNT_RATE = 0.2
# sigma sqrt(C - 1), the noise at the logit of a class that the network is sure of.
NOISE_WHEN_SURE = (0.0, 1.0, 2.0, 3.0, 6.0)
ALL = "all labels (SLN)"
NOISE_FOR = {"right labels only": "right", "wrong labels only": "wrong"}


# --- experiments: arms by name ------------------------------------------------------------------------------


def rate_arms(study: Study) -> dict[tuple[float, str], Arm]:
    """CE and SLN, and their momentum models, by rate of symmetric noise; sigma is chosen at each rate."""
    found = {}
    for rate in study.profile.noise_rates:
        plain = study.over_seeds("sym", 0.0, noise_rate=rate)
        noisy = study.over_seeds("sym", study.choose_sigma("sym", noise_rate=rate), noise_rate=rate)
        found |= {(rate, "CE"): Arm(plain), (rate, "CE-MO"): Arm(plain, "momentum")}
        found |= {(rate, "SLN"): Arm(noisy), (rate, "SLN-MO"): Arm(noisy, "momentum")}
    return found


def noise_for_arms(study: Study) -> dict[str, Arm]:
    """Stochastic noise on no label, on the right or the wrong ones only (knowing which), and on all."""
    sigma = study.choose_sigma("sym")
    found = {"no label (CE)": Arm(study.over_seeds("sym", 0.0))}
    found |= {name: Arm(study.over_seeds("sym", sigma, noise_for=kind)) for name, kind in NOISE_FOR.items()}
    return found | {ALL: Arm(study.over_seeds("sym", sigma))}


def schedule_arms(study: Study) -> dict[str, Arm]:
    """The chosen sigma, constant and by the profile's schedules."""
    sigma = study.choose_sigma("sym")
    schedules = ("constant", *study.profile.schedules)
    return {name: Arm(study.over_seeds("sym", sigma, sigma_schedule=name)) for name in schedules}


def correction_arms(study: Study) -> dict[tuple[str, str], Arm]:
    """SLN-MO, and its correction by the clean and by the released rule, by kind of noise."""
    found = {}
    for mode in study.profile.noise_modes:
        found[mode, "none"] = Arm(study.over_seeds(mode, study.choose_sigma(mode)), "momentum")
        for losses in ("given", "as-released"):
            found[mode, losses] = Arm(study.correcting(mode, correction_losses=losses), "momentum")
    return found


def class_arms(study: Study) -> dict[tuple[int, float], Arm]:
    """SLN by number of classes C and by sigma sqrt(C - 1)."""
    return {
        (C, sure): Arm(
            study.over_seeds("sym", sure / math.sqrt(C - 1), classes=C, noise_rate=CLASS_COUNT_RATE),
            "momentum",
        )
        for C in study.profile.class_counts
        for sure in NOISE_WHEN_SURE
    }


# --- tables, each followed by the sentence that is written from it ------------------------------------------


def noise_rates(study: Study) -> pd.DataFrame:
    """Test accuracy (%) by noise rate: rate, method, sigma, mean, std, seeds."""
    rows = []
    for (rate, method), runs in study.runs_of(rate_arms(study), "noise rates").items():
        row = {"rate": rate, "method": method, "sigma": runs.first.config.sigma}
        rows.append(row | _accuracy(runs))
    return pd.DataFrame(rows)


def describe_noise_rates(table: pd.DataFrame) -> str:
    """What SLN adds to the momentum model at each rate of `noise_rates`."""
    mean = table.pivot_table(index="rate", columns="method", values="mean")
    sigma = table[table["method"] == "SLN"].set_index("rate")["sigma"]
    gains = ", ".join(
        f"{rate:g}: {mean.loc[rate, 'SLN-MO'] - mean.loc[rate, 'CE-MO']:+.1f} (σ {sigma[rate]:g})"
        for rate in mean.index
    )
    return f"SLN-MO less CE-MO by noise rate, in points of test accuracy: {gains}."


def kinds_of_noise(study: Study) -> pd.DataFrame:
    """What SLN adds for each kind of noise, paired over seeds, in points of test accuracy.

    Columns: noise, weights ("network" or "momentum"), sigma, gain, low, high (its t interval), verdict on
    "SLN helps" (`Estimate.verdict`).
    """
    rows = []
    for mode in study.profile.noise_modes:
        methods = study.methods(mode)
        for weights, (plain, noisy) in {"network": ("CE", "SLN"), "momentum": ("CE-MO", "SLN-MO")}.items():
            gain = paired(methods[noisy], methods[plain])
            row = {"noise": mode, "weights": weights, "sigma": methods[noisy].first.config.sigma}
            row |= {"gain": gain.mean, "low": gain.low, "high": gain.high}
            rows.append(row | {"verdict": gain.verdict()})
    return pd.DataFrame(rows)


def describe_kinds_of_noise(table: pd.DataFrame) -> str:
    """The verdicts of `kinds_of_noise`."""
    verdicts = [
        f"{NOISE_NAMES[row.noise]} ({row.weights}): {row.verdict}, "
        f"{row.gain:+.1f} ({row.low:+.1f} to {row.high:+.1f})"
        for row in table.itertuples()
    ]
    return "SLN helps, in points over no stochastic noise: " + "; ".join(verdicts) + "."


def noise_for(study: Study) -> pd.DataFrame:
    """Stochastic noise on which labels: noise_for, weights, mean, std, memorised, right_learnt, seeds (%)."""
    return _by_weights(study.runs_of(noise_for_arms(study), "noise on some labels"), "noise_for")


def schedules(study: Study) -> pd.DataFrame:
    """Schedules of sigma: schedule, weights, mean, std, memorised, right_learnt, seeds (%)."""
    return _by_weights(study.runs_of(schedule_arms(study), "schedules of sigma"), "schedule")


def describe_ranking(table: pd.DataFrame, column: str) -> str:
    """The momentum models of `noise_for` or `schedules`, best first; `column` names them."""
    part = table[table["weights"] == "momentum"].sort_values("mean", ascending=False, kind="stable")
    ranked = [
        f"{name} {mean:.1f} ± {std:.1f}% ({memorised:.0f}% of the wrong labels memorised)"
        for name, mean, std, memorised in part[[column, "mean", "std", "memorised"]].itertuples(index=False)
    ]
    return "Momentum models, best first: " + "; ".join(ranked) + "."


def corrections(study: Study) -> pd.DataFrame:
    """Clean and released correction by kind of noise: noise, losses, mean, std, label_accuracy, seeds (%).

    label_accuracy : share of training labels that are true after correction (the targets' largest entries);
        images of no class (open-set) are left out
    """
    rows = []
    for (mode, losses), runs in study.runs_of(correction_arms(study), "label correction").items():
        of_a_class = [run.examples.query("true >= 0") for run in runs.runs]
        truer = [(examples["target"] == examples["true"]).mean() for examples in of_a_class]
        row = {"noise": mode, "losses": losses} | _accuracy(runs)
        rows.append(row | {"label_accuracy": 100 * float(np.mean(truer))})
    return pd.DataFrame(rows)


def describe_corrections(table: pd.DataFrame) -> str:
    """What each rule of `corrections` gains, and how many labels are true after it."""
    mean = table.pivot_table(index="noise", columns="losses", values="mean", sort=False)
    truth = table.pivot_table(index="noise", columns="losses", values="label_accuracy", sort=False)
    parts = []
    for noise in mean.index:
        gain, true = mean.loc[noise] - mean.loc[noise, "none"], truth.loc[noise]
        parts.append(
            f"{NOISE_NAMES[noise]}: clean rule {gain['given']:+.1f} points, labels {true['given']:.0f}% "
            f"true; as released {gain['as-released']:+.1f}, {true['as-released']:.0f}%"
        )
    return "Correction against SLN-MO without it: " + "; ".join(parts) + "."


def class_counts(study: Study) -> pd.DataFrame:
    """Test accuracy (%) of SLN-MO by classes C and strength: classes, when_sure, sigma, mean, std, seeds.

    when_sure : sigma sqrt(C - 1)
    gain, low, high : over the same C without stochastic noise, paired over seeds, and its t interval
    """
    rows, found = [], study.runs_of(class_arms(study), "class counts")
    for (C, sure), runs in found.items():
        gain = paired(runs, found[C, 0.0])
        row = {"classes": C, "when_sure": sure, "sigma": runs.first.config.sigma}
        rows.append(row | _accuracy(runs) | {"gain": gain.mean, "low": gain.low, "high": gain.high})
    return pd.DataFrame(rows)


def describe_class_counts(table: pd.DataFrame) -> str:
    """The strength of `class_counts` at which each C gains most."""
    best = table.loc[table.groupby("classes")["gain"].idxmax()]
    gains = [
        f"C = {row.classes}: {row.gain:+.1f} points at σ = {row.sigma:.3g}, σ √(C − 1) = {row.when_sure:g}"
        for row in best.itertuples()
    ]
    return "Largest gain of SLN-MO over no stochastic noise: " + "; ".join(gains) + "."


def _accuracy(runs: MethodRuns) -> dict[str, float]:
    values = 100 * runs.final("test_accuracy")
    return {"mean": values.mean(), "std": values.std(ddof=1), "seeds": len(values)}


def _by_weights(found: Mapping[str, MethodRuns], column: str) -> pd.DataFrame:
    """One row per method, whose name is in `column`, and weights."""
    rows = []
    for name, method in found.items():
        for runs in (method.through("network"), method.through("momentum")):
            row = {column: name, "weights": runs.weights} | _accuracy(runs)
            row |= {"memorised": 100 * runs.final("wrong_memorised").mean()}
            rows.append(row | {"right_learnt": 100 * runs.final("right_accuracy").mean()})
    return pd.DataFrame(rows)
