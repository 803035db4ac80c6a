"""SLN beside other methods against label noise, and on top of them: same runs, seeds, labels and budget."""

from __future__ import annotations

import numpy as np
import pandas as pd

from sln.config import Config
from sln.study.recipes import SIGMAS
from sln.study.study import VARIANTS, Arm, MethodRuns, Study

# Another method's name in figures, and its `Config.baseline`.
OTHERS = {
    "label smoothing": "label-smoothing",
    "mixup": "mixup",
    "GCE": "gce",
    "SCE": "sce",
    "ELR": "elr",
    "SAM": "sam",
    "Co-teaching": "co-teaching",
}
# What is tried for each when settings are chosen: four, as for sigma, the published one among them.
GRIDS = {
    "label smoothing": (0.1, 0.2, 0.4, 0.6),
    "mixup": (0.2, 1.0, 8.0, 32.0),
    "GCE": (0.3, 0.5, 0.7, 0.9),
    "SCE": (0.01, 0.1, 0.3, 1.0),
    "ELR": (1.0, 3.0, 7.0, 12.0),
    "SAM": (0.02, 0.05, 0.1, 0.2),
    "Co-teaching": (0.1, 0.2, 0.3, 0.4),
}
# Co-teaching forgets as many as are wrong, which its paper takes as known; here half of the classes flip.
WRONG_SHARE = {"asym": 0.2}
NAMES = ("CE", *OTHERS, "SLN", "Co-teaching + SLN", "CE + LC", "SLN + LC")


def arms(study: Study, noise_mode: str, *, tuned: bool = False) -> dict[str, Arm]:
    """Every method's configurations over the comparison's seeds, by name (NAMES).

    Settings are the published ones (SLN's sigma that of the paper's CIFAR-10 runs), or `tuned`: the best of
    GRIDS, or of the sigmas, on noisy validation labels. What has no setting is in both.
    """
    seeds = study.profile.comparison_seeds
    sigma = study.choose_sigma(noise_mode) if tuned else SIGMAS["cifar10"][noise_mode]
    found = {"CE": study.over_seeds(noise_mode, 0.0, seeds)}
    for name in OTHERS:
        setting = best_setting(study, noise_mode, name) if tuned else published(name, noise_mode)
        found[name] = other(study, noise_mode, name, setting, seeds)
    found["SLN"] = study.over_seeds(noise_mode, sigma, seeds)
    share = published("Co-teaching", noise_mode)
    both = {"baseline": "co-teaching"} | ({} if share is None else {"baseline_parameter": share})
    paired = study.choose_sigma(noise_mode, **both) if tuned else sigma
    found["Co-teaching + SLN"] = study.over_seeds(noise_mode, paired, seeds, **both)
    found["CE + LC"] = study.correcting(noise_mode, sigma=0.0, seeds=seeds)
    found["SLN + LC"] = study.correcting(noise_mode, sigma=sigma, seeds=seeds)
    return {name: Arm(configs) for name, configs in found.items()}


def published(name: str, noise_mode: str) -> float | None:
    """A method's published setting where `Config` cannot know it; None leaves it to `Config`."""
    return WRONG_SHARE.get(noise_mode) if name == "Co-teaching" else None


def other(study: Study, noise_mode: str, name: str, setting: float | None, seeds: int) -> list[Config]:
    """Another method's configurations over the first `seeds` seeds, without stochastic noise."""
    settings = {} if setting is None else {"baseline_parameter": setting}
    return study.over_seeds(noise_mode, 0.0, seeds, baseline=OTHERS[name], **settings)


def best_setting(study: Study, noise_mode: str, name: str) -> float:
    """The best of GRIDS on noisy validation labels, over as many seeds as sigma is chosen on."""
    return study.best(
        {
            setting: other(study, noise_mode, name, setting, study.profile.choice_seeds)
            for setting in GRIDS[name]
        }
    )


def setting_of(name: str, config: Config) -> float:
    """The number that was set or chosen: the method's own setting, or sigma; NaN where there is none."""
    if name in OTHERS:
        return config.baseline_parameter
    return config.sigma if "SLN" in name else np.nan


def table(study: Study) -> pd.DataFrame:
    """Every method under every kind of noise of the comparison, in per cent; one row a reading.

    Columns: noise, method, settings ("published" or "tuned"), setting, weights (network or momentum), mean,
    std (test accuracy over seeds), memorised (share of wrong labels reproduced, mean), seeds.
    """
    rows = []
    for noise_mode in study.profile.comparison_modes:
        for tuned in (False, True) if noise_mode in study.profile.tuned_modes else (False,):
            told = f"{noise_mode} noise, {'tuned' if tuned else 'published'} settings"
            for name, reading in study.read(arms(study, noise_mode, tuned=tuned), told).items():
                row = {"noise": noise_mode, "method": name, "settings": "tuned" if tuned else "published"}
                row["setting"] = setting_of(name, reading.runs[0].config)
                for weights in ("network", "momentum"):
                    read = MethodRuns(name, reading.runs, weights)
                    accuracy = 100 * read.final("test_accuracy")
                    rows.append(
                        row
                        | {"weights": weights, "mean": accuracy.mean(), "std": accuracy.std(ddof=1)}
                        | {"memorised": 100 * read.final("wrong_memorised").mean(), "seeds": len(accuracy)}
                    )
    return pd.DataFrame(rows)


def gains(table: pd.DataFrame) -> pd.DataFrame:
    """What SLN adds to other methods: mean test accuracy with it less without, in points.

    Rows noise, settings; columns one per base (CE, Co-teaching, CE + LC), read through the momentum model.
    """
    read = table[table["weights"] == "momentum"]
    mean = read.pivot_table(index=["noise", "settings"], columns="method", values="mean", sort=False)
    pairs = {"CE": "SLN", "Co-teaching": "Co-teaching + SLN", "CE + LC": "SLN + LC"}
    return pd.DataFrame({base: mean[with_sln] - mean[base] for base, with_sln in pairs.items()})


def strengths(study: Study, noise_mode: str = "sym") -> pd.DataFrame:
    """Last-epoch accuracy of each variant of SGD noise against its strength, on the seeds of choices.

    Columns: variant, sigma, test_mean, test_std, validation_mean (on noisy labels), all in per cent and of
    the momentum model; relative : sigma over the variant's best on noisy validation labels.
    """
    grids = {
        name: study.strengths(noise_on, noise_mode, study.profile.choice_seeds)
        for name, noise_on in VARIANTS.items()
    }
    seeds = study.profile.choice_seeds
    grids["SLN"] = {s: Arm(study.over_seeds(noise_mode, s, seeds)) for s in study.profile.sigma_curve if s}
    rows = []
    for name, grid in grids.items():
        for sigma, reading in study.read(grid, f"{name} by strength").items():
            read = MethodRuns(name, reading.runs, "momentum")
            test = 100 * read.final("test_accuracy")
            row = {"variant": name, "sigma": sigma, "test_mean": test.mean(), "test_std": test.std(ddof=1)}
            rows.append(row | {"validation_mean": 100 * read.final("validation_accuracy").mean()})
    found = pd.DataFrame(rows)
    best = found.loc[found.groupby("variant")["validation_mean"].idxmax()].set_index("variant")["sigma"]
    found["relative"] = found["sigma"] / found["variant"].map(best)
    return found
