"""What is trained and compared: profiles, the paper's recipes, comparisons, ablations."""

from sln.study.study import METHODS, VARIANTS, Arm, MethodRuns, Study

__all__ = ["METHODS", "VARIANTS", "Arm", "MethodRuns", "Study"]
