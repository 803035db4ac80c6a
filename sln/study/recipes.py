"""The commands of the released repository by name, and plain cross-entropy beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sln.config import Config
from sln.utils.errors import choose

# sigma as the paper chose it, on noisy validation labels
SIGMAS = {
    "cifar10": {"sym": 1.0, "asym": 0.5, "dependent": 0.5, "openset": 0.5},
    "cifar100": {"sym": 0.2, "asym": 0.2, "dependent": 0.1},
    "clothing1m": {"own": 0.2},
}
CORRECTION = {"cifar10": 250, "cifar100": 250, "clothing1m": 1}


@dataclass(frozen=True)
class Recipe:
    """One training of the paper's tables.

    command : the released repository's; "" for CE, for which it has none
    reads : its methods by the weights they are evaluated with ("network", "momentum")
    settings : differences from the data set's defaults (`config.per`)
    """

    name: str
    dataset: str
    noise: str
    command: str
    reads: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)

    def config(self, seed: int = 0, **settings: Any) -> Config:
        """Its configuration for one seed.

        The released label files are the same for every seed. Open-set noise is drawn per seed: the released
        script draws it from a generator that it never seeds.
        """
        drawn = {"noise_seed": seed} if self.noise == "openset" else {}
        return Config.from_dict({"dataset": self.dataset, "seed": seed} | drawn | self.settings | settings)


def _recipes() -> dict[str, Recipe]:
    found = []
    for dataset, sigmas in SIGMAS.items():
        for noise, sigma in sigmas.items():
            start = dataset if dataset == "clothing1m" else f"{dataset}-{noise}"
            plain = {"noise_mode": noise, "correction": -1}
            found.append(Recipe(f"{start}-ce", dataset, noise, "", {"network": "CE"}, plain | {"sigma": 0.0}))
            reads = {"network": "SLN", "momentum": "SLN-MO"}
            noisy = plain | {"sigma": sigma}
            found.append(Recipe(f"{start}-sln", dataset, noise, _command(dataset, noise, -1), reads, noisy))
            last = CORRECTION[dataset]
            corrected = noisy | {"correction": last, "correction_losses": "as-released"}
            found.append(
                Recipe(
                    f"{start}-sln-mo-lc",
                    dataset,
                    noise,
                    _command(dataset, noise, last),
                    {"momentum": "SLN-MO-LC"},
                    corrected,
                )
            )
    return {recipe.name: recipe for recipe in found}


def _command(dataset: str, noise: str, correction: int) -> str:
    sigma = SIGMAS[dataset][noise]
    if dataset == "clothing1m":
        return f"noise_clothing1m_train.py --sigma {sigma} --correction {correction}"
    command = f"noise_cifar_train.py --sigma {sigma} --noise_mode {noise} --correction {correction}"
    if dataset == "cifar100":
        command += " --dataset cifar100 --num_class 100 --datapath ./data/CIFAR100"
    return command


RECIPES = _recipes()


def recipe(name: str) -> Recipe:
    """The recipe of that name. Raises InputError for an unknown one, naming the nearest."""
    choose("recipe", name, RECIPES)
    return RECIPES[name]


# Settings that change no reported number, or only its last bits.
BESIDE_THE_POINT = ("measure_test_every", "measure_train_every", "extra_alphas", "threads")


def recipe_of(config: Config) -> Recipe | None:
    """The recipe that `config` is one seed of, or None."""
    for recipe in RECIPES.values():
        if recipe.dataset != config.dataset:
            continue
        ours = recipe.config(config.seed)
        if ours.replace(**{name: getattr(config, name) for name in BESIDE_THE_POINT}) == config:
            return recipe
    return None
