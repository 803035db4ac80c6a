"""Cross-fitting with SLN-MO-LC: every label is judged by networks that were not trained on it.

For each of K folds, one network is trained on all other folds by the paper's method: stochastic label noise
(SLN), a momentum model (MO), and label correction in the last tenth of the epochs (LC). `scores` uses the
momentum model's predictions for the fold that was held out, averaged over `repeats` with other folds, and
pooled with three more opinions of the same training examples (`opinions`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from sln.relabel import judged, opinions, scores
from sln.relabel.examples import Examples, checked
from sln.relabel.kinds import pixels_of
from sln.runs import parallel, store
from sln.train import State, predict
from sln.utils.devices import device
from sln.utils.errors import InputError, choose, require
from sln.utils.progress import Progress
from sln.utils.rng import numpy_generator

NETWORKS = ("cnn", "wrn-10-1", "wrn-28-2")
SIGMAS = (0.1, 0.2, 0.5, 1.0)  # the paper's candidates
# By default a network takes about 1,800 steps, as for the digits, with smaller batches or fewer epochs.
MAX_STEPS, BATCH_SIZE, EPOCHS = 1800, (8, 64), (30, 100)
MAX_PASSES, HEAD_EPOCHS = 600_000, 5  # images that a network is shown in all; least epochs of a linear head
CHOICE = 10_000  # examples at most that sigma is chosen with
# Features are scaled to the squared norm of the small network's last input, so that its lr and sigma suit.
HEAD_WIDTH = 32


@dataclass(frozen=True)
class FoldModel:
    """One network to train, on all examples except those `held_out`, (N,) bool."""

    config: Config
    held_out: np.ndarray

    def with_sigma(self, sigma: float) -> FoldModel:
        """The same with stochastic noise of another strength."""
        return FoldModel(self.config.replace(sigma=float(sigma)), self.held_out)

    def key(self, examples: Examples) -> str:
        """Name of the result: SHA-256 of everything that determines it, 16 hex digits."""
        settings = json.dumps(self.config.to_dict(), sort_keys=True).encode()
        return hashlib.sha256(settings + self.held_out.tobytes() + examples.digest).hexdigest()[:16]


@dataclass(frozen=True)
class Fitted:
    """The result of `fit`: predictions for every example, and the networks that made them."""

    classes: tuple[Hashable, ...]  # the labels' names, in the order of the columns of `probabilities`
    given: Tensor  # (N,) int64, indices into `classes`
    probabilities: Tensor  # (N, C) float32, of opinions that did not see the example (`opinions.pooled`)
    sigma: float  # strength of the stochastic noise
    validation: dict[
        float, float
    ]  # accuracy on noisy labels of one fold by candidate; empty: sigma was given
    model: str  # name of the network (config.MODELS)
    states: list[dict[str, Tensor]]  # one per network, as `train_fold` returns them
    shape: tuple[int, ...] = ()  # channels, H, W of the images
    index: pd.Index | None = None  # of the labels or images, if they are of pandas
    groups: np.ndarray | None = None  # (N,) int64, the same for examples that stayed in one fold

    @functools.cached_property
    def labels(self) -> pd.DataFrame:
        """One row per example, in order: given, suggested, probability, suspect, rank (`scores.table`), and:

        judged : false if networks cannot judge the given or the suggested class, or cannot separate the two
        class_agreement : share of the labels of the given class that networks predict
        group : number, from 1, of the examples that stayed in one fold, such as copies; missing: it is alone
        """
        p, given = self.probabilities.numpy(), self.given.numpy()
        table = scores.table(p, given)
        table["judged"] = judged.rows(p, given, table["suggested"].to_numpy())
        table["class_agreement"] = self.agreement_by_class["agreement"].to_numpy()[given]
        alone = range(len(given)) if self.groups is None else self.groups
        group = pd.Series(alone)
        group = pd.factorize(group.where(group.duplicated(keep=False)))[0] + 1
        table["group"] = pd.Series(group, dtype="Int64").where(group > 0)
        table.index = table.index if self.index is None else self.index
        names = np.array([*self.classes, None], dtype=object)[:-1]  # None: names keep their types
        return table.assign(given=names[table["given"]], suggested=names[table["suggested"]])

    @property
    def agreement(self) -> float:
        """Share of the given labels that networks predict which were not trained on them."""
        return accuracy(self.probabilities, self.given)

    @functools.cached_property
    def agreement_by_class(self) -> pd.DataFrame:
        """One row per class: examples, agreement, p_value, judged (`judged.by_class`)."""
        table = judged.by_class(self.probabilities.numpy(), self.given.numpy())
        return table.set_index(pd.Index(self.classes, name="class", tupleize_cols=False))

    def networks(self) -> Iterator[tuple[nn.Module, dict[str, Tensor]]]:
        """The momentum models, each with the `mean` and `std` that its images are normalised by."""
        for state in self.states:
            channels, C = len(state["mean"]), len(self.classes)
            network = models.build(self.model, in_channels=channels, num_classes=C, seed=0)
            weights = {name.removeprefix("network/"): value for name, value in state.items() if "/" in name}
            network.load_state_dict(weights)
            yield network.eval(), state

    @torch.no_grad()
    def predict(self, images: Any) -> Tensor:
        """(M, C): class probabilities of new images of the same kind, mean over all networks."""
        pixels = pixels_of(images, self.shape[-1])
        found = tuple(pixels.shape[1:])
        same = found == self.shape
        require(same, f"images have channels, height, width {found}, trained was on {self.shape}")
        unknown = torch.full((len(pixels),), -1)
        split, mean = Split(pixels, unknown, unknown), torch.zeros(len(pixels), len(self.classes))
        for network, state in self.networks():
            data = _data(split, split, len(self.classes), state["mean"], state["std"])
            mean += F.softmax(predict(network, split, data), dim=1) / len(self.states)
        return mean


def fit(
    images: Any,
    labels: Any = None,
    *,
    sigma: float | None = None,
    folds: int = 5,
    repeats: int = 1,
    epochs: int | None = None,
    model: str = "cnn",
    groups: Any = None,
    seed: int = 0,
    cache: Path | None = None,
    quiet: bool = False,
) -> Fitted:
    """Judge noisy labels by SLN-MO-LC, each by networks that were not trained on it.

    images : (N, channels, H, W), (N, H, W, channels) or, grey, (N, H, W), at least 8 x 8 pixels; a list of
        such images or of PIL's, which are resized (`kinds.unpacked`); a torch or Hugging Face data set; or
        features (N, D), an array or data frame, which get a linear head
    labels : (N,) given labels, numbers or names; at least two, each on two different images; None: the data
        set's own
    sigma : strength of the stochastic noise; None: the best of SIGMAS on the noisy labels of one fold, of
        10,000 examples if there are more
    folds, repeats : K, and how many times the examples are split into folds
    epochs : None: 100, or fewer if 100 epochs are more than 1,800 steps: at least 30
        (features: 5), and no more than 600,000 images in all
    model : one of NETWORKS
    groups : (N,) numbers or names; a group, such as frames of one film, stays in one fold; None: those of
        `copies.find`
    cache : folder for finished networks; after an interruption the same call continues from there

    `SLN_WORKERS` networks train at once, with the same results. Raises InputError for anything else.
    """
    require_settings(sigma=sigma, folds=folds, repeats=repeats, epochs=epochs, model=model, seed=seed)
    examples = checked(images, labels, groups)
    settings = (folds, repeats, epochs, model, seed)
    networks, chosen_with = fold_models(examples, *settings), some(examples, seed)
    total = len(networks) + (len(SIGMAS) - (chosen_with is examples) if sigma is None else 0)
    validation, states = {}, []
    with Progress(total, "cross-fitting", "networks", quiet=quiet) as progress:
        if sigma is None:
            first = networks[0] if chosen_with is examples else fold_models(chosen_with, *settings)[0]
            tried = train_all([first.with_sigma(s) for s in SIGMAS], chosen_with, cache, progress)
            given = chosen_with.given[tried[0]["held_out"]]
            validation = {s: accuracy(t["probabilities"], given) for s, t in zip(SIGMAS, tried, strict=True)}
            sigma = max(SIGMAS, key=validation.__getitem__)  # the first, smallest, of equals
            if chosen_with is examples:
                states.append(tried[SIGMAS.index(sigma)])
        remaining = [network.with_sigma(sigma) for network in networks[len(states) :]]
        states += train_all(remaining, examples, cache, progress)
    kind, shape = networks[0].config.model, tuple(examples.images.shape[1:])
    found = (examples.classes, examples.given, by_networks(examples, states), sigma, validation, kind, states)
    return with_opinions(Fitted(*found, shape, examples.index, examples.groups), examples)


def some(examples: Examples, seed: int) -> Examples:
    """The examples, or CHOICE of them, drawn by seed, if there are more."""
    if len(examples.given) <= CHOICE:
        return examples
    rows = numpy_generator(seed, "cross-fitting", 0, 2).permutation(len(examples.given))[:CHOICE]
    drawn = {"images": examples.images[rows], "given": examples.given[rows], "groups": examples.groups[rows]}
    return dataclasses.replace(examples, **drawn)


def by_networks(examples: Examples, states: list[dict[str, Tensor]]) -> Tensor:
    """(N, C): probabilities by the momentum models alone, mean over those that held the example out."""
    N = len(examples.given)
    total, times = torch.zeros(N, len(examples.classes)), torch.zeros(N, 1)
    for state in states:
        total[state["held_out"]] += state["probabilities"]
        times[state["held_out"]] += 1
    return total / times


def with_opinions(fitted: Fitted, examples: Examples) -> Fitted:
    """The same with the networks' probabilities pooled with the other `opinions` of their training examples.

    The discriminant sees what the network's last layer sees.
    """
    N, C, given = len(examples.given), len(examples.classes), examples.given
    compared = opinions.compared(examples.images)
    others, times = torch.zeros(3, N, C), torch.zeros(N, 1)
    for network, state in fitted.networks():
        held_out = torch.zeros(N, dtype=torch.bool)
        held_out[state["held_out"]] = True
        seen = compared if fitted.model == "linear" else last_inputs(network, examples.images, state)
        ways = (opinions.discriminant, seen), (opinions.neighbours, compared), (opinions.regression, compared)
        for total, (opinion, x) in zip(others, ways, strict=True):
            total[held_out] += opinion(x[~held_out], given[~held_out], x[held_out], C)
        times[held_out] += 1
    powers = opinions.POWERS["features" if fitted.model == "linear" else "pixels"]
    pooled = opinions.pooled([fitted.probabilities, *(others / times)], given, powers)
    return dataclasses.replace(fitted, probabilities=pooled)


@torch.no_grad()
def last_inputs(network: nn.Module, images: Tensor, state: dict[str, Tensor]) -> Tensor:
    """(N, D): what the network's last, linear layer sees of images (N, channels, H, W)."""
    unknown, seen = torch.full((len(images),), -1), []
    split = Split(images, unknown, unknown)
    with network.linear.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        predict(network, split, _data(split, split, network.linear.out_features, state["mean"], state["std"]))
    return torch.cat(seen)


def require_settings(
    *, model: str = "cnn", folds: int = 5, repeats: int = 1, sigma: float | None = None, **others: int | None
) -> None:
    """Raise InputError for settings that `fit` does not allow. Needs no images, which take long to read."""
    choose("model", model, NETWORKS)
    require(2 <= folds <= 100, f"folds is {folds}, allowed is [2, 100]")
    require(1 <= repeats <= 100, f"repeats is {repeats}, allowed is [1, 100]")
    Config(model=model, sigma=float(sigma or 0), **others)  # it checks sigma, epochs and seed


def recipe(model: str, examples: int, epochs: int | None, seed: int) -> Config:
    """Settings for training on that many examples: those of the digits (none is loaded), except these."""
    batch_size = int(np.clip(math.ceil(examples * EPOCHS[1] / MAX_STEPS), *BATCH_SIZE))
    if epochs is None:
        least = HEAD_EPOCHS if model == "linear" else EPOCHS[0]
        epochs = int(np.clip(round(MAX_STEPS / math.ceil(examples / batch_size)), least, EPOCHS[1]))
        epochs = max(1, min(epochs, MAX_PASSES // examples))
    settings = {"batch_size": batch_size, "epochs": epochs, "correction": epochs * 9 // 10, "seed": seed}
    return Config(noise_mode="none", model=model, **settings)


def fold_models(
    examples: Examples, folds: int, repeats: int, epochs: int | None, model: str, seed: int
) -> list[FoldModel]:
    """All networks to train, each with its own seed: one per fold that is not empty, by repeat."""
    model = "linear" if examples.images.shape[2:] == (1, 1) else model
    networks = []
    for repeat in range(repeats):
        fold = assign_folds(examples, folds, seed, repeat)
        rng = numpy_generator(seed, "cross-fitting", repeat, 1)
        for number, training_seed in enumerate(rng.integers(2**32, size=folds, dtype=np.int64).tolist()):
            held_out = fold == number
            if held_out.any():
                config = recipe(model, int((~held_out).sum()), epochs, training_seed)
                networks.append(FoldModel(config, held_out))
    return networks


def assign_folds(examples: Examples, folds: int, seed: int, repeat: int = 0) -> np.ndarray:
    """(N,) the fold of every example; groups are not split, labels are spread evenly.

    A group has the label of its first example. The groups of each label are shuffled and assigned to the
    folds in turn; each label continues at the fold where the last one ended. So the numbers of groups per
    fold differ by at most one, in total and for each label. If a label occurs only on copies of images whose
    first label is another one, all its examples may be in one fold. Their network has then never seen it.
    """
    _, first, group = np.unique(examples.groups, return_index=True, return_inverse=True)
    shuffled = numpy_generator(seed, "cross-fitting", repeat).permutation(len(first))
    by_label = shuffled[np.argsort(examples.given.numpy()[first[shuffled]], kind="stable")]
    fold = np.empty(len(first), dtype=np.int64)
    fold[by_label] = np.arange(len(first)) % folds
    return fold[group]


def train_all(
    networks: list[FoldModel], examples: Examples, cache: Path | None, progress: Progress
) -> list[dict[str, Tensor]]:
    """The results of `train_fold` for all networks, read from the folder `cache` if they are there."""
    states = {}
    files = [cache and cache / f"{network.key(examples)}.safetensors" for network in networks]
    for number, file in enumerate(files):
        with contextlib.suppress(InputError):  # missing or damaged files are trained again
            if file is not None:
                states[number] = store.read_tensors(file)
                progress.advance()
    missing = [number for number in range(len(networks)) if number not in states]
    arrays = (examples.images.numpy(), examples.given.numpy(), len(examples.classes))
    for place, state in parallel.each(train_fold, [(networks[number], *arrays) for number in missing]):
        number = missing[place]
        states[number] = {name: torch.from_numpy(values) for name, values in state.items()}
        if files[number] is not None:
            store.write_tensors(files[number], states[number])
        progress.advance(sigma=networks[number].config.sigma)
    return [states[number] for number in range(len(networks))]


def train_fold(work: tuple[FoldModel, np.ndarray, np.ndarray, int]) -> dict[str, np.ndarray]:
    """Train one network on all examples except those held out.

    work : the FoldModel, images (N, ...), given labels (N,) and C

    Returns held_out (n,), the rows; probabilities (n, C) of the momentum model for them; mean and std
    (channels,) of the training pixels; and its weights, "network/conv1.weight", ...
    """
    fold, images, given, C = work
    with threads(fold.config.threads):
        data = training_data(torch.from_numpy(images), torch.from_numpy(given), fold.held_out, C)
        network = trained(data.to(device()), fold.config)
        probabilities = F.softmax(predict(network, data.validation, data), dim=1)
    state = {"held_out": np.flatnonzero(fold.held_out), "probabilities": probabilities.numpy()}
    state |= {"mean": np.float32(data.mean), "std": np.float32(data.std)}
    weights = store.named_weights({"network": network})
    return state | {name: value.contiguous().numpy() for name, value in weights.items()}


def trained(data: Data, config: Config) -> nn.Module:
    """The momentum model of SLN with label correction, trained on `data.train`, on the CPU."""
    state = State(config, data)
    for _ in train.train(state, data, config, measured=False):
        pass
    return state.averages["momentum"].module.cpu()


def training_data(images: Tensor, given: Tensor, held_out: np.ndarray, num_classes: int) -> Data:
    """Training images, normalised by their own pixels, and the held-out examples as validation images.

    The given labels take the place of the true ones, which are unknown and which training does not read.
    """
    examples, held_out = Split(images, given, given), torch.from_numpy(held_out)
    training = examples[~held_out]
    # pixels a channel at a time: all at once, as floats, would take half a gigabyte
    parts = training.images.split(1 if training.images.dtype == torch.uint8 else len(images[0]), dim=1)
    found = [torch.std_mean(part.float(), dim=(0, 2, 3), correction=0) for part in parts]
    std, mean = map(torch.cat, zip(*found, strict=True))
    std[std == 0] = 1  # a constant channel has no information and must not become infinite
    if images.shape[2:] == (1, 1):
        std = std * math.sqrt(images.shape[1] / HEAD_WIDTH)
    return _data(training, examples[held_out], num_classes, mean, std)


def _data(training: Split, validation: Split, num_classes: int, mean: Tensor, std: Tensor) -> Data:
    """A Data whose test images are its validation images."""
    classes = tuple(map(str, range(num_classes)))
    return Data(training, validation, validation, classes, 1.0, tuple(mean.tolist()), tuple(std.tolist()))
