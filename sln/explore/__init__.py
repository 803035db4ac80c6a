"""Sliders for the notebooks, and the page of `make app`.

sliders : redraws a figure for every value, with a kernel
play : a slider over pictures drawn beforehand, without one
TrainedRuns : the runs trained so far, and a button that trains another
corrections, landscapes, results_by_noise : sections of the page
"""

from sln.explore.page import corrections, landscapes, results_by_noise
from sln.explore.trained import TrainedRuns
from sln.explore.widgets import play, sliders

__all__ = ["TrainedRuns", "corrections", "landscapes", "play", "results_by_noise", "sliders"]
