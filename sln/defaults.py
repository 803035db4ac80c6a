"""Allowed values and defaults of a run's settings."""

from __future__ import annotations

from typing import Any

DATASETS = ("digits", "cifar10", "cifar100", "clothing1m")
NUM_CLASSES = {"digits": 10, "cifar10": 10, "cifar100": 100, "clothing1m": 14}
MODELS = ("cnn", "linear", "wrn-28-2", "wrn-10-1", "resnet50", "resnet18")
NOISE_ON = ("labels", "logits", "gradient")
STRENGTHS = ("fixed", "matched")
SIGMA_SCHEDULES = ("constant", "rising", "falling", "first-half", "second-half")
NOISE_FOR = ("all", "right", "wrong")
CORRECTION_LOSSES = ("given", "as-released")
LABELS = ("generated", "released")
PRECISIONS = ("float32", "bfloat16")

DRAWN_NOISE = ("none", "sym", "asym", "dependent", "openset")
HUMAN_NOISE = {
    "cifar10": ("human-aggregate", "human-random1", "human-random2", "human-random3", "human-worst"),
    "cifar100": ("human",),
}
# in words, as figures and tables show them
NOISE_NAMES = {
    "sym": "symmetric",
    "asym": "asymmetric",
    "dependent": "instance-dependent",
    "openset": "open-set",
    "none": "none",
    "own": "of its own",
}
# The released script, too, knows open-set noise on CIFAR-10 only. Clothing1M's wrong labels are its own.
NOISE_MODES = {
    "digits": DRAWN_NOISE,
    "cifar10": DRAWN_NOISE + HUMAN_NOISE["cifar10"],
    "cifar100": (*DRAWN_NOISE[:4], *HUMAN_NOISE["cifar100"]),
    "clothing1m": ("own",),
}

# The published setting of every method that SLN is compared with, for CIFAR-10 where its paper has several;
# `baselines` says what it is. Co-teaching's is the noise rate, which its paper takes as known.
BASELINES: dict[str, float | None] = {
    "none": 0.0,
    "label-smoothing": 0.1,
    "mixup": 1.0,
    "gce": 0.7,
    "sce": 0.1,
    "elr": 3.0,
    "sam": 0.05,
    "co-teaching": None,
}

# Defaults by data set. CIFAR's and Clothing1M's are the released scripts'.
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
        "measure_train_every": 5,
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
        "measure_train_every": 1,
        "threads": 2,
    },
}
