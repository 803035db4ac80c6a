"""Why SLN works: noise that starts late, and a linear model, whose J no step changes."""

from __future__ import annotations

import itertools
import math

import pandas as pd

from sln.study import comparisons
from sln.study.statistics import Arm, Estimate, MethodRuns, interval
from sln.study.study import Study

MODELS = {"cnn": "network (J changes)", "frozen": "linear model (J is constant)"}
PENALTY = "penalty"  # on confidence, as strong as makes its momentum model about as sure as SLN's
STRENGTHS = (0.3, 0.5, 1.0)  # of it, that are tried
PAIRS = (" minus CE", "-MO minus CE-MO", f"-MO minus {PENALTY}-MO")  # what `describe_less_sure` shows
QUANTITIES = {"test_accuracy": "accuracy", "test_confidence": "confidence", "wrong_memorised": "memorised"}


def late_arms(study: Study) -> dict[str, Arm]:
    """CE, and the variants of SGD noise (SLN is the third) in the second half of training only.

    Each is at the study's strength, over the seeds of curves, and keeps its weights ten times on the way.
    """
    late = {"keep_weights_every": max(1, study.config().epochs // 10), "sigma_schedule": "second-half"}
    return {
        name: Arm([config.replace(**late) for config in arm.configs[: study.curve_seeds]])
        for name, arm in study.variant_arms("sym").items()
    }


def less_sure_arms(study: Study) -> dict[tuple[str, str], Arm]:
    """CE, SLN and the matched confidence penalty by model (MODELS) and method, over the seeds of curves.

    sigma is chosen for each model on noisy validation labels, like the study's. As in the comparison, the
    penalty is chosen by mean confidence alone, over the comparison's seeds.
    """
    found = {}
    for model in MODELS:
        settings = {"seeds": study.curve_seeds, "model": model}
        sigma = study.choose_sigma("sym", model=model)
        sln = Arm(study.over_seeds("sym", sigma, study.profile.comparison_seeds, model=model), "momentum")
        penalty = comparisons.matched_penalty(study, "sym", sln, STRENGTHS, model=model).configs[0]
        settings_of_it = {"baseline": penalty.baseline, "baseline_parameter": penalty.baseline_parameter}
        found[model, "CE"] = Arm(study.over_seeds("sym", 0.0, **settings))
        found[model, PENALTY] = Arm(study.over_seeds("sym", 0.0, **settings, **settings_of_it))
        found[model, "SLN"] = Arm(study.over_seeds("sym", sigma, **settings))
    return found


def less_sure(study: Study) -> pd.DataFrame:
    """What is left of SLN where it can only lower the confidence: in per cent, after the last epoch.

    One row per model (MODELS), method and quantity (QUANTITIES): mean, low, high (95% t interval over seeds),
    seeds, strength (sigma or beta). Methods ending in -MO are momentum models. "A minus B" are differences,
    paired over seeds.
    """
    found, rows = study.runs_of(less_sure_arms(study), "network and linear model"), []
    for model in MODELS:
        methods: dict[str, MethodRuns] = {}
        for end, weights in {"": "network", "-MO": "momentum"}.items():
            methods |= {m + end: found[model, m].through(weights) for m in ("CE", PENALTY, "SLN")}
        for column, quantity in QUANTITIES.items():
            values = {name: 100 * method.final(column) for name, method in methods.items()}
            for end, rival in itertools.product(("", "-MO"), ("CE", PENALTY)):
                values[f"SLN{end} minus {rival}{end}"] = values[f"SLN{end}"] - values[f"{rival}{end}"]
            rows += [
                {"model": model, "method": name, "quantity": quantity, **interval(of_seeds).row()}
                | {"seeds": len(of_seeds), "strength": _strength(methods.get(name))}
                for name, of_seeds in values.items()
            ]
    return pd.DataFrame(rows)


def _strength(method: MethodRuns | None) -> float:
    config = method.first.config if method else None
    return math.nan if config is None else config.sigma or config.baseline_parameter


def describe_less_sure(table: pd.DataFrame) -> str:
    """One line per model of `less_sure`: SLN beside plain training, and beside the penalty."""
    lines = []
    for model, part in table.groupby("model", sort=False):
        rows = dict(part.set_index(["method", "quantity"]).iterrows())
        accuracy, confidence, memorised = QUANTITIES.values()
        methods = "; ".join(
            f"{name} {rows[key, accuracy]['mean']:.0f}% right, {rows[key, confidence]['mean']:.0f}% sure, "
            f"{rows[key, memorised]['mean']:.0f}% of the wrong labels memorised"
            for key, name in {"CE-MO": "plain", f"{PENALTY}-MO": "penalty", "SLN-MO": "SLN"}.items()
        )
        single, plain, penalty = (
            Estimate(row["mean"], row["low"], row["high"], math.nan, int(row["seeds"]))
            for row in (rows[f"SLN{pair}", accuracy] for pair in PAIRS)
        )
        lines.append(
            f"{MODELS[model]}, averages of the weights: {methods}. SLN minus plain: {plain} points of test "
            f"accuracy (single networks: {single}). SLN minus penalty: {penalty}, so SLN ahead of the "
            f"penalty: {penalty.verdict()}."
        )
    return "\n".join(lines)
