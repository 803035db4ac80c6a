"""A study: the runs that a profile consists of, method by method."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import pandas as pd

from sln import runs
from sln.config import Config
from sln.data import Data
from sln.datasets.load import draw_corruption, load_clean
from sln.noise import Corruption
from sln.runs import parallel
from sln.runs.run import Run
from sln.study.profiles import PROFILES
from sln.study.statistics import Arm, MethodRuns
from sln.utils.errors import choose, require
from sln.utils.files import figures_folder, write_atomically, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = ("CE", "CE-MO", "SLN", "SLN-MO", "SLN-MO-LC")

# The paper's variants 1 and 2 of SGD noise, and where they enter (`Config.noise_on`).
VARIANTS = {"gradient noise": "gradient", "logit noise": "logits"}

Choice = TypeVar("Choice", float, str)


class Study:
    """The runs and figures of one profile; runs that are missing are trained.

    For example `study.methods("sym")["SLN-MO"].final("test_accuracy")`.

    guesses : for a plan: nothing is trained, and a setting that would be chosen from missing runs is the
        first candidate
    seeds : runs per configuration, instead of the profile's number; the number of runs that settings are
        chosen on stays the profile's

    Raises InputError for an unknown profile, naming the nearest.
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
        self.dependent: list[Config] = []  # the same, of choices at what another choice gave
        self.chosen: dict[tuple, Any] = {}  # what was chosen, by candidates
        self._scores: dict[tuple, dict] = {}

    @property
    def dataset(self) -> str:
        """The data set of the notebooks."""
        return self.config().dataset

    @property
    def clean(self) -> Data:
        """That data set with true labels."""
        return load_clean(self.config())

    def corruptions(self) -> dict[str, Corruption]:
        """The training labels of seed 0 under each of the profile's kinds of noise."""
        return {mode: draw_corruption(self.config(mode)) for mode in self.profile.noise_modes}

    @property
    def seeds(self) -> range:
        """The seeds of every configuration's runs."""
        return range(self.profile.seeds)

    @property
    def curve_seeds(self) -> int:
        """Number of seeds, from the first, of curves over sigma and alpha."""
        return self.profile.curve_seeds or self.profile.seeds

    def config(self, noise_mode: str = "sym", sigma: float = 1.0, seed: int = 0, **settings: Any) -> Config:
        """One run's configuration.

        The seed draws the training, and the wrong labels too unless a label file fixes them, and it is the
        fold of the data; all methods are compared on the same images and labels.
        """
        settings = {"noise_mode": noise_mode, "sigma": float(sigma), "seed": seed} | settings
        config = Config.from_dict({**self.profile.base, **settings})
        drawn = config.labels == "generated" or noise_mode == "openset"
        noise_seed = seed if drawn else 0
        return config.replace(**{"noise_seed": noise_seed, "fold": seed} | settings)

    def over_seeds(
        self, noise_mode: str = "sym", sigma: float = 1.0, seeds: int | None = None, **settings: Any
    ) -> list[Config]:
        """One configuration for every seed, or for the first `seeds`."""
        count = self.profile.seeds if seeds is None else seeds
        return [self.config(noise_mode, sigma, seed, **settings) for seed in range(count)]

    def trained(self, configs: Iterable[Config], what: str) -> list[Run]:
        """The runs of `configs`, trained where missing; corrected ones can fork from them afterwards."""
        return parallel.get_all(configs, what, keep_state_at=self.profile.correction)

    def runs(self, noise_mode: str = "sym", sigma: float = 1.0, **settings: Any) -> list[Run]:
        """The runs of one configuration for every seed, trained where missing."""
        return self.trained(self.over_seeds(noise_mode, sigma, **settings), f"{noise_mode}, sigma {sigma:g}")

    def runs_of(self, arms: Mapping[Any, Arm], what: str = "training") -> dict[Any, MethodRuns]:
        """The runs of an experiment's arms, trained where missing."""
        found = iter(self.trained([config for arm in arms.values() for config in arm.configs], what))
        return {
            name: MethodRuns(str(name), [next(found) for _ in arm.configs], arm.weights)
            for name, arm in arms.items()
        }

    def grid(self, noise_mode: str, sigmas: Sequence[float]) -> dict[float, MethodRuns]:
        """The runs by sigma, over the seeds of curves."""
        arms = {sigma: Arm(self.over_seeds(noise_mode, sigma, self.curve_seeds)) for sigma in sigmas}
        return self.runs_of(arms, f"{noise_mode} noise")

    def averaging(self, noise_mode: str = "sym") -> list[Config]:
        """The chosen sigma's configurations, with a momentum model of each of the profile's alphas."""
        sigma, alphas = self.choose_sigma(noise_mode), list(self.profile.alphas)
        return self.over_seeds(noise_mode, sigma, self.curve_seeds, extra_alphas=alphas)

    def averaged(self, noise_mode: str = "sym") -> MethodRuns:
        """The runs of `averaging`."""
        arms = {"SLN-MO": Arm(self.averaging(noise_mode), "momentum")}
        return self.runs_of(arms, "several alphas")["SLN-MO"]

    # --- choices --------------------------------------------------------------------------------------------

    def scores(self, candidates: Mapping[Choice, Sequence[Config]]) -> dict[Choice, float]:
        """Accuracy on *noisy* validation labels by candidate; no true label is used.

        It is the momentum model's after the last epoch, mean over the candidate's runs.
        """
        key = tuple(config for configs in candidates.values() for config in configs)
        if key not in self._scores:
            arms = {name: Arm(list(configs), "momentum") for name, configs in candidates.items()}
            found = self.runs_of(arms, "candidates")
            self._scores[key] = {n: float(r.final("validation_accuracy").mean()) for n, r in found.items()}
        return self._scores[key]

    def best(self, candidates: Mapping[Choice, Sequence[Config]]) -> Choice:
        """The candidate with the best of `scores`; of equals the first."""
        configs = [config for some in candidates.values() for config in some]
        self.candidates += configs
        if len(candidates) == 1 or (self.guesses and any(runs.find(config) is None for config in configs)):
            return next(iter(candidates))
        scores = self.scores(candidates)
        return max(scores, key=scores.__getitem__)

    def sigma_candidates(self, noise_mode: str = "sym", **settings: Any) -> dict[float, list[Config]]:
        """The configurations that sigma is chosen from, by sigma, the smallest first."""
        seeds = self.profile.choice_seeds
        return {
            sigma: self.over_seeds(noise_mode, sigma, seeds, **settings)
            for sigma in sorted(self.profile.sigma_choices)
        }

    def validation_scores(self, noise_mode: str = "sym") -> dict[float, float]:
        """Accuracy on noisy validation labels by candidate sigma (`scores`)."""
        return self.scores(self.sigma_candidates(noise_mode))

    def choose_sigma(self, noise_mode: str = "sym", **settings: Any) -> float:
        """The study's sigma: the best on noisy validation labels, of equals the smallest.

        It is the paper's if the profile names that.
        """
        if noise_mode in self.profile.sigmas:
            return self.profile.sigmas[noise_mode]
        return self.best(self.sigma_candidates(noise_mode, **settings))

    @property
    def source_of_sigma(self) -> str:
        """The source of `choose_sigma`, in words."""
        return "the paper's" if self.profile.sigmas else "chosen on noisy validation labels"

    # --- the methods of the paper's tables ------------------------------------------------------------------

    def correcting(self, noise_mode: str = "sym", **settings: Any) -> list[Config]:
        """SLN-MO-LC: the chosen sigma's configurations with label correction."""
        settings = {"correction_losses": self.profile.correction_losses} | settings
        sigma = settings.pop("sigma") if "sigma" in settings else self.choose_sigma(noise_mode)
        return self.over_seeds(noise_mode, sigma, correction=self.profile.correction, **settings)

    def corrected(self, noise_mode: str = "sym", **settings: Any) -> MethodRuns:
        """The runs of `correcting`."""
        name, what = "SLN-MO-LC", f"{noise_mode}, label correction"
        return self.runs_of({name: Arm(self.correcting(noise_mode, **settings), "momentum")}, what)[name]

    def arms(self, noise_mode: str = "sym", **settings: Any) -> dict[str, Arm]:
        """The methods of the paper's tables, and CE's momentum model, by name (METHODS)."""
        sigma = self.choose_sigma(noise_mode, **settings)
        plain = self.over_seeds(noise_mode, 0.0, **settings)
        noisy = self.over_seeds(noise_mode, sigma, **settings)
        parts = (
            Arm(plain, "network"),
            Arm(plain, "momentum"),
            Arm(noisy, "network"),
            Arm(noisy, "momentum"),
            Arm(self.correcting(noise_mode, sigma=sigma, **settings), "momentum"),
        )
        return dict(zip(METHODS, parts, strict=True))

    def methods(self, noise_mode: str = "sym", **settings: Any) -> dict[str, MethodRuns]:
        """The runs of `arms`; `settings` are those of `Config`, such as another `dataset`."""
        return self.runs_of(self.arms(noise_mode, **settings), f"{noise_mode} noise")

    # --- the variants of SGD noise --------------------------------------------------------------------------

    def strengths(self, noise_on: str, noise_mode: str = "sym", seeds: int | None = None) -> dict[float, Arm]:
        """Noise on the gradient or the logits, by sigma, for every seed or the first `seeds`."""
        sigmas = {"gradient": self.profile.gradient_sigmas, "logits": self.profile.logit_sigmas}[noise_on]
        return {s: Arm(self.over_seeds(noise_mode, s, seeds, noise_on=noise_on)) for s in sigmas}

    def matched(self, noise_mode: str = "sym") -> dict[str, Arm]:
        """Noise on the gradient and on the logits of the same expected norm as SLN's: only its shape differs.

        For the seeds of the comparison if the profile has one; they are few in `quick`.
        """
        sigma, seeds = self.choose_sigma(noise_mode), self.profile.comparison_seeds or None
        return {
            name: Arm(self.over_seeds(noise_mode, sigma, seeds, noise_on=noise_on, strength="matched"))
            for name, noise_on in VARIANTS.items()
        }

    def variant_arms(self, noise_mode: str = "sym") -> dict[str, Arm]:
        """CE and the three variants of SGD noise, each at its own best strength.

        The strength is chosen like SLN's sigma, on noisy validation labels, or matched to SLN's if the
        profile tries no strengths.
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
        return self.runs_of(self.variant_arms(noise_mode), "variants of SGD noise")

    # --- what a notebook writes -----------------------------------------------------------------------------

    def save(self, figure: Figure, table: pd.DataFrame, name: str, shows: str) -> Figure:
        """Write <name>.png, and <name>.csv with its numbers, to figures/<profile>/; returns the figure.

        shows : a sentence, what the picture shows and how to read it: its caption and alternative text
        """
        folder = figures_folder(self.name)
        figure.set_label(shows)
        index = not isinstance(table.index, pd.RangeIndex)
        text = table.to_csv(index=index, lineterminator="\n", float_format="%.6g")
        write_text(folder / f"{name}.csv", text)
        picture = {"metadata": {"Software": "sln"}}
        write_atomically(folder / f"{name}.png", lambda temporary: figure.savefig(temporary, **picture))
        return figure

    def check(self, claim: str, holds: bool) -> None:
        """State a claim and whether it holds. AssertionError if it does not, in a profile that asserts."""
        verdict = "holds" if holds else "DOES NOT HOLD"
        print(f"{verdict}: {claim}" + ("" if self.profile.asserts else f" (not asserted at {self.name})"))
        assert holds or not self.profile.asserts, claim

    def describe(self) -> pd.DataFrame:
        """The profile's settings, one row per setting."""
        names = [field_.name for field_ in dataclasses.fields(self.profile) if field_.name != "about"]
        values = [str(getattr(self.profile, name)) for name in names]
        return pd.DataFrame({"value": values}, index=pd.Index(names, name="setting"))
