"""Pictures of the regulariser that noise on the labels adds (`analysis.regulariser`)."""

import matplotlib as mpl
import pandas as pd

from sln.plots.style import COLOURS, Figure, panels


def drift(table: pd.DataFrame) -> Figure:
    """Extra loss and drift over steps (`regulariser.drift`): predicted as lines, measured as dots."""
    figure, ((left, right),) = panels(1, 2, size=(9.6, 4.4))
    cases = list(table.groupby("case", sort=False))
    colours = mpl.colormaps["viridis"]([0.0, 0.3, 0.6, 0.85][: len(cases)])
    for (case, part), colour in zip(cases, colours, strict=True):
        left.plot(part["step"], part["rest"], color=colour, lw=1, ls=":")
        for ax, column in ((left, "extra"), (right, "drift")):
            ax.plot(part["step"], part[column], color=colour)
            measured, errors = part[f"{column}_measured"], 2 * part[f"{column}_error"]
            ax.errorbar(part["step"], measured, yerr=errors, fmt="o", ms=4, color=colour, label=case)
    left.set(title="loss above the minimum", xlabel="step", ylabel="expected extra loss", yscale="log")
    right.set(title="how far the mean has moved", xlabel="step", ylabel="|mean of θ − θ*|", yscale="log")
    figure.legend(
        *left.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2,
        title="lines: predicted; dots: measured, ± 2 standard errors; dotted: η/4 E|noise|²",
    )
    return figure


def noise_over_curvature(table: pd.DataFrame) -> Figure:
    """Curvature, noise and their ratio over the predicted probability (`noise_over_curvature`)."""
    figure, ((left, right),) = panels(1, 2, size=(9.6, 3.6))
    left.plot(table["p"], table["noise"], color=COLOURS["SLN"], label="variance of the noise, σ = 1")
    left.plot(table["p"], table["curvature"], color=COLOURS["CE"], label="curvature of the loss")
    left.set(title="the predicted class’s logit against the others", yscale="log")
    right.plot(table["p"], table["ratio"], color=COLOURS["SLN-MO"], label="softmax")
    right.axhline(1, color="black", lw=1, ls=":", label="squared loss")
    right.set(title="their ratio: how far the noise carries it", ylabel="noise / curvature", yscale="log")
    for ax in (left, right):
        ax.set(xlabel="probability of the predicted class")
        ax.legend()
    return figure
