"""The sections of the page (`app.ipynb`, `make app`): sliders over results, or what is missing for them."""

from __future__ import annotations

import ipywidgets
import pandas as pd

from sln import plots, runs
from sln.analysis import results
from sln.config import NOISE_NAMES
from sln.explore import widgets
from sln.explore.player import Player
from sln.study.study import Study
from sln.utils.files import figures_folder, project_root, read_table


def corrections(study: Study) -> ipywidgets.Widget:
    """The images that label correction moved, epoch by epoch, in the runs of a study's first seed."""
    rules, found, dataset = {"given": "clean rule", "as-released": "as released"}, {}, study.dataset
    for run in runs.finished():
        config, losses = run.config, run.config.correction_losses
        rule = {"correction": study.profile.correction, "correction_losses": losses}
        same = config.corrects and config.dataset == dataset
        if same and config == study.config(config.noise_mode, config.sigma, **rule):
            found[f"{NOISE_NAMES.get(config.noise_mode, config.noise_mode)}, {rules[losses]}"] = run
    if not found:
        return missing("No run with label correction is trained yet")
    first = next(iter(found.values()))
    epochs = first.corrected_epochs
    controls = {"run": (first, found), "epoch": (epochs[-1], epochs), "count": (16, (8, 24, 8))}
    return widgets.sliders(plots.labels.moved_images, **controls, height="560px")


def landscapes(study: Study) -> ipywidgets.Widget:
    """The loss around the minima, as notebook 4 saved it, in 3-D and at any radius."""
    table, landscape = saved(study, "04_landscape_of_the_paper"), plots.landscape
    if table is None:
        return missing("No landscape is computed yet")
    surfaces = dict(list(table.groupby("method", sort=False)))
    radii = landscape.radii(surfaces)
    controls = {"labels": ("given", {name: column for column, name in landscape.LOSSES.items()})}
    controls["azimuth"] = (landscape.AZIMUTH, (-180, 180, 10))
    controls |= {"elevation": (landscape.ELEVATION, (0, 88, 2)), "radius": (radii[-1], radii)}
    return widgets.sliders(landscape.surface_3d, surfaces, **controls)


def results_by_noise(study: Study) -> Player | ipywidgets.Widget:
    """The table of results, as notebook 6 saved it, one kind of noise at a time."""
    table = saved(study, "06_results")
    if table is None:
        return missing("No results are there yet")
    kinds = {NOISE_NAMES[noise]: noise for noise in table["noise"].unique()}
    start = table["noise"].iloc[0]
    return widgets.play(plots.results.one_noise, table, results.of_the_paper(), noise=(start, kinds))


def saved(study: Study, name: str) -> pd.DataFrame | None:
    """A table that a notebook saved at the study's profile, or the committed one; else None."""
    folders = (figures_folder(study.name), project_root() / "figures" / study.name)
    files = [folder / f"{name}.csv" for folder in folders if (folder / f"{name}.csv").exists()]
    return read_table(files[0]) if files else None


def missing(what: str) -> ipywidgets.Widget:
    """What is missing, and what to do."""
    return ipywidgets.HTML(f"{what}: run <code>make reproduce</code> in a terminal first.")
