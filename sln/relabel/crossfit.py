"""SLN-MO-LC on your own data, cross-fitted: every label is judged by networks that did not see it.

The examples are dealt into K folds. For each fold one network is trained on all others by the paper's method:
stochastic label noise (SLN), read through its momentum model (MO), which corrects the labels of the last
tenth of the epochs (LC). What it predicts for the fold it has not seen is what `scores` reads. All can be
repeated with other folds, and the predictions averaged.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sln import models, train
from sln.config import Config
from sln.data import Data, Split
from sln.datasets.load import threads
from sln.metrics import accuracy
from sln.relabel import scores
from sln.runs import parallel, store
from sln.train import State, predict
from sln.utils.devices import device
from sln.utils.errors import InputError, choose, require
from sln.utils.progress import Progress
from sln.utils.rng import numpy_generator

NETWORKS = ("cnn", "wrn-10-1", "wrn-28-2")
SIGMAS = (0.1, 0.2, 0.5, 1.0)  # the paper's candidates
# Steps that a network takes by default, those of the embedded digits' recipe: small sets get
# smaller batches, large ones fewer epochs, each as far as the second number.
STEPS, BATCH_SIZES, EPOCHS = 1800, (64, 8), (100, 30)
SMALLEST_SIDE = 8  # pixels, that the networks' pooling leaves something of
# Features are scaled to the squared norm of what the small network's last layer sees, so that the same step
# size and sigma fit a head on 2,048 of them.
HEAD_WIDTH = 32


@dataclass(frozen=True)
class Examples:
    """N labelled images (or features), checked.

    images : (N, channels, H, W), any real type; features are (N, D, 1, 1)
    given : (N,) int64, the given labels as indices into `classes`
    classes : the labels' names, sorted
    groups : (N,) int64; examples of one group are never split between training and judging
    """

    images: Tensor
    given: Tensor
    classes: tuple[Hashable, ...]
    groups: np.ndarray

    @functools.cached_property
    def digest(self) -> bytes:
        """SHA-256 of all that a network is trained on."""
        content = hashlib.sha256(f"{self.images.dtype} {tuple(self.images.shape)}".encode())
        for values in (self.images, self.given):
            content.update(np.ascontiguousarray(values.numpy()).tobytes())
        return content.digest()


@dataclass(frozen=True)
class Judge:
    """One network to train: on all examples but those that it judges.

    judged : (N,) bool
    """

    config: Config
    judged: np.ndarray

    def key(self, examples: Examples) -> str:
        """A name for what comes out: SHA-256 of all that decides it, 16 hex digits."""
        settings = json.dumps(self.config.to_dict(), sort_keys=True).encode()
        return hashlib.sha256(examples.digest + self.judged.tobytes() + settings).hexdigest()[:16]


@dataclass(frozen=True)
class Fitted:
    """What `fit` gives: judged labels, and the networks that judged them.

    classes : the labels' names, in the order of the columns of `probabilities`
    given : (N,) int64, indices into `classes`
    probabilities : (N, C) float32, of momentum models that were not shown the example, their mean
    sigma : strength of the stochastic noise
    validation : accuracy on the noisy labels of one fold by candidate sigma; empty where sigma was given
    model : the networks' kind
    states : what each judge keeps (`train_judge`)
    """

    classes: tuple[Hashable, ...]
    given: Tensor
    probabilities: Tensor
    sigma: float
    validation: dict[float, float]
    model: str
    states: list[dict[str, Tensor]]

    @functools.cached_property
    def labels(self) -> pd.DataFrame:
        """One row per example, in order: given, suggested, probability, suspect, rank (`scores.table`)."""
        table = scores.table(self.probabilities.numpy(), self.given.numpy())
        names = np.array([*self.classes, None], dtype=object)[:-1]  # names of any kind stay what they are
        for column in ("given", "suggested"):
            table[column] = names[table[column]]
        return table

    @property
    def agreement(self) -> float:
        """Share of the given labels that the networks predict which were not shown them."""
        return accuracy(self.probabilities, self.given)

    def networks(self) -> Iterator[tuple[nn.Module, dict[str, Tensor]]]:
        """The judges' momentum models, each with the `mean` and `std` that its images are normalised by."""
        for state in self.states:
            network = models.build(
                self.model, in_channels=len(state["mean"]), num_classes=len(self.classes), seed=0
            )
            weights = {name.removeprefix("network/"): value for name, value in state.items() if "/" in name}
            network.load_state_dict(weights)
            yield network.eval(), state

    @torch.no_grad()
    def predict(self, images: Tensor | np.ndarray) -> Tensor:
        """(M, C): class probabilities of new images (M, channels, H, W), the mean over all judges."""
        pixels, mean = _pixels(images), torch.zeros(len(images), len(self.classes))
        for network, state in self.networks():
            data = _normalised_by(pixels, self.classes, state)
            mean += F.softmax(predict(network, data.train, data), dim=1) / len(self.states)
        return mean


def fit(
    images: Tensor | np.ndarray,
    labels: Sequence[Hashable] | Tensor | np.ndarray,
    *,
    sigma: float | None = None,
    folds: int = 5,
    repeats: int = 1,
    epochs: int | None = None,
    model: str = "cnn",
    groups: Sequence[int] | np.ndarray | None = None,
    seed: int = 0,
    cache: Path | None = None,
    quiet: bool = False,
) -> Fitted:
    """Judge noisy labels by SLN-MO-LC, each by networks that were not trained on it.

    Parameters
    ----------
    images : (N, channels, H, W) or, grey, (N, H, W); at least 8 pixels a side; or features (N, D), which get
        a linear head
    labels : (N,) given labels, numbers or names; at least two, each on at least two different images
    sigma : strength of the stochastic noise; None: the best of SIGMAS on the noisy labels of one fold
    folds, repeats : K, and how often the examples are dealt into folds
    epochs : None: 100, and fewer (at least 30) where that makes more than 1,800 steps
    model : the network: cnn, wrn-10-1, wrn-28-2
    groups : (N,) examples that belong together, say frames of one film, and must not be split between
        training and judging; None: identical images belong together
    cache : folder that keeps every finished network, so that the same call goes on after a break

    As many networks train at once as `SLN_WORKERS` says, each on one thread: how many changes no number. They
    are processes that import the calling script: there, call `fit` below `if __name__ == "__main__":`.
    Raises InputError for anything else.
    """
    require_settings(sigma=sigma, folds=folds, repeats=repeats, epochs=epochs, model=model, seed=seed)
    examples = checked(images, labels, groups)
    judges = panel(examples, folds, repeats, epochs, model, seed)
    networks = len(judges) + (len(SIGMAS) - 1 if sigma is None else 0)
    validation, states = {}, []
    with Progress(networks, "cross-fitting", "networks", quiet=quiet) as progress:
        if sigma is None:
            tried = train_all([with_sigma(judges[0], s) for s in SIGMAS], examples, cache, progress)
            validation = {s: noisy_accuracy(state, examples) for s, state in zip(SIGMAS, tried, strict=True)}
            sigma = max(SIGMAS, key=validation.__getitem__)  # of equals the first, the smallest
            states.append(tried[SIGMAS.index(sigma)])
        rest = [with_sigma(judge, sigma) for judge in judges[len(states) :]]
        states += train_all(rest, examples, cache, progress)
    probabilities = torch.zeros(len(examples.given), len(examples.classes))
    for state in states:
        probabilities[state["judged"]] += state["probabilities"] / repeats
    kind = judges[0].config.model
    return Fitted(examples.classes, examples.given, probabilities, sigma, validation, kind, states)


def noisy_accuracy(state: dict[str, Tensor], examples: Examples) -> float:
    """Share of the given, noisy labels that a judge predicts, of the examples that it judges."""
    return accuracy(state["probabilities"], examples.given[state["judged"]])


# --- what is trained ----------------------------------------------------------------------------------------


def recipe(model: str, examples: int, epochs: int | None, seed: int) -> Config:
    """The settings of one network for that many examples: the embedded digits', except those set below.

    Only settings that the training loop reads matter; those of a data set are at that of the digits, since
    nothing is loaded by them.
    """
    largest, smallest = BATCH_SIZES
    steps = STEPS / EPOCHS[0]
    batch_size = max(smallest, min(largest, math.ceil(examples / steps)))
    if epochs is None:
        most, least = EPOCHS
        epochs = max(least, min(most, round(STEPS / math.ceil(examples / batch_size))))
    return Config(
        noise_mode="none",
        model=model,
        batch_size=batch_size,
        epochs=epochs,
        correction=epochs * 9 // 10,
        seed=seed,
    )


def panel(
    examples: Examples, folds: int, repeats: int, epochs: int | None, model: str, seed: int
) -> list[Judge]:
    """All judges: one per fold that has examples, repeat after repeat."""
    features = examples.images.shape[2:] == (1, 1)
    judges = []
    for repeat in range(repeats):
        fold = deal(examples, folds, seed, repeat)
        for number, its_seed in enumerate(training_seeds(seed, repeat, folds)):
            judged = fold == number
            config = recipe("linear" if features else model, int((~judged).sum()), epochs, its_seed)
            if judged.any():
                judges.append(Judge(config, judged))
    return judges


def with_sigma(judge: Judge, sigma: float) -> Judge:
    """The same judge, trained with stochastic noise of strength `sigma`."""
    return Judge(judge.config.replace(sigma=float(sigma)), judge.judged)


def training_seeds(seed: int, repeat: int, folds: int) -> list[int]:
    """A training seed for every fold, drawn from `seed`'s own stream."""
    rng = numpy_generator(seed, "cross-fitting", repeat, 1)
    return rng.integers(2**32, size=folds, dtype=np.int64).tolist()


def deal(examples: Examples, folds: int, seed: int, repeat: int = 0) -> np.ndarray:
    """(N,) the fold of every example, groups kept whole, labels spread evenly.

    A group has the label of its first example. The groups of a label are shuffled and dealt one by one, each
    label going on at the fold where the last one ended, so that a label's and all folds' counts of groups
    differ by one at most. A label that is only found on copies of images whose first label is another may
    have all of them in one fold: the network that judges them has then never seen it.
    """
    first = np.unique(examples.groups, return_index=True)[1]  # of each group, in the order of the groups
    shuffled = numpy_generator(seed, "cross-fitting", repeat).permutation(len(first))
    by_label = shuffled[np.argsort(examples.given.numpy()[first[shuffled]], kind="stable")]
    fold = np.empty(len(first), dtype=np.int64)
    fold[by_label] = np.arange(len(first)) % folds
    return fold[np.unique(examples.groups, return_inverse=True)[1]]


# --- training -----------------------------------------------------------------------------------------------


def train_all(
    judges: list[Judge], examples: Examples, cache: Path | None, progress: Progress
) -> list[dict[str, Tensor]]:
    """What `train_judge` gives for each judge, read from the folder `cache` where it is there already."""
    states: dict[int, dict[str, Tensor]] = {}
    files = [None if cache is None else cache / f"{j.key(examples)}.safetensors" for j in judges]
    for number, file in enumerate(files):
        with contextlib.suppress(InputError):  # missing or damaged: it is trained again
            if file is not None:
                states[number] = store.read_tensors(file)
                progress.advance()
    missing = [number for number in range(len(judges)) if number not in states]
    arrays = (examples.images.numpy(), examples.given.numpy(), len(examples.classes))
    for place, state in parallel.each(train_judge, [(judges[number], *arrays) for number in missing]):
        number = missing[place]
        states[number] = {name: torch.from_numpy(values) for name, values in state.items()}
        if files[number] is not None:
            store.write_tensors(files[number], states[number])
        progress.advance(sigma=judges[number].config.sigma)
    return [states[number] for number in range(len(judges))]


def train_judge(work: tuple[Judge, np.ndarray, np.ndarray, int]) -> dict[str, np.ndarray]:
    """Train one network on what it does not judge.

    work : the judge, images (N, ...), given labels (N,) and C; arrays, since they go to another process

    Returns judged (n,) rows, probabilities (n, C) of the momentum model for them, mean and std (channels,)
    of the pixels that it was trained on, and its weights, "network/conv1.weight", ...
    """
    judge, images, given, C = work
    with threads(judge.config.threads):
        data = training_data(torch.from_numpy(images), torch.from_numpy(given), judge.judged, C)
        network = trained(data.to(device()), judge.config)
        probabilities = F.softmax(predict(network, data.validation, data), dim=1)
    kept = {
        "judged": torch.from_numpy(np.flatnonzero(judge.judged)),
        "probabilities": probabilities,
        "mean": torch.tensor(data.mean),
        "std": torch.tensor(data.std),
    }
    kept |= {f"network/{name}": value for name, value in network.state_dict().items()}
    return {name: value.cpu().contiguous().numpy() for name, value in kept.items()}


def trained(data: Data, config: Config) -> nn.Module:
    """The momentum model of SLN with label correction, trained on `data.train`, on the CPU."""
    state = State(config, data)
    for _ in train.train(state, data, config, measured=False):
        pass
    return state.averages["momentum"].module.cpu()


def training_data(images: Tensor, given: Tensor, judged: np.ndarray, num_classes: int) -> Data:
    """All but the judged examples to train on, the judged ones as validation images.

    Nobody knows the true labels; in their place stand the given ones, and nothing here reads them. Pixels are
    normalised by those of the training images alone.
    """
    seen, rest = torch.from_numpy(np.flatnonzero(~judged)), torch.from_numpy(np.flatnonzero(judged))
    shown, held = (Split(images[rows], given[rows], given[rows]) for rows in (seen, rest))
    std, mean = torch.std_mean(shown.images.float(), dim=(0, 2, 3), correction=0)
    std[std == 0] = 1  # a channel that never changes says nothing, and must not become infinite
    if images.shape[2:] == (1, 1):
        std = std * math.sqrt(images.shape[1] / HEAD_WIDTH)
    return Data(
        shown, held, held, tuple(map(str, range(num_classes))), 1.0, tuple(mean.tolist()), tuple(std.tolist())
    )


def _normalised_by(images: Tensor, classes: Sequence[Hashable], state: dict[str, Tensor]) -> Data:
    """New images as the training images of a Data that normalises as a judge does."""
    nobody = torch.full((len(images),), -1)
    split = Split(images, nobody, nobody)
    mean, std = (tuple(state[name].tolist()) for name in ("mean", "std"))
    require(
        images.shape[1] == len(mean), f"images have {images.shape[1]} channels, trained was on {len(mean)}"
    )
    return Data(split, split[:0], split[:0], tuple(map(str, classes)), 1.0, mean, std)


# --- checks -------------------------------------------------------------------------------------------------


def require_settings(
    *,
    sigma: float | None = None,
    folds: int = 5,
    repeats: int = 1,
    epochs: int | None = None,
    model: str = "cnn",
    seed: int = 0,
) -> None:
    """Raise InputError for settings that `fit` does not take; before images are read, which takes long."""
    choose("model", model, NETWORKS)
    require(2 <= folds <= 100, f"folds is {folds}, allowed is [2, 100]")
    require(1 <= repeats <= 100, f"repeats is {repeats}, allowed is [1, 100]")
    require(0 <= seed < 2**32, f"seed is {seed}, allowed is [0, {2**32})")
    recipe(model, 1, epochs, seed).replace(sigma=float(sigma or 0))  # which refuses the others


def checked(images: Tensor | np.ndarray, labels: Sequence, groups: Sequence[int] | None = None) -> Examples:
    """The examples, checked. Raises InputError, saying what `fit` takes."""
    pixels = _pixels(images)
    given, classes = _classes(labels)
    require(len(pixels) == len(given), f"there are {len(pixels)} images and {len(given)} labels")
    groups = distinct(pixels) if groups is None else np.asarray(groups)
    require(groups.shape == (len(given),), f"groups has shape {groups.shape}, expected one value an example")
    groups = np.unique(groups, return_inverse=True)[1]
    require(len(classes) >= 2, f"all labels are {classes[0]!r}; there is nothing to tell apart")
    alone = lonely(given.numpy(), groups)
    if len(alone):
        raise InputError(
            f"label {classes[given[alone[0]]]!r} is on one image only (row {alone[0]}), so no network could "
            f"judge it; leave out labels that are not on two different images ({len(alone)} examples)"
        )
    return Examples(pixels, given, classes, groups)


def lonely(given: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Rows (n,) of examples whose label, 0..C-1, is in no other group: nothing to learn it from."""
    pairs = np.unique(np.stack([given, groups]), axis=1)
    return np.flatnonzero(np.bincount(pairs[0])[given] < 2)


def distinct(images: Tensor) -> np.ndarray:
    """(N,) int64: the same number for identical images, by SHA-256 of their pixels."""
    hashes = [hashlib.sha256(image.tobytes()).hexdigest() for image in images.contiguous().numpy()]
    return np.unique(hashes, return_inverse=True)[1]


def _pixels(images: Tensor | np.ndarray) -> Tensor:
    """(N, channels, H, W), or features (N, D, 1, 1)."""
    # numpy's views may run backwards, as of BGR read as RGB; torch's may not
    pixels = torch.as_tensor(np.ascontiguousarray(images) if isinstance(images, np.ndarray) else images).cpu()
    require(pixels.dtype != torch.bool and not pixels.is_complex(), "images must be real numbers")
    if pixels.dtype == torch.float64:
        pixels = pixels.float()
    require(
        pixels.ndim in (2, 3, 4) and len(pixels) > 0,
        f"images have shape {tuple(pixels.shape)}; allowed are (N, channels, H, W), grey (N, H, W), and "
        "features (N, D)",
    )
    require(
        not pixels.is_floating_point() or bool(pixels.isfinite().all()),
        "images have infinite or missing pixels",
    )
    if pixels.ndim == 2:
        return pixels[:, :, None, None]
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    require(
        pixels.shape[1] <= 4 and min(pixels.shape[2:]) >= SMALLEST_SIDE,
        f"images have shape {tuple(pixels.shape)}; expected is (N, channels, H, W) with 1 to 4 channels and "
        f"at least {SMALLEST_SIDE} pixels a side",
    )
    return pixels


def _classes(labels: Sequence) -> tuple[Tensor, tuple[Hashable, ...]]:
    """(N,) indices into the sorted classes, and these."""
    values = labels.tolist() if isinstance(labels, (Tensor, np.ndarray)) else list(labels)
    require(len(values) > 0, "there are no labels")
    require(all(value == value for value in values), "some labels are missing (NaN)")
    try:
        classes = tuple(sorted(set(values)))
    except TypeError:
        raise InputError("labels must be all numbers or all names, one an example") from None
    index = {name: number for number, name in enumerate(classes)}
    return torch.tensor([index[value] for value in values]), classes
