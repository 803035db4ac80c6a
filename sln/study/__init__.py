"""What is trained and compared: profiles, the paper's recipes, comparisons, ablations."""

from sln.study.statistics import Arm, Estimate, MethodRuns, interval, paired
from sln.study.study import METHODS, VARIANTS, Study

__all__ = ["METHODS", "VARIANTS", "Arm", "Estimate", "MethodRuns", "Study", "interval", "paired"]
