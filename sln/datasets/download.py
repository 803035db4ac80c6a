"""Data that can be downloaded: addresses, checksums, licences, and their places below the data folder."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import sys
import tarfile
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from sln.utils.devices import torchvision
from sln.utils.errors import InputError, choose, require
from sln.utils.files import data_folder, write_atomically
from sln.utils.progress import Progress

NAMES = ("cifar10", "cifar100", "sln-labels", "cifar-n", "resnet50")
# Below its folder data/, the released script's --datapath of each data set.
DATAPATHS = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}

TIMEOUT = 30  # seconds without a byte after which a connection is given up
RETRIES = 3  # further connections after one that broke; pooch pauses 1, 2 and 3 seconds before them
CHUNK, MB = 1 << 16, 1_000_000  # bytes


@dataclass(frozen=True)
class File:
    """One file of a source."""

    places: tuple[str, ...]  # possible paths below the data folder; `get` writes the first
    checksum: str  # `md5:` or `sha256:` and all hex digits
    remote: str  # path below the source's address


@dataclass(frozen=True)
class Source:
    """Everything that one name stands for."""

    name: str
    what: str
    address: str  # of the folder that holds the remote files
    licence: str
    size: int  # bytes to download
    files: tuple[File, ...]
    archive: File | None = None  # the one file to download, if `files` are unpacked from it


def label_places(dataset: str, name: str) -> tuple[str, ...]:
    """Possible places of the label file `name` of `dataset`: in our layout, and in the released script's."""
    return f"labels/sln/{dataset}/{name}", f"{DATAPATHS[dataset]}/label_noisy/{name}", f"label_noisy/{name}"


# SHA-256 of the authors' label files at the commit in SLN_LABELS.address.
RELEASED = {
    ("cifar10", "asym0.4.csv"): "eae3112b2e876f1ed375d2456b7d9b135b3b0f0c9e5c1a2d1b81417307d7d64c",
    ("cifar10", "dependent0.4.csv"): "e56e57cd7ec402ead6cd65f6f64ca436c7d3e5cf4bdf174eb8a1efa1daa90dad",
    ("cifar10", "sym0.4.csv"): "96c1bb492340f32681142d5cb2b0003c005227235e923b27ef86d2c11ab083d0",
    ("cifar100", "asym0.4.csv"): "a1fbcb8217b5c7dc68cc1f101d2034c634fce5e2b9f6ac34daadc5ca9826bd3c",
    ("cifar100", "dependent0.4.csv"): "f5d3e4506550be0532344138d6f0fc82ac32472cf669acee43b8f190b8d260d7",
    ("cifar100", "sym0.4.csv"): "e074d1181c8b297dd1e888a70bc8a959c26769c08fb4fadff58460f901d5f5fc",
}
SLN_LABELS = Source(
    name="sln-labels",
    what="released noisy labels of CIFAR-10 and CIFAR-100",
    address="https://raw.githubusercontent.com/chenpf1025/SLN/6a10a311b2d6540cd608b19712f18f10be9ab235/data",
    licence="none stated; Chen et al., ICLR 2021",
    size=1_670_119,
    files=tuple(
        File(label_places(dataset, name), f"sha256:{sha256}", f"{DATAPATHS[dataset]}/label_noisy/{name}")
        for (dataset, name), sha256 in RELEASED.items()
    ),
)
CIFAR_N = Source(
    name="cifar-n",
    what="human labels of CIFAR-10 and CIFAR-100 (CIFAR-N)",
    address="https://raw.githubusercontent.com/UCSC-REAL/cifar-10-100n/"
    "49df7d8a69e355470c77c1c2f2424916325a394b/data",
    licence="CC BY-NC 4.0 (not for commercial use); Wei et al., ICLR 2022",
    size=3_401_966,
    files=tuple(
        File((f"labels/cifar-n/{name}",), f"sha256:{sha256}", name)
        for name, sha256 in (
            ("CIFAR-10_human.pt", "873e69c39cb9b5e97fb6bae2d60bb59b38a5cbc31d2b868f7903dcb2b9dd2310"),
            ("CIFAR-100_human.pt", "bd2d80409754d420292d622e15e25248ba21e37d27429efac49c8da723f44394"),
        )
    ),
)


def source(name: str) -> Source:
    """The source called `name`, one of NAMES. torchvision has the addresses of its weights and of CIFAR."""
    choose("data", name, NAMES)
    if name in DATAPATHS:
        return _cifar(name)
    return {"sln-labels": SLN_LABELS, "cifar-n": CIFAR_N}.get(name) or _resnet50()


def _resnet50() -> Source:
    """Version 1 of the weights, as the released script's `pretrained=True`."""
    address, _, file = torchvision().models.ResNet50_Weights.IMAGENET1K_V1.url.rpartition("/")
    sha256 = "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a"
    return Source(
        name="resnet50",
        what="ImageNet weights of ResNet-50",
        address=address,
        licence="BSD 3-Clause (torchvision); ImageNet's terms: not for commercial use",
        size=102_530_333,
        files=(File((file,), f"sha256:{sha256}", file),),
    )


def _cifar(name: str) -> Source:
    kind = getattr(torchvision().datasets, DATAPATHS[name])
    listed = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    paths = [(f"{kind.base_folder}/{file}", f"md5:{md5}") for file, md5 in listed]
    return Source(
        name=name,
        what=DATAPATHS[name].replace("CIFAR", "CIFAR-"),
        address=kind.url.rpartition("/")[0],
        licence="none stated; Krizhevsky, 2009",
        size={"cifar10": 170_498_071, "cifar100": 169_001_437}[name],
        files=tuple(File((path, f"{DATAPATHS[name]}/{path}"), md5, path) for path, md5 in paths),
        archive=File((kind.filename,), f"md5:{kind.tgz_md5}", kind.filename),
    )


def located(file: File) -> Path | None:
    """The first of the file's places that holds it with the right checksum, or None."""
    paths = (data_folder() / place for place in file.places)
    return next((path for path in paths if _verified(path, file)), None)


def cifar_root(name: str) -> Path:
    """The data folder, or the released script's --datapath in it: which holds all of CIFAR, by their MD5."""
    for place, folder in enumerate((data_folder(), data_folder() / DATAPATHS[name])):
        if not _wrong(source(name), place):
            return folder
    raise missing(name)


def present(name: str) -> bool:
    """Whether all files of a source exist and are right; every file is read and checked."""
    return not _lacking(source(name))


def missing(name: str, file: File | None = None) -> InputError:
    """The error for `file`, or the first file of a source, that is missing or not the published one."""
    wanted, folder = source(name), data_folder()
    file = file or (_lacking(wanted) or wanted.files)[0]
    paths = [folder / place for place in file.places]
    wrong = [f"{path} is not the published file ({file.checksum})" for path in paths if path.exists()]
    remote = f"{wanted.address}/{(wanted.archive or file).remote}"
    return InputError(
        f"{wanted.what}: {wrong[0] if wrong else ' or '.join(map(str, paths)) + ' is missing'}; "
        f"`python -m sln data get {name}` gets it, or without network put {remote} "
        + (f"into {folder} and run the same" if wanted.archive else f"at {paths[0]}")
        + " (SLN_DATA names the folder of all data)"
    )


def listing() -> pd.DataFrame:
    """One row per source: name, what, present, where, megabytes to download, licence, address."""
    rows = []
    for of in map(source, NAMES):
        found = [located(file) or data_folder() / file.places[0] for file in of.files]
        where, size = os.path.commonpath([path.parent for path in found]), round(of.size / MB, 1)
        rows.append((of.name, of.what, not _lacking(of), where, size, of.licence, of.address))
    return pd.DataFrame(rows, columns=["name", "what", "present", "where", "MB", "licence", "address"])


def get(name: str, mirror: str | None = None) -> list[Path]:
    """Download the files that are missing or wrong. Returns their paths; none if everything was complete.

    A broken download goes on where it stopped, also after an interrupt. A file has its name only once its
    checksum is right; a wrong file in its place is renamed to `<name>.wrong-checksum`. Only the listed files
    of an archive are unpacked; then the archive is removed, unless it was there before. `mirror` is the
    address of another folder that holds the same remote files, or of a single remote file.
    """
    wanted, folder = source(name), data_folder()
    require(
        (mirror or "https").partition(":")[0] in ("http", "https", "file"),
        f"mirror is {mirror!r}, allowed are addresses that start with http, https or file",
    )
    if not _lacking(wanted):
        return []  # a complete folder may be read-only
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock"):
            files = _lacking(wanted)  # another process may have got them
            if files and wanted.archive:
                _get_archive(wanted, wanted.archive, files, mirror)
            else:
                for file in files:
                    _fetch(wanted, file, mirror)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # the network's, the disk's, and pooch's about checksums
        reason = getattr(error.args[0] if error.args else None, "reason", error)
        raise InputError(
            f"cannot get {wanted.what}: {' '.join(str(reason).split())}; check the network and that {folder} "
            f"can be written to, or name another address with --mirror. {missing(name)}"
        ) from None
    return [folder / file.places[0] for file in files]


def _verified(path: Path, file: File) -> bool:
    if not path.is_file():
        return False
    kind, _, digits = file.checksum.partition(":")
    try:
        with path.open("rb") as content:
            return hashlib.file_digest(content, kind).hexdigest() == digits
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None


def _wrong(wanted: Source, place: int) -> list[File]:
    return [file for file in wanted.files if not _verified(data_folder() / file.places[place], file)]


def _lacking(wanted: Source) -> list[File]:
    """The files that `get` has to get; those of CIFAR must all be in one of two folders."""
    if wanted.archive is None:
        return [file for file in wanted.files if located(file) is None]
    return _wrong(wanted, 1) and _wrong(wanted, 0)


def _fetch(wanted: Source, file: File, mirror: str | None) -> None:
    """Get one remote file to its first place, by pooch: retries, checksum, renaming."""
    import pooch  # only here: a GPU machine without pooch can train on data that exist

    place, folder = file.places[0], mirror or wanted.address
    url = folder if folder.endswith(f"/{file.remote}") else f"{folder.rstrip('/')}/{file.remote}"
    path = data_folder() / place
    if not _verified(path, file):
        _set_aside(path)
    download = functools.partial(_download, part=path.with_name(f"{path.name}.part"), what=wanted.what)
    files = pooch.Pooch(data_folder(), "", {place: file.checksum}, {place: url}, RETRIES)
    files.fetch(place, downloader=download)


def _download(url: str, output_file: str, _: Any, *, part: Path, what: str) -> None:
    """pooch's downloader: append to `part` what the server has after its last byte, then hand `part` over.

    A server that sends everything again starts `part` again. If the server's file has changed, pooch finds a
    wrong checksum, and its next try starts with an empty `part`.
    """
    import requests

    if url.startswith("file:"):
        shutil.copyfile(urllib.request.url2pathname(urllib.parse.urlparse(url).path), output_file)
        return
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code != 416:  # 416: there is nothing after the bytes in `part`
            response.raise_for_status()
            if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                have = 0
            total = have + int(response.headers.get("Content-Length", 0))
            with (
                part.open("ab" if have else "wb") as file,
                Progress(total // MB, what, "MB", done=have // MB, quiet=total < 10 * MB) as progress,
            ):
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    while progress.done < file.tell() // MB:
                        progress.advance()
    part.replace(output_file)


def _get_archive(wanted: Source, archive: File, files: list[File], mirror: str | None) -> None:
    """Unpack `files` to their first places; nothing in the archive decides about a path."""
    path, awaited = data_folder() / archive.places[0], {file.places[0] for file in files}
    by_hand = path.exists()
    _fetch(wanted, archive, mirror)
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isreg() and member.name in awaited:
                awaited.remove(member.name)
                content = tar.extractfile(member).read()
                _set_aside(data_folder() / member.name)
                write_atomically(data_folder() / member.name, lambda new, of=content: new.write_bytes(of))
    require(not awaited, f"{path} has no file {', '.join(awaited)}; it is another archive")
    if not by_hand:
        path.unlink()


def _set_aside(path: Path) -> None:
    """Rename a wrong file, which may be a user's own."""
    if path.exists():
        aside = path.with_name(f"{path.name}.wrong-checksum")
        print(f"{path} is not the published file; it is now {aside}", file=sys.stderr)
        path.replace(aside)
