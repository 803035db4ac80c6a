"""What every other part stands on: errors, files, random streams, progress, devices."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

VERSION = "0.1.0"


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` (PEP 562) of a package whose names are loaded on first use.

    homes : module of the package by name
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return find, lambda: [*vars(import_module(package)), *homes]
