"""One straight training loop, without disks or progress bars: it yields what it measured, epoch by epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sln import baselines, method, models
from sln.config import Config
from sln.data import Data, Split
from sln.metrics import accuracy, measure_test, measure_train
from sln.objective import Batch, grouped, momentum_buffers, restore_momentum, sgd, sigma_of
from sln.utils.crops import CropsAndFlips, crop_and_flip, draw_crops
from sln.utils.devices import prediction_size
from sln.utils.errors import require
from sln.utils.rng import torch_generator

ALWAYS_TESTED = 10  # last epochs, for any `measure_test_every`: results are read there
ALWAYS_WHOLE = 10  # first epochs, for any `measure_train_every`: networks learn fastest there


class State:
    """Everything that changes while a run trains, and nothing else: what a checkpoint holds."""

    def __init__(self, config: Config, data: Data) -> None:
        shape = {"in_channels": data.train.images.shape[1], "num_classes": data.num_classes}
        self.network = models.build(config.model, **shape, seed=config.seed).to(data.device)
        alphas = {"momentum": config.alpha} | {f"momentum {alpha:g}": alpha for alpha in config.extra_alphas}
        self.averages = {name: method.MomentumModel(self.network, alpha) for name, alpha in alphas.items()}
        self.optimizer = sgd(self.network, config)
        self.objective = baselines.objective(config, self.network, data)
        self.targets = one_hot(data).to(data.device)  # (N, C), what each example is trained towards
        self.epoch = 0  # epochs finished

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks that can be read from this run: "network" (SLN) and its momentum models (SLN-MO)."""
        return {"network": self.network} | {name: average.module for name, average in self.averages.items()}

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors, for a file: "network/conv1.weight", "optimizer/conv1.weight", ..."""
        named = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        for weights, average in self.averages.items():
            named |= {f"{weights}/{name}": value for name, value in average.state_dict().items()}
        named |= {f"optimizer/{n}": b for n, b in momentum_buffers(self.network, self.optimizer).items()}
        named |= {f"objective/{name}": value for name, value in self.objective.tensors().items()}
        return named | {"targets": self.targets, "epoch": torch.tensor(self.epoch)}

    def restore(self, named: dict[str, Tensor]) -> None:
        """Continue from `tensors()`. Raises RuntimeError or KeyError for those of another configuration."""
        self.network.load_state_dict(grouped(named, "network"))
        for weights, average in self.averages.items():
            average.load_state_dict(grouped(named, weights))
        restore_momentum(self.network, self.optimizer, grouped(named, "optimizer"))
        self.objective.restore(grouped(named, "objective"))
        self.targets = named["targets"].to(self.targets.device, copy=True)
        self.epoch = int(named["epoch"])


@dataclass(frozen=True)
class Correction:
    """One epoch's label correction."""

    w: Tensor  # (N,) float32, weight of the given label
    predictions: Tensor  # (N, C) float32, rows sum to one


@dataclass(frozen=True)
class Epoch:
    """What one epoch leaves behind: a history row per network, and its correction, if any."""

    number: int
    rows: list[dict[str, float | int | str]]
    correction: Correction | None


def one_hot(data: Data) -> Tensor:
    """(N, C) float32: the given labels of the training images, y in the equations."""
    return F.one_hot(data.train.given, data.num_classes).float()


class Engine:
    """How epochs and passes over images are computed: here by the plain loop, the oracle of `fast.Engine`.

    Several runs share a device in turns: a turn is what one of them computes before another may go on.
    """

    def prepare(self, state: State, data: Data) -> None:
        """What must be ready before the first epoch: here nothing."""

    def turns(
        self, state: State, data: Data, config: Config, epoch: int, sigma: float
    ) -> Generator[None, None, float]:
        """An epoch as turns, here a single one; returns the mean of the objective, as `train_epoch` does."""
        yield
        return train_epoch(state, data, config, epoch, sigma)

    def train_epoch(self, state: State, data: Data, config: Config, epoch: int, sigma: float) -> float:
        """All turns of an epoch."""
        return last(self.turns(state, data, config, epoch, sigma))

    def predict(
        self, network: nn.Module, split: Split, data: Data, draws: CropsAndFlips | None = None
    ) -> Tensor:
        """`predict`."""
        return predict(network, split, data, draws)


Returned = TypeVar("Returned")


def last(turns: Generator[object, None, Returned]) -> Returned:
    """Take all turns without a break; what the generator returns."""
    while True:
        try:
            next(turns)
        except StopIteration as end:
            return end.value


def train(
    state: State, data: Data, config: Config, engine: Engine | None = None, *, measured: bool = True
) -> Iterator[Epoch]:
    """The epochs of `train_in_turns`, without the breaks."""
    return filter(None, train_in_turns(state, data, config, engine, measured=measured))


def train_in_turns(
    state: State, data: Data, config: Config, engine: Engine | None = None, *, measured: bool = True
) -> Iterator[Epoch | None]:
    """Train from `state.epoch` to `config.epochs`; yields an Epoch after each, and None between turns.

    After an epoch `state` is whole: save it, or go on. `engine` decides how fast, default `Engine`. Without
    `measured` there are no rows, which spares a third of a small network's time.

    The recipe, for CIFAR as released: constant step size, shuffled batches with the last, smaller one kept,
    each batch's loss its own mean, the momentum model updated after every step, two passes over the test
    images per epoch (network and momentum model). From the first epoch after `config.correction` on there is
    no stochastic noise, and each epoch starts by correcting the targets. Deviation: the released log's
    training accuracy compares with argmax(y + sigma z), which at sigma = 1 is the label for only a third of
    the examples; `measure` compares with given and with true labels.
    """
    engine = engine or Engine()
    if state.epoch < config.epochs:
        engine.prepare(state, data)
        yield None
    while state.epoch < config.epochs:
        epoch, start = state.epoch + 1, time.perf_counter()
        corrects = config.corrects and epoch > config.correction
        correction = correct(state, data, config, epoch, engine) if corrects else None
        sigma = 0.0 if corrects else sigma_of(state.network, data, config, epoch)
        objective = yield from engine.turns(state, data, config, epoch, sigma)
        require(math.isfinite(objective), f"the loss became {objective} in epoch {epoch}; lower lr or sigma")
        state.epoch = epoch
        shared = {"epoch": epoch, "objective": objective, "sigma": sigma}
        shared["seconds"] = time.perf_counter() - start
        whole = epoch % config.measure_train_every == 0 or epoch <= ALWAYS_WHOLE or epoch == config.epochs
        tested = epoch % config.measure_test_every == 0 or epoch > config.epochs - ALWAYS_TESTED
        rows = [
            shared | {"weights": name} | measure(network, data, whole=whole, tested=tested, engine=engine)
            for name, network in state.networks.items()
            if measured
        ]
        yield Epoch(epoch, rows, correction)


@dataclass(frozen=True)
class Draws:
    """Everything random of one epoch, one entry per example."""

    order: Tensor  # (N,) int64, in which the examples are seen
    z: Tensor  # (N, C) float32, of the stochastic noise; zero for examples that get none
    crops: CropsAndFlips | None  # None without augmentation
    noise: torch.Generator  # what noise on the gradient is drawn from, step by step: it is the network's size

    def to(self, device: torch.device) -> Draws:
        """The draws on `device`; the generator stays on the CPU."""
        crops = None if self.crops is None else self.crops.to(device)
        return Draws(self.order.to(device), self.z.to(device), crops, self.noise)


def draw(data: Data, config: Config, epoch: int) -> Draws:
    """The draws of `epoch` on the CPU, before its first step and from (seed, stream, epoch) alone.

    So a resumed run needs no generator's state, and no example's draws depend on the order of the batches.
    """
    N = len(data.train)
    order = torch.randperm(N, generator=torch_generator(config.seed, "shuffling", epoch))
    noise = torch_generator(config.seed, "stochastic noise", epoch)
    z = torch.randn(N, data.num_classes, generator=noise)
    if config.noise_for != "all":
        z[data.train.wrong == (config.noise_for == "right")] = 0
    return Draws(order, z, crops_and_flips(data, config, epoch), noise)


def train_epoch(state: State, data: Data, config: Config, epoch: int, sigma: float) -> float:
    """One pass over the training set. Returns the mean of the objective, noise included."""
    network, optimizer = state.network, state.optimizer
    network.train()
    set_learning_rate(optimizer, config, epoch)
    draws = draw(data, config, epoch).to(data.device)
    total = torch.zeros((), dtype=torch.float64, device=data.device)
    for index in draws.order.split(config.batch_size):
        images, given, z = batch(data, index, draws.crops), state.targets[index], draws.z[index]
        noisy = method.noisy_labels(given, sigma, z) if config.noise_on == "labels" else given
        at_logits = sigma * z if config.noise_on == "logits" else None
        loss = state.objective.gradient(Batch(images, given, noisy, at_logits, index, epoch))
        if sigma > 0 and config.noise_on == "gradient":
            method.add_gradient_noise(network.parameters(), sigma, draws.noise)
        optimizer.step()
        for average in state.averages.values():
            average.update_parameters(network)
        total += loss * len(index)  # read once an epoch: a GPU need not wait for us at every step
    return total.item() / len(data.train)


def set_learning_rate(optimizer: torch.optim.Optimizer, config: Config, epoch: int) -> None:
    """Give every parameter the step size of `epoch`."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, epoch)


def learning_rate(config: Config, epoch: int) -> float:
    """The step size of `epoch`: constant, or a tenth after `config.lr_drop` (Clothing1M)."""
    return config.lr / 10 if 0 < config.lr_drop < epoch else config.lr


def crops_and_flips(data: Data, config: Config, *counters: int) -> CropsAndFlips | None:
    """One pass's draws for all training images, on the CPU; None without augmentation."""
    if not config.augment:
        return None
    generator = torch_generator(config.seed, "augmentation", *counters)
    return draw_crops(len(data.train), data.padding, generator)


def batch(data: Data, index: Tensor, draws: CropsAndFlips | None) -> Tensor:
    """(B, channels, H, W) float32: training images by index (B,), augmented by `draws`, normalised."""
    images = data.train.images[index]
    if draws is not None:
        images = crop_and_flip(images, draws.of(index), data.padding)
    return data.normalise(images)


@torch.no_grad()
def correct(state: State, data: Data, config: Config, epoch: int, engine: Engine | None = None) -> Correction:
    """Set `state.targets` to w y + (1 - w) y_hat, by the momentum model's predictions and losses.

    y is the given label in both readings of the method; the losses that make w differ:

    given (the clean rule, the default) : against the given labels, on plain images
    as-released : the released loader shares the data set that training reads, so its images are *augmented*
        (if `config.augment`), for y_hat too, and from the second corrected epoch on its losses are against
        targets that are *already corrected*
    """
    given, draws, against = one_hot(data), None, one_hot(data)
    if config.correction_losses == "as-released":
        draws, against = crops_and_flips(data, config, epoch, 1), state.targets.cpu()
    logits = (engine or Engine()).predict(state.averages["momentum"].module, data.train, data, draws)
    w = method.CORRECTION_WEIGHTS[config.correction_weight](method.soft_cross_entropy(logits, against))
    probabilities = F.softmax(logits, dim=1)
    hard = F.one_hot(probabilities.argmax(dim=1), data.num_classes).float()
    correction = Correction(w, probabilities if config.soft_correction else hard)
    state.targets = method.corrected_targets(given, correction.predictions, w).to(data.device)
    return correction


@torch.no_grad()
def predict(network: nn.Module, split: Split, data: Data, draws: CropsAndFlips | None = None) -> Tensor:
    """(N, C) logits on the CPU, in data-set order, in evaluation mode, of images augmented by `draws`."""
    network.eval()
    parts = [network(data.normalise(images)) for images in prediction_batches(split, data, draws)]
    return torch.cat(parts).cpu() if parts else torch.zeros(0, data.num_classes)


def prediction_batches(split: Split, data: Data, draws: CropsAndFlips | None = None) -> Iterator[Tensor]:
    """The images of `split` in order, uint8, in batches of `prediction_size`, augmented by `draws`."""
    size, draws = prediction_size(data.device), draws and draws.to(data.device)
    for start in range(0, len(split), size):
        rows = slice(start, start + size)
        images = split.images[rows]
        yield images if draws is None else crop_and_flip(images, draws.of(rows), data.padding)


def measure(
    network: nn.Module, data: Data, *, whole: bool = True, tested: bool = True, engine: Engine | None = None
) -> dict[str, float]:
    """One history row's numbers: on test, on validation against its given, noisy labels, and on training.

    Those on training, which cost most, are NaN without `whole`, the others without `tested`.
    """
    predict = (engine or Engine()).predict
    train = data.train if whole else data.train[:0]
    test, validation = (part if tested else part[:0] for part in (data.test, data.validation))
    return {
        **measure_test(predict(network, test, data), test.true),
        "validation_accuracy": accuracy(predict(network, validation, data), validation.given),
        **measure_train(predict(network, train, data), train),
    }
