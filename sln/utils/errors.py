"""One exception for everything a user can mistype, and the sentence that helps."""

import difflib
from collections.abc import Iterable

import numpy as np


class InputError(ValueError):
    """Bad input, in one line: the value, what is allowed, what to do. The command line exits with code 2."""


def require(condition: bool, message: str) -> None:
    """Raise InputError with `message` unless `condition` holds."""
    if not condition:
        raise InputError(message)


def choose(what: str, value: object, allowed: Iterable[str]) -> None:
    """Raise InputError unless `value` is one of `allowed`, naming the nearest right one."""
    allowed = sorted(allowed)
    if value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"unknown {what} {value!r}: {hint}allowed are {', '.join(allowed)}")


def require_labels(labels: np.ndarray, num_classes: int, where: str, lowest: int = 0) -> None:
    """Raise InputError unless `labels` are (N,) whole numbers, N >= 1, from `lowest` to `num_classes` - 1."""
    require(labels.ndim == 1 and len(labels) > 0, f"{where}: shape {labels.shape}, expected (N,) with N >= 1")
    require(np.issubdtype(labels.dtype, np.integer), f"{where}: type {labels.dtype}, expected whole numbers")
    for row in np.flatnonzero((labels < lowest) | (labels >= num_classes)):
        outside = f"label {labels[row]} at row {row} is outside the classes 0..{num_classes - 1}"
        raise InputError(f"{where}: {outside}")
