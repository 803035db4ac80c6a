"""Profiles, and the runs that a profile's study consists of.

A profile lists only what differs from `Profile`'s own defaults, which are `quick`'s.

The embedded data set's step size was chosen by the momentum model's accuracy on noisy validation labels
(sigma 1, symmetric noise, 5 seeds): 0.566, 0.570, 0.563 and 0.562 for 0.01, 0.02, 0.05 and 0.1, so it hardly
matters. The average's alpha of 0.99 is as good by that measure as 0.995, and better than 0.97 and 0.98.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from sln import pool
from sln.config import Config
from sln.data import Data
from sln.errors import choose
from sln.loading import load_clean
from sln.recipes import RECIPES, SIGMAS
from sln.runs import Run


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The size of a study: what is trained, and how finely it is looked at."""

    about: str
    base: Mapping[str, Any] = field(default_factory=dict)  # knobs of Config that differ
    seeds: int = 5  # seed s draws the corruption and the training of run s
    noise_modes: tuple[str, ...] = ("sym", "asym", "dependent", "openset")
    # the paper's candidates, of which the best on noisy validation labels is used
    sigma_choices: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0)
    choice_seeds: int = 2  # the first runs that sigma is chosen on (the paper does not say how many it used)
    sigma_curve: tuple[float, ...] = (0.0, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0)  # accuracy over sigma
    correction: int = 90  # last epoch before label correction
    alphas: tuple[float, ...] = (0.9, 0.97, 0.997)  # momentum models beside that of Config.alpha
    # sigma by kind of noise where it is not chosen here but the paper's, which chose it in the same way
    sigmas: Mapping[str, float] = field(default_factory=dict)
    # how the table's SLN-MO-LC computes its losses; the paper's own runs did it as released
    correction_losses: str = "given"
    recipes: tuple[str, ...] = ()  # the paper's experiments that are trained before the notebooks run
    surface_points: int = 21  # a side, for loss surfaces
    landscape_images: int = 0  # images that the loss around the minima is over; 0 is all
    asserts: bool = True  # whether the notebooks' claims must hold


# The step size was chosen between 0.02 and 0.05 by the momentum model's accuracy on noisy validation labels
# (sigma 0.5, seed 0): 0.248 and 0.262 on 500 of them, 0.278 and 0.273 on 1,000, so it hardly matters. Images
# are averaged down, and not augmented, to have the time for 3 seeds on a laptop.
MINI = {
    "dataset": "cifar10",
    "model": "wrn-10-1",
    "subset": 5000,
    "held_out": 0.2,
    "test_subset": 2000,
    "downsample": 2,
    "augment": False,
    "epochs": 30,
    "fork_epoch": 24,
    "batch_size": 64,
    "lr": 0.05,
    "alpha": 0.99,
    "correction": -1,
    "measure_train_every": 5,
    "threads": 1,
}

PROFILES: dict[str, Profile] = {
    "smoke": Profile(
        about="seconds, for tests: that everything runs, not that anything is true",
        base={"epochs": 3, "fork_epoch": 1},
        seeds=2,
        sigma_choices=(0.5, 1.0),
        sigma_curve=(0.0, 0.5, 1.0),
        correction=1,
        alphas=(0.9,),
        surface_points=3,
        asserts=False,
    ),
    "quick": Profile(about="the embedded digits, four kinds of noise, 5 seeds: minutes on a laptop"),
    "full": Profile(
        about="the embedded digits with a finer grid of sigma and larger loss surfaces",
        choice_seeds=5,
        sigma_curve=(0.0, 0.1, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0),
        surface_points=51,
    ),
}

_CIFAR10 = tuple(name for name, recipe in RECIPES.items() if recipe.dataset == "cifar10")
_PAPER = {
    "base": {"dataset": "cifar10", "correction": -1},
    "sigma_choices": (1.0,),
    "sigma_curve": (0.0, 1.0),
    "sigmas": SIGMAS["cifar10"],
    "correction": 250,
    "correction_losses": "as-released",
    "alphas": (),
    "surface_points": 25,
    "landscape_images": 10_000,
    "asserts": False,
}
PROFILES |= {
    "mini": Profile(
        about="5,000 photographs of CIFAR-10 at 16x16 pixels, a small WRN, the released label files, 3 seeds",
        base=MINI,
        seeds=3,
        noise_modes=("sym", "asym", "dependent"),
        sigma_choices=(0.2, 0.5, 1.0),
        choice_seeds=2,
        sigma_curve=(0.0, 0.2, 0.5, 1.0),
        correction=24,
        alphas=(),
        surface_points=11,
        landscape_images=1000,
        asserts=False,
    ),
    "cifar10": Profile(
        about="the paper's CIFAR-10 table: 12 recipes, 5 seeds; for a GPU", recipes=_CIFAR10, **_PAPER
    ),
    "paper": Profile(
        about="all tables of the paper: CIFAR-10, CIFAR-100 and Clothing1M, 5 seeds; for a GPU",
        recipes=tuple(RECIPES),
        **_PAPER,
    ),
}

METHODS = ("CE", "CE-MO", "SLN", "SLN-MO", "SLN-MO-LC")


@dataclass(frozen=True)
class Reading:
    """One method: runs over seeds, read through the network or its momentum model."""

    method: str
    runs: list[Run]
    reader: str

    def final(self, column: str) -> np.ndarray:
        """(seeds,): the last epoch's value of a history column."""
        return np.array([run.final(self.reader)[column] for run in self.runs], dtype=float)

    def curve(self, column: str) -> pd.DataFrame:
        """Epochs x seeds: a history column."""
        return pd.DataFrame({run.config.seed: run.of(self.reader)[column] for run in self.runs})


class Study:
    """What a notebook asks; runs that are missing are trained.

    For example `study.readings("sym")["SLN-MO"].final("test_accuracy")`.

    Raises InputError for an unknown profile, naming the nearest. Sets this process's CPU threads to those of
    the profile's runs, so that what a notebook computes does not depend on the machine's processors either.
    """

    def __init__(self, profile: str) -> None:
        choose("profile", profile, PROFILES)
        self.name = profile
        self.profile = PROFILES[profile]
        torch.set_num_threads(self.config().threads)

    @property
    def dataset(self) -> str:
        """The data set that the notebooks look at."""
        return self.config().dataset

    @property
    def clean(self) -> Data:
        """That data set with true labels."""
        return load_clean(self.config())

    @property
    def seeds(self) -> range:
        """The seeds of every configuration's runs."""
        return range(self.profile.seeds)

    def config(self, noise_mode: str = "sym", sigma: float = 1.0, seed: int = 0, **knobs: Any) -> Config:
        """One run's configuration.

        Seed s draws the training, and the corruption too unless a label file fixes it; methods are compared
        on the same labels.
        """
        knobs = {"noise_mode": noise_mode, "sigma": float(sigma), "seed": seed} | knobs
        config = Config.from_dict({**self.profile.base, **knobs})
        drawn = config.labels == "generated" or noise_mode == "openset"
        return config.replace(noise_seed=knobs.get("noise_seed", seed if drawn else 0))

    def runs(self, noise_mode: str = "sym", sigma: float = 1.0, **knobs: Any) -> list[Run]:
        """The runs over all seeds of one configuration, trained where missing."""
        return pool.get_all(
            [self.config(noise_mode, sigma, seed, **knobs) for seed in self.seeds],
            f"{noise_mode} noise, sigma {sigma:g}",
        )

    def grid(
        self, noise_mode: str, sigmas: Sequence[float], seeds: int | None = None
    ) -> dict[float, list[Run]]:
        """The runs for each sigma, over all seeds or the first few."""
        seeds = self.profile.seeds if seeds is None else seeds
        configs = [self.config(noise_mode, sigma, seed) for sigma in sigmas for seed in range(seeds)]
        found = iter(pool.get_all(configs, f"{noise_mode} noise, {len(sigmas)} sigmas"))
        return {sigma: [next(found) for _ in range(seeds)] for sigma in sigmas}

    @functools.cache  # noqa: B019 - a study lives as long as its notebook
    def validation_scores(self, noise_mode: str = "sym") -> dict[float, float]:
        """Accuracy on *noisy* validation labels by candidate sigma.

        That of the momentum model after the last epoch, mean over the choice seeds.
        """
        grid = self.grid(noise_mode, self.profile.sigma_choices, self.profile.choice_seeds)
        return {
            sigma: float(np.mean([run.final("momentum")["validation_accuracy"] for run in runs]))
            for sigma, runs in grid.items()
        }

    def choose_sigma(self, noise_mode: str = "sym") -> float:
        """The sigma that the study uses: the best of `validation_scores`, and of two equals the smaller.

        No true label is looked at. Where the profile names the paper's sigma, it is that.
        """
        if noise_mode in self.profile.sigmas:
            return self.profile.sigmas[noise_mode]
        scores = self.validation_scores(noise_mode)
        return max(scores, key=lambda sigma: (scores[sigma], -sigma))

    @property
    def source_of_sigma(self) -> str:
        """In words: where `choose_sigma` has it from."""
        return "the paper's" if self.profile.sigmas else "chosen on noisy validation labels"

    def corrected(self, noise_mode: str = "sym", **knobs: Any) -> list[Run]:
        """SLN-MO-LC: the chosen sigma's runs, forked at the correction epoch."""
        knobs = {"correction_losses": self.profile.correction_losses} | knobs
        return self.runs(
            noise_mode, self.choose_sigma(noise_mode), correction=self.profile.correction, **knobs
        )

    def planned(self) -> list[Config]:
        """The runs that `make reproduce` will ask for, as far as they are known before it starts.

        A sigma that is still to be chosen stands as the first candidate; that changes no count.
        """
        profile, found = self.profile, []
        for name in profile.recipes:
            found += [RECIPES[name].config(seed) for seed in self.seeds]
        if profile.recipes:  # notebook 3 compares both readings of label correction
            sigma, last = profile.sigmas["sym"], profile.correction
            found += [
                self.config("sym", sigma, seed, correction=last, correction_losses="given")
                for seed in self.seeds
            ]
        else:
            found += [self.config("sym", sigma, seed) for sigma in profile.sigma_curve for seed in self.seeds]
            for mode in profile.noise_modes:
                chosen, tried = profile.sigma_choices[0], profile.sigma_choices
                found += [self.config(mode, 0.0, seed) for seed in self.seeds]
                found += [self.config(mode, sigma, s) for sigma in tried for s in range(profile.choice_seeds)]
                found += [self.config(mode, chosen, seed) for seed in self.seeds]
                found += [
                    self.config(mode, chosen, seed, correction=profile.correction, correction_losses=losses)
                    for losses in (("given", "as-released") if mode == "sym" else ("given",))
                    for seed in self.seeds
                ]
            if profile.alphas:
                found += [
                    self.config("sym", chosen, seed, extra_alphas=list(profile.alphas)) for seed in self.seeds
                ]
        return list(dict.fromkeys(found))

    def readings(self, noise_mode: str = "sym") -> dict[str, Reading]:
        """The methods of the paper's tables, and CE read through the momentum model, by name (METHODS)."""
        plain, noisy = self.runs(noise_mode, 0.0), self.runs(noise_mode, self.choose_sigma(noise_mode))
        parts = (
            (plain, "network"),
            (plain, "momentum"),
            (noisy, "network"),
            (noisy, "momentum"),
            (self.corrected(noise_mode), "momentum"),
        )
        return {
            method: Reading(method, runs, reader)
            for method, (runs, reader) in zip(METHODS, parts, strict=True)
        }

    def check(self, claim: str, holds: bool) -> None:
        """State a claim and whether it holds. AssertionError if it does not, in a profile that asserts."""
        verdict = "holds" if holds else "DOES NOT HOLD"
        print(f"{verdict}: {claim}" + ("" if self.profile.asserts else f" (not asserted at {self.name})"))
        assert holds or not self.profile.asserts, claim

    def describe(self) -> pd.DataFrame:
        """The profile's knobs, as a table for the reader."""
        names = [field_.name for field_ in dataclasses.fields(self.profile) if field_.name != "about"]
        values = [str(getattr(self.profile, name)) for name in names]
        return pd.DataFrame({"value": values}, index=pd.Index(names, name="knob"))
