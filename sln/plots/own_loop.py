"""Pictures of notebook 12: your own training loop."""

from collections.abc import Iterable, Mapping

import pandas as pd

from sln import analysis
from sln.plots.style import COLOURS, Figure, bars_of, differences, dots, panels
from sln.plots.training import at_the_end, curves

COLUMNS = {"test_accuracy": "test accuracy", "wrong_memorised": "wrong labels memorised"}


def results(accuracies: pd.DataFrame, gains: pd.DataFrame) -> Figure:
    """Test accuracy by method, and below paired differences, one column of panels per data set."""
    names = accuracies["data"].unique()
    figure, axes = panels(2, len(names), size=(5.1 * len(names), 5.4), sharex="row", sharey="row")
    for name, (above, below) in zip(names, axes.T, strict=True):
        for method, row in accuracies[accuracies["data"] == name][::-1].groupby("method", sort=False):
            dots(above, row, "mean", [method], color=COLOURS[method.removesuffix(" early")])
        above.set(title=name, xlabel="test accuracy (%)")
        part = gains[gains["data"] == name]
        differences(below, part, "mean", part["difference"], "", "paired difference (points)")
    figure.suptitle(bars_of(gains), fontsize=10.5)
    return figure


def over_epochs(found: Iterable[Mapping], sigma: float, data: str = "images") -> Figure:
    """Test accuracy and memorised labels over epochs, plain training and SLN at `sigma`, means over seeds."""
    table = analysis.own_loop.curves(found, data, sigma)
    figure = curves(table, COLUMNS, ylabel="share", heading=f"{data}, σ = {sigma:g}")
    figure.words = at_the_end(table, sigma)
    return figure
