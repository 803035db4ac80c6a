"""The files of a run, written whole or not at all. Weights are safetensors, which cannot run code."""

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
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sln.config import SETTINGS, Config
from sln.train import Correction, State
from sln.utils import VERSION, files
from sln.utils.errors import InputError, require

CHECKPOINT = "checkpoint.safetensors"
LIBRARIES = ("torch", "torchvision", "numpy", "scikit-learn", "pandas", "pillow")


def folder(config: Config) -> Path:
    """Where the run of `config` is or will be: `runs/<run_id>/`."""
    return files.runs_folder() / config.run_id


def state_file(path: Path, epoch: int) -> Path:
    """Where the run folder `path` keeps the whole training state after `epoch`."""
    return path / f"state-{epoch:03d}.safetensors"


def weights_file(path: Path, epoch: int | None = None) -> Path:
    """Where the run folder `path` keeps the weights after `epoch`, by default the last."""
    return path / ("weights.safetensors" if epoch is None else f"weights-{epoch:03d}.safetensors")


def checkpointed(config: Config) -> int | None:
    """When the run last wrote a checkpoint, in nanoseconds; None if it has none."""
    try:
        return (folder(config) / CHECKPOINT).stat().st_mtime_ns
    except OSError:
        return None


def damaged(path: Path, name: str, why: str) -> InputError:
    """The error for a file of a run's folder that cannot be used, with the way out."""
    way = f"`python -m sln runs remove {path.name}`, then train again"
    return InputError(f"{path / name} is damaged: {' '.join(why.split())}; {way}")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; InputError for any other, since other formats may hold code."""
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise InputError(f"weights file {path} is missing") from None
    except (OSError, safetensors.SafetensorError) as error:
        why = f"is not a whole safetensors file ({error})"
        raise InputError(f"{path} {why}; remove the run and train again") from None


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors, atomically; the bytes depend on names and values only."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    files.write_atomically(path, lambda temporary: temporary.write_bytes(safetensors.torch.save(whole)))


def named_weights(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The tensors of all networks in one dictionary: "network/conv1.weight", "momentum/conv1.weight", ..."""
    states = {weights: network.state_dict() for weights, network in networks.items()}
    return {f"{weights}/{name}": value for weights, state in states.items() for name, value in state.items()}


def write_history(path: Path, rows: list[dict]) -> None:
    """Write history.csv atomically; floats are written so that they read back exactly."""
    files.write_text(path / "history.csv", pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


def read_history(path: Path) -> pd.DataFrame:
    """Read a run folder's history.csv exactly as it was written. Raises InputError if it is missing."""
    try:
        return files.read_table(path / "history.csv")
    except (OSError, ValueError) as error:
        raise damaged(path, "history.csv", str(error)) from None


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as a compressed .npz, atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    files.write_atomically(path, lambda temporary: temporary.write_bytes(buffer.getvalue()))


def write_correction(path: Path, epoch: int, correction: Correction, *, soft: bool) -> None:
    """Write the label correction of `epoch`, an array per field; not `soft`, predictions are classes (N,)."""
    arrays = {name: value.cpu().numpy() for name, value in vars(correction).items()}
    if not soft:
        arrays["predictions"] = arrays["predictions"].argmax(axis=1).astype(np.int16)
    write_arrays(path / "corrections" / f"{epoch:03d}.npz", arrays)


def read_correction(path: Path, epoch: int, num_classes: int) -> Correction:
    """What `write_correction` wrote: w (N,) and predictions (N, C), float32."""
    with np.load(path / "corrections" / f"{epoch:03d}.npz", allow_pickle=False) as arrays:
        w, predictions = (torch.from_numpy(arrays[name]) for name in ("w", "predictions"))
    if predictions.ndim == 1:
        predictions = F.one_hot(predictions.long(), num_classes)
    return Correction(w.float(), predictions.float())  # results of a visit to a GPU are in half precision


def resume(state: State, path: Path, file: Path) -> list[dict]:
    """Restore `state` from `file` of a run folder; its history rows so far. InputError for damaged files."""
    try:
        state.restore(read_tensors(file))
    except (KeyError, RuntimeError) as error:  # a tensor that is missing, or of another shape
        raise damaged(path, file.name, f"it is of another network: {error}") from None
    history = read_history(path)
    rows = history[history["epoch"] <= state.epoch].to_dict("records")
    if len(rows) == state.epoch * len(state.networks):
        return rows
    raise damaged(path, "history.csv", f"it does not reach epoch {state.epoch}, where the state was saved")


def check_config(path: Path, config: Config) -> None:
    """Raise InputError unless the run folder `path` holds a run of `config`."""
    # settings that are newer than the run have their defaults
    known = Config.from_dict(files.read_json(path / "config.json")).to_dict()
    for name, asked in config.to_dict().items():
        same = known[name] == asked or SETTINGS[name].metadata["kept"]
        what = f"{name} is {json.dumps(known[name])} there, {asked} was asked for"
        way = f"`python -m sln runs remove {path.name}` removes it"
        require(same, f"{path} is a run of another configuration ({what}); {way}")


def check_labels(path: Path, given: Tensor, config: Config) -> None:
    """Note the given labels (N,) of a new run. Raises InputError if the run in `path` has others."""
    file, labels = path / "labels.json", {"sha256_given": files.labels_sha256(given.numpy())}
    if not file.exists():
        files.write_json(file, labels)
    what = f"{path} was trained on other labels than {config.labels} gives now"
    way = f"put them back, or `python -m sln runs remove {path.name}`"
    require(files.read_json(file) == labels, f"{what}; {way}")


def versions() -> dict[str, str]:
    """What the numbers may depend on, beside the settings."""
    return {
        "sln": VERSION,
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpus": str(os.cpu_count()),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def sha256(file: Path) -> str:
    """SHA-256 of a file's bytes, in hex. A file is read once per process, and again after a change."""
    stat = file.stat()
    return _sha256(file, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size)


@functools.cache
def _sha256(file: Path, *stamp: int) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def check_sums(path: Path) -> None:
    """Raise InputError unless the files of the finished run in `path` are those that were sealed."""
    sums = files.read_json(path / "done.json").get("sha256")
    if not isinstance(sums, dict) or not sums:
        raise damaged(path, "done.json", "it has no checksums")
    for name, known in sums.items():
        if not (path / name).exists():
            raise damaged(path, name, "it is missing")
        if sha256(path / name) != known:
            raise damaged(path, name, "its checksum differs")


def seal(path: Path) -> None:
    """Write done.json, the SHA-256 of all other files except the checkpoint, which is removed afterwards."""
    found = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    sums = {file.relative_to(path).as_posix(): sha256(file) for file in found if file.name != CHECKPOINT}
    files.write_json(path / "done.json", {"sha256": sums})
