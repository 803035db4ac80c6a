"""Finds wrong labels in your own images by cross-fitting, ranks them and writes the results to files."""

from sln.relabel.classifier import SLNClassifier
from sln.relabel.crossfit import fit
from sln.relabel.pipeline import relabel

__all__ = ["SLNClassifier", "fit", "relabel"]
