"""Folders of the project, and files that are either whole or not there."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock

from sln.utils.errors import InputError, require


def project_root() -> Path:
    """The folder of `notebooks/` and `sln/`: the working directory or one above it, else our checkout."""
    places = (Path.cwd(), *Path.cwd().parents, Path(__file__).resolve().parents[2])
    found = (place for place in places if (place / "notebooks").is_dir() and (place / "sln").is_dir())
    return next(found, Path.cwd())


def runs_folder() -> Path:
    """Trained runs: `SLN_RUNS`, default `runs/`."""
    return Path(os.environ.get("SLN_RUNS") or project_root() / "runs")


def data_folder() -> Path:
    """Downloaded data: `SLN_DATA`, default `data/`."""
    return Path(os.environ.get("SLN_DATA") or project_root() / "data")


def figures_folder(profile: str) -> Path:
    """Figures and their tables for one profile: `SLN_FIGURES`, default `figures/`, and the profile's name."""
    return Path(os.environ.get("SLN_FIGURES") or project_root() / "figures") / profile


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write(temporary)`, rename that file to `path`; InputError, with nothing left, if it fails."""
    path, temporary = Path(path), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        temporary = path.with_name(f".{path.stem}-{secrets.token_hex(6)}{path.suffix}")
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        way = "free some space there or choose a folder that can be written to"
        raise InputError(f"cannot write {path}: {error.strerror or error}; {way}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_together({path: text})


def write_together(texts: Mapping[Path, str]) -> None:
    """Write UTF-8 texts, each atomically, once all are on the disk; InputError, with none, if one fails."""
    (path, text), *others = texts.items()

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        if others:
            write_together(dict(others))

    write_atomically(path, write)


def write_json(path: Path, value: object) -> None:
    """Write a JSON document atomically, keys in the order given."""
    write_text(path, json_text(value))


def json_text(value: object) -> str:
    """A JSON document, keys in the order given."""
    return json.dumps(value, indent=2) + "\n"


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV, every float exactly as it was written."""
    # pandas before 3.1 rounds the last digit by default; from 3.1 on the argument is deprecated
    asks = tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1)
    return pd.read_csv(path, float_precision="round_trip") if asks else pd.read_csv(path)


def read_json(path: Path) -> dict:
    """Read a JSON object. Raises InputError if the file is missing, cut short or not an object."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not a readable JSON file: {error}") from None
    require(isinstance(value, dict), f"{path} holds a {type(value).__name__}, expected an object")
    return value


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """A lock of one run, held by one process at a time. The operating system frees it if its holder dies."""
    locks = runs_folder() / ".locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        held = FileLock(locks / f"{name}.lock").acquire()
    except OSError as error:
        why, way = error.strerror or error, "set SLN_RUNS to a folder that can be written to"
        raise InputError(f"cannot write to {runs_folder()}: {why}; {way}") from None
    with held:
        yield


def labels_sha256(labels: np.ndarray) -> str:
    """SHA-256 of labels (N,) as little-endian int64, in hex digits."""
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()
