"""A few images in CIFAR's published file format, their MD5s in the place of the published ones."""

import hashlib
import pickle
from dataclasses import dataclass

import numpy as np

from sln.datasets import download
from sln.utils.devices import torchvision


@dataclass(frozen=True)
class Miniature:
    """`contents` of the files by name, and what is in them: images, labels by whether they train, classes."""

    name: str
    kind: type
    contents: dict
    images: dict
    labels: dict
    classes: tuple

    @property
    def folder(self):
        return self.kind.base_folder

    def lay(self, root):
        """Write the files below the data folder `root`."""
        (root / self.folder).mkdir(parents=True, exist_ok=True)
        for name, content in self.contents.items():
            (root / self.folder / name).write_bytes(content)


def make(name, monkeypatch, each=4, seed=3):
    """`each` images of noise a file, of dataset `name`, which torchvision now takes for the real files."""
    kind = getattr(torchvision().datasets, download.DATAPATHS[name])
    fine, rng = name == "cifar100", np.random.default_rng(seed)
    contents, images, labels = {}, {True: [], False: []}, {True: [], False: []}
    for listed, train in ((kind.train_list, True), (kind.test_list, False)):
        for file, _ in listed:
            data = rng.integers(256, size=(each, 3072), dtype=np.uint8)
            batch = rng.integers(100 if fine else 10, size=each).tolist()
            keys = {"fine_labels": batch, "coarse_labels": [0] * each} if fine else {"labels": batch}
            entry = {"batch_label": file, "data": data, "filenames": ["a.png"] * each} | keys
            contents[file] = pickle.dumps(entry, protocol=2)
            images[train].append(data)
            labels[train] += batch
    classes = tuple(f"class {i}" for i in range(100 if fine else 10))
    meta = {kind.meta["key"]: list(classes), "coarse_label_names" if fine else "num_vis": []}
    contents[kind.meta["filename"]] = pickle.dumps(meta, protocol=2)

    def of(file):
        return hashlib.md5(contents[file]).hexdigest()

    # CIFAR100 is a subclass with lists of its own
    monkeypatch.setattr(kind, "train_list", [[file, of(file)] for file, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [[file, of(file)] for file, _ in kind.test_list])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": of(kind.meta["filename"])})
    return Miniature(name, kind, contents, {k: np.concatenate(v) for k, v in images.items()}, labels, classes)
