"""Sliders for the notebooks, and the page of `make app`."""

from sln.explore.page import corrections, landscapes, results_by_noise
from sln.explore.trained import TrainedRuns, trained_runs
from sln.explore.widgets import play, sliders

__all__ = ["TrainedRuns", "corrections", "landscapes", "play", "results_by_noise", "sliders", "trained_runs"]
