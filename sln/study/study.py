"""A study: the runs that a profile consists of, read method by method."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

from sln import runs
from sln.config import Config
from sln.data import Data
from sln.datasets.load import load_clean
from sln.runs import parallel
from sln.runs.run import Run
from sln.study.profiles import PROFILES
from sln.utils.errors import choose, require

METHODS = ("CE", "CE-MO", "SLN", "SLN-MO", "SLN-MO-LC")

# The paper's variants 1 and 2 of SGD noise, and where they enter (`Config.noise_on`).
VARIANTS = {"gradient noise": "gradient", "logit noise": "logits"}

Choice = TypeVar("Choice", float, str)


@dataclass(frozen=True)
class Arm:
    """One method of an experiment: a configuration for every seed, and the weights it is evaluated with."""

    configs: list[Config]
    weights: str = "network"


@dataclass(frozen=True)
class MethodRuns:
    """One method: runs over seeds, read through the network or its momentum model."""

    method: str
    runs: list[Run]
    weights: str

    def final(self, column: str) -> np.ndarray:
        """(seeds,): the last epoch's value of a history column."""
        return np.array([run.final(self.weights)[column] for run in self.runs], dtype=float)

    def curve(self, column: str) -> pd.DataFrame:
        """Epochs x seeds: a history column."""
        return pd.DataFrame({run.config.seed: run.of(self.weights)[column] for run in self.runs})


class Study:
    """What a notebook asks; runs that are missing are trained.

    For example `study.readings("sym")["SLN-MO"].final("test_accuracy")`.

    guesses : for a plan: nothing is trained, and where a setting would have to be chosen from runs that are
        missing, the first candidate stands in its place
    seeds : how many runs a configuration has, instead of the profile's number; settings are chosen on as many
        as in the profile all the same

    Raises InputError for an unknown profile, naming the nearest. Sets this process's CPU threads to those of
    the profile's runs, so that what a notebook computes does not depend on the machine's processors either.
    """

    def __init__(self, profile: str, *, guesses: bool = False, seeds: int | None = None) -> None:
        choose("profile", profile, PROFILES)
        require(seeds is None or seeds >= 1, f"seeds is {seeds}, allowed are whole numbers from 1 up")
        self.name, self.guesses = profile, guesses
        self.profile = PROFILES[profile]
        if seeds is not None:
            compared = min(seeds, self.profile.comparison_seeds)
            self.profile = dataclasses.replace(self.profile, seeds=seeds, comparison_seeds=compared)
        self.candidates: list[Config] = []  # of every choice that was asked for
        self._scores: dict[tuple, dict] = {}
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

    @property
    def curve_seeds(self) -> int:
        """How many of the first seeds curves over sigma and alpha are over."""
        return self.profile.curve_seeds or self.profile.seeds

    def config(self, noise_mode: str = "sym", sigma: float = 1.0, seed: int = 0, **settings: Any) -> Config:
        """One run's configuration.

        Seed s draws the training, and the corruption too unless a label file fixes it; methods are compared
        on the same labels.
        """
        settings = {"noise_mode": noise_mode, "sigma": float(sigma), "seed": seed} | settings
        config = Config.from_dict({**self.profile.base, **settings})
        drawn = config.labels == "generated" or noise_mode == "openset"
        return config.replace(noise_seed=settings.get("noise_seed", seed if drawn else 0))

    def over_seeds(
        self, noise_mode: str = "sym", sigma: float = 1.0, seeds: int | None = None, **settings: Any
    ) -> list[Config]:
        """One configuration over all seeds, or the first few."""
        count = self.profile.seeds if seeds is None else seeds
        return [self.config(noise_mode, sigma, seed, **settings) for seed in range(count)]

    def trained(self, configs: Iterable[Config], what: str) -> list[Run]:
        """The runs of `configs`, trained where missing; corrected ones can fork from them afterwards."""
        return parallel.get_all(configs, what, keep_state_at=self.profile.correction)

    def runs(self, noise_mode: str = "sym", sigma: float = 1.0, **settings: Any) -> list[Run]:
        """The runs over all seeds of one configuration, trained where missing."""
        return self.trained(self.over_seeds(noise_mode, sigma, **settings), f"{noise_mode}, sigma {sigma:g}")

    def read(self, arms: Mapping[Any, Arm], what: str = "training") -> dict[Any, MethodRuns]:
        """The runs of an experiment's arms, trained where missing."""
        found = iter(self.trained([config for arm in arms.values() for config in arm.configs], what))
        return {
            name: MethodRuns(str(name), [next(found) for _ in arm.configs], arm.weights)
            for name, arm in arms.items()
        }

    def grid(self, noise_mode: str, sigmas: Sequence[float]) -> dict[float, list[Run]]:
        """The runs for each sigma, over the seeds that curves are over."""
        arms = {sigma: Arm(self.over_seeds(noise_mode, sigma, self.curve_seeds)) for sigma in sigmas}
        return {sigma: reading.runs for sigma, reading in self.read(arms, f"{noise_mode} noise").items()}

    def averaging(self, noise_mode: str = "sym") -> list[Config]:
        """The chosen sigma's configurations, read through momentum models of several alphas."""
        sigma, alphas = self.choose_sigma(noise_mode), list(self.profile.alphas)
        return self.over_seeds(noise_mode, sigma, self.curve_seeds, extra_alphas=alphas)

    # --- choices --------------------------------------------------------------------------------------------

    def scores(self, candidates: Mapping[Choice, Sequence[Config]]) -> dict[Choice, float]:
        """Accuracy on *noisy* validation labels by candidate; no true label is looked at.

        That of the momentum model after the last epoch, mean over the candidate's runs.
        """
        configs = [config for some in candidates.values() for config in some]
        key = tuple(configs)
        if key not in self._scores:
            found = iter(self.trained(configs, "candidates"))
            self._scores[key] = {
                candidate: float(
                    np.mean([next(found).final("momentum")["validation_accuracy"] for _ in some])
                )
                for candidate, some in candidates.items()
            }
        return self._scores[key]

    def best(self, candidates: Mapping[Choice, Sequence[Config]]) -> Choice:
        """The candidate with the best of `scores`, and of equals the first."""
        configs = [config for some in candidates.values() for config in some]
        self.candidates += configs
        if len(candidates) == 1 or (self.guesses and any(runs.find(config) is None for config in configs)):
            return next(iter(candidates))
        scores = self.scores(candidates)
        return max(scores, key=scores.__getitem__)

    def sigma_candidates(self, noise_mode: str = "sym", **settings: Any) -> dict[float, list[Config]]:
        """The runs that sigma is chosen from, by sigma, the smallest first."""
        seeds = self.profile.choice_seeds
        return {
            sigma: self.over_seeds(noise_mode, sigma, seeds, **settings)
            for sigma in sorted(self.profile.sigma_choices)
        }

    def validation_scores(self, noise_mode: str = "sym") -> dict[float, float]:
        """Accuracy on noisy validation labels by candidate sigma (`scores`)."""
        return self.scores(self.sigma_candidates(noise_mode))

    def choose_sigma(self, noise_mode: str = "sym", **settings: Any) -> float:
        """The sigma that the study uses: the best on noisy validation labels, of two equals the smaller.

        Where the profile names the paper's sigma, it is that.
        """
        if noise_mode in self.profile.sigmas:
            return self.profile.sigmas[noise_mode]
        return self.best(self.sigma_candidates(noise_mode, **settings))

    @property
    def source_of_sigma(self) -> str:
        """In words: where `choose_sigma` has it from."""
        return "the paper's" if self.profile.sigmas else "chosen on noisy validation labels"

    # --- the methods of the paper's tables ------------------------------------------------------------------

    def correcting(self, noise_mode: str = "sym", **settings: Any) -> list[Config]:
        """SLN-MO-LC: the chosen sigma's configurations, forked at the correction epoch."""
        settings = {"correction_losses": self.profile.correction_losses} | settings
        sigma = settings.pop("sigma") if "sigma" in settings else self.choose_sigma(noise_mode)
        return self.over_seeds(noise_mode, sigma, correction=self.profile.correction, **settings)

    def corrected(self, noise_mode: str = "sym", **settings: Any) -> list[Run]:
        """The runs of SLN-MO-LC."""
        return self.trained(self.correcting(noise_mode, **settings), f"{noise_mode}, label correction")

    def arms(self, noise_mode: str = "sym") -> dict[str, Arm]:
        """The methods of the paper's tables, and CE read through the momentum model, by name (METHODS)."""
        plain = self.over_seeds(noise_mode, 0.0)
        noisy = self.over_seeds(noise_mode, self.choose_sigma(noise_mode))
        parts = (
            Arm(plain, "network"),
            Arm(plain, "momentum"),
            Arm(noisy, "network"),
            Arm(noisy, "momentum"),
            Arm(self.correcting(noise_mode), "momentum"),
        )
        return dict(zip(METHODS, parts, strict=True))

    def readings(self, noise_mode: str = "sym") -> dict[str, MethodRuns]:
        """The runs of `arms`."""
        return self.read(self.arms(noise_mode), f"{noise_mode} noise")

    # --- the variants of SGD noise --------------------------------------------------------------------------

    def strengths(self, noise_on: str, noise_mode: str = "sym", seeds: int | None = None) -> dict[float, Arm]:
        """Noise on the gradient or the logits, by sigma, over all seeds or the first few."""
        sigmas = {"gradient": self.profile.gradient_sigmas, "logits": self.profile.logit_sigmas}[noise_on]
        return {s: Arm(self.over_seeds(noise_mode, s, seeds, noise_on=noise_on)) for s in sigmas}

    def matched(self, noise_mode: str = "sym") -> dict[str, Arm]:
        """Noise on the gradient and on the logits whose expected norm is SLN's: only its shape differs.

        Over the seeds of the comparison where the profile has one, which are few in `quick`.
        """
        sigma, seeds = self.choose_sigma(noise_mode), self.profile.comparison_seeds or None
        return {
            name: Arm(self.over_seeds(noise_mode, sigma, seeds, noise_on=noise_on, strength="matched"))
            for name, noise_on in VARIANTS.items()
        }

    def variant_arms(self, noise_mode: str = "sym") -> dict[str, Arm]:
        """CE and the three variants of SGD noise, each at its own best strength.

        That is chosen like SLN's sigma, on noisy validation labels. Where the profile tries no strengths, it
        is matched to SLN's.
        """
        arms = self.arms(noise_mode)
        found, matched = {"CE": arms["CE"]}, self.matched(noise_mode)
        for name, noise_on in VARIANTS.items():
            tried = self.strengths(noise_on, noise_mode, self.profile.choice_seeds)
            if tried:
                sigma = self.best({s: arm.configs for s, arm in tried.items()})
                found[name] = Arm(self.over_seeds(noise_mode, sigma, noise_on=noise_on))
            else:
                found[name] = matched[name]
        return found | {"SLN": arms["SLN"]}

    def variants(self, noise_mode: str = "sym") -> dict[str, MethodRuns]:
        """The runs of `variant_arms`."""
        return self.read(self.variant_arms(noise_mode), "variants of SGD noise")

    # --- what a notebook says -------------------------------------------------------------------------------

    def check(self, claim: str, holds: bool) -> None:
        """State a claim and whether it holds. AssertionError if it does not, in a profile that asserts."""
        verdict = "holds" if holds else "DOES NOT HOLD"
        print(f"{verdict}: {claim}" + ("" if self.profile.asserts else f" (not asserted at {self.name})"))
        assert holds or not self.profile.asserts, claim

    def describe(self) -> pd.DataFrame:
        """The profile's settings, as a table for the reader."""
        names = [field_.name for field_ in dataclasses.fields(self.profile) if field_.name != "about"]
        values = [str(getattr(self.profile, name)) for name in names]
        return pd.DataFrame({"value": values}, index=pd.Index(names, name="setting"))
