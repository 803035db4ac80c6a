"""Settings declared once, with their default, meaning and allowed values: the fields of `config.Config`."""

import math
from dataclasses import field
from typing import Any, NamedTuple

from sln.utils.errors import require


class Range(NamedTuple):
    """Allowed numbers: from `low` to `high`, ends included unless `above` (low) or `below` (high)."""

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def check(self, name: str, value: float) -> None:
        """Raise InputError unless `value` is finite and in the range."""
        end = (value == self.low and self.above) or (value == self.high and self.below)
        inside = self.low <= value <= self.high and math.isfinite(value) and not end
        require(inside, f"{name} is {value}, allowed are {self}")

    def __str__(self) -> str:
        low = f"above {self.low}" if self.above else f"from {self.low}"
        high = "up" if self.high == math.inf else f"to below {self.high}" if self.below else f"to {self.high}"
        return f"finite numbers {low} {high}"


SHARE, BELOW_ONE, NOT_NEGATIVE = Range(0, 1), Range(0, 1, below=True), Range(0)
MANY, SEED = 10_000_000, Range(0, 2**32)


def setting(
    default: Any, about: str, allowed: Any = None, only: tuple[str, ...] = (), *, kept: bool = False
) -> Any:
    """A field of Config; None in its place stands for the default.

    default : a value, or one per data set (`per`)
    about : meaning, unit and source, as the command line shows it
    allowed : a Range, the allowed words, or the allowed words per data set; None: every value of its type
    only : data sets that it belongs to; elsewhere it stays at its default; empty: all
    kept : it decides what a run keeps, not what it computes: runs that differ here alone are one run
    """
    facts = {"default": default, "about": about, "allowed": allowed, "only": only, "kept": kept}
    return field(default=None, metadata=facts)


def per(digits: Any, cifar: Any, clothing1m: Any, letters: Any = None) -> dict[str, Any]:
    """A default per data set: the letters' is the digits' unless given, the others' the released scripts'."""
    embedded = {"digits": digits, "letters": digits if letters is None else letters}
    return embedded | {"cifar10": cifar, "cifar100": cifar, "clothing1m": clothing1m}


def typed(name: str, kind: str, value: Any) -> Any:
    """`value` as its field's type; an int becomes a float where one is asked for, all else is refused."""
    if kind.startswith("tuple"):
        require(isinstance(value, tuple | list), f"{name} is {value!r}, expected a tuple or list")
        return tuple(typed(name, "float", number) for number in value)
    if kind == "float" and type(value) is int:
        return float(value)
    require(type(value).__name__ == kind, f"{name} is {value!r} ({type(value).__name__}), expected {kind}")
    return value


Option = tuple[tuple[str, ...], dict[str, Any]]


def option(*flags: str, **keywords: Any) -> Option:
    """The arguments of `ArgumentParser.add_argument`."""
    return flags, keywords
