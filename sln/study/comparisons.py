"""SLN beside other methods against label noise, and on top of them: same images, labels, seeds and epochs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from sln import runs
from sln.config import BASELINES, EMBEDDED, NOISE_NAMES, Config
from sln.study.recipes import SIGMAS
from sln.study.statistics import Arm, MethodRuns, interval, paired
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
# can be (NATURAL_ENDS). SLN's is sigma; plain cross-entropy and forward correction have none.
GRIDS = {
    "CE": (0.0,),
    "label smoothing": (0.1, 0.2, 0.4, 0.6, 0.8, 0.9),
    "mixup": (1.0, 8.0, 32.0, 128.0, 512.0),
    "GCE": (0.1, 0.3, 0.5, 0.7, 0.9, 1.0),
    "SCE": (0.001, 0.003, 0.01, 0.03, 0.1),
    "ELR": (1.0, 3.0, 7.0, 12.0, 25.0),
    "forward correction": (0.0,),
    "confidence penalty": (0.3, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0),
    "SAM": (0.1, 0.2, 0.4, 0.8, 1.6),
    "Co-teaching": (0.02, 0.05, 0.1, 0.2, 0.4, 0.5, 0.6),
    "SLN": (0.1, 0.2, 0.5, 1.0, 1.5, 2.0),
}
# mixup's lambda is 0.5 ± 0.016 at alpha = 512: larger ones change nothing; at 0.02 Co-teaching drops 1 of 64
NATURAL_ENDS = {"GCE": 1.0, "label smoothing": 0.9, "mixup": 512.0, "Co-teaching": 0.02}
# Then, at the setting that is chosen, these step sizes and averages; the first are those of the study. Two
# step sizes: a third would cost eight minutes of `full`.
STEP_SIZES = (0.02, 0.005)
MORE_ALPHAS = (0.97, 0.997)
MATCHED = "confidence penalty, matched"
MATCHED_STRENGTHS = (0.3, 1.0, 2.0, 4.0, 8.0)  # of them the one whose confidence is nearest SLN's
GRADIENTS = {"SAM": 2, "Co-teaching": 2, "Co-teaching + SLN": 2}  # per step; all others 1
# what is added, and the methods without and with it
GAINS = {
    "SLN on top of CE": ("CE", "SLN"),
    "SLN on top of Co-teaching": ("Co-teaching", "Co-teaching + SLN"),
    "label correction on top of SLN": ("SLN", "SLN + LC"),
}
BESIDE_SLN = {"holds": "ahead", "does not hold": "behind"}

# What a candidate is called: its setting, step size and alpha.
Key = tuple[float, float, float]


def published(name: str, noise_mode: str, noise_rate: float = 0.4, dataset: str = "digits") -> float:
    """A method's setting by its authors for label noise of this kind and rate; sources are in `baselines`.

    Rates are shares of wrong labels: half of `noise_rate` under asymmetric noise, where half of the classes
    flip. Co-teaching takes that share as known. Between the rates of a paper's table the nearest counts; the
    digits and letters count as MNIST. SLN's is that of the paper's CIFAR-10 runs.
    """
    asymmetric = noise_mode == "asym"
    wrong = noise_rate / 2 if asymmetric else noise_rate
    settings = {
        "CE": 0.0,
        "SLN": SIGMAS["cifar10"][noise_mode],
        "mixup": 8.0 if wrong < 0.35 else 32.0,  # 20%; 50% and 80%
        "SCE": 0.01 if dataset in EMBEDDED else 0.1,
        "ELR": 1.0 if asymmetric else 3.0,
        "SAM": 0.1 if wrong < 0.7 else 0.05,  # 20% to 60%; 80%
        "Co-teaching": wrong,
    }
    return settings[name] if name in settings else BASELINES[OTHERS[name]][0]


# --- choices on noisy validation labels ---------------------------------------------------------------------


def configs(
    study: Study, noise_mode: str, name: str, setting: float, seeds: int, **settings: object
) -> list[Config]:
    """A method's configurations over the first `seeds` seeds; `settings` are more ones of `Config`."""
    if name in OTHERS:
        settings |= {"baseline": OTHERS[name], "baseline_parameter": setting}
    sigma = setting if name == "SLN" else 0.0
    return study.over_seeds(noise_mode, sigma, seeds, **settings)


def settings_tried(study: Study, noise_mode: str, name: str) -> dict[Key, Arm]:
    """First stage: every setting of GRIDS at the study's step size and alpha."""
    found, seeds = {}, study.profile.choice_seeds
    for setting in GRIDS[name]:
        arm = Arm(configs(study, noise_mode, name, setting, seeds), "momentum")
        found[setting, arm.configs[0].lr, arm.configs[0].alpha] = arm
    return found


def steps_tried(study: Study, noise_mode: str, name: str, setting: float) -> dict[Key, Arm]:
    """Second stage: every step size and alpha at the chosen setting; an alpha more costs no training."""
    found, seeds = {}, study.profile.comparison_seeds
    for lr in STEP_SIZES:
        tried = configs(study, noise_mode, name, setting, seeds, lr=lr, extra_alphas=MORE_ALPHAS)
        found[setting, lr, tried[0].alpha] = Arm(tried, "momentum")
        found |= {(setting, lr, alpha): Arm(tried, f"momentum {alpha:g}") for alpha in MORE_ALPHAS}
    return found


def best(study: Study, candidates: Mapping[Key, Arm], *, depends: bool = True) -> Key:
    """The candidate of the best mean accuracy on *noisy* validation labels; of equals the first.

    depends : on another choice, so that in a plan these candidates are a guess themselves
    """
    tried = [config for arm in candidates.values() for config in arm.configs]
    (study.dependent if depends else study.candidates).extend(tried)
    if len(candidates) == 1 or _unknown(study, tried):
        return next(iter(candidates))
    asked = tuple((key, *arm.configs) for key, arm in candidates.items())
    if asked not in study.chosen:
        found = study.runs_of(candidates, "candidates")
        study.chosen[asked] = max(found, key=lambda key: found[key].final("validation_accuracy").mean())
    return study.chosen[asked]


def _unknown(study: Study, wanted: list[Config]) -> bool:
    """Whether this is a plan, which trains nothing, and some of these runs are missing."""
    return study.guesses and any(runs.find(config) is None for config in wanted)


def choose(study: Study, noise_mode: str, name: str) -> tuple[Key, Key]:
    """The candidates that both stages choose: the setting, then the step size and alpha."""
    first = best(study, settings_tried(study, noise_mode, name), depends=False)
    return first, best(study, steps_tried(study, noise_mode, name, first[0]))


def choices(study: Study) -> pd.DataFrame:
    """All candidates of `choose`, under every kind of noise with tuned settings, in per cent.

    Columns: noise, method, stage (1: setting; 2: step size and alpha), setting, lr, alpha, score (mean
    accuracy on noisy validation labels), error (its standard error over seeds), seeds, chosen, at_edge
    (chosen, and the setting is the least or the largest that was tried, unless it cannot go further).
    """
    rows = []
    for noise_mode in study.profile.tuned_modes:
        for name in GRIDS:
            first, second = choose(study, noise_mode, name)
            stages = settings_tried(study, noise_mode, name), steps_tried(study, noise_mode, name, first[0])
            ends = {GRIDS[name][0], GRIDS[name][-1]} - {NATURAL_ENDS.get(name)}
            at_edge = len(GRIDS[name]) > 1 and first[0] in ends
            for stage, (tried, chosen) in enumerate(zip(stages, (first, second), strict=True), start=1):
                for key, method in study.runs_of(tried, "candidates").items():
                    score = interval(100 * method.final("validation_accuracy"))
                    row = {"noise": noise_mode, "method": name, "stage": stage}
                    row |= dict(zip(("setting", "lr", "alpha"), key, strict=True))
                    row |= {"score": score.mean, "error": score.std / score.seeds**0.5, "seeds": score.seeds}
                    row |= {"chosen": key == chosen, "at_edge": stage == 1 and key == chosen and at_edge}
                    rows.append(row)
    return pd.DataFrame(rows)


def describe_choices(choices: pd.DataFrame) -> str:
    """Which settings lie at an edge where their grid could go on, and the chosen step sizes and alphas."""
    edges = [
        f"{row.method} ({NOISE_NAMES[row.noise]}, {row.setting:g})"
        for row in choices[choices["at_edge"]].itertuples()
    ]
    second = choices[choices["chosen"] & (choices["stage"] == 2)]
    picked = second["method"].map(GRIDS).map(len) > 1
    steps = ", ".join(
        f"{lr:g} and {alpha:g} {len(part)} ×" for (lr, alpha), part in second.groupby(["lr", "alpha"])
    )
    return (
        f"Of {picked.sum()} settings chosen from a grid, at an edge where it could go further: "
        f"{', '.join(edges) or 'none'}.\n"
        f"Step size and alpha: {steps}."
    )


# --- the comparison -----------------------------------------------------------------------------------------


def arms(study: Study, noise_mode: str, *, tuned: bool = False) -> dict[str, Arm]:
    """Every method's configurations over the comparison's seeds, by name, and its momentum model.

    Settings are `published`, or `tuned`: chosen by `choose`, the same way for every method, CE and SLN
    included. Co-teaching with SLN is at Co-teaching's settings; SLN with label correction at SLN's.
    """
    seeds, profile = study.profile.comparison_seeds, study.profile
    found = {}
    for name in GRIDS:
        if tuned:
            first, second = choose(study, noise_mode, name)
            found[name] = steps_tried(study, noise_mode, name, first[0])[second]
        else:
            setting = published(name, noise_mode)
            found[name] = Arm(configs(study, noise_mode, name, setting, seeds), "momentum")
    if not tuned:
        found[MATCHED] = matched_penalty(study, noise_mode, found["SLN"])
    peers = found["Co-teaching"]
    sigmas = profile.sigma_choices if tuned else (published("SLN", noise_mode),)
    both = {(s, 0.0, 0.0): _changed(peers, sigma=float(s)) for s in sigmas}
    found["Co-teaching + SLN"] = both[best(study, both)]
    correction = {"correction": profile.correction, "correction_losses": profile.correction_losses}
    found["SLN + LC"] = _changed(found["SLN"], **correction)
    return found


def _changed(arm: Arm, **changes: object) -> Arm:
    return Arm([config.replace(**changes) for config in arm.configs], arm.weights)


def matched_penalty(
    study: Study, noise_mode: str, sln: Arm, tried: Sequence[float] = MATCHED_STRENGTHS, **settings: object
) -> Arm:
    """The confidence penalty whose mean confidence is nearest SLN's: is SLN more than less confidence?

    tried : its strengths; settings : those of `Config` that `sln` has too, such as another model
    Both means are over test images, without their labels, of the momentum models after the last epoch.
    """
    name, seeds = "confidence penalty", study.profile.comparison_seeds
    arms = {b: Arm(configs(study, noise_mode, name, b, seeds, **settings), "momentum") for b in tried}
    everything = [config for arm in (sln, *arms.values()) for config in arm.configs]
    study.dependent.extend(everything)
    if _unknown(study, everything):
        return next(iter(arms.values()))
    found = study.runs_of({"SLN": sln, **arms}, "matched confidence")
    confidence = {key: method.final("test_confidence").mean() for key, method in found.items()}
    return arms[min(arms, key=lambda beta: abs(confidence[beta] - confidence["SLN"]))]


def compared(study: Study) -> Iterator[tuple[str, str, dict[str, MethodRuns]]]:
    """Kind of noise, settings ("published" or "tuned") and every method's momentum models, by name."""
    for noise_mode in study.profile.comparison_modes:
        for tuned in (False, True) if noise_mode in study.profile.tuned_modes else (False,):
            settings = "tuned" if tuned else "published"
            what = f"{noise_mode} noise, {settings} settings"
            yield noise_mode, settings, study.runs_of(arms(study, noise_mode, tuned=tuned), what)


def table(study: Study) -> pd.DataFrame:
    """Every method under every kind of noise of the comparison, in per cent.

    One row per noise, method, settings ("published" or "tuned") and weights ("network" or "momentum").
    Further columns: setting (NaN: none), lr, alpha (of the momentum model); mean, low, high (95% t interval)
    and std of the last epoch's test accuracy over seeds; last10 (its mean over ten epochs), early (at the
    epoch of the best noisy validation accuracy); difference, difference_low, difference_high (method minus
    SLN, same weights, paired over seeds, in points) and beside_sln (what that interval says); confidence
    (mean, on test images), memorised (share of wrong labels reproduced), gradients (per step), seeds.
    """
    rows = []
    for noise_mode, settings, methods in compared(study):
        for name, method in methods.items():
            for weights in ("network", "momentum"):
                read, sln = (
                    each if weights == "momentum" else each.through(weights)
                    for each in (method, methods["SLN"])
                )
                row = {"noise": noise_mode, "method": name, "settings": settings}
                row |= _settings_of(method) | {"weights": weights} | _numbers(read)
                difference = paired(read, sln)
                row |= difference.row("difference", "difference_")
                verdict = difference.verdict()
                row["beside_sln"] = "itself" if name == "SLN" else BESIDE_SLN.get(verdict, verdict)
                rows.append(row | {"gradients": GRADIENTS.get(name, 1), "seeds": difference.seeds})
    return pd.DataFrame(rows)


def _settings_of(method: MethodRuns) -> dict[str, float]:
    config = method.first.config
    setting = config.sigma if "SLN" in method.method else config.baseline_parameter
    _, _, alpha = method.weights.partition(" ")
    return {"setting": setting or float("nan"), "lr": config.lr, "alpha": float(alpha or config.alpha)}


def _numbers(method: MethodRuns) -> dict[str, float]:
    accuracy = interval(100 * method.final("test_accuracy"))
    return {
        **accuracy.row(),
        "std": accuracy.std,
        "last10": 100 * method.last10("test_accuracy").mean(),
        "early": 100 * method.early("test_accuracy").mean(),
        "confidence": 100 * method.final("test_confidence").mean(),
        "memorised": 100 * method.final("wrong_memorised").mean(),
    }


def describe_methods(table: pd.DataFrame, settings: str) -> str:
    """One line per kind of noise of `table`: which methods SLN is ahead of or behind, and the others.

    Of momentum models after the last epoch; by intervals of paired differences, each at 95%.
    """
    lines = []
    shown = table[(table["settings"] == settings) & (table["weights"] == "momentum")]
    for noise, part in shown.groupby("noise", sort=False):
        sln = part[part["method"] == "SLN"].iloc[0]
        others = part[part["beside_sln"] != "itself"].sort_values("difference", ascending=False)
        told = {"it is ahead of": "behind", "behind": "ahead"}
        groups = {words: others[others["beside_sln"] == verdict] for words, verdict in told.items()}
        untold = f"no clear difference, with {sln['seeds']} seeds, from"
        groups[untold] = others[~others["beside_sln"].isin(told.values())]
        words = "; ".join(
            f"{words} {', '.join(f'{r.method} ({r.difference:+.1f})' for r in group.itertuples()) or 'none'}"
            for words, group in groups.items()
        )
        lines.append(
            f"{NOISE_NAMES[noise]}, {settings} settings: SLN-MO {sln['mean']:.1f}% "
            f"[{sln['low']:.1f}, {sln['high']:.1f}]. In points beside it, momentum models: {words}."
        )
    return "\n".join(lines)


def gains(study: Study) -> pd.DataFrame:
    """What SLN adds to CE and to Co-teaching, and label correction to SLN: test accuracy, in points.

    One row per noise, settings and gain, of momentum models, paired over seeds: mean, low, high (95% t
    interval), std, seeds, verdict (on the claim that it is a gain).
    """
    rows = []
    for noise_mode, settings, methods in compared(study):
        for gain, (without, with_it) in GAINS.items():
            found = paired(methods[with_it], methods[without])
            row = {"noise": noise_mode, "settings": settings, "gain": gain} | found.row()
            rows.append(row | {"std": found.std, "seeds": found.seeds, "verdict": found.verdict()})
    return pd.DataFrame(rows)


def describe_gains(gains: pd.DataFrame) -> str:
    """One line per kind of noise and settings of `gains`."""
    return "\n".join(
        f"{NOISE_NAMES[noise]}, {settings} settings (points): {_differences(part, 'gain')}."
        for (noise, settings), part in gains.groupby(["noise", "settings"], sort=False)
    )


def _differences(part: pd.DataFrame, name: str) -> str:
    """Rows of mean, low, high and verdict in words; the column `name` names them."""
    return "; ".join(
        f"{row[name]} {row['mean']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]: {row['verdict']}"
        for _, row in part.iterrows()
    )


def strengths(study: Study, noise_mode: str = "sym") -> pd.DataFrame:
    """Last-epoch accuracy of each variant of SGD noise by its strength, for the seeds of choices.

    Columns: variant, sigma, seeds, and mean and standard deviation of test and of noisy validation labels
    (test_mean, ...), in per cent and of the momentum model; relative : sigma over the variant's best on
    noisy validation labels.
    """
    seeds = study.profile.choice_seeds
    grids = {name: study.strengths(noise_on, noise_mode, seeds) for name, noise_on in VARIANTS.items()}
    grids["SLN"] = {s: Arm(study.over_seeds(noise_mode, s, seeds)) for s in study.profile.sigma_curve if s}
    rows = []
    for name, grid in grids.items():
        for sigma, method in study.runs_of(grid, f"{name} by strength").items():
            momentum = method.through("momentum")
            row = {"variant": name, "sigma": sigma, "seeds": len(momentum.runs)}
            for split in ("test", "validation"):
                found = interval(100 * momentum.final(f"{split}_accuracy"))
                row |= {f"{split}_mean": found.mean, f"{split}_std": found.std}
            rows.append(row)
    found = pd.DataFrame(rows)
    best = found.loc[found.groupby("variant")["validation_mean"].idxmax()].set_index("variant")["sigma"]
    found["relative"] = found["sigma"] / found["variant"].map(best)
    return found


def variant_gains(groups: Mapping[str, Mapping[str, MethodRuns]]) -> pd.DataFrame:
    """What each kind of noise adds to CE, and SLN to the other two: test accuracy, in points.

    groups : by strength ("best strength", ...): the runs of CE and of the three variants
    One row per strength, weights and difference, paired over the seeds that both have: mean, low, high (95%
    t interval), seeds, verdict (on the claim that it is a gain).
    """
    pairs = [(name, "CE") for name in (*VARIANTS, "SLN")] + [("SLN", name) for name in VARIANTS]
    rows = []
    for strength, found in groups.items():
        for weights, (better, worse) in itertools.product(("network", "momentum"), pairs):
            seeds = min(len(found[name].runs) for name in (better, worse))
            both = [found[name].first_seeds(seeds).through(weights) for name in (better, worse)]
            gain = paired(*both)
            row = {"strength": strength, "weights": weights, "difference": f"{better} minus {worse}"}
            rows.append(row | gain.row() | {"seeds": gain.seeds, "verdict": gain.verdict()})
    return pd.DataFrame(rows)


def describe_variant_gains(table: pd.DataFrame) -> str:
    """One line per strength and weights of `variant_gains`."""
    return "\n".join(
        f"{strength}, {weights} (points): {_differences(part, 'difference')}."
        for (strength, weights), part in table.groupby(["strength", "weights"], sort=False)
    )
