"""What people hand to `fit` as images, labels and groups: a tensor and lists, or refused in one line."""

from __future__ import annotations

import contextlib
import operator
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import ExifTags, Image
from torch import Tensor

from sln.utils.errors import InputError, require

SMALLEST_SIDE, LARGEST_SIDE = 8, 32  # pixels; smaller would vanish in pooling, larger pictures are reduced
SAMPLE = 100  # rows of a list or data set that the size of its pictures is taken from
LARGEST_VALUE = 1e15  # of a pixel or feature; the squares of larger ones overflow
ABSENT = {"nan", "NaN", "NaT", "<NA>"}  # what missing labels become as text
# How to turn an image back by its EXIF orientation. Pillow's exif_transpose rewrites all tags, odd ones fail.
TURNS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270"}
TURNS |= {7: "TRANSVERSE", 8: "ROTATE_90"}
KINDS = "arrays, lists of PIL images or arrays, data frames of features, torch and Hugging Face data sets"
Row = Callable[[int], tuple[Any, Any]]


def unpacked(images: Any, labels: Any = None, side: int | None = None) -> tuple[Tensor, Any]:
    """Pixels (N, channels, H, W) or features (N, D, 1, 1), and the labels: None stands for a data set's own.

    A torch data set gives (image, label), or a dictionary with these keys; a Hugging Face data set has a
    column of images and one called label. Names of their classes replace the numbers. PIL images are resized
    as `images.read` does: to a square of `side`, default their median shorter side, from 8 to 32 pixels.
    """
    if isinstance(images, pd.DataFrame):
        for name, column in images.items():
            require(pd.api.types.is_numeric_dtype(column), f"column {name!r} of the features has no numbers")
        images = images.to_numpy(dtype=np.float64, na_value=np.nan)
    if hasattr(images, "__array__") and not isinstance(images, (Tensor, pd.Series)):
        images = np.asanyarray(images)
    if isinstance(images, Tensor) or (isinstance(images, np.ndarray) and images.dtype != object):
        require(labels is not None, "labels are None; only data sets bring their own")
        return _pixels(_tensor(images)), labels
    count, row = _rows(images, labels is None)
    sample = [row(number)[0] for number in range(0, count, count // SAMPLE + 1)]
    shorter = [min(image.size) for image in sample if isinstance(image, Image.Image)]
    if side is None and shorter:
        side = int(np.clip(statistics.median(shorter), SMALLEST_SIDE, LARGEST_SIDE))
    tensors, own = [], []
    for number in range(count):
        image, label = row(number)
        tensors.append(_tensor(image, side, f"image {number}"))
        first, this = (f"{tuple(of.shape)} {of.dtype}" for of in (tensors[0], tensors[-1]))
        way = "give all one size and type, or PIL images, which are resized"
        require(first == this, f"images 0 and {number} differ ({first}, {this}); {way}")
        own.append(label)
    require(count > 0, "there are no images")
    return _pixels(torch.stack(tensors)), own if labels is None else labels


def pixels_of(images: Any, side: int | None = None) -> Tensor:
    """Pixels (N, channels, H, W) or features (N, D, 1, 1); see `unpacked`."""
    return unpacked(images, (), side)[0]


def _rows(data: Any, labelled: bool) -> tuple[int, Row]:
    """The length of a list or data set, and a function from a row's number to its image and label."""
    kind, columns = type(data).__name__, getattr(data, "column_names", None)
    several = isinstance(columns, Mapping)  # a Hugging Face DatasetDict
    require(not several, f"images are a {kind} of several splits; choose one, as in data['train']")
    image, label, names = "image", "label", getattr(data, "classes", None)
    if columns is not None and hasattr(data, "features"):
        image = _column(data, "image", "Image", ("image", "img"))
        label = _column(data, "label", "ClassLabel", ("label", "labels")) if labelled else image
        names = getattr(data.features[label], "names", None)
    elif not isinstance(data, torch.utils.data.Dataset):
        wrong = isinstance(data, (str, bytes, Mapping, Set)) or not hasattr(data, "__iter__")
        require(not wrong, f"images are a {kind}; allowed are {KINDS}")
        require(not labelled, "labels are None; only data sets bring their own")
        values = list(data)
        return len(values), lambda number: (values[number], None)
    require(
        hasattr(data, "__len__"), f"images are a {kind} without a length; give one that rows can be read from"
    )
    by_number = _by_number(names) if isinstance(names, (list, tuple)) else None

    def row(number: int) -> tuple[Any, Any]:
        item = data[number]
        if isinstance(item, (tuple, list)):
            item = dict(zip((image, label), item, strict=False))
        if not isinstance(item, Mapping):
            item = {image: item}
        for key in (image, label) if labelled else (image,):
            require(key in item, f"row {number} of the data set has no {key}; expected is (image, label)")
        given = item[label] if labelled else None
        with contextlib.suppress(TypeError):  # names, or what `values_of` refuses
            given = given if by_number is None else by_number.get(operator.index(given))
        return item[image], given

    return len(data), row


def _by_number(classes: Sequence[Any]) -> dict[int, Any]:
    """The name of each class, a name that several have with its number; ImageNet's are tuples of words."""
    names = [", ".join(map(str, name)) if isinstance(name, tuple) else name for name in classes]
    return {i: name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names)}


def _column(data: Any, what: str, kind: str, usual: tuple[str, ...]) -> str:
    """The column of a Hugging Face data set that has a usual name, else the only one of that kind."""
    found = [name for name in usual if name in data.column_names]
    found = found or [name for name, feature in data.features.items() if type(feature).__name__ == kind]
    has = f"the data set has the columns {', '.join(data.column_names)}"
    require(len(found) == 1, f"{has}; rename the one of {what}s to {usual[0]!r}, with rename_column")
    return found[0]


def in_rgb(image: Image.Image, orientation: int | None = None) -> Image.Image:
    """The picture upright (by default as its EXIF data have it), transparent parts on white, in RGB."""
    image.load()  # which turns a TIFF upright and drops its tag
    turn = TURNS.get(orientation or image.getexif().get(ExifTags.Base.Orientation))
    image = image if turn is None else image.transpose(Image.Transpose[turn])
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _tensor(image: Any, side: int | None = None, what: str = "images") -> Tensor:
    """One image or array of numbers as a tensor on the CPU."""
    if isinstance(image, Image.Image):
        deep = image.mode.startswith(("I", "F"))
        require(
            not deep, f"{what} has more than 8 bits (mode {image.mode}); give arrays, as np.asarray(image)"
        )
        try:
            image = np.asarray(in_rgb(image).resize((side, side), Image.Resampling.BILINEAR)).transpose(
                2, 0, 1
            )
        except OSError as error:
            raise InputError(f"{what} cannot be read: {error}") from None
    is_path = "are names of files; open them, or give their folder or CSV to sln.relabel.relabel"
    require(not isinstance(image, str), f"images {is_path}")
    sparse = hasattr(image, "nnz") or (isinstance(image, Tensor) and image.layout != torch.strided)
    require(not sparse, f"{what} are sparse; make them dense, with toarray() or to_dense()")
    require(not np.ma.is_masked(image), f"{what} have masked values; fill them, as with filled(0)")
    if not isinstance(image, Tensor):
        try:
            array = np.asarray(image)
        except ValueError:  # lists of unequal lengths
            array = np.array(None)
        real = array.dtype.kind in "iuf"
        require(real, f"{what} must be real numbers, found was a {type(image).__name__} of {array.dtype}")
        # as torch wants it: this machine's byte order, no negative strides, and memory that may be written to
        kind = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.float64
        image = torch.from_numpy(np.require(array, kind, ["C", "W"]))
    image = image.detach().cpu()
    require(
        image.dtype != torch.bool and not image.is_complex(),
        f"{what} must be real numbers, found {image.dtype}",
    )
    return image.float() if image.dtype in (torch.float64, torch.bfloat16) else image


def _pixels(pixels: Tensor) -> Tensor:
    """(N, channels, H, W), or features (N, D, 1, 1), checked; channels may have come last."""
    shape, features = tuple(pixels.shape), pixels.ndim == 2
    pixels = pixels[:, :, None, None] if features else pixels[:, None] if pixels.ndim == 3 else pixels
    if pixels.ndim == 4 and not features and pixels.shape[1] > 4 >= pixels.shape[3]:
        pixels = pixels.permute(0, 3, 1, 2).contiguous()
    fits = pixels.ndim == 4 and (
        features or (pixels.shape[1] <= 4 and min(pixels.shape[2:]) >= SMALLEST_SIDE)
    )
    require(
        fits and pixels.numel() > 0,
        f"images have shape {shape}; allowed are (N, channels, H, W) or (N, H, W, channels) with 1 to 4 "
        f"channels, grey (N, H, W), all with at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, and "
        "features (N, D)",
    )
    require(bool(pixels.isfinite().all()), "images have infinite or missing pixels")
    if pixels.is_floating_point():
        largest = max(-float(pixels.min()), float(pixels.max()))
        require(
            largest <= LARGEST_VALUE,
            f"images have values up to {largest:.1g}, allowed is {LARGEST_VALUE:.0g}",
        )
    return pixels


def values_of(values: Any, what: str = "labels") -> list:
    """One number or name per example, none of them missing, from `labels` or `groups` of any kind."""
    kind, way = type(values).__name__, f"expected is a list, array or column of {what}, one per example"
    wrong = isinstance(values, (str, bytes, Mapping, Set)) or not hasattr(values, "__iter__")
    require(not wrong, f"{what} are a {kind}; {way}")
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    shape = getattr(values, "shape", ())
    if len(shape) == 2:
        several = "if they are one-hot or probabilities, give argmax(1)"
        require(shape[1] == 1, f"{what} have shape {shape}; {way}; {several}")
        values = np.asarray(values).ravel()
    if getattr(getattr(values, "dtype", None), "kind", None) in ("m", "M"):
        values = pd.Series(values)  # NumPy's tolist would make numbers of dates
    given = values.tolist() if hasattr(values, "tolist") else list(values)
    for row, value in enumerate(given):
        if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.numel() == 1):
            given[row] = value.item()
    for row, value in enumerate(given):
        if isinstance(value, bytes):
            given[row] = value = value.decode("utf-8", "backslashreplace")
        one = isinstance(value, Hashable) and not isinstance(value, (tuple, Tensor))
        require(one, f"{what} has a {type(value).__name__} in row {row}; {way}")
    missing = np.flatnonzero(
        [pd.isna(v) or (isinstance(v, str) and (not v.strip() or v in ABSENT)) for v in given]
    )
    if len(missing):
        first = f"row {missing[0]} has {given[missing[0]]!r}"
        raise InputError(
            f"some {what} are missing ({first}; {len(missing)} in all); leave these examples out"
        )
    return given


def same_order(images: Any, values: Any, what: str) -> None:
    """Raise InputError if two pandas objects have the same index in another order: rows go by place."""
    a, b = (getattr(of, "index", None) for of in (images, values))
    if isinstance(a, pd.Index) and isinstance(b, pd.Index) and not a.equals(b):
        mixed = len(a) == len(b) and a.sort_values().equals(b.sort_values())
        require(
            not mixed, f"{what} have the index of the images in another order; give {what}.loc[images.index]"
        )
