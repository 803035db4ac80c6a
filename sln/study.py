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
from sln.errors import choose
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
    surface_points: int = 21  # a side, for loss surfaces
    asserts: bool = True  # whether the notebooks' claims must hold


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
    def seeds(self) -> range:
        """The seeds of every configuration's runs."""
        return range(self.profile.seeds)

    def config(self, noise_mode: str = "sym", sigma: float = 1.0, seed: int = 0, **knobs: Any) -> Config:
        """One run's configuration.

        Seed s draws both the corruption and the training, so methods are compared on the same labels.
        """
        knobs = {"noise_mode": noise_mode, "sigma": float(sigma), "seed": seed, "noise_seed": seed} | knobs
        return Config.from_dict({**self.profile.base, **knobs})

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

        No true label is looked at.
        """
        scores = self.validation_scores(noise_mode)
        return max(scores, key=lambda sigma: (scores[sigma], -sigma))

    def corrected(self, noise_mode: str = "sym", **knobs: Any) -> list[Run]:
        """SLN-MO-LC: the chosen sigma's runs, forked at the correction epoch."""
        return self.runs(
            noise_mode, self.choose_sigma(noise_mode), correction=self.profile.correction, **knobs
        )

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
