"""What can be downloaded: from where, with which checksums, under which licence, and where it lies then."""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sln.datasets.downloads import difference, download, held, set_aside, verified
from sln.utils.errors import InputError, choose, require
from sln.utils.files import data_folder, write_atomically
from sln.utils.vision import torchvision

NAMES = ("cifar10", "cifar100", "sln-labels", "cifar-n", "resnet50")
# The released script's --datapath of each data set, below its folder data/.
DATAPATHS = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}


@dataclass(frozen=True)
class File:
    """One file of a source.

    places : paths below the data folder where it is looked for; `get` puts it at the first
    checksum : as `downloads.download` takes it
    remote : its address below the source's
    """

    places: tuple[str, ...]
    checksum: str
    remote: str = ""


@dataclass(frozen=True)
class Source:
    """What one name stands for.

    what : it in a few words
    address : of the folder that holds the remote files
    size : bytes to download
    archive : the one file that is downloaded where `files` are unpacked from it
    """

    name: str
    what: str
    address: str
    licence: str
    size: int
    files: tuple[File, ...]
    archive: File | None = None


def label_places(dataset: str, name: str) -> tuple[str, ...]:
    """Where the label file `name` of `dataset` is looked for: our layout, and the released script's."""
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
    """The source called `name`, one of NAMES."""
    choose("data", name, NAMES)
    match name:
        case "sln-labels":
            return SLN_LABELS
        case "cifar-n":
            return CIFAR_N
        case "resnet50":
            return _resnet50()
        case _:
            return _cifar(name)


def _cifar(name: str) -> Source:
    """CIFAR-10 or -100 (Krizhevsky, 2009), addresses and MD5s as torchvision knows them."""
    kind = getattr(torchvision().datasets, DATAPATHS[name])
    listed = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
    address, _, remote = kind.url.rpartition("/")
    return Source(
        name=name,
        what=DATAPATHS[name].replace("CIFAR", "CIFAR-"),
        address=address,
        licence="none stated; Krizhevsky, 2009",
        size={"cifar10": 170_498_071, "cifar100": 169_001_437}[name],
        files=tuple(
            File((f"{kind.base_folder}/{file}", f"{DATAPATHS[name]}/{kind.base_folder}/{file}"), f"md5:{md5}")
            for file, md5 in listed
        ),
        archive=File((kind.filename,), f"md5:{kind.tgz_md5}", remote),
    )


def _resnet50() -> Source:
    """ImageNet weights of ResNet-50, version 1, those of the released script's `pretrained=True`."""
    address, _, name = torchvision().models.ResNet50_Weights.IMAGENET1K_V1.url.rpartition("/")
    return Source(
        name="resnet50",
        what="ImageNet weights of ResNet-50",
        address=address,
        licence="BSD 3-Clause (torchvision); ImageNet's terms: not for commercial use",
        size=102_530_333,
        # the file's name holds the start of its SHA-256, which is all that its publisher states
        files=(File((name,), "sha256:0676ba61", name),),
    )


def located(file: File) -> Path | None:
    """The first of the file's places that holds it with the right checksum, or None."""
    paths = [data_folder() / place for place in file.places]
    return next((path for path in paths if verified(path, file.checksum)), None)


def cifar_root(name: str) -> Path:
    """The folder that holds all files of CIFAR-10 or -100, each with the right MD5.

    It is the data folder or the released script's --datapath in it. Raises InputError where neither does.
    """
    root = _whole_root(source(name))
    if root is None:
        raise missing(name)
    return root


def present(name: str) -> bool:
    """Whether all files of a source are there and right; every one is read and checked."""
    return not _lacking(source(name))


def get(name: str, mirror: str | None = None) -> list[Path]:
    """Download what is not there yet, or not right. Returns the new files, none where nothing was missing.

    A wrong file in the way is set aside. Of CIFAR's archive only the listed files are unpacked, under names
    of our own choosing, each with its own MD5; then the archive is removed, unless it was there before.

    mirror : address of another folder that holds the same remote files, or of the file where it is one only

    Raises InputError, in one line, for an unknown name and where something cannot be got, as `download`.
    """
    wanted = source(name)
    if not _lacking(wanted):
        return []  # a folder that is complete need not be one that can be written to
    with held(data_folder() / name):
        lacking = _lacking(wanted)  # another process may have got it since
        if wanted.archive is None or not lacking:
            return [_download(wanted, file, mirror) for file in lacking]
        own = located(wanted.archive) is not None
        archive = _download(wanted, wanted.archive, mirror)
        unpacked = _unpack(archive, lacking)
        if not own:
            archive.unlink()
        return unpacked


def missing(name: str, *only: File) -> InputError:
    """The error that says which file of a source (or of `only` some) is missing or wrong, and the way out."""
    wanted, folder = source(name), data_folder()
    files = only or wanted.files
    command = f"`python -m sln data get {name}`"
    for wrong, place in ((file, place) for file in files for place in file.places):
        path = folder / place
        # label_noisy/sym0.4.csv may be another data set's, and right
        owners = [owner.checksum for owner in wanted.files if place in owner.places]
        if path.exists() and not any(verified(path, checksum) for checksum in owners):
            told = f"{path} has {difference(path, wrong.checksum)}"
            return InputError(f"{wanted.what}: {told}; {command} gets the published file")
    if wanted.archive is None:
        first = next((file for file in files if located(file) is None), files[0])
        looked = [folder / place for place in first.places]
        by_hand = f"put {wanted.address}/{first.remote} at {looked[0]}"
    else:
        paths = [folder / place for file in files for place in file.places]
        # one file of a folder that is there, or else the folders
        looked = [path for path in paths if path.parent.is_dir() and not path.exists()][:1]
        looked = looked or [folder / Path(place).parent for place in files[0].places]
        by_hand = f"put {wanted.address}/{wanted.archive.remote} into {folder} and run the same"
    return InputError(
        f"{wanted.what}: {' or '.join(map(str, looked))} is missing; {command} gets it, or without network "
        f"{by_hand} (SLN_DATA names the folder of all data)"
    )


def listing() -> pd.DataFrame:
    """A row for every source: name, what, present, where, megabytes to download, licence, address."""
    rows = []
    for name in NAMES:
        of = source(name)
        found = [located(file) or data_folder() / file.places[0] for file in of.files]
        rows.append(
            {
                "name": name,
                "what": of.what,
                "present": not _lacking(of),
                "where": os.path.commonpath([path.parent for path in found]),
                "MB": round(of.size / 1e6, 1),
                "licence": of.licence,
                "address": of.address,
            }
        )
    return pd.DataFrame(rows)


def _whole_root(cifar: Source) -> Path | None:
    for i, folder in enumerate((data_folder(), data_folder() / DATAPATHS[cifar.name])):
        if all(verified(data_folder() / file.places[i], file.checksum) for file in cifar.files):
            return folder
    return None


def _lacking(wanted: Source) -> list[File]:
    """The files that `get` has to get."""
    if wanted.archive is None:
        return [file for file in wanted.files if located(file) is None]
    if _whole_root(wanted) is not None:
        return []
    return [f for f in wanted.files if not verified(data_folder() / f.places[0], f.checksum)]


def _download(wanted: Source, file: File, mirror: str | None) -> Path:
    address = f"{(mirror or wanted.address).rstrip('/')}/{file.remote}"
    alone = wanted.archive is not None or len(wanted.files) == 1
    if mirror and alone and mirror.endswith(f"/{file.remote}"):
        address = mirror
    path = data_folder() / file.places[0]
    what = wanted.what if alone else file.places[0]
    return download(address, path, file.checksum, what=what)


def _unpack(archive: Path, files: list[File]) -> list[Path]:
    """Write `files` out of a tar archive, each checked before it gets its name.

    Only regular files with a listed name are read, and the list says where they go, so no path and no link in
    the archive decides anything.
    """
    wanted, written = {file.places[0]: file for file in files}, []
    with tarfile.open(archive) as tar:
        for member in tar:
            file = wanted.pop(member.name, None) if member.isreg() else None
            if file is not None:
                content = tar.extractfile(member).read()
                written.append(_put(content, file, f"{member.name} of {archive}"))
    require(not wanted, f"{archive} has no file {', '.join(wanted)}; it is another archive")
    return written


def _put(content: bytes, file: File, where: str) -> Path:
    def write(temporary: Path) -> None:
        temporary.write_bytes(content)
        require(
            verified(temporary, file.checksum),
            f"{where} has {difference(temporary, file.checksum)}; it is not used",
        )
        if path.exists():
            set_aside(path, file.checksum)

    path = data_folder() / file.places[0]
    write_atomically(path, write)
    return path
