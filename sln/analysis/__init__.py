"""Tables from runs: curves, confidence, landscapes, sharpness, theory, results."""

from sln.analysis.tables import by_alpha, curves, mean_and_std, over_sigma, stacked

__all__ = ["by_alpha", "curves", "mean_and_std", "over_sigma", "stacked"]
