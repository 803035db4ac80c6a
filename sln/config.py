"""The settings of one run, each declared once: its default, meaning and allowed values.

`Config` checks them and names the run after them. Names and, for CIFAR and Clothing1M, defaults are those of
the released scripts, except `correction_losses`, whose default is the clean rule.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sln.utils.errors import choose, require
from sln.utils.settings import BELOW_ONE, MANY, NOT_NEGATIVE, SEED, SHARE, Range, per, setting, typed

DATASETS = ("digits", "letters", "cifar10", "cifar100", "clothing1m")
EMBEDDED = ("digits", "letters")  # no download, and runs take seconds
CIFAR = ("cifar10", "cifar100")
CLOTHING = ("clothing1m",)
IN_MEMORY = (*EMBEDDED, *CIFAR)
NUM_CLASSES = {"digits": 10, "letters": 10, "cifar10": 10, "cifar100": 100, "clothing1m": 14}

DRAWN_NOISE = ("none", "sym", "asym", "dependent", "openset")
HUMAN_NOISE = {
    "cifar10": ("human-aggregate", "human-random1", "human-random2", "human-random3", "human-worst"),
    "cifar100": ("human",),
}
# The released script, too, has open-set noise on CIFAR-10 only. Clothing1M comes with its wrong labels.
NOISE_MODES = {
    "digits": DRAWN_NOISE,
    "letters": DRAWN_NOISE,
    "cifar10": DRAWN_NOISE + HUMAN_NOISE["cifar10"],
    "cifar100": (*DRAWN_NOISE[:4], *HUMAN_NOISE["cifar100"]),
    "clothing1m": ("own",),
}
MODELS = ("cnn", "frozen", "linear", "wrn-28-2", "wrn-10-1", "resnet50", "resnet18")
NOISE_ON = ("labels", "logits", "gradient")
CORRECTION_WEIGHTS = ("loss", "reversed", "none", "mixture")
SIGMA_SCHEDULES = ("constant", "rising", "falling", "first-half", "second-half")
# as figures and tables show them
NOISE_NAMES = {"sym": "symmetric", "asym": "asymmetric", "dependent": "instance-dependent"}
NOISE_NAMES |= {"openset": "open-set", "none": "none", "own": "of its own"}
NOISE_NAMES |= {"human-random1": "human (random1)", "human-worst": "human (worst)"}

# Other methods (`baselines`): the parameter as published for symmetric label noise of about this rate, for
# MNIST where its paper has several data sets (`comparisons.published` has other kinds of noise), and its
# range. Co-teaching's is the noise rate, which its paper takes as known. Forward correction has none.
BASELINES: dict[str, tuple[float | None, Range]] = {
    "none": (0.0, Range(0, 0)),
    "label-smoothing": (0.1, SHARE),
    "mixup": (32.0, Range(0, above=True)),
    "gce": (0.7, Range(0, 1, above=True)),
    "sce": (0.01, NOT_NEGATIVE),
    "elr": (3.0, NOT_NEGATIVE),
    "forward": (0.0, Range(0, 0)),
    "confidence-penalty": (1.0, NOT_NEGATIVE),
    "sam": (0.1, NOT_NEGATIVE),
    "co-teaching": (None, SHARE),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides the numbers of one run.

    Raises InputError for values and combinations that are not allowed. Without label correction its settings
    are reset to their defaults, and those of stochastic noise without it, so that one run has one name.
    """

    dataset: str = setting("digits", "data set", DATASETS)
    noise_mode: str = setting(
        per("sym", "dependent", "own"),
        "inherent noise of the given labels; human-... is CIFAR-N's, own is Clothing1M's",
        NOISE_MODES,
    )
    noise_rate: float = setting(
        0.4, "share of labels flipped to another class, or of images replaced (openset), in [0, 1]", SHARE
    )
    noise_seed: int = setting(0, "seed of the inherent noise, apart from the training's", SEED)
    labels: str = setting(
        per("generated", "released", "released"),
        "released (the authors' label files), generated (drawn here), or the path of a label CSV",
    )
    fold: int = setting(
        0,
        "of the digits, which fifth is tested (mod 5); of the letters, which images; of a CIFAR subset, "
        "which block",
        SEED,
        IN_MEMORY,
    )
    classes: int = setting(
        0, "classes to keep, the first ones of digits or letters; 0 is ten", Range(0, 26), EMBEDDED
    )
    subset: int = setting(0, "training images to use, a block of them; 0 is all", Range(0, MANY), CIFAR)
    test_subset: int = setting(0, "test images to use, a block of them; 0 is all", Range(0, MANY), CIFAR)
    downsample: int = setting(1, "images are averaged over squares of this side in pixels", None, CIFAR)
    held_out: float = setting(
        0.0, "last share of the training images, held out to choose settings on", BELOW_ONE, CIFAR
    )
    num_per_class: int = setting(
        18976, "images per class in each epoch's class-balanced subset; -1 is all", Range(-1, MANY), CLOTHING
    )
    skip_bad_images: bool = setting(
        False, "leave out the images that `sln data check clothing1m` has listed", only=CLOTHING
    )
    pretrained: bool = setting(True, "start from ImageNet weights, with a new last layer", only=CLOTHING)
    model: str = setting(per("cnn", "wrn-28-2", "resnet50"), "network", MODELS)
    augment: bool = setting(per(False, True, True), "crop and flip training images at random")
    epochs: int = setting(per(100, 300, 10), "passes over the training set", Range(1, 100_000))
    batch_size: int = setting(
        per(64, 128, 32), "examples per step, over all processes; the last one is smaller", Range(2, MANY)
    )
    lr: float = setting(per(0.02, 0.001, 0.001), "SGD step size", NOT_NEGATIVE)
    lr_drop: int = setting(
        per(0, 0, 5), "last epoch before the step size is divided by 10; 0 keeps it constant", Range(0, MANY)
    )
    momentum: float = setting(0.9, "SGD momentum, in [0, 1)", BELOW_ONE)
    weight_decay: float = setting(per(5e-4, 5e-4, 1e-3), "SGD weight decay, on every parameter", NOT_NEGATIVE)
    noise_on: str = setting(
        "labels",
        "stochastic noise on: labels (SLN), logits (variant 2), gradient (variant 1)",
        NOISE_ON,
        IN_MEMORY,
    )
    sigma: float = setting(
        per(1.0, 0.5, 0.2), "standard deviation of the stochastic noise; 0: cross-entropy (CE)", NOT_NEGATIVE
    )
    strength: str = setting(
        "fixed",
        "of noise on the logits or the gradient: fixed (its own sigma), or matched (the noise on the "
        "gradient has the expected norm of SLN's with this sigma, in each epoch)",
        ("fixed", "matched"),
        IN_MEMORY,
    )
    sigma_schedule: str = setting("constant", "sigma over the epochs", SIGMA_SCHEDULES, IN_MEMORY)
    noise_for: str = setting(
        "all",
        "examples with stochastic noise: all, or those with right or wrong given labels",
        ("all", "right", "wrong"),
        IN_MEMORY,
    )
    baseline: str = setting("none", "another method against label noise", tuple(BASELINES), IN_MEMORY)
    baseline_parameter: float = setting(
        0.0,
        "label-smoothing epsilon, mixup alpha, gce q, sce alpha, elr lambda, confidence-penalty beta, sam "
        "rho, co-teaching's share that is forgotten (the noise rate); forward has none",
        NOT_NEGATIVE,
        IN_MEMORY,
    )
    alpha: float = setting(
        per(0.99, 0.999, 0.999), "decay of the momentum model per optimizer step, in [0, 1)", BELOW_ONE
    )
    extra_alphas: tuple[float, ...] = setting(
        (), "decays of more momentum models of the same run (no effect on it)", BELOW_ONE, IN_MEMORY
    )
    correction: int = setting(
        per(-1, 250, 1),
        "last epoch before label correction starts; -1 (or any value outside 1..epochs-1) is never",
    )
    correction_losses: str = setting(
        "given",
        "losses that weigh the given labels: given (against them, on plain images) or as-released (against "
        "labels as corrected so far, on augmented images)",
        ("given", "as-released"),
    )
    correction_weight: str = setting(
        "loss", "w of correction: loss (released), reversed (1 - w), none (0) or mixture", CORRECTION_WEIGHTS
    )
    soft_correction: bool = setting(
        per(False, False, True), "correct towards the predicted probabilities, not the predicted class"
    )
    measure_train_every: int = setting(
        per(5, 10, 1),
        "epochs between measurements on training images; the first ten and the last always have one",
        Range(1, MANY),
    )
    measure_test_every: int = setting(
        per(1, 1, 1, letters=5),
        "epochs between measurements on test and validation images; the last ten always have them",
        Range(1, MANY),
        IN_MEMORY,
        kept=True,
    )
    keep_weights_every: int = setting(
        0,
        "the weights are kept every N epochs too (after the correction epoch, if any); 0: the last only",
        Range(0, MANY),
        IN_MEMORY,
    )
    precision: str = setting(
        "float32", "of the network's operations (bfloat16: mixed)", ("float32", "bfloat16")
    )
    sync_batchnorm: bool = setting(
        False, "on several GPUs: BatchNorm statistics of the whole batch, not of a part", only=CLOTHING
    )
    seed: int = setting(
        0, "seed of training: initial weights, shuffling, augmentation, stochastic noise", SEED
    )
    threads: int = setting(
        per(1, 2, 2), "CPU threads; the order of sums, so the last bits, depend on it", Range(1, 1024)
    )

    def __post_init__(self) -> None:
        if self.dataset is None:
            self._set(dataset="digits")
        choose("dataset", self.dataset, DATASETS)
        for name, declared in SETTINGS.items():
            value = getattr(self, name)
            value = self.default(name) if value is None else typed(name, declared.type, value)
            self._set(**{name: value})
            allowed, only = declared.metadata["allowed"], declared.metadata["only"]
            if isinstance(allowed, Range):
                for number in value if isinstance(value, tuple) else (value,):
                    allowed.check(name, number)
            elif allowed is not None:
                words = allowed[self.dataset] if isinstance(allowed, dict) else allowed
                choose(name if words is allowed else f"{name} of {self.dataset}", value, words)
            belongs = value == self.default(name) or not only or self.dataset in only
            require(belongs, f"{name} belongs to {', '.join(only)}, the data set is {self.dataset}")
        self._check_combination()
        if self.classes == NUM_CLASSES[self.dataset]:
            self._set(classes=0)
        if self.dataset in CIFAR and not (self.subset or self.test_subset):  # all images are one block
            self._reset("fold")
        if self.sigma == 0:
            self._reset("noise_on", "strength", "sigma_schedule", "noise_for")
        if not self.corrects:
            self._set(correction=-1)
            self._reset("correction_losses", "correction_weight", "soft_correction")

    def _set(self, **settings: Any) -> None:
        for name, value in settings.items():
            object.__setattr__(self, name, value)

    def _reset(self, *names: str) -> None:
        self._set(**{name: self.default(name) for name in names})

    def _check_combination(self) -> None:
        digits, embedded = self.dataset == "digits", self.dataset in EMBEDDED
        clothing = self.dataset == "clothing1m"
        if self.labels.endswith(".csv"):
            drawn = DRAWN_NOISE[1:]
            other = f"labels from a CSV go with noise_mode {drawn} only, not {self.noise_mode}"
            require(self.noise_mode in drawn, other)
        else:
            choose("labels (or the path of a .csv)", self.labels, ("generated", "released"))
        released = self.labels == "released"
        require(released or not clothing, "clothing1m has its own labels only, leave out labels")
        none = f"there are no released labels of the {self.dataset}; use generated, or the path of a CSV"
        require(not (embedded and released), none)
        require(self.downsample in (1, 2, 4), f"downsample is {self.downsample}, allowed are 1, 2 and 4")
        belongs = self.model.startswith("resnet") == clothing
        belongs &= self.model != "frozen" or self.dataset == "digits"
        require(belongs, f"model {self.model} does not go with dataset {self.dataset}")
        require(not embedded or not self.augment, f"the {self.dataset} have no augmentation")
        require(self.num_per_class != 0, "num_per_class is 0, allowed are -1 (all) and values from 1 up")
        most = 10 if digits else 26
        possible = self.classes == 0 or 2 <= self.classes <= most
        require(possible, f"classes is {self.classes}, allowed are 0 (ten) and values from 2 to {most}")
        any_class = not digits or self.classes in (0, 10) or self.noise_mode in ("none", "sym", "openset")
        require(any_class, f"noise_mode {self.noise_mode} needs all ten classes of the digits")
        matchable = self.strength == "fixed" or self.noise_on != "labels"
        require(matchable, "strength matched goes with noise_on logits or gradient: it matches SLN's noise")
        separable = self.noise_for == "all" or self.noise_on != "gradient"
        require(separable, f"noise_for {self.noise_for} goes with noise_on labels or logits only")
        name, parameter = self.baseline, self.baseline_parameter
        if name == "none":
            require(parameter == 0, "baseline_parameter is given, but no baseline")
            return
        BASELINES[name][1].check(f"baseline_parameter of {name}", parameter)
        require(self.noise_on == "labels", f"baseline {name} goes with noise_on labels only")
        require(not self.corrects, f"baseline {name} does not go with label correction")
        one_hot = name in ("sce", "forward")
        require(not one_hot or self.sigma == 0, f"baseline {name} goes with sigma 0 only")
        constant = name != "co-teaching" or self.lr_drop == 0  # the peer has an optimizer of its own
        require(constant, "baseline co-teaching goes with a constant lr, lr_drop 0")

    @property
    def num_classes(self) -> int:
        """C."""
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
        where, matched = self.noise_on.replace("labels", "sln"), "-matched" * (self.strength == "matched")
        noise = f"{where}{self.sigma:g}{matched}" if self.sigma else ""
        parameter = f"{self.baseline_parameter:g}" if self.baseline != "forward" else ""
        other = f"{self.baseline}{parameter}" if self.baseline != "none" else ""
        return "-".join(filter(None, (other, noise))) or "ce"

    @property
    def run_id(self) -> str:
        """Name of the run's folder: readable, plus `digest`."""
        rate = f"{self.noise_rate:g}" if self.noise_mode in DRAWN_NOISE[1:] else ""
        inherent = "clean" if self.noise_mode == "none" else f"{self.noise_mode}{rate}"
        correction = f"-lc{self.correction}" if self.corrects else ""
        noise = f"{inherent}-{self.stochastic_noise}{correction}"
        return f"{self.dataset}-{noise}-seed{self.seed}-{self.digest()}"

    def digest(self) -> str:
        """First 8 hex digits of the SHA-256 of the settings that decide a number and differ from the default.

        So a new setting renames no run; a default that changes its value needs another name.
        """
        names = [name for name in SETTINGS if not SETTINGS[name].metadata["kept"]]
        named = self.to_dict()
        settings = {name: named[name] for name in names if getattr(self, name) != self.default(name)}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]

    def default(self, name: str) -> Any:
        """The default of setting `name`, for this data set and this baseline."""
        if name == "baseline_parameter":
            published = BASELINES[self.baseline][0]
            return self.noise_rate if published is None else published
        default = SETTINGS[name].metadata["default"]
        return default[self.dataset] if isinstance(default, dict) else default

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
        for name in settings:
            choose("setting", name, SETTINGS)
        return cls(**settings)


SETTINGS = {declared.name: declared for declared in dataclasses.fields(Config)}
