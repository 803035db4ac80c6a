"""SLN beside other methods against label noise, and on top of them: same runs, seeds, labels and budget."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sln.config import BASELINES, NOISE_NAMES, Config
from sln.study.recipes import SIGMAS
from sln.study.statistics import Arm
from sln.study.study import VARIANTS, Study

# Another method's name in figures, and its `Config.baseline`.
OTHERS = {
    "label smoothing": "label-smoothing",
    "mixup": "mixup",
    "GCE": "gce",
    "SCE": "sce",
    "ELR": "elr",
    "forward correction": "forward",
    "confidence penalty": "confidence-penalty",
    "SAM": "sam",
    "Co-teaching": "co-teaching",
}
# What is tried when settings are chosen: so widely that the best is inside, or at the end of what the setting
# can be (GCE's q = 1, label smoothing below 1). Forward correction has no setting.
GRIDS = {
    "label smoothing": (0.1, 0.2, 0.4, 0.6, 0.8, 0.9),
    "mixup": (1.0, 8.0, 32.0, 128.0, 512.0),
    "GCE": (0.3, 0.5, 0.7, 0.9, 1.0),
    "SCE": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
    "ELR": (1.0, 3.0, 7.0, 12.0, 25.0),
    "forward correction": (0.0,),
    "confidence penalty": (0.3, 1.0, 2.0, 4.0, 8.0),
    "SAM": (0.05, 0.1, 0.2, 0.4, 0.8),
    "Co-teaching": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6),
}
NAMES = ("CE", *OTHERS, "SLN", "Co-teaching + SLN", "CE + LC", "SLN + LC")


def arms(study: Study, noise_mode: str, *, tuned: bool = False) -> dict[str, Arm]:
    """Every method's configurations over the comparison's seeds, by name (NAMES).

    Settings are the published ones (SLN's sigma is that of the paper's CIFAR-10 runs), or `tuned`: the best
    of GRIDS, or of the sigmas, on noisy validation labels. Methods without a setting are in both.
    """
    seeds = study.profile.comparison_seeds
    sigma = study.choose_sigma(noise_mode) if tuned else SIGMAS["cifar10"][noise_mode]
    found = {"CE": study.over_seeds(noise_mode, 0.0, seeds)}
    for name in OTHERS:
        setting = best_setting(study, noise_mode, name) if tuned else published(name, noise_mode)
        found[name] = other(study, noise_mode, name, setting, seeds)
    found["SLN"] = study.over_seeds(noise_mode, sigma, seeds)
    both = {"baseline": "co-teaching", "baseline_parameter": published("Co-teaching", noise_mode)}
    paired = study.choose_sigma(noise_mode, **both) if tuned else sigma
    found["Co-teaching + SLN"] = study.over_seeds(noise_mode, paired, seeds, **both)
    found["CE + LC"] = study.correcting(noise_mode, sigma=0.0, seeds=seeds)
    found["SLN + LC"] = study.correcting(noise_mode, sigma=sigma, seeds=seeds)
    return {name: Arm(configs) for name, configs in found.items()}


def published(name: str, noise_mode: str, noise_rate: float = 0.4, dataset: str = "digits") -> float:
    """A method's setting by its authors for label noise of this kind and rate; sources are in `baselines`.

    Rates are shares of wrong labels: half of `noise_rate` under asymmetric noise, where half of the classes
    flip. Co-teaching takes that share as known. Between the rates of a paper's table the nearest counts; the
    digits count as MNIST.
    """
    asymmetric = noise_mode == "asym"
    wrong = noise_rate / 2 if asymmetric else noise_rate
    settings = {
        "mixup": 8.0 if wrong < 0.35 else 32.0,  # 20%; 50% and 80%
        "SCE": 0.01 if dataset == "digits" else 0.1,
        "ELR": 1.0 if asymmetric else 3.0,
        "SAM": 0.1 if wrong < 0.7 else 0.05,  # 20% to 60%; 80%
        "Co-teaching": wrong,
    }
    default, _ = BASELINES[OTHERS[name]]
    return settings.get(name, default)


def other(study: Study, noise_mode: str, name: str, setting: float, seeds: int) -> list[Config]:
    """Another method's configurations over the first `seeds` seeds, without stochastic noise."""
    settings = {"baseline": OTHERS[name], "baseline_parameter": setting}
    return study.over_seeds(noise_mode, 0.0, seeds, **settings)


def best_setting(study: Study, noise_mode: str, name: str) -> float:
    """The best of GRIDS on noisy validation labels, over the same seeds as for the choice of sigma."""
    return study.best(
        {
            setting: other(study, noise_mode, name, setting, study.profile.choice_seeds)
            for setting in GRIDS[name]
        }
    )


def setting_of(name: str, config: Config) -> float:
    """The method's own setting, or sigma; NaN if it has none."""
    if name in OTHERS:
        return config.baseline_parameter
    return config.sigma if "SLN" in name else np.nan


def table(study: Study) -> pd.DataFrame:
    """Every method under every kind of noise of the comparison, in per cent.

    One row per noise, method, settings ("published" or "tuned") and weights ("network" or "momentum").
    Further columns: setting, mean, std (test accuracy over seeds), memorised (mean share of wrong labels
    reproduced), seeds.
    """
    rows = []
    for noise_mode in study.profile.comparison_modes:
        for tuned in (False, True) if noise_mode in study.profile.tuned_modes else (False,):
            settings = "tuned" if tuned else "published"
            what = f"{noise_mode} noise, {settings} settings"
            for name, method in study.runs_of(arms(study, noise_mode, tuned=tuned), what).items():
                row = {"noise": noise_mode, "method": name, "settings": settings}
                row["setting"] = setting_of(name, method.first.config)
                for weights in ("network", "momentum"):
                    evaluated = method.through(weights)
                    accuracy = 100 * evaluated.final("test_accuracy")
                    found = {"weights": weights, "mean": accuracy.mean(), "std": accuracy.std(ddof=1)}
                    found |= {"memorised": 100 * evaluated.final("wrong_memorised").mean()}
                    rows.append(row | found | {"seeds": len(accuracy)})
    return pd.DataFrame(rows)


def describe_methods(table: pd.DataFrame, settings: str) -> str:
    """One line per kind of noise of `table`: the three best momentum models, and SLN's place."""
    lines = []
    shown = table[(table["settings"] == settings) & (table["weights"] == "momentum")]
    for noise, part in shown.groupby("noise", sort=False):
        ranked = part.sort_values("mean", ascending=False, kind="stable").reset_index(drop=True)
        best = ", ".join(
            f"{row.method} {row.mean:.1f} ± {row.std:.1f}" for row in ranked.head(3).itertuples(name="R")
        )
        place = int(ranked.index[ranked["method"] == "SLN"][0]) + 1
        sln = ranked.loc[place - 1]
        lines.append(
            f"{NOISE_NAMES[noise]}, {settings} settings: best are {best}; SLN is number {place} of "
            f"{len(ranked)} ({sln['mean']:.1f} ± {sln['std']:.1f})."
        )
    return "\n".join(lines)


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """What SLN adds to other methods: mean test accuracy with it less without, in points.

    One row per noise and settings, one column per base method (CE, Co-teaching, CE + LC); momentum models.
    """
    momentum = table[table["weights"] == "momentum"]
    mean = momentum.pivot_table(index=["noise", "settings"], columns="method", values="mean", sort=False)
    pairs = {"CE": "SLN", "Co-teaching": "Co-teaching + SLN", "CE + LC": "SLN + LC"}
    return pd.DataFrame({base: mean[with_sln] - mean[base] for base, with_sln in pairs.items()})


def describe_gains(gains: pd.DataFrame) -> str:
    """One line per row of `gains`."""
    lines = []
    for (noise, settings), row in gains.iterrows():
        points = ", ".join(f"{base} {value:+.1f}" for base, value in row.items())
        lines.append(
            f"SLN on top of another method, {NOISE_NAMES[noise]}, {settings} settings (points): {points}."
        )
    return "\n".join(lines)


def strengths(study: Study, noise_mode: str = "sym") -> pd.DataFrame:
    """Last-epoch accuracy of each variant of SGD noise by its strength, for the seeds of choices.

    Columns: variant, sigma, test_mean, test_std, validation_mean (on noisy labels), all in per cent and of
    the momentum model; relative : sigma over the variant's best on noisy validation labels.
    """
    seeds = study.profile.choice_seeds
    grids = {name: study.strengths(noise_on, noise_mode, seeds) for name, noise_on in VARIANTS.items()}
    grids["SLN"] = {s: Arm(study.over_seeds(noise_mode, s, seeds)) for s in study.profile.sigma_curve if s}
    rows = []
    for name, grid in grids.items():
        for sigma, runs in study.runs_of(grid, f"{name} by strength").items():
            momentum = runs.through("momentum")
            test = 100 * momentum.final("test_accuracy")
            row = {"variant": name, "sigma": sigma, "test_mean": test.mean(), "test_std": test.std(ddof=1)}
            rows.append(row | {"validation_mean": 100 * momentum.final("validation_accuracy").mean()})
    found = pd.DataFrame(rows)
    best = found.loc[found.groupby("variant")["validation_mean"].idxmax()].set_index("variant")["sigma"]
    found["relative"] = found["sigma"] / found["variant"].map(best)
    return found


def describe_variants(final: pd.DataFrame) -> str:
    """The variants' test accuracy in per cent, from `analysis.mean_and_std` in shares of 1."""
    return "; ".join(
        f"{name} {100 * row['mean']:.1f} ± {100 * row['std']:.1f}%" for name, row in final.iterrows()
    )
