"""All that a study trains, in one list: what is planned is what the notebooks ask for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sln.config import Config
from sln.study import ablations, comparisons
from sln.study.recipes import RECIPES
from sln.study.study import VARIANTS, Arm, Study


def planned(study: Study) -> list[Config]:
    """The runs that the notebooks will ask for, candidates of choices included, each once."""
    asked = list(_asked(study))
    return list(dict.fromkeys([*study.candidates, *asked]))


def train_ahead(study: Study) -> None:
    """Train them all, the candidates first, since the others depend on what is chosen.

    The notebooks would do it too, but a few runs at a time, which leaves processors idle at every end.
    """
    guess = Study(study.name, guesses=True)
    planned(guess)
    if guess.candidates:
        study.trained(guess.candidates, f"{study.name}: candidates")
    study.trained(planned(study), f"{study.name}: all runs")


def _asked(study: Study) -> Iterator[Config]:
    profile = study.profile
    for name in profile.recipes:
        yield from (RECIPES[name].config(seed) for seed in study.seeds)
    for mode in profile.noise_modes:
        yield from _configs(study.arms(mode))
    for sigma in profile.sigma_curve:
        yield from study.over_seeds("sym", sigma, study.curve_seeds)
    for losses in ("given", "as-released"):  # notebook 3 compares both
        yield from study.correcting("sym", correction_losses=losses)
    if profile.alphas:
        yield from study.averaging("sym")
    yield from _configs(study.variant_arms())
    yield from _configs(study.matched())
    for noise_on in VARIANTS.values():
        yield from _configs(study.strengths(noise_on, seeds=profile.choice_seeds))
    for mode in profile.comparison_modes:
        yield from _configs(comparisons.arms(study, mode))
        if mode in profile.tuned_modes:
            yield from _configs(comparisons.arms(study, mode, tuned=True))
    if profile.noise_rates:
        for arms in (
            ablations.rate_arms,
            ablations.noise_for_arms,
            ablations.schedule_arms,
            ablations.correction_arms,
        ):
            yield from _configs(arms(study))
        yield from _configs(ablations.class_arms(study))


def _configs(arms: Mapping[Any, Arm]) -> Iterable[Config]:
    return [config for arm in arms.values() for config in arm.configs]
