"""Runs on disk: found again instead of trained again, resumed after a kill, forked at the correction epoch.

A run is the directory `runs/<run_id>/`:

    config.json              every knob
    versions.json            Python, libraries, processor, when
    history.csv              one row an epoch and reader ("network" is SLN, "momentum" is SLN-MO)
    examples.csv             one row a training example: labels, predictions, confidence, losses, target
    corrections/091.npz      per corrected epoch: w (N,) and the predicted class (N,) or probabilities (N, C)
    weights.safetensors      final weights of every reader
    state-090.safetensors    whole training state at the fork epoch
    checkpoint.safetensors   whole training state, while the run is unfinished
    done.json                written last: SHA-256 of the other files

Every file is written under a temporary name and renamed. Weights are safetensors, which hold numbers and
cannot run code.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import platform
import shutil
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sln import models
from sln.config import Config
from sln.data import Data
from sln.errors import InputError, require
from sln.files import lock, read_json, read_table, runs_folder, write_atomically, write_json, write_text
from sln.loading import load_data, threads
from sln.progress import Progress
from sln.train import Correction, State, predict, train

CHECKPOINT_SECONDS = 10.0


@dataclass(frozen=True)
class Run:
    """A finished run. `network()` and the tables are read from disk when asked for."""

    config: Config
    folder: Path

    @functools.cached_property
    def history(self) -> pd.DataFrame:
        """One row an epoch and reader; the columns are those of `train.train` and `metrics`."""
        return read_history(self.folder)

    @functools.cached_property
    def examples(self) -> pd.DataFrame:
        """One row a training example, in data-set order; the columns are those of `example_records`."""
        return pd.read_csv(self.folder / "examples.csv")

    @functools.cached_property
    def data(self) -> Data:
        """The data that it was trained on, given and true labels."""
        return load_data(self.config)

    def final(self, reader: str = "network") -> pd.Series:
        """The last epoch's history row of one reader: what is reported. Never the best epoch's."""
        return self.of(reader).iloc[-1]

    def of(self, reader: str) -> pd.DataFrame:
        """The history of one reader, indexed by epoch."""
        return self.history[self.history["reader"] == reader].set_index("epoch")

    def network(self, reader: str = "network") -> nn.Module:
        """The trained network ("network") or a momentum model ("momentum"), in evaluation mode."""
        prefix = f"{reader}/"
        tensors = read_tensors(self.folder / "weights.safetensors")
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

    def corrections(self) -> dict[int, Correction]:
        """Each corrected epoch's weights w and predictions (N, C)."""
        found = {}
        for path in sorted((self.folder / "corrections").glob("*.npz")):
            with np.load(path, allow_pickle=False) as arrays:
                predictions = torch.from_numpy(arrays["predictions"])
                if predictions.ndim == 1:
                    predictions = F.one_hot(predictions.long(), self.data.num_classes).float()
                found[int(path.stem)] = Correction(torch.from_numpy(arrays["w"]), predictions)
        return found


# --- finding and training -----------------------------------------------------------------------------------


def folder(config: Config) -> Path:
    """Where the run of `config` is or will be."""
    return runs_folder() / config.run_id


def find(config: Config) -> Run | None:
    """The finished run of `config`, or None. Raises InputError if its folder is damaged or another run's."""
    path = folder(config)
    if not (path / "done.json").exists():
        return None
    _check_config(path, config)
    sums = read_json(path / "done.json").get("sha256")
    if not isinstance(sums, dict) or not sums:
        raise damaged(path, "done.json", "it has no checksums")
    for name, known in sums.items():
        file = path / name
        if not file.exists():
            raise damaged(path, name, "it is missing")
        if _sha256(file) != known:
            raise damaged(path, name, "its checksum differs")
    return Run(config, path)


def get(config: Config, *, quiet: bool = False, checkpoint_seconds: float = CHECKPOINT_SECONDS) -> Run:
    """The run of `config`: found, or resumed, or forked from its uncorrected run, or trained from the start.

    All four give the same numbers, bit for bit on a CPU. If another process is training the same run, this
    one waits for it.
    """
    run = find(config)
    if run is None:
        with lock(config.run_id):
            run = find(config)
            if run is None:
                _train(config, quiet, checkpoint_seconds)
                run = find(config)
    assert run is not None
    return run


def _train(config: Config, quiet: bool, checkpoint_seconds: float) -> None:
    path = folder(config)
    with threads(config.threads):
        data = load_data(config)
        state = State(config, data)
        rows = _resume(path, config, state)
        saved = time.monotonic()
        with Progress(config.epochs, path.name, "epochs", done=state.epoch, quiet=quiet) as progress:
            for epoch in train(state, data, config):
                rows += epoch.rows
                if epoch.correction is not None:
                    _write_correction(path, epoch.number, epoch.correction, soft=config.soft_correction)
                if epoch.number == config.fork_epoch and not config.corrects:
                    write_history(path, rows)
                    write_tensors(_state_file(path, epoch.number), state.tensors())
                if time.monotonic() - saved > checkpoint_seconds and epoch.number < config.epochs:
                    write_history(path, rows)
                    write_tensors(path / "checkpoint.safetensors", state.tensors())
                    saved = time.monotonic()
                progress.advance(loss=epoch.rows[0]["objective"], accuracy=epoch.rows[-1]["test_accuracy"])
        _finish(path, state, data, rows)


def _resume(path: Path, config: Config, state: State) -> list[dict]:
    """Restore `state` from the run's checkpoint or from the fork; returns the history rows up to there."""
    if (path / "config.json").exists():
        _check_config(path, config)
    else:
        write_json(path / "config.json", config.to_dict())
        write_json(path / "versions.json", versions())
    source = path
    checkpoint = path / "checkpoint.safetensors"
    if not checkpoint.exists() and config.corrects:
        source = folder(config.uncorrected)
        checkpoint = _state_file(source, config.correction)
        if checkpoint.exists():
            _check_config(source, config.uncorrected)
    if not checkpoint.exists():
        return []
    try:
        state.restore(read_tensors(checkpoint))
    except (KeyError, RuntimeError) as error:  # a tensor that is missing, or of another shape
        raise damaged(
            source, checkpoint.name, "it is of another network: " + " ".join(str(error).split())
        ) from None
    history = read_history(source)
    rows = history[history["epoch"] <= state.epoch].to_dict("records")
    if len(rows) != state.epoch * len(state.readers):
        raise damaged(
            source, "history.csv", f"it does not reach epoch {state.epoch}, where the state was saved"
        )
    return rows


def _finish(path: Path, state: State, data: Data, rows: list[dict]) -> None:
    write_history(path, rows)
    write_text(path / "examples.csv", example_records(state, data).to_csv(index=False, lineterminator="\n"))
    weights = {
        f"{reader}/{name}": value
        for reader, network in state.readers.items()
        for name, value in network.state_dict().items()
    }
    write_tensors(path / "weights.safetensors", weights)
    (path / "checkpoint.safetensors").unlink(missing_ok=True)
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    sums = {file.relative_to(path).as_posix(): _sha256(file) for file in files}
    write_json(path / "done.json", {"sha256": sums})


def example_records(state: State, data: Data) -> pd.DataFrame:
    """One row a training example, in data-set order.

    index, given, true (-1: of no class)
    network_..., momentum_... : prediction, confidence (its probability), p_given (probability of the given
        label), loss (cross-entropy against the given label)
    target, target_on_given : class of the largest target entry, target entry of the given label
    """
    split = data.train
    columns = {"index": np.arange(len(split)), "given": split.given, "true": split.true}
    for reader in ("network", "momentum"):
        logits = predict(state.readers[reader], split, data)
        confidence, prediction = F.softmax(logits, dim=1).max(dim=1)
        loss = F.cross_entropy(logits, split.given, reduction="none")
        columns |= {f"{reader}_prediction": prediction, f"{reader}_confidence": confidence}
        columns |= {f"{reader}_p_given": (-loss).exp(), f"{reader}_loss": loss}
    columns |= {
        "target": state.targets.argmax(dim=1),
        "target_on_given": state.targets.gather(1, split.given[:, None])[:, 0],
    }
    return pd.DataFrame({name: np.asarray(values) for name, values in columns.items()})


# --- listing and removing -----------------------------------------------------------------------------------


def listing() -> pd.DataFrame:
    """All runs: run, state ("done", or the last epoch saved), epochs, network, momentum, MB.

    The columns network and momentum are the two readers' last test accuracy.
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
            last = read_history(path.parent).drop_duplicates("reader", keep="last").set_index("reader")
            row["state"] = row["state"] if done else f"epoch {last['epoch'].max()}"
            for reader in ("network", "momentum"):
                row[reader] = last["test_accuracy"].get(reader)
        row["MB"] = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file()) / 1e6
        rows.append(row)
    return pd.DataFrame(rows, columns=["run", "state", "epochs", "network", "momentum", "MB"])


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


# --- files --------------------------------------------------------------------------------------------------


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; InputError for any other, since other formats may hold code."""
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise InputError(f"weights file {path} is missing") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({error}); remove the run and train again"
        ) from None


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically; the bytes depend on names and values only."""
    content = safetensors.torch.save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    )
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_history(path: Path, rows: list[dict]) -> None:
    """Write history.csv atomically; floats are written so that they read back exactly."""
    write_text(path / "history.csv", pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


def read_history(path: Path) -> pd.DataFrame:
    """Read a run folder's history.csv exactly as it was written. Raises InputError where it is missing."""
    try:
        return read_table(path / "history.csv")
    except (OSError, ValueError) as error:
        raise damaged(path, "history.csv", " ".join(str(error).split())) from None


def damaged(path: Path, name: str, why: str) -> InputError:
    """The error for a file of a run's folder that cannot be used, with the way out."""
    return InputError(
        f"{path / name} is damaged: {why}; `python -m sln runs remove {path.name}`, then train again"
    )


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _write_correction(path: Path, epoch: int, correction: Correction, *, soft: bool) -> None:
    predictions = correction.predictions if soft else correction.predictions.argmax(dim=1).to(torch.int16)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, w=correction.w.numpy(), predictions=predictions.numpy())
    write_atomically(
        path / "corrections" / f"{epoch:03d}.npz", lambda temporary: temporary.write_bytes(buffer.getvalue())
    )


def _state_file(path: Path, epoch: int) -> Path:
    return path / f"state-{epoch:03d}.safetensors"


def _check_config(path: Path, config: Config) -> None:
    known = read_json(path / "config.json")
    differing = [
        name for name, value in config.to_dict().items() if name != "fork_epoch" and known.get(name) != value
    ]
    if differing:
        name = differing[0]
        raise InputError(
            f"{path} is a run of another configuration "
            f"({name} is {json.dumps(known.get(name))} there, {config.to_dict()[name]} was asked for); "
            f"`python -m sln runs remove {path.name}` removes it"
        )


def versions() -> dict[str, str]:
    """What the numbers may depend on besides the knobs."""
    libraries = {name: version(name) for name in ("torch", "numpy", "scikit-learn", "pandas")}
    return {
        "sln": version("sln"),
        "python": platform.python_version(),
        **libraries,
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpus": str(os.cpu_count()),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
