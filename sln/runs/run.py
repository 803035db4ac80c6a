"""Runs on disk: found again instead of trained again, resumed after a kill, forked at the correction epoch.

A run is the directory `runs/<run_id>/`:

    config.json              every setting
    labels.json              SHA-256 of the given labels that it is trained on
    versions.json            Python, libraries, processor, when
    history.csv              one row per epoch and network ("network" is SLN, "momentum" is SLN-MO)
    examples.csv             one row per training example: labels, predictions, confidence, losses, target
    corrections/091.npz      per corrected epoch: w (N,) and the predicted class (N,) or probabilities (N, C)
    weights.safetensors      final weights of every network
    weights-010.safetensors  the same after an epoch of `Config.keep_weights_every`
    state-090.safetensors    whole training state after an epoch where a corrected run can start
    checkpoint.safetensors   whole training state, while the run is unfinished
    done.json                written last: SHA-256 of the other files

`store` reads and writes these files. `in_memory.Trainer` and `clothing1m.Trainer`, which train, have the same
attributes and methods.
"""

import contextlib
import functools
import math
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from sln import models
from sln.config import Config
from sln.data import Data
from sln.datasets.load import labels_are_pinned, load_data, threads
from sln.runs import clothing1m, in_memory, store
from sln.train import Correction, Epoch, last
from sln.utils import distributed
from sln.utils.devices import current
from sln.utils.errors import InputError, require
from sln.utils.files import lock, read_json, runs_folder, write_json, write_text

CHECKPOINT_SECONDS = 10.0

Trainer = in_memory.Trainer | clothing1m.Trainer


@dataclass(frozen=True)
class Run:
    """A finished run. Networks and tables are read from disk on first use."""

    config: Config
    folder: Path

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch and network; the columns are those of `train.train` and `metrics`."""
        return store.read_history(self.folder)

    @functools.cached_property
    def examples(self) -> pd.DataFrame:
        """One row per training example, in data-set order; the columns of `in_memory.Trainer.examples`."""
        return pd.read_csv(self.folder / "examples.csv")

    @functools.cached_property
    def data(self) -> Data:
        """The data that it was trained on, given and true labels. Not for Clothing1M, which stays on disk."""
        return load_data(self.config)

    def of(self, weights: str) -> pd.DataFrame:
        """The history of one network, indexed by epoch."""
        return self.history[self.history["weights"] == weights].set_index("epoch")

    def final(self, weights: str = "network") -> pd.Series:
        """The reported history row of one network: the last epoch's, never the best one's."""
        # except by Clothing1M's recipe: that of the momentum model's best (first) clean validation accuracy
        if self.config.dataset == "clothing1m":
            return self.of(weights).loc[self.of("momentum")["validation_accuracy"].idxmax()]
        return self.of(weights).iloc[-1]

    def last_epoch(self) -> pd.DataFrame:
        """The numbers of the reported epoch, a column per network."""
        rows = {weights: self.final(weights) for weights in self.history["weights"].unique()}
        table = pd.DataFrame({weights: {"epoch": row.name} | row.to_dict() for weights, row in rows.items()})
        return table.drop(index=["weights", "seconds"]).astype(float)

    def network(self, weights: str = "network", epoch: int | None = None) -> nn.Module:
        """The trained network ("network") or a momentum model ("momentum"), in evaluation mode.

        epoch : one of `kept_epochs`; by default the last. Raises InputError for others.
        """
        if self.config.dataset == "clothing1m":
            network = clothing1m.build(self.config)
        else:
            channels, C = self.data.train.images.shape[1], self.data.num_classes
            network = models.build(self.config.model, in_channels=channels, num_classes=C, seed=0)
        file = store.weights_file(self.folder, None if epoch == self.config.epochs else epoch)
        own, tensors = f"{weights}/", store.read_tensors(file)
        network.load_state_dict({n.removeprefix(own): t for n, t in tensors.items() if n.startswith(own)})
        return network.eval()

    @property
    def kept_epochs(self) -> list[int]:
        """The epochs after which the weights were kept, the last one included."""
        kept = (int(path.stem.removeprefix("weights-")) for path in self.folder.glob("weights-*.safetensors"))
        return [*sorted(kept), self.config.epochs]

    @property
    def corrected_epochs(self) -> list[int]:
        """The epochs that began with a label correction."""
        return sorted(int(path.stem) for path in (self.folder / "corrections").glob("*.npz"))

    def correction(self, epoch: int) -> Correction:
        """A corrected epoch's weights w and predictions (N, C)."""
        return store.read_correction(self.folder, epoch, self.config.num_classes)


# --- finding and training -----------------------------------------------------------------------------------


def find(config: Config) -> Run | None:
    """The finished run of `config`, or None. Raises InputError if its folder is damaged or another run's."""
    path = store.folder(config)
    if not (path / "done.json").exists():
        return None
    store.check_config(path, config)
    store.check_sums(path)
    if not labels_are_pinned(config):
        data = load_data(config)
        store.check_labels(path, torch.cat([data.train.given, data.validation.given]), config)
    return Run(config, path)


def get(config: Config, **options: Any) -> Run:
    """The run of `config`: found, or resumed, or forked from its uncorrected run, or trained from the start.

    All four give the same numbers, bit for bit on a CPU. If another process trains the same run, this one
    waits for it. Under torchrun every process calls this, and they train one run together (Clothing1M only).
    The options are those of `in_turns`.
    """
    return last(in_turns(config, **options))


class Stopped(RuntimeError):
    """Training stopped on request, after an epoch. The checkpoint of the run is that epoch's."""


def in_turns(
    config: Config,
    *,
    quiet: bool = False,
    keep_state_at: int | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    on_epoch: Callable[[Epoch], object] = lambda epoch: None,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[None, None, Run]:
    """`get` as turns, between which other runs may use the device.

    keep_state_at : the epoch whose whole state an uncorrected run keeps, for corrected runs to start there;
        by default the data set's own correction epoch
    on_epoch : called after every epoch that is trained here
    stop : called after every epoch; if it returns true, the run is saved and Stopped is raised
    """
    others = f"several runs of {config.dataset} at once are what SLN_WORKERS is for"
    trains = config.dataset == "clothing1m" or not distributed.launched()
    require(trains, f"torchrun is for clothing1m; {others}")
    keep = config.default("correction") if keep_state_at is None else keep_state_at
    path, main = store.folder(config), distributed.is_main()  # process 0 alone touches the run's folder
    with contextlib.ExitStack() as held:
        held.enter_context(distributed.group())
        run = _found(config)
        if run is None and main:
            held.enter_context(lock(config.run_id))
        run = run or _found(config)
        if run is not None:
            return run
        where = distributed.device()
        held.enter_context(threads(config.threads))
        held.enter_context(current(where))
        source = _source(path, config) if main else None
        kind = clothing1m.Trainer if config.dataset == "clothing1m" else in_memory.Trainer
        trainer = kind(config, where, quiet=quiet or not main, fresh=main and source is None)
        rows = _start(path, config, trainer, where, source) if main else []
        state, saved = trainer.state, time.monotonic()
        for epoch in trainer.epochs():
            if epoch is None:
                yield
            if epoch is None or not main:
                continue
            rows += epoch.rows
            on_epoch(epoch)
            if epoch.correction is not None:
                store.write_correction(path, epoch.number, epoch.correction, soft=config.soft_correction)
            if epoch.number == keep < config.epochs and not config.corrects:
                store.write_history(path, rows)
                store.write_tensors(store.state_file(path, epoch.number), state.tensors())
            if _keeps_weights(config, epoch.number):
                store.write_tensors(store.weights_file(path, epoch.number), trainer.weights())
            stopping = stop() and epoch.number < config.epochs
            if stopping or time.monotonic() - saved > checkpoint_seconds:
                store.write_history(path, rows)
                store.write_tensors(path / store.CHECKPOINT, state.tensors())
                saved = time.monotonic()
            if stopping:
                raise Stopped(f"{path.name} stopped after epoch {epoch.number}")
        if main:
            _finish(path, trainer, rows)
        return _found(config)


def _found(config: Config) -> Run | None:
    """`find` by process 0, for all processes, which wait for it here."""
    return distributed.broadcast(find(config) if distributed.is_main() else None)


def _keeps_weights(config: Config, epoch: int) -> bool:
    """Whether the weights after `epoch` get a file of their own; those of the last epoch have one anyway."""
    every = config.keep_weights_every
    # up to the correction epoch they are the uncorrected run's
    return every > 0 and epoch % every == 0 and config.correction < epoch < config.epochs


def _source(path: Path, config: Config) -> tuple[Path, Path] | None:
    """The run folder and the file with the state to continue from: this run's or its uncorrected run's."""
    if (path / "config.json").exists():
        store.check_config(path, config)
    if (path / store.CHECKPOINT).exists():
        return path, path / store.CHECKPOINT
    parent = store.folder(config.uncorrected)
    file = store.state_file(parent, config.correction)
    if not config.corrects or not file.exists():
        return None
    store.check_config(parent, config.uncorrected)
    return parent, file


def _start(
    path: Path, config: Config, trainer: Trainer, where: torch.device, source: tuple[Path, Path] | None
) -> list[dict]:
    """Note what a new run is, restore the state of `source`; returns the history rows up to there."""
    if not (path / "config.json").exists():
        write_json(path / "config.json", config.to_dict())
        name = torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
        write_json(path / "versions.json", store.versions() | {"device": name} | trainer.facts)
    if source is not None:
        store.check_labels(source[0], trainer.given, config)
    store.check_labels(path, trainer.given, config)
    return [] if source is None else store.resume(trainer.state, *source)


def _finish(path: Path, trainer: Trainer, rows: list[dict]) -> None:
    store.write_history(path, rows)
    examples = trainer.examples()
    if examples is not None:
        write_text(path / "examples.csv", examples.to_csv(index=False, lineterminator="\n"))
    store.write_tensors(store.weights_file(path), trainer.weights())
    store.seal(path)
    (path / store.CHECKPOINT).unlink(missing_ok=True)  # after the seal: a kill between them loses nothing


# --- listing and removing -----------------------------------------------------------------------------------


def listing(on_damaged: Callable[[InputError], object] = lambda error: None) -> pd.DataFrame:
    """All runs: run, state ("done", or the last epoch saved), epochs, both last test accuracies, MB.

    on_damaged : called with what is wrong with a run that cannot be read, which is left out
    """
    rows = []
    for path in sorted(runs_folder().glob("[!.]*")):
        try:
            rows += [_listed(path)] if (path / "config.json").exists() else []
        except InputError as error:
            on_damaged(error)
        except OSError as error:
            on_damaged(store.damaged(path, "", str(error)))
    return pd.DataFrame(rows, columns=["run", "state", "epochs", "network", "momentum", "MB"])


def _listed(path: Path) -> list[object]:
    """A run's row of `listing`. Raises InputError if its config.json or history.csv cannot be used."""
    state, accuracy = "unfinished", {}
    try:
        epochs = read_json(path / "config.json").get("epochs")
    except InputError as error:
        raise store.damaged(path, "config.json", str(error)) from None
    if (path / "history.csv").exists():
        measured = store.read_history(path)
        try:
            measured = measured.astype({"epoch": int, "test_accuracy": float}).groupby("weights").last()
        except (KeyError, ValueError) as error:
            raise store.damaged(path, "history.csv", str(error)) from None
        state, accuracy = f"epoch {measured['epoch'].max()}", measured["test_accuracy"]  # non-empty entries
    state = "done" if (path / "done.json").exists() else state
    size = 0
    for file in path.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a temporary file of a run that is being trained
            size += file.stat().st_size if file.is_file() else 0
    both = [accuracy.get(weights, math.nan) for weights in ("network", "momentum")]
    return [path.name, state, epochs, *both, size / 1e6]


def finished() -> Iterator[Run]:
    """All finished runs, unchecked; those with the settings of another version are left out."""
    for path in sorted(runs_folder().glob("[!.]*/done.json")):
        file = path.with_name("config.json")
        with contextlib.suppress(InputError, FileNotFoundError):
            yield Run(_config(file, file.stat().st_mtime_ns), path.parent)


@functools.cache
def _config(file: Path, written: int) -> Config:
    """The configuration in a file that was `written` then."""
    return Config.from_dict(read_json(file))


def by_name(run_id: str) -> Run:
    """The finished run of that name. Raises InputError if there is none, or it is unfinished or damaged."""
    path = _existing(run_id)
    config = Config.from_dict(read_json(path / "config.json"))
    other = f"{path} is a run of another configuration, {config.run_id}; `runs remove` removes it"
    require(config.run_id == run_id, other)
    run = find(config)
    if run is None:
        raise InputError(f"run {run_id} is unfinished; the command that started it goes on where it stopped")
    return run


def remove(run_id: str) -> None:
    """Remove one run's directory. Raises InputError for a name that is no run."""
    path = _existing(run_id)
    doomed = path.with_name(f".removed-{run_id}")
    with lock(run_id):
        if doomed.exists():  # an earlier removal was interrupted
            shutil.rmtree(doomed)
        path.rename(doomed)  # gone at once, even if deleting is interrupted
        shutil.rmtree(doomed)


def _existing(run_id: str) -> Path:
    path = runs_folder() / run_id
    # a name, not a path: nothing outside the folder is ever touched
    known = Path(run_id).name == run_id and run_id != ".." and (path / "config.json").exists()
    require(known, f"no run {run_id!r} in {runs_folder()}; `python -m sln runs list` shows them")
    return path
