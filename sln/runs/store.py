"""The files of a run: named tensors, histories, checksums; written whole or not at all.

Weights are safetensors, which hold numbers and cannot run code.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sln.config import SETTINGS, Config
from sln.train import Correction, State
from sln.utils import VERSION
from sln.utils.errors import InputError, require
from sln.utils.files import read_json, read_table, runs_folder, write_atomically, write_json, write_text

CHECKPOINT = "checkpoint.safetensors"
LIBRARIES = ("torch", "torchvision", "numpy", "scikit-learn", "pandas", "pillow")


def folder(config: Config) -> Path:
    """Where the run of `config` is or will be: `runs/<run_id>/`."""
    return runs_folder() / config.run_id


def checkpointed(config: Config) -> int | None:
    """When the run last wrote a checkpoint, in nanoseconds; None if it has none."""
    try:
        return (folder(config) / CHECKPOINT).stat().st_mtime_ns
    except OSError:
        return None


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
    """Read a run folder's history.csv exactly as it was written. Raises InputError if it is missing."""
    try:
        return read_table(path / "history.csv")
    except (OSError, ValueError) as error:
        raise damaged(path, "history.csv", " ".join(str(error).split())) from None


def resume(state: State, path: Path, file: Path) -> list[dict]:
    """Restore `state` from `file` of the run folder `path`; returns the history's rows up to its epoch.

    Raises InputError for a state of another network, and for a history that does not reach that epoch.
    """
    try:
        state.restore(read_tensors(file))
    except (KeyError, RuntimeError) as error:  # a tensor that is missing, or of another shape
        why = " ".join(str(error).split())
        raise damaged(path, file.name, f"it is of another network: {why}") from None
    history = read_history(path)
    rows = history[history["epoch"] <= state.epoch].to_dict("records")
    if len(rows) != state.epoch * len(state.networks):
        raise damaged(
            path, "history.csv", f"it does not reach epoch {state.epoch}, where the state was saved"
        )
    return rows


def damaged(path: Path, name: str, why: str) -> InputError:
    """The error for a file of a run's folder that cannot be used, with the way out."""
    return InputError(
        f"{path / name} is damaged: {why}; `python -m sln runs remove {path.name}`, then train again"
    )


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, in hex. A file is read once per process, and again after a change."""
    stat = file.stat()
    return _sha256(file, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size)


@functools.cache
def _sha256(file: Path, *stamp: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def check_sums(path: Path) -> None:
    """Raise InputError unless the files of the finished run in `path` are those that were sealed."""
    sums = read_json(path / "done.json").get("sha256")
    if not isinstance(sums, dict) or not sums:
        raise damaged(path, "done.json", "it has no checksums")
    for name, known in sums.items():
        if not (path / name).exists():
            raise damaged(path, name, "it is missing")
        if sha256(path / name) != known:
            raise damaged(path, name, "its checksum differs")


def named_weights(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The tensors of all networks in one dictionary: "network/conv1.weight", "momentum/conv1.weight", ..."""
    return {
        f"{weights}/{name}": value
        for weights, network in networks.items()
        for name, value in network.state_dict().items()
    }


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as a compressed .npz, atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getvalue()))


def write_correction(path: Path, epoch: int, correction: Correction, *, soft: bool) -> None:
    """Write the label correction of `epoch`: one array per field.

    Without `soft`, predictions are written as classes (N,), which need one number where probabilities need C.
    """
    arrays = {name: value.cpu() for name, value in vars(correction).items()}
    if not soft:
        arrays["predictions"] = arrays["predictions"].argmax(dim=1).to(torch.int16)
    file = path / "corrections" / f"{epoch:03d}.npz"
    write_arrays(file, {name: value.numpy() for name, value in arrays.items()})


def read_correction(path: Path, epoch: int, num_classes: int) -> Correction:
    """What `write_correction` wrote: w (N,) and predictions (N, C), float32."""
    with np.load(path / "corrections" / f"{epoch:03d}.npz", allow_pickle=False) as arrays:
        w, predictions = (torch.from_numpy(arrays[name]) for name in ("w", "predictions"))
    if predictions.ndim == 1:
        predictions = F.one_hot(predictions.long(), num_classes)
    return Correction(w.float(), predictions.float())  # results of a visit to a GPU are in half precision


def check_labels(path: Path, given: Tensor, config: Config) -> None:
    """Note the given labels (N,) of a new run. Raises InputError if the run in `path` has others."""
    labels = {"sha256_given": hashlib.sha256(given.numpy().astype("<i8").tobytes()).hexdigest()}
    if not (path / "labels.json").exists():
        write_json(path / "labels.json", labels)
    require(
        read_json(path / "labels.json") == labels,
        f"{path} was trained on other labels than {config.labels} gives now; put them back, or "
        f"`python -m sln runs remove {path.name}`",
    )


def state_file(path: Path, epoch: int) -> Path:
    """Where the run folder `path` keeps the whole training state after `epoch`."""
    return path / f"state-{epoch:03d}.safetensors"


def check_config(path: Path, config: Config) -> None:
    """Raise InputError unless the run folder `path` holds a run of `config`."""
    # settings that are newer than the run have their defaults
    known = Config.from_dict(read_json(path / "config.json")).to_dict()
    differing = [
        name
        for name, value in config.to_dict().items()
        if known[name] != value and not SETTINGS[name].metadata["kept"]
    ]
    if differing:
        name = differing[0]
        raise InputError(
            f"{path} is a run of another configuration "
            f"({name} is {json.dumps(known[name])} there, {config.to_dict()[name]} was asked for); "
            f"`python -m sln runs remove {path.name}` removes it"
        )


def versions() -> dict[str, str]:
    """What the numbers may depend on, beside the settings."""
    libraries = {name: version(name) for name in LIBRARIES}
    return {
        "sln": VERSION,
        "python": platform.python_version(),
        **libraries,
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpus": str(os.cpu_count()),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def seal(path: Path) -> None:
    """Write done.json, the SHA-256 of every other file of the run folder: the run is finished.

    The checkpoint is left out, so that it can be removed afterwards.
    """
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    sums = {file.relative_to(path).as_posix(): sha256(file) for file in files if file.name != CHECKPOINT}
    write_json(path / "done.json", {"sha256": sums})
