"""A study of "Noise against noise: stochastic label noise helps combat inherent label noise" (ICLR 2021).

    from sln import Config, Study, runs
    run = runs.get(Config(sigma=1.0, seed=0))      # trained once, found ever after
    study = Study("quick")                         # the runs and figures of the notebooks
    fit(images, labels).labels                     # your own labels, judged (relabel: files)

`from sln import Study, analysis, explore, plots` opens a notebook: tables, sliders and figures by subject,
for example analysis.landscape.line, plots.landscape.lines and explore.sliders.
"""  # fmt: skip

from sln.config import Config
from sln.noise import Corruption
from sln.relabel.crossfit import fit
from sln.runs.run import Run
from sln.study.study import Study
from sln.utils import VERSION
from sln.utils.errors import InputError

__version__ = VERSION
__all__ = ["Config", "Corruption", "InputError", "Run", "Study", "fit"]
