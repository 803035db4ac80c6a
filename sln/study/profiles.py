"""Profiles: how much is trained, and how finely it is analysed.

A profile lists only what differs from `Profile`'s defaults.

The embedded data set's step size was chosen by the momentum model's accuracy on noisy validation labels
(sigma 1, symmetric noise, 5 seeds): 0.566, 0.570, 0.563 and 0.562 for 0.01, 0.02, 0.05 and 0.1, so it hardly
matters. By that measure alpha = 0.99 is as good as 0.995, and better than 0.97 and 0.98.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sln.study.recipes import RECIPES, SIGMAS


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The size of a study: what is trained, and how finely it is analysed."""

    about: str
    base: Mapping[str, Any] = field(default_factory=dict)  # settings of Config that differ
    seeds: int = 5  # seed s draws the corruption and the training of run s
    noise_modes: tuple[str, ...] = ("sym", "asym", "dependent", "openset")
    # the paper's candidates; the best on noisy validation labels is used
    sigma_choices: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0)
    choice_seeds: int = 2  # seeds, from the first, that sigma is chosen on (the paper does not state its own)
    sigma_curve: tuple[float, ...] = (0.0, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0)  # accuracy over sigma
    curve_seeds: int = 0  # of curves over sigma and alpha, from the first; 0 is all
    sharpness_seeds: int = 0  # likewise
    correction: int = 90  # last epoch before label correction
    alphas: tuple[float, ...] = (0.9, 0.97, 0.997)  # momentum models beside that of Config.alpha
    # the paper's sigma by kind of noise, chosen in the same way; empty: it is chosen here
    sigmas: Mapping[str, float] = field(default_factory=dict)
    # how the table's SLN-MO-LC computes its losses; in the paper's runs: as released
    correction_losses: str = "given"
    # strengths tried for noise on the gradient and on the logits; none: they are matched to SLN's
    gradient_sigmas: tuple[float, ...] = ()
    logit_sigmas: tuple[float, ...] = ()
    # kinds of noise under which SLN is compared with other methods, and the number of seeds; none: as in full
    comparison_modes: tuple[str, ...] = ()
    comparison_seeds: int = 0
    # kinds of noise under which their settings are also chosen from `comparisons.GRIDS`
    tuned_modes: tuple[str, ...] = ()
    # ablations; none: the numbers are those of full
    noise_rates: tuple[float, ...] = ()
    schedules: tuple[str, ...] = ()
    class_counts: tuple[int, ...] = ()
    image_counts: tuple[int, ...] = ()  # training images
    image_seeds: int = 1
    # kinds of noise for which the methods are compared on drawn letters, too; none: as in full
    letters_modes: tuple[str, ...] = ()
    directions: int = 3  # pairs of random directions of a landscape
    recipes: tuple[str, ...] = ()  # the paper's experiments, trained before the notebooks run
    surface_points: int = 21  # per side of a loss surface
    landscape_images: int = 0  # images of the loss around the minima; 0 is all
    # notebook 11: number of exported digits (0 is all), settings of the fit, and number of photographs of
    # CIFAR-10 with human labels, if these are in the data folder
    own_images: int = 0
    own_fit: Mapping[str, Any] = field(default_factory=dict)
    photographs: int = 4000
    asserts: bool = True  # whether the notebooks' claims must hold


# 4,000 training and 1,000 validation images per seed, averaged down and not augmented, so that 3 seeds take
# an hour on a laptop. Chosen by the momentum model's accuracy on noisy validation labels (symmetric noise,
# seed 0): step size 0.02 rather than 0.05 (sigma 1), alpha 0.998 rather than 0.99 or 0.995 (sigma 0.5).
MINI = {
    "dataset": "cifar10",
    "model": "wrn-10-1",
    "subset": 5000,
    "held_out": 0.2,
    "test_subset": 2000,
    "downsample": 2,
    "augment": False,
    "epochs": 48,
    "batch_size": 32,
    "lr": 0.02,
    "alpha": 0.998,
    "correction": -1,
    "measure_train_every": 12,
    "measure_test_every": 2,
    "threads": 1,
}

PROFILES: dict[str, Profile] = {
    "smoke": Profile(
        about="seconds, for tests: that everything runs, not that anything is true",
        base={"epochs": 3},
        seeds=2,
        sigma_choices=(0.5, 1.0),
        sigma_curve=(0.0, 0.5, 1.0),
        correction=1,
        alphas=(0.9,),
        gradient_sigmas=(0.05,),
        logit_sigmas=(0.5, 1.0),
        comparison_modes=("sym",),
        comparison_seeds=2,
        tuned_modes=("sym",),
        noise_rates=(0.0, 0.4),
        schedules=("falling",),
        class_counts=(2, 5),
        letters_modes=("sym",),
        directions=2,
        surface_points=3,
        own_images=80,
        own_fit={"folds": 2, "epochs": 3},
        photographs=0,
        asserts=False,
    ),
    "quick": Profile(
        about="the embedded digits, four kinds of noise, 5 seeds: minutes on a laptop",
        sigma_curve=(0.0, 0.1, 0.2, 0.5, 1.0, 2.0),
        curve_seeds=3,
        sharpness_seeds=3,
        directions=2,
        gradient_sigmas=(0.05, 0.1),
        logit_sigmas=(1.0, 2.0),
        own_fit={"folds": 3},
        photographs=0,
    ),
    "full": Profile(
        about="the embedded digits: all comparisons with tuned settings, what goes beyond the paper, larger "
        "loss surfaces",
        sigma_curve=(0.0, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0),
        gradient_sigmas=(0.01, 0.02, 0.05, 0.1, 0.2),
        logit_sigmas=(0.2, 0.5, 1.0, 2.0, 4.0),
        comparison_modes=("sym", "asym", "dependent"),
        comparison_seeds=5,
        tuned_modes=("sym", "asym"),  # instance-dependent noise too would cost a quarter of an hour
        choice_seeds=3,  # five would cost ten minutes, and choose otherwise for two settings
        noise_rates=(0.0, 0.2, 0.4, 0.6, 0.8),
        schedules=("rising", "falling", "first-half", "second-half"),
        class_counts=(2, 5, 10, 26),
        letters_modes=("sym", "asym", "dependent", "openset"),
        directions=4,
        surface_points=41,
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
        about="5,000 photographs of CIFAR-10 per seed at 16x16 pixels, a small WRN, the released label files "
        "and labels by people, 3 seeds",
        base=MINI,
        seeds=3,
        noise_modes=("sym", "asym", "human-random1", "human-worst"),
        choice_seeds=1,
        sigma_curve=(0.0, 0.1, 0.2, 0.5, 1.0),
        curve_seeds=1,
        correction=40,
        alphas=(),
        image_counts=(2000, 4000, 10_000, 20_000),
        directions=2,
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
