"""Features of your images are computed once and kept, in chunks, so that an interruption loses seconds.

A chunk's name ends with the SHA-256 of its content: one that is cut short or changed is computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from sln.relabel.features import Encoder
from sln.relabel.listing import Entry, LabelledImages
from sln.utils.files import write_atomically
from sln.utils.progress import Progress

CHUNK = 512  # images
DECODER = 2  # one more for each change of what `images.decode` returns
SMALL = 32  # pixels
Part = tuple[list[int], Tensor, Tensor]  # rows of entries, their features or pixels, their small images


def features(
    found: LabelledImages,
    encoder: Encoder,
    folder: Path | None,
    decoded: Callable[[Sequence[int]], list[Part]],
    progress: Progress,
) -> list[Part]:
    """Features of all entries: those that `folder` keeps, and the others', by `decoded`.

    What cannot be decoded is not kept and is tried again by the next call.
    """
    # from the folder to the images: both may be moved together
    way = "" if folder is None else os.path.relpath(found.root.resolve(), folder.resolve())
    keys = [_key(found, entry, way) for entry in found.entries]
    rows_of: dict[bytes, list[int]] = {}  # a CSV may list a file twice
    for row, key in enumerate(keys):
        rows_of.setdefault(key, []).append(row)
    parts = []
    files = [] if folder is None else sorted(folder.glob(f"features-{encoder.key}-*.safetensors"))
    for chunk in filter(None, map(_read, files)):
        names = enumerate(map(bytes, chunk["keys"].numpy()))
        pairs = [(row, place) for place, key in names for row in rows_of.pop(key, [])]
        if pairs:
            rows, places = map(list, zip(*pairs, strict=True))
            parts.append((rows, chunk["features"][places], chunk["small"][places]))
    missing = sorted(row for rows in rows_of.values() for row in rows)
    for _ in range(len(keys) - len(missing)):
        progress.advance()
    for start in range(0, len(missing), CHUNK):
        new = decoded(missing[start : start + CHUNK])
        if not new:
            continue
        parts.append(joined(new))
        if folder is not None:
            rows, values, small = parts[-1]
            names = torch.tensor([list(keys[row]) for row in rows], dtype=torch.uint8)
            content = safetensors.torch.save({"keys": names, "features": values, "small": small})
            _write(folder / f"features-{encoder.key}", content)
    return parts


def joined(parts: list[Part]) -> Part:
    """The parts as one, in the order of their rows."""
    if not parts:
        return [], torch.empty(0), torch.empty(0)
    place = {row: number for number, row in enumerate(sorted(row for part in parts for row in part[0]))}
    whole = [tensor.new_empty(len(place), *tensor.shape[1:]) for tensor in parts[0][1:]]
    for rows, *tensors in parts:
        for target, tensor in zip(whole, tensors, strict=True):
            target[[place[row] for row in rows]] = tensor
    return list(place), *whole


def shrunk(images: Tensor) -> Tensor:
    """(B, 3, s, s) uint8: images (B, 3, S, S) at no more than 32 pixels, each the mean of those it covers."""
    if images.shape[-1] <= SMALL:
        return images
    return F.adaptive_avg_pool2d(images.float(), SMALL).round().to(torch.uint8)


def _key(found: LabelledImages, entry: Entry, way: str) -> bytes:
    """SHA-256 of where a file is, of its size and time of change, and of how it is decoded."""
    status = None
    with contextlib.suppress(OSError):  # it has vanished, which decoding will say
        status = (found.root / entry.name).stat()
    what = (DECODER, way, entry.name, found.white, status and status.st_size, status and status.st_mtime_ns)
    return hashlib.sha256(repr(what).encode()).digest()


def _write(start: Path, content: bytes) -> None:
    digest = hashlib.sha256(content).hexdigest()[:16]
    write_atomically(Path(f"{start}-{digest}.safetensors"), lambda file: file.write_bytes(content))


def _read(file: Path) -> dict[str, Tensor] | None:
    """The chunk, or None if it is damaged."""
    content = file.read_bytes()
    whole = file.stem.endswith(hashlib.sha256(content).hexdigest()[:16])
    return safetensors.torch.load(content) if whole else None
