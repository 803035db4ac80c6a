"""The Clothing1M recipe, by one process or by several under torchrun.

As `train`, apart from what the data set asks for: images are decoded while training goes on, each epoch sees
a fresh class-balanced subset, and the reported epoch is chosen on clean validation images.

Several processes (`distributed`) share every global batch of `config.batch_size` examples. They draw the same
subset, order and noise; each takes its contiguous part of a batch and scales its loss so that
DistributedDataParallel's average is the gradient of the mean over the whole batch, also where the parts have
unequal sizes or one is empty. So the numbers do not depend on how many processes there are, but for the last
bits, and for BatchNorm, which

- normalises a process's part by that part's statistics, unless `sync_batchnorm`, then by the whole batch's;
- keeps process 0's running statistics, as DistributedDataParallel does by default: here they are sent to all
  processes after each step instead of before the next one, so that the momentum model, which averages them,
  is the same everywhere at every step. versions.json says how many processes there were.

The run folder is that of `runs`, apart from: no examples.csv; history.csv has the column `chosen`;
weights.safetensors holds the weights of the chosen epoch, as the released script saves them;
corrections/NNN.npz has the rows (lines of noisy_train.txt, from 0) that w and predictions belong to, as
`index`; bad_images.csv lists images left out, with `skip_bad_images`.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sln import method
from sln.config import Config
from sln.datasets import clothing1m
from sln.datasets.clothing1m import CENTRE, C, Clothing1M, Decoder, View
from sln.datasets.load import threads
from sln.metrics import accuracy, measure_test
from sln.objective import forward
from sln.runs import store
from sln.train import Correction, learning_rate
from sln.utils import distributed
from sln.utils.errors import InputError, require
from sln.utils.files import data_folder, write_json
from sln.utils.progress import Progress
from sln.utils.rng import torch_generator
from sln.utils.vision import torchvision

# torchvision's IMAGENET1K_V1; a name ends in the first digits of the file's SHA-256
IMAGENET = {"resnet50": "resnet50-0676ba61.pth", "resnet18": "resnet18-f37072fd.pth"}
PREDICTED_TOGETHER = 128  # images a process predicts at once; no number but the last bits depends on it
STEPS_BETWEEN_LOOKS = 50  # at the loss: reading it makes a GPU wait
TRAINING, CORRECTING = 0, 1  # passes of an epoch that crop and flip: each has draws of its own


# --- networks -----------------------------------------------------------------------------------------------


def build(config: Config, *, pretrained: bool = False) -> nn.Module:
    """The ResNet of `config` for C classes, torchvision's; initial weights from the "initialisation" stream.

    pretrained : ImageNet weights everywhere but in the last layer. Raises InputError where they are missing.
    """
    weights = imagenet_weights(config.model) if pretrained else {}
    with torch.random.fork_rng(devices=[]):
        torch.random.set_rng_state(torch_generator(config.seed, "initialisation").get_state())
        network = getattr(torchvision().models, config.model)(num_classes=C)
    network.load_state_dict(
        network.state_dict() | {name: value for name, value in weights.items() if not name.startswith("fc.")}
    )
    return network.to(memory_format=torch.channels_last)


def imagenet_weights(model: str) -> dict[str, Tensor]:
    """torchvision's ImageNet weights of `model`, from the data folder or torch.hub's.

    Reading them runs no code. Raises InputError where they are missing or not the published ones.
    """
    ours, torchs = places(model)
    found = next((place for place in (ours, torchs) if place.is_file()), None)
    if found is None:
        raise InputError(
            f"ImageNet weights {IMAGENET[model]} are in neither {ours.parent} nor {torchs.parent}; "
            f"{_way_to(model)}, --no-pretrained does without"
        )
    prefix = found.stem.rpartition("-")[2]
    sha256 = store.sha256(found)
    require(
        sha256.startswith(prefix),
        f"{found} is not the published file: its SHA-256 starts with {sha256[:8]}, expected is {prefix}; "
        f"remove it; {_way_to(model)}",
    )
    return torch.load(found, map_location="cpu", weights_only=True)


def places(model: str) -> tuple[Path, Path]:
    """Where ImageNet weights of `model` may be: in the data folder, or in torch.hub's."""
    name = IMAGENET[model]
    return data_folder() / name, Path(torch.hub.get_dir()) / "checkpoints" / name


def _way_to(model: str) -> str:
    if model == "resnet50":
        return "`python -m sln data get resnet50` gets them"
    return f"put torchvision's {IMAGENET[model]} there"


class State:
    """Everything that changes while a run trains: what a checkpoint holds.

    network, momentum, optimizer, epoch : as in `train.State`; `momentum` is the one momentum model
    best_epoch, best_validation : the epoch chosen so far (0: none), and its validation accuracy
    best : the weights of both at that epoch, "network/conv1.weight", ..., on the CPU
    """

    def __init__(self, config: Config, device: torch.device, *, pretrained: bool) -> None:
        network = build(config, pretrained=pretrained)
        if config.sync_batchnorm:
            require(device.type == "cuda", "sync_batchnorm works on GPUs only; leave it out on a CPU")
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        self.network = network.to(device)
        self.momentum = method.MomentumModel(self.network, config.alpha)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.epoch = self.best_epoch = 0
        self.best_validation = -math.inf
        self.best: dict[str, Tensor] = {}

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks that can be read: "network" (SLN) and "momentum" (SLN-MO)."""
        return {"network": self.network, "momentum": self.momentum.module}

    def keep_if_best(self, validation_accuracy: float) -> None:
        """Choose this epoch if it is better than all before it: of equal ones, the first stays.

        `validation_accuracy` is the momentum model's.
        """
        if validation_accuracy > self.best_validation:
            self.best_epoch, self.best_validation = self.epoch, validation_accuracy
            self.best = {
                f"{weights}/{name}": value.detach().cpu().clone()
                for weights, network in self.networks.items()
                for name, value in network.state_dict().items()
            }

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors, for a file."""
        named = {f"network/{name}": value for name, value in self.network.state_dict().items()}
        named |= {f"momentum/{name}": value for name, value in self.momentum.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            buffer = self.optimizer.state[parameter].get("momentum_buffer")
            if buffer is not None:
                named[f"optimizer/{name}"] = buffer
        named |= {f"best/{name}": value for name, value in self.best.items()}
        return named | {
            "epoch": torch.tensor(self.epoch),
            "best_epoch": torch.tensor(self.best_epoch),
            "best_validation": torch.tensor(self.best_validation, dtype=torch.float64),
        }

    def restore(self, named: Mapping[str, Tensor]) -> None:
        """Continue from `tensors()`. Raises KeyError or RuntimeError for those of another configuration."""
        groups: dict[str, dict[str, Tensor]] = {"optimizer": {}, "best": {}}
        for name, value in named.items():
            group, _, rest = name.partition("/")
            groups.setdefault(group, {})[rest] = value
        self.network.load_state_dict(groups["network"])
        self.momentum.load_state_dict(groups["momentum"])
        for name, parameter in self.network.named_parameters():
            if name in groups["optimizer"]:
                # of the parameter's device and memory layout, as SGD makes it
                buffer = torch.empty_like(parameter, requires_grad=False).copy_(groups["optimizer"][name])
                self.optimizer.state[parameter]["momentum_buffer"] = buffer
        self.best = {name: value.clone() for name, value in groups["best"].items()}
        self.epoch, self.best_epoch = int(named["epoch"]), int(named["best_epoch"])
        self.best_validation = float(named["best_validation"])


# --- training -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """What one process works with, and what does not change.

    frozen_batchnorm : train with BatchNorm's running statistics, which makes the numbers independent of the
        number of processes (for tests; the recipe does not)
    """

    config: Config
    data: Clothing1M
    decoder: Decoder
    device: torch.device
    frozen_batchnorm: bool = False


@dataclass(frozen=True)
class Epoch:
    """What one epoch leaves behind: history rows, one per network; its training images; their correction."""

    number: int
    rows: list[dict[str, float | int | str]]
    subset: np.ndarray
    correction: Correction | None


def train(state: State, job: Job, *, quiet: bool) -> Iterator[Epoch]:
    """Train from `state.epoch` to `config.epochs`, yielding what was measured after every epoch.

    The released recipe: a class-balanced subset an epoch, in shuffled batches with the last, smaller one
    kept; step size divided by 10 after epoch `lr_drop`; the momentum model updated after every step; from the
    first epoch after `correction` on no stochastic noise, and targets that are corrected first. Since every
    epoch draws its own subset, with its given labels, no correction builds on an earlier one, here and in the
    released code.
    """
    config, data = job.config, job.data
    network = _parallel(state.network)
    while state.epoch < config.epochs:
        epoch, start = state.epoch + 1, time.perf_counter()
        corrects = config.corrects and epoch > config.correction
        subset = data.subset(config.num_per_class, config.seed, epoch)
        targets = F.one_hot(torch.from_numpy(data.labels[subset]), C).float()
        batches = math.ceil(len(subset) / config.batch_size) + sum(
            _predictions(rows)
            for rows in (data.rows("validation"), data.rows("test"), *([subset] if corrects else []))
        )
        correction = None
        with Progress(batches, f"epoch {epoch} of {config.epochs}", "batches", quiet=quiet) as progress:
            if corrects:
                correction = correct(state, job, subset, epoch, progress)
                targets = method.corrected_targets(targets, correction.predictions, correction.w)
            sigma = 0.0 if corrects else config.sigma
            objective = train_epoch(network, state, job, subset, targets, epoch, sigma, progress)
            finite = math.isfinite(objective)
            distributed.agree(
                None if finite else f"the loss became {objective} in epoch {epoch}; lower lr or sigma"
            )
            shared = {
                "epoch": epoch,
                "objective": objective,
                "lr": learning_rate(config, epoch),
                "seconds": time.perf_counter() - start,
            }
            measured = measure(state.networks, job, progress)
        state.epoch = epoch
        state.keep_if_best(measured["momentum"]["validation_accuracy"])
        rows = [shared | {"weights": weights} | numbers for weights, numbers in measured.items()]
        yield Epoch(epoch, rows, subset, correction)


def train_epoch(
    network: nn.Module,
    state: State,
    job: Job,
    subset: np.ndarray,
    targets: Tensor,
    epoch: int,
    sigma: float,
    progress: Progress,
) -> float:
    """One pass over the epoch's n images. Returns the mean of the objective, noise included.

    network : that of `state`, or its DistributedDataParallel
    subset : (n,) rows
    targets : (n, C), in the order of `subset`, as is the noise z
    """
    config, optimizer, n = job.config, state.optimizer, len(subset)
    network.train()
    if job.frozen_batchnorm:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config, epoch)
    order = torch.randperm(n, generator=torch_generator(config.seed, "shuffling", epoch))
    if sigma > 0:
        z = torch.randn(n, C, generator=torch_generator(config.seed, "stochastic noise", epoch))
        targets = method.noisy_labels(targets, sigma, z)
    wholes = order.split(config.batch_size)
    parts = [whole[distributed.share(len(whole))] for whole in wholes]
    view = (epoch, TRAINING) if config.augment else CENTRE
    decoded = job.decoder.read([(row, view) for row in subset[part.numpy()].tolist()] for part in parts)
    total, seen = torch.zeros((), dtype=torch.float64, device=job.device), 0
    for step, (whole, part, (images, faults)) in enumerate(zip(wholes, parts, decoded, strict=True), 1):
        distributed.agree(job.data.complaint(faults))
        images = clothing1m.normalise(images.to(job.device, non_blocking=True))
        losses = method.soft_cross_entropy(forward(network, images, config), targets[part].to(job.device))
        # the sum over this part; the gradients of W processes are added and divided by W
        loss = losses.sum() * (distributed.world_size() / len(whole))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        distributed.broadcast_buffers(state.network)
        state.momentum.update_parameters(state.network)
        total += losses.detach().sum()
        seen += len(part)
        facts = {}
        if step % STEPS_BETWEEN_LOOKS == 0 and seen:
            facts["loss"] = total.item() / seen
        progress.advance(**facts)
    return distributed.total(total) / n


def correct(state: State, job: Job, subset: np.ndarray, epoch: int, progress: Progress) -> Correction:
    """w (n,) and y_hat (n, C) of the epoch's n images, by the momentum model's predictions and losses.

    The losses are against the given labels. With `correction_losses="as-released"` images are cropped and
    flipped for it, as in the released code, whose data set has one transformation for both passes; otherwise
    they are centre crops. The smallest and the largest loss are those of the whole subset.
    """
    config = job.config
    view = (epoch, CORRECTING) if config.augment and config.correction_losses == "as-released" else CENTRE
    (logits,) = predict([state.momentum.module], job, subset, view, progress)
    given = F.one_hot(torch.from_numpy(job.data.labels[subset]), C).float()
    w = method.correction_weight(method.soft_cross_entropy(logits, given))
    probabilities = F.softmax(logits, dim=1)
    hard = F.one_hot(probabilities.argmax(dim=1), C).float()
    return Correction(w, probabilities if config.soft_correction else hard)


@torch.no_grad()
def predict(
    networks: Sequence[nn.Module], job: Job, rows: np.ndarray, view: View, progress: Progress
) -> list[Tensor]:
    """(N, C) float32 logits of each network, on the CPU, in the order of `rows`, in every process.

    In evaluation mode (BatchNorm's running statistics) and in float32. Each process decodes its part of the
    rows once for all networks.
    """
    for network in networks:
        network.eval()
    mine = rows[distributed.share(len(rows))].tolist()
    batches = [mine[i : i + PREDICTED_TOGETHER] for i in range(0, len(mine), PREDICTED_TOGETHER)]
    parts: list[list[Tensor]] = [[torch.zeros(0, C)] for _ in networks]
    complaint = None
    for images, faults in job.decoder.read([(row, view) for row in batch] for batch in batches):
        complaint = job.data.complaint(faults)
        if complaint is not None:
            break
        images = clothing1m.normalise(images.to(job.device, non_blocking=True))
        for network, part in zip(networks, parts, strict=True):
            part.append(network(images).cpu())
        progress.advance()
    distributed.agree(complaint)
    return [distributed.gather(torch.cat(part)) for part in parts]


def measure(networks: Mapping[str, nn.Module], job: Job, progress: Progress) -> dict[str, dict[str, float]]:
    """For each network `metrics.measure_test` on the test images, and the accuracy on validation images.

    Labels of both are clean. There are no measures on training images, whose true labels nobody knows.
    """
    logits = {
        split: predict(list(networks.values()), job, job.data.rows(split), CENTRE, progress)
        for split in ("validation", "test")
    }
    labels = {split: torch.from_numpy(job.data.labels[job.data.rows(split)]) for split in logits}
    return {
        weights: {
            **measure_test(test, labels["test"]),
            "validation_accuracy": accuracy(validation, labels["validation"]),
        }
        for weights, validation, test in zip(networks, logits["validation"], logits["test"], strict=True)
    }


def _predictions(rows: np.ndarray) -> int:
    """Batches in which this process predicts its part of `rows`."""
    return math.ceil(len(range(len(rows))[distributed.share(len(rows))]) / PREDICTED_TOGETHER)


def _parallel(network: nn.Module) -> nn.Module:
    """`network`, with gradients averaged over the processes where there are several."""
    if distributed.world_size() == 1:
        return network
    device = next(network.parameters()).device
    parallel = DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None)
    parallel.broadcast_buffers = False  # `train_epoch` does it, earlier
    return parallel


# --- runs on disk -------------------------------------------------------------------------------------------


def train_run(
    config: Config,
    quiet: bool = False,
    *,
    frozen_batchnorm: bool = False,
    keep_state_at: int = -1,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> None:
    """Train the run of `config`, or finish it, into its folder: what `runs.get` does for Clothing1M.

    Every process of a torchrun calls it; process 0 alone touches the folder, and needs the ImageNet weights.
    It is resumed at the last finished epoch, with the numbers of an uninterrupted run, bit for bit on a CPU
    with as many processes. A corrected run starts from its uncorrected run's state at the correction epoch
    where that is there. Whoever calls this holds the run's lock. `on_epoch` is called after every epoch, in
    process 0.
    """
    path = store.folder(config)
    with distributed.group(), threads(config.threads):
        main = distributed.is_main()
        quiet = quiet or not main
        device = distributed.together(distributed.device)
        data = distributed.together(clothing1m.read)
        _same_lists(data)
        distributed.on_main(lambda: _start(path, config))
        if config.skip_bad_images:
            data = clothing1m.without_bad_images(data, path, quiet=quiet)
        state = distributed.together(
            lambda: State(config, device, pretrained=config.pretrained and main and not _source(path, config))
        )
        rows = distributed.on_main(lambda: _resume(path, config, state))
        if distributed.world_size() > 1:
            state.restore(distributed.broadcast(state.tensors()))
        decoder = distributed.together(lambda: Decoder(data, config.seed, pin_memory=device.type == "cuda"))
        with decoder:
            job = Job(config, data, decoder, device, frozen_batchnorm)
            for epoch in train(state, job, quiet=quiet):
                rows = rows + epoch.rows
                distributed.on_main(functools.partial(_save, path, config, state, rows, epoch, keep_state_at))
                if main and on_epoch is not None:
                    on_epoch(epoch)
        distributed.on_main(lambda: _finish(path, state, rows))


def _same_lists(data: Clothing1M) -> None:
    """Raise InputError unless all processes, perhaps of several machines, have read the same lists."""
    main, mine = distributed.on_main(lambda: data.checksum), data.checksum
    distributed.agree(
        None if mine == main else f"the lists in {data.root / 'annotations'} are not those of process 0"
    )


def evaluate(config: Config, networks: Mapping[str, nn.Module], *, quiet: bool = False) -> dict[str, dict]:
    """`measure` of networks on the images below the data folder, on `devices.device()`."""
    device = distributed.device()
    data = clothing1m.read()
    if config.skip_bad_images:
        data = clothing1m.without_bad_images(data, store.folder(config), quiet=quiet)
    batches = sum(_predictions(data.rows(split)) for split in ("validation", "test"))
    with (
        threads(config.threads),
        Decoder(data, config.seed, pin_memory=device.type == "cuda") as decoder,
        Progress(batches, "evaluating", "batches", quiet=quiet) as progress,
    ):
        moved = {weights: network.to(device) for weights, network in networks.items()}
        return measure(moved, Job(config, data, decoder, device), progress)


def network(config: Config, folder: Path, weights: str) -> nn.Module:
    """The network or momentum model of a finished run's chosen epoch, in evaluation mode."""
    prefix = f"{weights}/"
    tensors = store.read_tensors(folder / "weights.safetensors")
    built = build(config)
    built.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    return built.eval()


def _start(path: Path, config: Config) -> None:
    if (path / "config.json").exists():
        store.check_config(path, config)
        return
    write_json(path / "config.json", config.to_dict())
    versions = store.versions() | {
        "torchvision": torchvision().__version__,
        "pillow": version("pillow"),
        "processes": str(distributed.world_size()),
    }
    write_json(path / "versions.json", versions)


def _checkpoint(path: Path) -> Path:
    return path / "checkpoint.safetensors"


def _aside(path: Path) -> Path:
    """Where the checkpoint is while the finished run is sealed, to be out of the seal but not lost."""
    return path / ".checkpoint.safetensors"


def _source(path: Path, config: Config) -> tuple[Path, Path] | None:
    """Run folder and file that hold the state to go on from: this run's, or its uncorrected run's."""
    for file in (_checkpoint(path), _aside(path)):
        if file.exists():
            return path, file
    if config.corrects:
        uncorrected = store.folder(config.uncorrected)
        file = store.state_file(uncorrected, config.correction)
        if file.exists():
            store.check_config(uncorrected, config.uncorrected)
            return uncorrected, file
    return None


def _resume(path: Path, config: Config, state: State) -> list[dict]:
    """Restore `state` where there is something to go on from; returns the history rows up to there."""
    source = _source(path, config)
    if source is None:
        return []
    return store.resume(state, *source)


def _save(
    path: Path, config: Config, state: State, rows: list[dict], epoch: Epoch, keep_state_at: int
) -> None:
    """After every epoch: its correction, the history, the state."""
    if epoch.correction is not None:
        predictions = epoch.correction.predictions
        if not config.soft_correction:  # a class takes one number where probabilities take C
            predictions = predictions.argmax(dim=1).to(torch.int16)
        arrays = {
            "index": epoch.subset,
            "w": epoch.correction.w.numpy(),
            "predictions": predictions.numpy(),
        }
        store.write_arrays(path / "corrections" / f"{epoch.number:03d}.npz", arrays)
    store.write_history(path, with_chosen(rows, state.best_epoch))
    named = state.tensors()
    if epoch.number == keep_state_at:
        store.write_tensors(store.state_file(path, epoch.number), named)
    store.write_tensors(_checkpoint(path), named)


def with_chosen(rows: Iterable[dict], best_epoch: int) -> list[dict]:
    """The history with the column `chosen`: 1 for the epoch whose numbers are reported, else 0."""
    return [row | {"chosen": int(row["epoch"] == best_epoch)} for row in rows]


def _finish(path: Path, state: State, rows: list[dict]) -> None:
    store.write_history(path, with_chosen(rows, state.best_epoch))
    store.write_tensors(path / "weights.safetensors", state.best)
    if _checkpoint(path).exists():
        _checkpoint(path).replace(_aside(path))
    store.seal(path)
    _aside(path).unlink(missing_ok=True)
