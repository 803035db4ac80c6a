"""One run's settings: a frozen dataclass, checked when it is made, with a name that says what it is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sln.defaults import (
    BASELINES,
    CORRECTION_LOSSES,
    DATASETS,
    DEFAULTS,
    DRAWN_NOISE,
    LABELS,
    MODELS,
    NOISE_FOR,
    NOISE_MODES,
    NOISE_ON,
    NUM_CLASSES,
    PRECISIONS,
    SIGMA_SCHEDULES,
    STRENGTHS,
)
from sln.utils.errors import InputError, choose, require


def setting(default: Any, about: str) -> Any:
    """A Config field: its default, and what it is (unit, range, source); the command line shows the same."""
    return field(default=default, metadata={"about": about})


def setting_by_dataset(about: str) -> Any:
    """A Config field whose default is that of the data set, in `defaults.DEFAULTS`."""
    return setting(None, about)


# What a run keeps, not what it computes: runs that differ here alone are one run.
KEPT_SETTINGS = ("measure_test_every",)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides the numbers of one run.

    The names are those of the released scripts where these have one, and so are the defaults for CIFAR and
    Clothing1M (DEFAULTS), except `correction_losses`, whose default is the clean rule. Without label
    correction, its settings are reset to their defaults. Raises InputError for values outside the stated
    range, and for combinations that would be ignored or cannot work.
    """

    dataset: str = setting("digits", f"data set: {', '.join(DATASETS)}")
    noise_mode: str = setting_by_dataset(
        "inherent noise of the given labels: none, sym, asym, dependent, openset; human-... (CIFAR-N); own "
        "(Clothing1M's)"
    )
    noise_rate: float = setting(
        0.4, "share of labels flipped to another class, or of images replaced (openset), in [0, 1]"
    )
    noise_seed: int = setting(0, "seed of the inherent noise, apart from the training's")
    labels: str = setting_by_dataset(
        "where the wrong labels come from: released (the authors' label files), generated (drawn here), or "
        "the path of a label CSV"
    )
    classes: int = setting(0, "digits: number of classes to keep, the first ones; 0 is all ten")
    subset: int = setting(0, "CIFAR: number of training images to use, the first ones; 0 is all")
    test_subset: int = setting(0, "CIFAR: number of test images to use, the first ones; 0 is all")
    downsample: int = setting(
        1, "CIFAR: side in pixels of the squares that images are averaged over; 1 leaves them"
    )
    held_out: float = setting(
        0.0, "CIFAR: last share of the training images kept, with given labels, to choose settings on"
    )
    num_per_class: int = setting(
        18976, "Clothing1M: images a class in each epoch's class-balanced subset; -1 is all images"
    )
    skip_bad_images: bool = setting(
        False, "Clothing1M: leave out images that are missing or cannot be decoded, instead of stopping"
    )
    pretrained: bool = setting(True, "Clothing1M: start from ImageNet weights, with a new last layer")
    model: str = setting_by_dataset(f"network: {', '.join(MODELS)}")
    augment: bool = setting_by_dataset("whether training images are cropped and flipped at random")
    epochs: int = setting_by_dataset("passes over the training set")
    batch_size: int = setting_by_dataset(
        "examples per step, over all processes; the last, smaller batch of an epoch is kept"
    )
    lr: float = setting_by_dataset("SGD step size")
    lr_drop: int = setting_by_dataset("last epoch before the step size is divided by 10; 0 keeps it constant")
    momentum: float = setting(0.9, "SGD momentum, in [0, 1)")
    weight_decay: float = setting_by_dataset("SGD weight decay, on every parameter")
    noise_on: str = setting(
        "labels", "where the stochastic noise enters: labels (SLN), logits (variant 2), gradient (variant 1)"
    )
    sigma: float = setting_by_dataset(
        "standard deviation of the stochastic noise; 0 is plain cross-entropy (CE)"
    )
    strength: str = setting(
        "fixed",
        "of noise on the logits or the gradient: fixed (its own sigma), or matched (so that the noise on the "
        "gradient has the expected norm of SLN's with this sigma, in each epoch)",
    )
    sigma_schedule: str = setting("constant", f"sigma over the epochs: {', '.join(SIGMA_SCHEDULES)}")
    noise_for: str = setting(
        "all", "which examples get stochastic noise: all, or (with the truth known) right or wrong labels'"
    )
    baseline: str = setting("none", f"another method against label noise: {', '.join(BASELINES)}")
    baseline_parameter: float = setting(
        None,
        "of that method: label-smoothing epsilon, mixup alpha, gce q, sce alpha, elr "
        "lambda, sam rho, co-teaching's share that is forgotten (the noise rate)",
    )
    alpha: float = setting_by_dataset("decay of the momentum model per optimizer step, in [0, 1)")
    extra_alphas: tuple[float, ...] = setting(
        (), "decays of more momentum models read from the same run (no effect on it)"
    )
    correction: int = setting_by_dataset(
        "last epoch before label correction starts; -1 (or any value outside 1..epochs-1) is never"
    )
    correction_losses: str = setting(
        "given",
        "the correction's losses: given (labels, plain images) or as-released (labels as corrected so far, "
        "augmented images)",
    )
    soft_correction: bool = setting_by_dataset(
        "whether correction goes towards the predicted probabilities (Clothing1M), not the predicted class"
    )
    measure_train_every: int = setting_by_dataset(
        "epochs between measurements on training and validation images; the last epoch always has one"
    )
    measure_test_every: int = setting(
        1,
        "epochs between measurements on test images; the last 10 epochs always have them; no other number "
        "depends on it",
    )
    precision: str = setting(
        "float32", f"of the network's operations in training: {', '.join(PRECISIONS)} (mixed precision)"
    )
    sync_batchnorm: bool = setting(
        False,
        "Clothing1M on several GPUs: BatchNorm statistics of the whole batch, not of a part",
    )
    seed: int = setting(0, "seed of training: initial weights, shuffling, augmentation, stochastic noise")
    threads: int = setting_by_dataset("CPU threads; the order of sums, so the last bits, depend on it")

    def __post_init__(self) -> None:
        choose("dataset", self.dataset, DATASETS)
        for setting_ in dataclasses.fields(self):
            value = getattr(self, setting_.name)
            if value is None:
                value = self._unsaid(setting_.name)
            object.__setattr__(self, setting_.name, _typed(setting_, value))
        choose("model", self.model, MODELS)
        choose(f"noise_mode of {self.dataset}", self.noise_mode, NOISE_MODES[self.dataset])
        choose("precision", self.precision, PRECISIONS)
        if not self.labels.endswith(".csv"):
            choose("labels (or the path of a .csv)", self.labels, LABELS)
        choose("noise_on", self.noise_on, NOISE_ON)
        choose("strength", self.strength, STRENGTHS)
        choose("sigma_schedule", self.sigma_schedule, SIGMA_SCHEDULES)
        choose("noise_for", self.noise_for, NOISE_FOR)
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
            ("measure_test_every", 1, 100_000),
            ("classes", 0, 10),
            ("baseline_parameter", 0, math.inf),
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
        # several spellings, one run
        if self.classes == 10:
            object.__setattr__(self, "classes", 0)
        if self.sigma == 0:
            for name in ("noise_on", "strength", "sigma_schedule", "noise_for"):
                object.__setattr__(self, name, self.default(name))
        if not self.corrects:
            for name, value in (("correction", -1), ("correction_losses", "given")):
                object.__setattr__(self, name, value)
            object.__setattr__(self, "soft_correction", self.default("soft_correction"))

    def _check_combination(self) -> None:
        """Refuse what would be ignored or could not work."""
        cifar, clothing = self.dataset in ("cifar10", "cifar100"), self.dataset == "clothing1m"
        for name, of in (("subset", cifar), ("test_subset", cifar), ("held_out", cifar)):
            require(of or not getattr(self, name), f"{name} belongs to CIFAR, the data set is {self.dataset}")
        require(not clothing or self.measure_test_every == 1, "clothing1m has measure_test_every 1 only")
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
        digits = self.dataset == "digits"
        require(digits or not self.classes, f"classes belongs to the digits, the data set is {self.dataset}")
        require(self.classes != 1, "classes is 1, allowed are 0 (all) and values from 2 to 10")
        require(
            self.classes in (0, 10) or self.noise_mode in ("none", "sym", "openset"),
            f"noise_mode {self.noise_mode} needs all ten classes of the digits",
        )
        for name in ("strength", "sigma_schedule", "noise_for", "baseline"):
            usual = getattr(self, name) == self.default(name)
            require(not clothing or usual, f"{name} does not go with dataset clothing1m")
        require(
            self.strength == "fixed" or self.noise_on != "labels",
            "strength matched goes with noise_on logits or gradient: it is matched to that on the labels",
        )
        require(
            self.noise_for == "all" or self.noise_on != "gradient",
            f"noise_for {self.noise_for} goes with noise_on labels or logits: a gradient is of all examples",
        )
        self._check_baseline()

    def _check_baseline(self) -> None:
        """Refuse what does not go with the other method against label noise."""
        if self.baseline == "none":
            require(self.baseline_parameter == 0, "baseline_parameter is given, but no baseline method")
            return
        require(self.noise_on == "labels", f"baseline {self.baseline} goes with noise_on labels only")
        require(not self.corrects, f"baseline {self.baseline} does not go with label correction")
        if self.baseline == "sce":  # its reverse term is over the label's logarithm
            require(self.sigma == 0, "baseline sce does not go with stochastic label noise, use sigma 0")
        if self.baseline == "co-teaching":  # whose peer has an optimizer of its own
            require(self.lr_drop == 0, "baseline co-teaching goes with a constant lr, lr_drop 0")
        if self.baseline in ("label-smoothing", "gce", "co-teaching"):
            require(self.baseline_parameter <= 1, f"baseline_parameter of {self.baseline} is at most 1")
        if self.baseline in ("mixup", "gce"):
            require(self.baseline_parameter > 0, f"baseline_parameter of {self.baseline} is above 0")

    @property
    def num_classes(self) -> int:
        """C, the data set's number of classes."""
        return self.classes or NUM_CLASSES[self.dataset]

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
        """`ce`, `sln1`, `logits0.5`, `gradient0.01`, `gce0.7`, ...: method, noise and how strong it is."""
        noise = f"{'sln' if self.noise_on == 'labels' else self.noise_on}{self.sigma:g}" if self.sigma else ""
        if self.strength == "matched" and noise:
            noise = f"{noise}-matched"
        other = f"{self.baseline}{self.baseline_parameter:g}" if self.baseline != "none" else ""
        return "-".join(filter(None, (other, noise))) or "ce"

    @property
    def run_id(self) -> str:
        """Name of the run's directory: readable, plus a hash of every setting that is not at its default."""
        inherent = {"none": "clean"}.get(self.noise_mode, self.noise_mode)
        if self.noise_mode in DRAWN_NOISE[1:]:
            inherent += f"{self.noise_rate:g}"
        correction = f"-lc{self.correction}" if self.corrects else ""
        return (
            f"{self.dataset}-{inherent}-{self.stochastic_noise}{correction}-seed{self.seed}-{self.digest()}"
        )

    def digest(self) -> str:
        """First 8 hex digits of the SHA-256 of the settings that decide a number and are not at a default.

        The defaults of a data set may therefore never change their meaning; a new setting renames no run.
        """
        settings = {
            name: value
            for name, value in self.to_dict().items()
            if name not in KEPT_SETTINGS and value != self.default(name)
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]

    def default(self, name: str) -> Any:
        """The default of setting `name`, for this data set and this baseline."""
        defaults = {setting_.name: setting_.default for setting_ in dataclasses.fields(self)}
        return defaults[name] if defaults[name] is not None else self._unsaid(name)

    def _unsaid(self, name: str) -> Any:
        if name == "baseline_parameter":
            choose("baseline", self.baseline, BASELINES)
            published = BASELINES[self.baseline]
            return self.noise_rate if published is None else published
        return DEFAULTS[self.dataset].get(name)

    def replace(self, **changes: Any) -> Config:
        """The same settings with some changed. Raises InputError for an unknown one, naming the nearest."""
        known = self.to_dict()
        if self.baseline_parameter == self.default("baseline_parameter"):  # which may be another one's now
            del known["baseline_parameter"]
        return Config.from_dict({**known, **changes})

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-ready values."""
        return dataclasses.asdict(self) | {"extra_alphas": list(self.extra_alphas)}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> Config:
        """A Config from some or all settings. Raises InputError for an unknown one, naming the nearest."""
        names = [setting_.name for setting_ in dataclasses.fields(cls)]
        for name in settings:
            choose("setting", name, names)
        return cls(**settings)


def _typed(setting_: dataclasses.Field, value: Any) -> Any:
    """`value` as its field's type: an int becomes a float where one is asked for, all else is refused."""
    kind = {"str": str, "int": int, "float": float, "bool": bool}.get(str(setting_.type))
    if kind is None:  # extra_alphas
        return tuple(_of(setting_.name, alpha, float) for alpha in _of(setting_.name, value, tuple, list))
    return _of(setting_.name, value, kind)


def _of(name: str, value: Any, *kinds: type) -> Any:
    if kinds == (float,) and type(value) is int:
        return float(value)
    if type(value) not in kinds:
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise InputError(f"{name} is {value!r} ({type(value).__name__}), expected {expected}")
    return value
