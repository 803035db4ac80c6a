"""One run's knobs: a frozen dataclass, checked when it is made, with a name that says what it is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sln.errors import InputError, choose, require

DATASETS = ("digits",)
MODELS = ("cnn",)
NOISE_MODES = ("none", "sym", "asym", "dependent", "openset")
NOISE_ON = ("labels", "logits", "gradient")
CORRECTION_LOSSES = ("given", "as-released")


def knob(default: Any, about: str) -> Any:
    """A Config field: its default, and what it is (unit, range, source); the command line shows the same."""
    return field(default=default, metadata={"about": about})


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides the numbers of one run.

    The defaults are the embedded digits at 40% symmetric noise. The names are those of the released scripts
    where these have one. Raises InputError for values outside the stated range.
    """

    dataset: str = knob("digits", f"data set: {', '.join(DATASETS)}")
    noise_mode: str = knob("sym", f"inherent noise of the given labels: {', '.join(NOISE_MODES)}")
    noise_rate: float = knob(
        0.4, "share of labels flipped to another class, or of images replaced (openset), in [0, 1]"
    )
    noise_seed: int = knob(0, "seed of the inherent noise, apart from the training's")
    model: str = knob("cnn", f"network: {', '.join(MODELS)}")
    epochs: int = knob(100, "passes over the training set")
    batch_size: int = knob(64, "examples per step; the last, smaller batch of an epoch is kept")
    lr: float = knob(0.02, "SGD step size, constant (the paper's recipe has no schedule)")
    momentum: float = knob(0.9, "SGD momentum, in [0, 1)")
    weight_decay: float = knob(5e-4, "SGD weight decay, on every parameter")
    noise_on: str = knob(
        "labels", "where the stochastic noise enters: labels (SLN), logits (variant 2), gradient (variant 1)"
    )
    sigma: float = knob(1.0, "standard deviation of the stochastic noise; 0 is plain cross-entropy (CE)")
    alpha: float = knob(
        0.99, "decay of the momentum model per optimizer step, in [0, 1); the paper's CIFAR runs use 0.999"
    )
    extra_alphas: tuple[float, ...] = knob(
        (), "decays of more momentum models read from the same run (no effect on it)"
    )
    correction: int = knob(
        -1, "last epoch before label correction starts; -1 (or any value outside 1..epochs-1) is never"
    )
    correction_losses: str = knob(
        "given", "labels that the correction's losses are against: given, or as-released"
    )
    soft_correction: bool = knob(
        False, "correct towards the predicted probabilities (Clothing1M), not the predicted class"
    )
    fork_epoch: int = knob(
        90,
        "epoch whose whole state is kept, so that a corrected run can start there; no number depends on it",
    )
    seed: int = knob(0, "seed of training: initial weights, shuffling, stochastic noise")
    threads: int = knob(1, "CPU threads; the order of sums, so the last bits, depend on it")

    def __post_init__(self) -> None:
        for knob_ in dataclasses.fields(self):
            object.__setattr__(self, knob_.name, _typed(knob_, getattr(self, knob_.name)))
        choose("dataset", self.dataset, DATASETS)
        choose("model", self.model, MODELS)
        choose("noise_mode", self.noise_mode, NOISE_MODES)
        choose("noise_on", self.noise_on, NOISE_ON)
        choose("correction_losses", self.correction_losses, CORRECTION_LOSSES)
        for name, low, high in (
            ("noise_rate", 0, 1),
            ("sigma", 0, math.inf),
            ("lr", 0, math.inf),
            ("weight_decay", 0, math.inf),
            ("epochs", 1, 100_000),
            ("batch_size", 2, 100_000),
            ("threads", 1, 1024),
            ("seed", 0, 2**32),
            ("noise_seed", 0, 2**32),
        ):
            value = getattr(self, name)
            require(
                math.isfinite(value) and low <= value <= high,
                f"{name} is {value}, allowed is [{low}, {high}]"
                if high != math.inf
                else f"{name} is {value}, allowed are finite values from {low} up",
            )
        for name, value in (
            ("momentum", self.momentum),
            ("alpha", self.alpha),
            *(("extra_alphas", a) for a in self.extra_alphas),
        ):
            require(0 <= value < 1, f"{name} is {value}, allowed is [0, 1), with 1 left out")

    @property
    def corrects(self) -> bool:
        """Whether label correction happens at all: 0 < correction < epochs, as in the released script."""
        return 0 < self.correction < self.epochs

    @property
    def uncorrected(self) -> Config:
        """The run that this one forks from: the same without correction, equal up to the correction epoch."""
        return self.replace(correction=-1, correction_losses="given", soft_correction=False)

    @property
    def stochastic_noise(self) -> str:
        """`ce`, `sln1`, `logits0.5` or `gradient0.01`: where noise enters and how strong it is."""
        if self.sigma == 0:
            return "ce"
        return f"{'sln' if self.noise_on == 'labels' else self.noise_on}{self.sigma:g}"

    @property
    def run_id(self) -> str:
        """Name of the run's directory: readable, plus a hash of every knob that decides a number."""
        inherent = "clean" if self.noise_mode == "none" else f"{self.noise_mode}{self.noise_rate:g}"
        correction = f"-lc{self.correction}" if self.corrects else ""
        return (
            f"{self.dataset}-{inherent}-{self.stochastic_noise}{correction}-seed{self.seed}-{self.digest()}"
        )

    def digest(self) -> str:
        """First 8 hex digits of the SHA-256 of every knob that decides a number."""
        knobs = {name: value for name, value in self.to_dict().items() if name != "fork_epoch"}
        return hashlib.sha256(json.dumps(knobs, sort_keys=True).encode()).hexdigest()[:8]

    def replace(self, **changes: Any) -> Config:
        """The same knobs with some changed. Raises InputError for an unknown one, naming the nearest."""
        return Config.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """The knobs as JSON-ready values."""
        return dataclasses.asdict(self) | {"extra_alphas": list(self.extra_alphas)}

    @classmethod
    def from_dict(cls, knobs: Mapping[str, Any]) -> Config:
        """A Config from some or all knobs. Raises InputError for an unknown one, naming the nearest."""
        names = [knob_.name for knob_ in dataclasses.fields(cls)]
        for name in knobs:
            choose("knob", name, names)
        return cls(**knobs)


def _typed(knob_: dataclasses.Field, value: Any) -> Any:
    """`value` as its field's type: an int becomes a float where one is asked for, all else is refused."""
    kind = {"str": str, "int": int, "float": float, "bool": bool}.get(str(knob_.type))
    if kind is None:  # extra_alphas
        return tuple(_of(knob_.name, alpha, float) for alpha in _of(knob_.name, value, tuple, list))
    return _of(knob_.name, value, kind)


def _of(name: str, value: Any, *kinds: type) -> Any:
    if kinds == (float,) and type(value) is int:
        return float(value)
    if type(value) not in kinds:
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise InputError(f"{name} is {value!r} ({type(value).__name__}), expected {expected}")
    return value
