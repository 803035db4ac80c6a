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

DATASETS = ("digits", "cifar10", "cifar100", "clothing1m")
NUM_CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100, "clothing1m": 14}
MODELS = ("cnn", "wrn-28-2", "wrn-10-1", "resnet50", "resnet18")
NOISE_ON = ("labels", "logits", "gradient")
CORRECTION_LOSSES = ("given", "as-released")
LABELS = ("generated", "released")
PRECISIONS = ("float32", "bfloat16")

DRAWN_NOISE = ("none", "sym", "asym", "dependent", "openset")
HUMAN_NOISE = {
    "cifar10": ("human-aggregate", "human-random1", "human-random2", "human-random3", "human-worst"),
    "cifar100": ("human",),
}
# The released script, too, knows open-set noise on CIFAR-10 only. Clothing1M's wrong labels are its own.
NOISE_MODES = {
    "digits": DRAWN_NOISE,
    "cifar10": DRAWN_NOISE + HUMAN_NOISE["cifar10"],
    "cifar100": (*DRAWN_NOISE[:4], *HUMAN_NOISE["cifar100"]),
    "clothing1m": ("own",),
}

# What a knob is where nothing is said, by data set. CIFAR's and Clothing1M's are the released scripts'.
_CIFAR = {
    "model": "wrn-28-2",
    "noise_mode": "dependent",
    "labels": "released",
    "augment": True,
    "epochs": 300,
    "batch_size": 128,
    "lr": 0.001,
    "lr_drop": 0,
    "weight_decay": 5e-4,
    "sigma": 0.5,
    "alpha": 0.999,
    "correction": 250,
    "soft_correction": False,
    "fork_epoch": 250,
    "measure_train_every": 10,
    "threads": 2,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {
        "model": "cnn",
        "noise_mode": "sym",
        "labels": "generated",
        "augment": False,
        "epochs": 100,
        "batch_size": 64,
        "lr": 0.02,
        "lr_drop": 0,
        "weight_decay": 5e-4,
        "sigma": 1.0,
        "alpha": 0.99,
        "correction": -1,
        "soft_correction": False,
        "fork_epoch": 90,
        "measure_train_every": 1,
        "threads": 1,
    },
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "clothing1m": {
        "model": "resnet50",
        "noise_mode": "own",
        "labels": "released",
        "augment": True,
        "epochs": 10,
        "batch_size": 32,
        "lr": 0.001,
        "lr_drop": 5,
        "weight_decay": 1e-3,
        "sigma": 0.2,
        "alpha": 0.999,
        "correction": 1,
        "soft_correction": True,
        "fork_epoch": 1,
        "measure_train_every": 1,
        "threads": 2,
    },
}


def knob(default: Any, about: str) -> Any:
    """A Config field: its default, and what it is (unit, range, source); the command line shows the same."""
    return field(default=default, metadata={"about": about})


def knob_by_dataset(about: str) -> Any:
    """A Config field whose default is that of the data set, in DEFAULTS."""
    return knob(None, about)


# The knobs that the first version had. Any other enters a run's name only where it is not at its default, so
# that a new knob renames no run that was trained without it.
FIRST_KNOBS = (
    *("dataset", "noise_mode", "noise_rate", "noise_seed", "model", "epochs", "batch_size", "lr", "momentum"),
    *("weight_decay", "noise_on", "sigma", "alpha", "extra_alphas", "correction", "correction_losses"),
    *("soft_correction", "seed", "threads"),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides the numbers of one run.

    The names are those of the released scripts where these have one, and so are the defaults for CIFAR and
    Clothing1M (DEFAULTS), but for `correction_losses`, whose default is the clean rule. Where nothing is
    corrected, the knobs of the correction are at their defaults, whatever was said. Raises InputError for
    values outside the stated range, and for combinations that would be ignored or cannot work.
    """

    dataset: str = knob("digits", f"data set: {', '.join(DATASETS)}")
    noise_mode: str = knob_by_dataset(
        "inherent noise of the given labels: none, sym, asym, dependent, openset; human-... (CIFAR-N); own "
        "(Clothing1M's)"
    )
    noise_rate: float = knob(
        0.4, "share of labels flipped to another class, or of images replaced (openset), in [0, 1]"
    )
    noise_seed: int = knob(0, "seed of the inherent noise, apart from the training's")
    labels: str = knob_by_dataset(
        "where the wrong labels come from: released (the authors' label files), generated (drawn here), or "
        "the path of a label CSV"
    )
    subset: int = knob(0, "CIFAR: use the first so many training images; 0 is all")
    test_subset: int = knob(0, "CIFAR: use the first so many test images; 0 is all")
    downsample: int = knob(1, "CIFAR: average images over squares of so many pixels a side; 1 leaves them")
    held_out: float = knob(
        0.0, "CIFAR: last share of the training images kept, with given labels, to choose settings on"
    )
    num_per_class: int = knob(
        18976, "Clothing1M: images a class in each epoch's class-balanced subset; -1 is all images"
    )
    skip_bad_images: bool = knob(
        False, "Clothing1M: leave out images that are missing or cannot be decoded, instead of stopping"
    )
    pretrained: bool = knob(True, "Clothing1M: start from ImageNet weights, with a new last layer")
    model: str = knob_by_dataset(f"network: {', '.join(MODELS)}")
    augment: bool = knob_by_dataset("whether training images are cropped and flipped at random")
    epochs: int = knob_by_dataset("passes over the training set")
    batch_size: int = knob_by_dataset(
        "examples per step, over all processes; the last, smaller batch of an epoch is kept"
    )
    lr: float = knob_by_dataset("SGD step size")
    lr_drop: int = knob_by_dataset("last epoch before the step size is divided by 10; 0 keeps it constant")
    momentum: float = knob(0.9, "SGD momentum, in [0, 1)")
    weight_decay: float = knob_by_dataset("SGD weight decay, on every parameter")
    noise_on: str = knob(
        "labels", "where the stochastic noise enters: labels (SLN), logits (variant 2), gradient (variant 1)"
    )
    sigma: float = knob_by_dataset(
        "standard deviation of the stochastic noise; 0 is plain cross-entropy (CE)"
    )
    alpha: float = knob_by_dataset("decay of the momentum model per optimizer step, in [0, 1)")
    extra_alphas: tuple[float, ...] = knob(
        (), "decays of more momentum models read from the same run (no effect on it)"
    )
    correction: int = knob_by_dataset(
        "last epoch before label correction starts; -1 (or any value outside 1..epochs-1) is never"
    )
    correction_losses: str = knob(
        "given",
        "the correction's losses: given (labels, plain images) or as-released (labels as corrected so far, "
        "augmented images)",
    )
    soft_correction: bool = knob_by_dataset(
        "whether correction goes towards the predicted probabilities (Clothing1M), not the predicted class"
    )
    fork_epoch: int = knob_by_dataset(
        "epoch whose whole state is kept, so that a corrected run can start there; no number depends on it"
    )
    measure_train_every: int = knob_by_dataset(
        "epochs between measurements on the training set; the last epoch always has one"
    )
    precision: str = knob(
        "float32", f"of the network's operations in training: {', '.join(PRECISIONS)} (mixed precision)"
    )
    sync_batchnorm: bool = knob(
        False,
        "Clothing1M on several GPUs: BatchNorm statistics of the whole batch, not of a part",
    )
    seed: int = knob(0, "seed of training: initial weights, shuffling, augmentation, stochastic noise")
    threads: int = knob_by_dataset("CPU threads; the order of sums, so the last bits, depend on it")

    def __post_init__(self) -> None:
        choose("dataset", self.dataset, DATASETS)
        for knob_ in dataclasses.fields(self):
            value = getattr(self, knob_.name)
            if value is None:
                value = DEFAULTS[self.dataset].get(knob_.name)
            object.__setattr__(self, knob_.name, _typed(knob_, value))
        choose("model", self.model, MODELS)
        choose(f"noise_mode of {self.dataset}", self.noise_mode, NOISE_MODES[self.dataset])
        choose("precision", self.precision, PRECISIONS)
        if not self.labels.endswith(".csv"):
            choose("labels (or the path of a .csv)", self.labels, LABELS)
        choose("noise_on", self.noise_on, NOISE_ON)
        choose("correction_losses", self.correction_losses, CORRECTION_LOSSES)
        for name, low, high in (
            ("noise_rate", 0, 1),
            ("sigma", 0, math.inf),
            ("lr", 0, math.inf),
            ("weight_decay", 0, math.inf),
            ("epochs", 1, 100_000),
            ("batch_size", 2, 100_000),
            ("lr_drop", 0, 100_000),
            ("measure_train_every", 1, 100_000),
            ("subset", 0, 10_000_000),
            ("test_subset", 0, 10_000_000),
            ("num_per_class", -1, 10_000_000),
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
            ("held_out", self.held_out),
            *(("extra_alphas", a) for a in self.extra_alphas),
        ):
            require(0 <= value < 1, f"{name} is {value}, allowed is [0, 1), with 1 left out")
        self._check_combination()
        if not self.corrects:  # several spellings, one run
            for name, value in (("correction", -1), ("correction_losses", "given")):
                object.__setattr__(self, name, value)
            object.__setattr__(self, "soft_correction", self.default("soft_correction"))

    def _check_combination(self) -> None:
        """Refuse what would be ignored or could not work."""
        cifar, clothing = self.dataset in ("cifar10", "cifar100"), self.dataset == "clothing1m"
        for name, of in (("subset", cifar), ("test_subset", cifar), ("held_out", cifar)):
            require(of or not getattr(self, name), f"{name} belongs to CIFAR, the data set is {self.dataset}")
        for name in ("sync_batchnorm", "skip_bad_images", "num_per_class", "pretrained"):
            usual = getattr(self, name) == self.default(name)
            require(clothing or usual, f"{name} belongs to dataset clothing1m")
        own_file = self.labels.endswith(".csv")
        require(
            not own_file or self.noise_mode in DRAWN_NOISE[1:],
            f"labels from {self.labels} do not go with noise_mode {self.noise_mode}, "
            f"only with {', '.join(DRAWN_NOISE[1:])}",
        )
        require(not clothing or self.labels == "released", "clothing1m has its own labels only")
        require(cifar or self.downsample == 1, f"downsample belongs to CIFAR, the data set is {self.dataset}")
        require(
            self.downsample in (1, 2, 4),
            f"downsample is {self.downsample}, allowed are 1, 2 and 4 (images have 32 pixels a side)",
        )
        require(
            self.model.startswith("resnet") == clothing,
            f"model {self.model} does not go with dataset {self.dataset}",
        )
        require(not self.augment or self.dataset != "digits", "the digits have no augmentation")
        require(
            self.dataset != "digits" or self.labels != "released",
            "there are no released labels of the digits; use labels generated or the path of a label CSV",
        )
        require(self.num_per_class != 0, "num_per_class is 0, allowed are -1 (all) and values from 1 up")
        require(not clothing or self.noise_on == "labels", "clothing1m has noise_on labels only")
        require(not clothing or not self.extra_alphas, "clothing1m has one momentum model, no extra_alphas")

    @property
    def num_classes(self) -> int:
        """C, the data set's number of classes."""
        return NUM_CLASSES[self.dataset]

    @property
    def corrects(self) -> bool:
        """Whether label correction happens at all: 0 < correction < epochs, as in the released script."""
        return 0 < self.correction < self.epochs

    @property
    def uncorrected(self) -> Config:
        """The run that this one forks from: the same without correction, equal up to the correction epoch."""
        return self.replace(correction=-1)

    @property
    def stochastic_noise(self) -> str:
        """`ce`, `sln1`, `logits0.5` or `gradient0.01`: where noise enters and how strong it is."""
        if self.sigma == 0:
            return "ce"
        return f"{'sln' if self.noise_on == 'labels' else self.noise_on}{self.sigma:g}"

    @property
    def run_id(self) -> str:
        """Name of the run's directory: readable, plus a hash of every knob that decides a number."""
        inherent = {"none": "clean"}.get(self.noise_mode, self.noise_mode)
        if self.noise_mode in DRAWN_NOISE[1:]:
            inherent += f"{self.noise_rate:g}"
        correction = f"-lc{self.correction}" if self.corrects else ""
        return (
            f"{self.dataset}-{inherent}-{self.stochastic_noise}{correction}-seed{self.seed}-{self.digest()}"
        )

    def digest(self) -> str:
        """First 8 hex digits of the SHA-256 of every knob that decides a number."""
        knobs = {}
        for name, value in self.to_dict().items():
            usual = value == self.default(name)
            if name in FIRST_KNOBS or not (usual or name == "fork_epoch"):
                knobs[name] = value
        return hashlib.sha256(json.dumps(knobs, sort_keys=True).encode()).hexdigest()[:8]

    def default(self, name: str) -> Any:
        """What knob `name` is for this data set where nothing is said."""
        defaults = {knob_.name: knob_.default for knob_ in dataclasses.fields(self)}
        return defaults[name] if defaults[name] is not None else DEFAULTS[self.dataset][name]

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
