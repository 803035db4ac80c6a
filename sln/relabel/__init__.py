"""Wrong labels in your own images: found by cross-fitting, ranked, written to files."""

from sln.relabel.crossfit import fit
from sln.relabel.pipeline import relabel

__all__ = ["fit", "relabel"]
