"""Finds wrong labels in your own images by cross-fitting, ranks them and writes the results to files."""
# ruff: noqa: F401

from typing import TYPE_CHECKING

from sln.utils import lazily

if TYPE_CHECKING:
    from sln.relabel.classifier import SLNClassifier
    from sln.relabel.crossfit import fit
    from sln.relabel.pipeline import relabel

HOMES = {"SLNClassifier": "classifier", "fit": "crossfit", "relabel": "pipeline"}
__all__ = [*HOMES]
__getattr__, __dir__ = lazily("sln.relabel", HOMES)
