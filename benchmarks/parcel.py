"""What a visit to a GPU brings home: a few files of limited size that hold every run, finished or not.

A parcel is one tar file, cut into pieces `parcel.00`, `parcel.01`, ... Its members are compressed tars of one
per run: `RUN.tar.gz`, the run as it is kept (weights and w in float16, classes in bytes, sealed again), or
its settings and history while it is unfinished; and `RUN.state.tar.gz`, what an unfinished run or a fork that
has not begun goes on from.
"""

from __future__ import annotations

import csv
import io
import itertools
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from sln.runs import store
from sln.utils.errors import require

PIECE, PIECES, TOTAL = 15 * 2**20, 4, 58 * 2**20  # bytes of a piece, pieces, bytes in all
ALWAYS = ("config.json", "labels.json", "versions.json", "history.csv")


def pack(runs_folder: Path, out: Path, wanted: Iterable[str] = (), forks: Iterable[str] = ()) -> list[str]:
    """Write the parcel of all runs in `runs_folder` to `out`; returns what there was no room for.

    wanted : run names, those that matter most first; others follow
    forks : finished runs whose training state a corrected run is still to start from
    """
    folders = sorted(path.parent for path in runs_folder.glob("[!.]*/config.json"))
    order = {name: place for place, name in enumerate(wanted)}
    folders.sort(key=lambda folder: order.get(folder.name, len(order)))
    left_out, size, members = [], 0, []
    for name, files in itertools.chain(_records(folders), _states(folders, set(forks))):
        content = _tar_of(files)
        if size + len(content) > TOTAL:
            left_out.append(name)
            continue
        size += len(content)
        members.append((f"{name}.tar.gz", content))
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("parcel.*"):
        old.unlink()
    whole = _tar(members, "w")
    for number, start in enumerate(range(0, len(whole), PIECE)):
        (out / f"parcel.{number:02d}").write_bytes(whole[start : start + PIECE])
    return left_out


def unpack(parcel: Path, runs_folder: Path) -> list[str]:
    """Put a parcel's runs into `runs_folder`, except those that are there already; returns their names.

    Raises InputError where `parcel` is no parcel, or one that is cut short.
    """
    pieces = sorted(parcel.glob("parcel.[0-9][0-9]"))
    require(bool(pieces), f"{parcel} holds no parcel.00; is it what a visit wrote?")
    runs_folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=runs_folder, prefix=".parcel-") as temporary:
        aside = Path(temporary)
        try:
            with tarfile.open(fileobj=io.BytesIO(b"".join(map(Path.read_bytes, pieces)))) as outer:
                for member in outer:
                    with tarfile.open(fileobj=outer.extractfile(member), mode="r:gz") as inner:
                        inner.extractall(aside, filter="data")
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            require(False, f"the parcel in {parcel} is damaged: {error}; copy it again")
        found = sorted(path.parent for path in aside.glob("*/config.json"))
        new = [folder for folder in found if not (runs_folder / folder.name).exists()]
        for folder in new:
            folder.rename(runs_folder / folder.name)
    return [folder.name for folder in new]


def write_row(path: Path | None, row: Mapping[str, object], *, quiet: bool = False) -> None:
    """Add a row to a CSV (the first brings the header) and print it: a process that is killed loses none."""
    if path is not None:
        first = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if first:
                writer.writeheader()
            writer.writerow(row)
    if not quiet:
        shown = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values())
        print("  ".join(shown), flush=True)


def _records(folders: list[Path]) -> Iterator[tuple[str, dict[str, Path]]]:
    """Each run with what is looked at later, as files by the name that they have in the parcel."""
    for folder in folders:
        with tempfile.TemporaryDirectory() as temporary:
            kept = Path(temporary) / folder.name
            if (folder / "done.json").exists():
                export(folder, kept)
            else:
                kept.mkdir()
                for name in ALWAYS:
                    if (folder / name).exists():
                        shutil.copy2(folder / name, kept)
            files = {path.relative_to(temporary).as_posix(): path for path in sorted(kept.rglob("*"))}
            yield folder.name, {name: path for name, path in files.items() if path.is_file()}


def _states(folders: list[Path], forks: set[str]) -> Iterator[tuple[str, dict[str, Path]]]:
    """What an unfinished run goes on from; and what a corrected run that has not begun forks from."""
    for folder in folders:
        over = (folder / "done.json").exists() and folder.name not in forks
        on_the_way = (file for kind in ("state-*", "weights-*") for file in sorted(folder.glob(kind)))
        states = [] if over else [folder / store.CHECKPOINT, *on_the_way]
        files = {f"{folder.name}/{path.name}": path for path in states if path.exists()}
        if files:
            yield f"{folder.name}.state", files


def export(run: Path, target: Path) -> None:
    """A finished run's folder, small: float16 weights and w, classes in a byte, no training states."""
    left_behind = shutil.ignore_patterns("state-*", "weights*", "done.json", "corrections", ".*")
    shutil.copytree(run, target, ignore=left_behind)
    for file in sorted(run.glob("weights*")):
        tensors = store.read_tensors(file)
        small = {n: tensor.half() if tensor.is_floating_point() else tensor for n, tensor in tensors.items()}
        store.write_tensors(target / file.name, small)
    for file in sorted((run / "corrections").glob("*.npz")):
        with np.load(file, allow_pickle=False) as arrays:
            w, predictions = arrays["w"].astype(np.float16), arrays["predictions"]
        kind = np.uint8 if predictions.dtype.kind == "i" else np.float16
        store.write_arrays(
            target / "corrections" / file.name, {"w": w, "predictions": predictions.astype(kind)}
        )
    store.seal(target)


def _tar_of(files: dict[str, Path]) -> bytes:
    return _tar([(name, path.read_bytes()) for name, path in files.items()], "w:gz")


def _tar(members: Iterable[tuple[str, bytes]], mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode=mode, **({"compresslevel": 1} if mode == "w:gz" else {})
    ) as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
