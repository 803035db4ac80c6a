"""The Clothing1M recipe, by one process or by several under torchrun.

It differs from `train` as the data set asks: images are decoded during training, each epoch uses a fresh
class-balanced subset, and clean validation images choose the reported epoch.

Several processes (`distributed`) draw the same subset, order and noise. Each takes its contiguous part of a
batch of `config.batch_size` examples and scales its loss so that the average of DistributedDataParallel is
the gradient of the mean over the whole batch, even if the parts have unequal sizes or one is empty. So the
numbers do not depend on the number of processes, except for the last bits and for BatchNorm: it normalises a
part by the statistics of that part, or of the whole batch with `sync_batchnorm`, and keeps the running
statistics of process 0, as DistributedDataParallel does by default.

The folder of a run has no examples.csv; weights.safetensors holds the weights of the chosen epoch, as the
released script saves them; corrections/NNN.npz has, as `index`, the rows (lines of noisy_train.txt, from 0)
of w and predictions.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sln import method, train
from sln.config import Config
from sln.datasets import clothing1m
from sln.datasets.clothing1m import CENTRE, C, View
from sln.datasets.load import threads
from sln.metrics import accuracy, measure_test
from sln.objective import Objective, forward, sgd
from sln.runs import store
from sln.utils import distributed
from sln.utils.devices import device, torchvision
from sln.utils.errors import require
from sln.utils.progress import Progress
from sln.utils.rng import torch_generator

PREDICTED_TOGETHER = 128  # images in a batch of predictions; it changes only the last bits
STEPS_BETWEEN_LOOKS = 50  # at the loss: reading it makes a GPU wait
TRAINING, CORRECTING = 0, 1  # passes of an epoch that crop and flip: each has its own draws


def build(config: Config, *, pretrained: bool = False) -> nn.Module:
    """torchvision's ResNet of `config` for C classes; initial weights from the "initialisation" stream.

    pretrained : ImageNet weights except in the last layer; InputError if they are missing
    """
    weights = clothing1m.imagenet_weights(config.model) if pretrained else {}
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(torch_generator(config.seed, "initialisation").get_state())
        network = getattr(torchvision().models, config.model)(num_classes=C)
    kept = {name: value for name, value in weights.items() if not name.startswith("fc.")}
    network.load_state_dict(network.state_dict() | kept)
    return network.to(memory_format=torch.channels_last)


class State(train.State):
    """`train.State` with the best epoch so far; there is one momentum model, and no targets are kept.

    best_validation : validation accuracy of the momentum model at that epoch
    best : the weights of both networks at that epoch, "best/network/conv1.weight", ..., on the CPU
    """

    def __init__(self, config: Config, network: nn.Module) -> None:
        self.network = network
        self.averages = {"momentum": method.MomentumModel(network, config.alpha)}
        self.optimizer = sgd(network, config)
        self.objective = Objective(config, network, None)
        self.targets = torch.zeros(0)
        self.epoch = 0
        self.best_validation, self.best = -math.inf, {}

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors, the best epoch's among them."""
        accuracy = torch.tensor(self.best_validation, dtype=torch.float64)
        return super().tensors() | self.best | {"best_validation": accuracy}

    def restore(self, named: dict[str, Tensor]) -> None:
        """Continue from `tensors()`, as `train.State.restore`."""
        super().restore(named)
        self.best = {name: value.clone() for name, value in named.items() if name.startswith("best/")}
        self.best_validation = float(named["best_validation"])


@dataclass(frozen=True)
class Correction(train.Correction):
    """The label correction of an epoch's subset, of which `index` is the rows: (n,) int64."""

    index: Tensor


class Trainer:
    """What a run needs, as `in_memory.Trainer`, in each of its processes.

    fresh : whether the training starts from the beginning, so from ImageNet weights with `pretrained`
    Raises InputError for lists that are incomplete, or not those of process 0.
    """

    def __init__(self, config: Config, device: torch.device, *, quiet: bool, fresh: bool) -> None:
        self.config, self.device, self.quiet = config, device, quiet
        self.data = clothing1m.read(skip_bad_images=config.skip_bad_images)
        lists = (self.data.checksum, self.data.bad)
        ours = f"the lists in {self.data.root / 'annotations'}, or the lists of bad images,"
        same = lists == distributed.broadcast(lists)
        require(same, f"{ours} are not those of process 0; copy them from its machine")
        network = build(config, pretrained=fresh and config.pretrained)
        if config.sync_batchnorm:
            require(device.type == "cuda", "sync_batchnorm works on GPUs only; leave it out on a CPU")
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.state = State(config, network.to(device))
        rows = np.concatenate([self.data.rows(split) for split in clothing1m.SPLITS])
        self.given = torch.from_numpy(self.data.labels[rows])
        self.facts = {"processes": str(distributed.world_size())}

    def weights(self) -> dict[str, Tensor]:
        """The weights of the chosen epoch."""
        return {name.removeprefix("best/"): value for name, value in self.state.best.items()}

    def examples(self) -> None:
        """There is no table of the examples."""

    def epochs(self) -> Iterator[train.Epoch]:
        """Train from `state.epoch` to `config.epochs`, yielding what was measured after every epoch.

        The released recipe: a class-balanced subset per epoch, in shuffled batches with the last, smaller one
        kept; step size divided by 10 after epoch `lr_drop`; the momentum model updated after every step; from
        the first epoch after `correction` on no stochastic noise, and targets that are corrected first, never
        from earlier corrections, since every epoch draws its own subset with its given labels.
        """
        config, state, network = self.config, self.state, self.state.network
        if distributed.world_size() > 1:
            state.restore(distributed.broadcast({name: t.cpu() for name, t in state.tensors().items()}))
            gpus = [self.device.index] if self.device.type == "cuda" else None
            network = DistributedDataParallel(network, device_ids=gpus)
        while state.epoch < config.epochs:
            epoch, start = state.epoch + 1, time.perf_counter()
            subset = self.data.subset(config.num_per_class, config.seed, epoch)
            targets = F.one_hot(torch.from_numpy(self.data.labels[subset]), C).float()
            correction, sigma = None, config.sigma
            if config.corrects and epoch > config.correction:
                correction, sigma = self.correct(subset, epoch), 0.0
                targets = method.corrected_targets(targets, correction.predictions, correction.w)
            objective = self.train_epoch(network, subset, targets, epoch, sigma)
            finite = math.isfinite(objective)
            require(finite, f"the loss became {objective} in epoch {epoch}; lower lr or sigma")
            shared = {"epoch": epoch, "objective": objective, "lr": train.learning_rate(config, epoch)}
            shared["seconds"] = time.perf_counter() - start
            measured, state.epoch = self.measure(state.networks), epoch
            validation = measured["momentum"]["validation_accuracy"]
            if validation > state.best_validation:  # of equal ones, the first stays
                named = store.named_weights(state.networks)
                state.best_validation = validation
                state.best = {f"best/{name}": value.detach().cpu().clone() for name, value in named.items()}
            rows = [shared | {"weights": weights} | numbers for weights, numbers in measured.items()]
            yield train.Epoch(epoch, rows, correction)

    @clothing1m.decoding()
    def train_epoch(
        self, network: nn.Module, subset: np.ndarray, targets: Tensor, epoch: int, sigma: float
    ) -> float:
        """One pass over the images of `subset`, (n,) rows; returns the mean objective, noise included.

        network : that of the state, or its DistributedDataParallel
        targets : (n, C), in the order of `subset`, as is the noise z
        """
        config, state, n = self.config, self.state, len(subset)
        network.train()
        train.set_learning_rate(state.optimizer, config, epoch)
        order = torch.randperm(n, generator=torch_generator(config.seed, "shuffling", epoch))
        if sigma > 0:
            z = torch.randn(n, C, generator=torch_generator(config.seed, "stochastic noise", epoch))
            targets = method.noisy_labels(targets, sigma, z)
        batches = order.split(config.batch_size)
        parts = [batch[distributed.share(len(batch))] for batch in batches]
        view = (epoch, TRAINING) if config.augment else CENTRE
        images_of = self.images([subset[part.numpy()].tolist() for part in parts], view)
        what = f"epoch {epoch} of {config.epochs}, training"
        total, seen = torch.zeros((), dtype=torch.float64, device=self.device), 0
        with Progress(len(batches), what, "batches", quiet=self.quiet) as progress:
            for step, (batch, part, images) in enumerate(zip(batches, parts, images_of, strict=True), 1):
                logits = forward(network, images, config)
                losses = method.soft_cross_entropy(logits, targets[part].to(self.device))
                # the sum over this part; the gradients of W processes are added and divided by W
                loss = losses.sum() * (distributed.world_size() / len(batch))
                state.optimizer.zero_grad()
                loss.backward()
                state.optimizer.step()
                state.averages["momentum"].update_parameters(state.network)
                total += losses.detach().sum()
                seen += len(part)
                look = step % STEPS_BETWEEN_LOOKS == 0 and seen > 0
                progress.advance(**({"loss": total.item() / seen} if look else {}))
        return distributed.total(total) / n

    def correct(self, subset: np.ndarray, epoch: int) -> Correction:
        """w (n,) and y_hat (n, C) of the epoch's n images, by the momentum model's predictions and losses.

        With `correction_losses="as-released"` the images are cropped and flipped, as in the released code,
        whose data set has one transformation for both passes; otherwise they are centre crops.
        """
        released = self.config.augment and self.config.correction_losses == "as-released"
        view = (epoch, CORRECTING) if released else CENTRE
        momentum = {"momentum": self.state.networks["momentum"]}
        logits = self.predict(momentum, subset, view, f"epoch {epoch}, correcting labels")["momentum"]
        given = F.one_hot(torch.from_numpy(self.data.labels[subset]), C).float()
        w = method.CORRECTION_WEIGHTS[self.config.correction_weight](method.soft_cross_entropy(logits, given))
        predictions = F.softmax(logits, dim=1)
        if not self.config.soft_correction:
            predictions = F.one_hot(predictions.argmax(dim=1), C).float()
        return Correction(w, predictions, torch.from_numpy(subset))

    def measure(self, networks: Mapping[str, nn.Module]) -> dict[str, dict[str, float]]:
        """For each network `metrics.measure_test` on test images, and the accuracy on validation images."""
        validation, test = (self.data.rows(split) for split in ("validation", "test"))
        rows, labels = np.concatenate([validation, test]), torch.from_numpy(self.data.labels)
        logits = self.predict(networks, rows, CENTRE, "validation and test images")
        n, measured = len(validation), {}
        for weights, found in logits.items():
            measured[weights] = measure_test(found[n:], labels[test])
            measured[weights]["validation_accuracy"] = accuracy(found[:n], labels[validation])
        return measured

    @clothing1m.decoding()
    @torch.no_grad()
    def predict(
        self, networks: Mapping[str, nn.Module], rows: np.ndarray, view: View, what: str
    ) -> dict[str, Tensor]:
        """(N, C) float32 logits of each network, on the CPU, in the order of `rows`, in every process.

        In evaluation mode. Each process decodes its part of the rows once for all networks; all networks
        become those of process 0.
        """
        for network in networks.values():
            if distributed.world_size() > 1:
                named = {name: value.cpu() for name, value in network.state_dict().items()}
                network.load_state_dict(distributed.broadcast(named))
            network.eval()
        mine = torch.from_numpy(rows[distributed.share(len(rows))])
        batches = [batch.tolist() for batch in mine.split(PREDICTED_TOGETHER)]
        parts: dict[str, list[Tensor]] = {weights: [] for weights in networks}
        with Progress(len(batches), what, "batches", quiet=self.quiet) as progress:
            for images in self.images(batches, view):
                for weights, network in networks.items():
                    parts[weights].append(network(images).cpu())
                progress.advance()
        return {weights: distributed.gather(torch.cat(part)) for weights, part in parts.items()}

    def images(self, batches: list[list[int]], view: View) -> Iterator[Tensor]:
        """For each batch of rows: normalised images (B, 3, CROP, CROP). InputError for one without pixels."""
        seed, pinned = self.config.seed, self.device.type == "cuda"
        for pixels, faults in clothing1m.decoded(self.data, batches, view, seed, pin_memory=pinned):
            if faults:
                raise self.data.error(faults[0])
            yield clothing1m.normalise(pixels.to(self.device, non_blocking=True))


def evaluate(config: Config, networks: Mapping[str, nn.Module], *, quiet: bool = False) -> dict[str, dict]:
    """`Trainer.measure` of networks on the images below the data folder, on `devices.device()`."""
    with threads(config.threads):
        trainer = Trainer(config, device(), quiet=quiet, fresh=False)
        return trainer.measure({weights: network.to(device()) for weights, network in networks.items()})
