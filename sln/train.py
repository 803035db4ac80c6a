"""One straight training loop.

It knows nothing of disks, bars or notebooks: it yields what it measured, epoch by epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sln import method, models
from sln.config import Config
from sln.data import Data, Split
from sln.errors import require
from sln.metrics import accuracy, measure_test, measure_train
from sln.streams import torch_generator


class State:
    """Everything that changes while a run trains, and nothing else: what a checkpoint holds.

    network : the trained network
    averages : its momentum models by name ("momentum" is the one of `alpha`)
    optimizer : SGD with its momentum buffers
    targets : (N, C), what each example is trained towards
    epoch : epochs finished
    """

    def __init__(self, config: Config, data: Data) -> None:
        self.network = models.build(
            config.model,
            in_channels=data.train.images.shape[1],
            num_classes=data.num_classes,
            seed=config.seed,
        )
        self.averages = {"momentum": method.momentum_model(self.network, config.alpha)}
        for alpha in config.extra_alphas:
            self.averages[f"momentum {alpha:g}"] = method.momentum_model(self.network, alpha)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=True,  # one kernel a step instead of several a parameter
        )
        self.targets = F.one_hot(data.train.given, data.num_classes).float()
        self.epoch = 0

    @property
    def readers(self) -> dict[str, nn.Module]:
        """The networks that can be read from this run: "network" (SLN) and its momentum models (SLN-MO)."""
        return {"network": self.network} | {name: average.module for name, average in self.averages.items()}

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors, for a file: "network/conv1.weight", "optimizer/conv1.weight", ..."""
        named = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        for reader, average in self.averages.items():
            named |= {f"{reader}/{name}": value for name, value in average.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            buffer = self.optimizer.state[parameter].get("momentum_buffer")
            if buffer is not None:
                named[f"optimizer/{name}"] = buffer
        return named | {"targets": self.targets, "epoch": torch.tensor(self.epoch)}

    def restore(self, named: dict[str, Tensor]) -> None:
        """Continue from `tensors()`. Raises KeyError or RuntimeError for those of another configuration."""
        groups: dict[str, dict[str, Tensor]] = {"optimizer": {}}
        for name, value in named.items():
            group, _, rest = name.partition("/")
            groups.setdefault(group, {})[rest] = value
        self.network.load_state_dict(groups["network"])
        for reader, average in self.averages.items():
            average.load_state_dict(groups[reader])
        for name, parameter in self.network.named_parameters():
            if name in groups["optimizer"]:
                self.optimizer.state[parameter]["momentum_buffer"] = groups["optimizer"][name].clone()
        self.targets = named["targets"].clone()
        self.epoch = int(named["epoch"])


@dataclass(frozen=True)
class Correction:
    """One epoch's label correction.

    w : (N,) float32, weight of the given label
    predictions : (N, C) float32, rows sum to one
    """

    w: Tensor
    predictions: Tensor


@dataclass(frozen=True)
class Epoch:
    """What one epoch leaves behind: a history row a reader, and the correction that preceded it, if any."""

    number: int
    rows: list[dict[str, float | int | str]]
    correction: Correction | None


def train(state: State, data: Data, config: Config) -> Iterator[Epoch]:
    """Train from `state.epoch` to `config.epochs`, yielding what was measured after every epoch.

    `state` is whole then: save it, or go on.

    The recipe: constant step size, shuffled batches with the last, smaller one kept, each batch's loss its
    own mean, the momentum model updated after every step. From the first epoch after `config.correction` on
    there is no stochastic noise, and each epoch starts by correcting the targets.
    """
    while state.epoch < config.epochs:
        epoch, start = state.epoch + 1, time.perf_counter()
        corrects = config.corrects and epoch > config.correction
        correction = correct(state, data, config) if corrects else None
        objective = train_epoch(state, data, config, epoch, sigma=0.0 if corrects else config.sigma)
        require(math.isfinite(objective), f"the loss became {objective} in epoch {epoch}; lower lr or sigma")
        state.epoch = epoch
        shared = {"epoch": epoch, "objective": objective, "seconds": time.perf_counter() - start}
        rows = [shared | {"reader": name} | measure(reader, data) for name, reader in state.readers.items()]
        yield Epoch(epoch, rows, correction)


def train_epoch(state: State, data: Data, config: Config, epoch: int, sigma: float) -> float:
    """One pass over the training set. Returns the mean of the objective, noise included."""
    network, optimizer = state.network, state.optimizer
    network.train()
    order = torch.randperm(len(data.train), generator=torch_generator(config.seed, "shuffling", epoch))
    noise = torch_generator(config.seed, "stochastic noise", epoch)
    # (N, C), in data-set order: one draw an example and epoch
    z = torch.randn(state.targets.shape, generator=noise)
    total = 0.0
    for index in order.split(config.batch_size):
        logits = network(data.normalise(data.train.images[index]))
        targets = state.targets[index]
        if sigma > 0 and config.noise_on == "labels":
            targets = method.noisy_labels(targets, sigma, z[index])
        losses = method.soft_cross_entropy(logits, targets)
        if sigma > 0 and config.noise_on == "logits":
            losses = losses + method.logit_noise(logits, sigma, z[index])
        loss = losses.mean()
        optimizer.zero_grad()
        loss.backward()
        if sigma > 0 and config.noise_on == "gradient":
            method.add_gradient_noise(network.parameters(), sigma, noise)
        optimizer.step()
        for average in state.averages.values():
            average.update_parameters(network)
        total += loss.item() * len(index)
    return total / len(data.train)


def correct(state: State, data: Data, config: Config) -> Correction:
    """Set `state.targets` to w y + (1 - w) y_hat, by the momentum model's predictions and losses.

    The losses are against the given labels. With `correction_losses="as-released"` they are, as in the
    released code, against the targets as they stand, which from the second corrected epoch on are already
    corrected; y is the given label in both. (The released code also computes them on augmented images. The
    embedded digits are not augmented.)
    """
    given = F.one_hot(data.train.given, data.num_classes).float()
    logits = predict(state.averages["momentum"].module, data.train, data)
    against = state.targets if config.correction_losses == "as-released" else given
    w = method.correction_weight(method.soft_cross_entropy(logits, against))
    probabilities = F.softmax(logits, dim=1)
    hard = F.one_hot(probabilities.argmax(dim=1), data.num_classes).float()
    correction = Correction(w, probabilities if config.soft_correction else hard)
    state.targets = method.corrected_targets(given, correction.predictions, w)
    return correction


@torch.no_grad()
def predict(network: nn.Module, split: Split, data: Data, batch_size: int = 128) -> Tensor:
    """(N, C) logits in data-set order, in evaluation mode (BatchNorm's running statistics)."""
    network.eval()
    return torch.cat([network(data.normalise(images)) for images in split.images.split(batch_size)])


def measure(network: nn.Module, data: Data) -> dict[str, float]:
    """One history row's numbers: on test, on training, and on validation against its given, noisy labels."""
    return {
        **measure_test(predict(network, data.test, data), data.test.true),
        "validation_accuracy": accuracy(predict(network, data.validation, data), data.validation.given),
        **measure_train(predict(network, data.train, data), data.train),
    }


def averaged_softmax(clean: Data, config: Config, epochs: int) -> np.ndarray:
    """(N_train + N_validation, C): softmax outputs averaged over `epochs`, for instance-dependent noise.

    The network is `config`'s, trained by plain cross-entropy on the *true* labels of the same training and
    validation images (Chen et al., AAAI 2021). Its seed is `config.noise_seed`.
    """
    both = Split(
        *(
            torch.cat([getattr(clean.train, name), getattr(clean.validation, name)])
            for name in ("images", "given", "true")
        )
    )
    everything = Data(both, clean.validation, clean.test, clean.classes, clean.scale, clean.mean, clean.std)
    config = config.replace(
        noise_mode="none", sigma=0.0, correction=-1, extra_alphas=(), epochs=epochs, seed=config.noise_seed
    )
    state = State(config, everything)
    mean = torch.zeros(len(both), clean.num_classes)
    for epoch in range(1, epochs + 1):
        train_epoch(state, everything, config, epoch, sigma=0.0)
        mean += F.softmax(predict(state.network, both, everything), dim=1) / epochs
    return mean.double().numpy()
