"""Pictures of flatness: on the way, for a model of constant J, and across methods."""

import numpy as np
import pandas as pd

from sln.analysis import flatness
from sln.plots.style import COLOURS, Figure, dots, legend_of, look, panels, seeds_of
from sln.study import mechanism

ALONG = {  # columns of `flatness.late`
    "accuracy": "test accuracy (%)",
    "memorised": "wrong labels memorised (%)",
    "rise": "sharpness: rise of the loss",
    "sensitivity": "|θ|² |J|²: sensitivity of the logits",
}
DARK = 50  # per cent memorised: up to it the colour is dark


def late(table: pd.DataFrame) -> Figure:
    """Noise that starts half-way (`flatness.late`): mean and one standard deviation over seeds."""
    figure, axes = panels(2, 2, size=(9.6, 6.4), sharex=True)
    start, seeds = flatness.switch(table), table["seed"].nunique()
    for (column, title), ax in zip(ALONG.items(), axes.flat, strict=True):
        for method, part in table.groupby("method", sort=False):
            of_epochs = part.groupby("epoch")[column]
            mean, std = of_epochs.mean(), of_epochs.std()
            name = "no noise (CE)" if method == "CE" else f"{method} from then on"
            ax.plot(mean, marker="o", ms=4, **look(method) | {"label": name})
            ax.fill_between(mean.index, mean - std, mean + std, color=COLOURS[method], alpha=0.15, lw=0)
        ax.axvline(start, color="black", lw=1, ls=":", label="the noise starts")
        ax.set_title(title)
    for ax in axes[-1]:
        ax.set(xlabel="epoch", yscale="log")
    figure.suptitle(f"Lines: mean over {seeds} seeds; bands: ± one standard deviation")
    legend_of(axes[0, 0], "lower", 3)
    return figure


def less_sure(table: pd.DataFrame) -> Figure:
    """The network above, the linear model below (`mechanism.less_sure`): networks and momentum models."""
    models, quantities = table["model"].unique(), table["quantity"].unique()
    figure, axes = panels(len(models), len(quantities), size=(9.6, 4.6), sharex="col", sharey=True)
    names = ["SLN", mechanism.PENALTY, "CE"]
    kinds = {"": ("network", "SLN", 0.13), "-MO": ("momentum model", "SLN-MO", -0.13)}
    for (row, column), ax in np.ndenumerate(axes):
        shown = table[(table["model"] == models[row]) & (table["quantity"] == quantities[column])]
        for end, (kind, colour, shift) in kinds.items():
            part = shown.set_index("method").loc[[name + end for name in names]]
            label = f"{kind}, 95% interval over {part['seeds'].max()} seeds"
            dots(ax, part, "mean", np.arange(len(names)) + shift, color=COLOURS[colour], label=label)
        ax.set_yticks(range(len(names)), ["SLN", "confidence penalty", "plain (CE)"])
        ax.margins(y=0.2)
    for ax, quantity in zip(axes[-1], quantities, strict=True):
        ax.set_xlabel({"memorised": "wrong labels memorised"}.get(quantity, f"test {quantity}") + " (%)")
    axes[-1, -1].set_xlim(-3, 103)
    for ax, model in zip(axes[:, 1], models, strict=True):
        ax.set_title(mechanism.MODELS[model])
    legend_of(axes[0, 0], "upper", 2)
    return figure


def of_methods(table: pd.DataFrame) -> Figure:
    """Sharpness, test accuracy and memorisation (`flatness.of_methods`); numbered by sharpness."""
    table = table.sort_values("rise")
    figure, ((ax,),) = panels(1, 1, size=(9.6, 4.8))
    shown = ax.scatter(
        table["rise"], table["accuracy"], s=200, c=table["memorised"], vmin=0, vmax=100, zorder=3
    )
    for number, row in enumerate(table.to_dict("records"), start=1):
        where, light = (row["rise"], row["accuracy"]), row["memorised"] > DARK
        colour = "black" if light else "white"
        ax.annotate(str(number), where, color=colour, ha="center", va="center", fontsize=8, zorder=4)
        ax.plot([], [], " ", label=f"{number}  {row['method']}")
    ax.set_xscale("symlog", linthresh=0.1)
    ax.axvline(0, color="black", lw=0.8)
    ax.set(xlabel="sharpness: rise of the loss", ylabel=f"test accuracy of averages (%), {seeds_of(table)}")
    figure.colorbar(shown, label="wrong labels memorised (%)")
    figure.legend(loc="outside right center", handlelength=0, handletextpad=0)
    return figure
