"""A study of "Noise against noise: stochastic label noise helps combat inherent label noise" (ICLR 2021).

    from sln import Config, Study, runs
    run = runs.get(Config(sigma=1.0, seed=0))      # trained once, found ever after
    study = Study("quick")                         # the runs and figures of the notebooks
    fit(images, labels).labels                     # your own labels, judged (relabel: files)

`from sln import Study, analysis, explore, plots` opens a notebook: tables, sliders and figures by subject.
"""  # fmt: skip
# ruff: noqa: F401

from typing import TYPE_CHECKING

from sln.utils import VERSION as __version__
from sln.utils import lazily

if TYPE_CHECKING:  # for editors; Python loads a name on first use, so `sln.nn` needs little beside torch
    from sln.config import Config
    from sln.noise import Corruption
    from sln.relabel.classifier import SLNClassifier
    from sln.relabel.crossfit import fit
    from sln.runs.run import Run
    from sln.study.study import Study
    from sln.utils.errors import InputError

HOMES = {"Config": "config", "Corruption": "noise", "InputError": "utils.errors"}
HOMES |= {"Run": "runs.run", "Study": "study.study", "fit": "relabel.crossfit"}
HOMES |= {"SLNClassifier": "relabel.classifier"}
__all__ = [*HOMES]
__getattr__, __dir__ = lazily("sln", HOMES)
