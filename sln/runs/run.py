"""Runs on disk: found again instead of trained again, resumed after a kill, forked at the correction epoch.

A run is the directory `runs/<run_id>/`:

    config.json              every setting
    labels.json              SHA-256 of the given labels that it is trained on
    versions.json            Python, libraries, processor, when
    history.csv              one row per epoch and network ("network" is SLN, "momentum" is SLN-MO)
    examples.csv             one row a training example: labels, predictions, confidence, losses, target
    corrections/091.npz      per corrected epoch: w (N,) and the predicted class (N,) or probabilities (N, C)
    weights.safetensors      final weights of every network
    state-090.safetensors    whole training state after an epoch where a corrected run can start
    checkpoint.safetensors   whole training state, while the run is unfinished
    done.json                written last: SHA-256 of the other files

`store` reads and writes these files.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from sln import fast, models
from sln.config import Config
from sln.data import Data
from sln.datasets.load import labels_are_pinned, load_data, threads
from sln.defaults import DEFAULTS
from sln.runs import clothing1m_train, store
from sln.train import Correction, Engine, Epoch, State, last, train_in_turns
from sln.utils import distributed
from sln.utils.devices import current, device
from sln.utils.errors import InputError, require
from sln.utils.files import lock, read_json, runs_folder, write_json, write_text
from sln.utils.progress import Progress

CHECKPOINT_SECONDS = 10.0


@dataclass(frozen=True)
class Run:
    """A finished run. `network()` and the tables are read from disk when asked for."""

    config: Config
    folder: Path

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch and network; the columns are those of `train.train` and `metrics`."""
        return store.read_history(self.folder)

    @functools.cached_property
    def examples(self) -> pd.DataFrame:
        """One row a training example, in data-set order; the columns are those of `example_records`."""
        return pd.read_csv(self.folder / "examples.csv")

    @functools.cached_property
    def data(self) -> Data:
        """The data that it was trained on, given and true labels. Not for Clothing1M, which stays on disk."""
        return load_data(self.config)

    def final(self, weights: str = "network") -> pd.Series:
        """The reported history row of one network: the last epoch's, never the best one's.

        The exception is Clothing1M, whose recipe reports the epoch that its clean validation images choose.
        """
        rows = self.of(weights)
        return rows[rows["chosen"] == 1].iloc[0] if "chosen" in rows else rows.iloc[-1]

    def of(self, weights: str) -> pd.DataFrame:
        """The history of one network, indexed by epoch."""
        return self.history[self.history["weights"] == weights].set_index("epoch")

    def network(self, weights: str = "network") -> nn.Module:
        """The trained network ("network") or a momentum model ("momentum"), in evaluation mode."""
        if self.config.dataset == "clothing1m":
            return clothing1m_train.network(self.config, self.folder, weights)
        prefix = f"{weights}/"
        tensors = store.read_tensors(self.folder / "weights.safetensors")
        network = models.build(
            self.config.model,
            in_channels=self.data.train.images.shape[1],
            num_classes=self.data.num_classes,
            seed=0,
        )
        network.load_state_dict(
            {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        )
        return network.eval()

    @property
    def corrected_epochs(self) -> list[int]:
        """The epochs that began with a label correction."""
        return sorted(int(path.stem) for path in (self.folder / "corrections").glob("*.npz"))

    def correction(self, epoch: int) -> Correction:
        """A corrected epoch's weights w and predictions (N, C)."""
        with np.load(self.folder / "corrections" / f"{epoch:03d}.npz", allow_pickle=False) as arrays:
            w, predictions = (torch.from_numpy(arrays[name]) for name in ("w", "predictions"))
            if predictions.ndim == 1:
                predictions = F.one_hot(predictions.long(), self.config.num_classes)
            return Correction(
                w.float(), predictions.float()
            )  # half precision came home from a visit to a GPU

    def corrections(self) -> dict[int, Correction]:
        """All of them by epoch."""
        return {epoch: self.correction(epoch) for epoch in self.corrected_epochs}


# --- finding and training -----------------------------------------------------------------------------------


def find(config: Config) -> Run | None:
    """The finished run of `config`, or None. Raises InputError if its folder is damaged or another run's."""
    path = store.folder(config)
    if not (path / "done.json").exists():
        return None
    store.check_config(path, config)
    sums = read_json(path / "done.json").get("sha256")
    if not isinstance(sums, dict) or not sums:
        raise store.damaged(path, "done.json", "it has no checksums")
    for name, known in sums.items():
        file = path / name
        if not file.exists():
            raise store.damaged(path, name, "it is missing")
        if store.sha256(file) != known:
            raise store.damaged(path, name, "its checksum differs")
    if not labels_are_pinned(config):
        _check_labels(path, load_data(config), config)
    return Run(config, path)


def get(
    config: Config,
    *,
    quiet: bool = False,
    keep_state_at: int | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Run:
    """The run of `config`: found, or resumed, or forked from its uncorrected run, or trained from the start.

    All four give the same numbers, bit for bit on a CPU. If another process is training the same run, this
    one waits for it. Under torchrun every process calls this, and they train one run together (Clothing1M
    only).

    keep_state_at : the epoch whose whole state an uncorrected run keeps, so that a corrected run can start
        there; by default the data set's own correction epoch
    on_epoch : called after every epoch that is trained here
    """
    return last(
        in_turns(
            config,
            quiet=quiet,
            keep_state_at=keep_state_at,
            checkpoint_seconds=checkpoint_seconds,
            on_epoch=on_epoch,
        )
    )


class Stopped(RuntimeError):
    """Training was asked to stop, and did after an epoch: the run's checkpoint is that epoch's."""


def in_turns(
    config: Config,
    *,
    quiet: bool = False,
    keep_state_at: int | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    on_epoch: Callable[[Epoch], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Generator[None, None, Run]:
    """`get` as turns, between which other runs may use the device.

    stop : asked after every epoch; if true, the run is saved as it is then, and Stopped is raised
    """
    clothing = config.dataset == "clothing1m"
    require(
        clothing or not distributed.launched(),
        f"torchrun is for clothing1m; several runs of {config.dataset} at once are what SLN_WORKERS is for",
    )
    keep = DEFAULTS[config.dataset]["correction"] if keep_state_at is None else keep_state_at
    keep = -1 if config.corrects or keep >= config.epochs else keep
    with distributed.group():
        run = distributed.on_main(lambda: find(config))
        if run is None:
            with distributed.lock(config.run_id):
                run = distributed.on_main(lambda: find(config))
                if run is None:
                    if clothing:
                        clothing1m_train.train_run(config, quiet, keep_state_at=keep, on_epoch=on_epoch)
                    else:
                        yield from _train(config, quiet, keep, checkpoint_seconds, on_epoch, stop)
                    run = distributed.on_main(lambda: find(config))
    assert run is not None
    return run


def _train(
    config: Config,
    quiet: bool,
    keep_state_at: int,
    checkpoint_seconds: float,
    on_epoch: Callable[[Epoch], None] | None,
    stop: Callable[[], bool],
) -> Generator[None, None, None]:
    path, where = store.folder(config), device()
    with threads(config.threads), current(where):
        data = load_data(config).to(where)
        state = State(config, data)
        rows = _resume(path, config, state, data)
        saved = time.monotonic()
        engine = fast.engine(config, data.device)
        with Progress(config.epochs, path.name, "epochs", done=state.epoch, quiet=quiet) as progress:
            for epoch in train_in_turns(state, data, config, engine):
                if epoch is None:
                    yield
                    continue
                rows += epoch.rows
                if on_epoch is not None:
                    on_epoch(epoch)
                if epoch.correction is not None:
                    _write_correction(path, epoch.number, epoch.correction, soft=config.soft_correction)
                if epoch.number == keep_state_at:
                    store.write_history(path, rows)
                    store.write_tensors(store.state_file(path, epoch.number), state.tensors())
                stopping = stop() and epoch.number < config.epochs
                if stopping or time.monotonic() - saved > checkpoint_seconds:
                    store.write_history(path, rows)
                    store.write_tensors(path / store.CHECKPOINT, state.tensors())
                    saved = time.monotonic()
                if stopping:
                    raise Stopped(f"{path.name} stopped after epoch {epoch.number}")
                progress.advance(loss=epoch.rows[0]["objective"], accuracy=epoch.rows[-1]["test_accuracy"])
        _finish(path, state, data, rows, engine)


def _check_labels(path: Path, data: Data, config: Config) -> None:
    """Note the given labels of a new run; refuse to go on with others."""
    given = torch.cat([data.train.given, data.validation.given]).numpy().astype("<i8")
    labels = {"sha256_given": hashlib.sha256(given.tobytes()).hexdigest()}
    if not (path / "labels.json").exists():
        write_json(path / "labels.json", labels)
    require(
        read_json(path / "labels.json") == labels,
        f"{path} was trained on other labels than {config.labels} gives now; put them back, or "
        f"`python -m sln runs remove {path.name}`",
    )


def _resume(path: Path, config: Config, state: State, data: Data) -> list[dict]:
    """Restore `state` from the run's checkpoint or from the fork; returns the history rows up to there."""
    if (path / "config.json").exists():
        store.check_config(path, config)
    else:
        write_json(path / "config.json", config.to_dict())
        how = {"device": _name_of(data.device), "speed": fast.chosen(data.device)}
        write_json(path / "versions.json", store.versions() | how)
    source = path
    checkpoint = path / store.CHECKPOINT
    if not checkpoint.exists() and config.corrects:
        source = store.folder(config.uncorrected)
        checkpoint = store.state_file(source, config.correction)
        if checkpoint.exists():
            store.check_config(source, config.uncorrected)
            _check_labels(source, data, config.uncorrected)
    _check_labels(path, data, config)
    if not checkpoint.exists():
        return []
    return store.resume(state, source, checkpoint)


def _name_of(device: torch.device) -> str:
    """A device in words: "cpu", or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _finish(path: Path, state: State, data: Data, rows: list[dict], engine: Engine) -> None:
    store.write_history(path, rows)
    records = example_records(state, data, engine)
    write_text(path / "examples.csv", records.to_csv(index=False, lineterminator="\n"))
    weights = {
        f"{weights}/{name}": value
        for weights, network in state.networks.items()
        for name, value in network.state_dict().items()
    }
    store.write_tensors(path / "weights.safetensors", weights)
    (path / store.CHECKPOINT).unlink(missing_ok=True)
    store.seal(path)


def example_records(state: State, data: Data, engine: Engine) -> pd.DataFrame:
    """One row per training example, in data-set order.

    index, given, true (-1: of no class)
    network_..., momentum_... : prediction, confidence (its probability), p_given (probability of the given
        label), loss (cross-entropy against the given label)
    target, target_on_given : class of the largest target entry, target entry of the given label
    """
    split, targets = data.train, state.targets.cpu()
    columns = {"index": np.arange(len(split)), "given": split.given, "true": split.true}
    for weights in ("network", "momentum"):
        logits = engine.predict(state.networks[weights], split, data)
        confidence, prediction = F.softmax(logits, dim=1).max(dim=1)
        loss = F.cross_entropy(logits, split.given, reduction="none")
        columns |= {f"{weights}_prediction": prediction, f"{weights}_confidence": confidence}
        columns |= {f"{weights}_p_given": (-loss).exp(), f"{weights}_loss": loss}
    columns |= {
        "target": targets.argmax(dim=1),
        "target_on_given": targets.gather(1, split.given[:, None])[:, 0],
    }
    return pd.DataFrame({name: np.asarray(values) for name, values in columns.items()})


def _write_correction(path: Path, epoch: int, correction: Correction, *, soft: bool) -> None:
    # a class takes one number where probabilities take C
    predictions = correction.predictions if soft else correction.predictions.argmax(dim=1).to(torch.int16)
    arrays = {"w": correction.w.cpu().numpy(), "predictions": predictions.cpu().numpy()}
    store.write_arrays(path / "corrections" / f"{epoch:03d}.npz", arrays)


# --- listing and removing -----------------------------------------------------------------------------------


def listing() -> pd.DataFrame:
    """All runs: run, state ("done", or the last epoch saved), epochs, network, momentum, MB.

    The columns network and momentum are the two networks' last test accuracy.
    """
    rows = []
    for path in sorted(runs_folder().glob("*/config.json")):
        if path.parent.name.startswith("."):
            continue
        config, done = read_json(path), (path.parent / "done.json").exists()
        row = {
            "run": path.parent.name,
            "state": "done" if done else "unfinished",
            "epochs": config.get("epochs"),
        }
        history = path.parent / "history.csv"
        if history.exists():
            measured = store.read_history(path.parent).groupby("weights").last()  # that are not empty
            row["state"] = row["state"] if done else f"epoch {measured['epoch'].max()}"
            for weights in ("network", "momentum"):
                row[weights] = measured["test_accuracy"].get(weights)
        row["MB"] = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file()) / 1e6
        rows.append(row)
    return pd.DataFrame(rows, columns=["run", "state", "epochs", "network", "momentum", "MB"])


def finished() -> Iterator[Run]:
    """All finished runs, checksums unread; those with another version's settings are left out."""
    for path in sorted(runs_folder().glob("[!.]*/done.json")):
        with contextlib.suppress(InputError):
            yield Run(Config.from_dict(read_json(path.parent / "config.json")), path.parent)


def by_name(run_id: str) -> Run:
    """The finished run of that name. Raises InputError when there is none, or it is unfinished or damaged."""
    config = Config.from_dict(read_json(_existing(run_id) / "config.json"))
    require(
        config.run_id == run_id,
        f"{runs_folder() / run_id} is a run of another configuration, {config.run_id}; "
        "`runs remove` removes it",
    )
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
    require(
        Path(run_id).name == run_id and run_id != ".." and (path / "config.json").exists(),
        f"no run {run_id!r} in {runs_folder()}; `python -m sln runs list` shows them",
    )
    return path
