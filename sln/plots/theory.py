"""Pictures of the theory of SLN's gradient noise."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.patches import Ellipse

from sln.analysis.theory import drawn_at_logits, noise_at_logit, peaked
from sln.method import label_noise_covariance
from sln.plots.labels import caption, tiles
from sln.plots.style import COLOURS, RIGHT, WRONG, Figure, legend_of, new_axes, panels
from sln.runs.run import Run
from sln.utils.rng import torch_generator

# Name, colour and marker of what the noise is on, by Config.noise_on.
NOISE_ON = {
    "gradient": ("the parameters’ gradient", COLOURS["gradient noise"], "s"),
    "logits": ("the logits’ gradient", COLOURS["logit noise"], "^"),
    "labels": ("the labels (SLN)", COLOURS["SLN"], "o"),
}
# Columns of `theory.by_confidence` with which the ratio of the two norms is compared.
REFERENCES = (
    ("ratio_at_logits", "--", "if all logits were equally sensitive"),
    ("ratio_of_differences", ":", "if all differences of logits were"),
)


def verification(table: pd.DataFrame) -> Figure:
    """Error of the drawn covariance in parameter space, and expected error (`theory.verification`).

    Left: both; on the diagonal, sampling explains all of the error. Right: their ratio by network size.
    """
    figure, ((left, right),) = panels(1, 2, size=(9.6, 4.0))
    sizes = list(table["parameters"].unique())
    span = [0.7 * table["expected_error"].min(), 1.4 * table["expected_error"].max()]
    left.plot(span, span, color="black", lw=1)
    right.axhline(1, color="black", lw=1)
    for number, (variant, (name, colour, marker)) in enumerate(NOISE_ON.items()):
        for batch, part in table[table["noise_on"] == variant].groupby("batch"):
            look = {"marker": marker, "ls": "", "ms": 8, "color": colour}
            look |= {"mfc": "none"} if batch == 1 else {}
            label = f"on {name}, B = {batch}"
            left.plot(part["expected_error"], part["frobenius_error"], **look, label=label)
            shift = 0.2 * (number - 1) + (0.05 if batch > 1 else -0.05)
            right.plot([sizes.index(P) + shift for P in part["parameters"]], part["error_ratio"], **look)
    left.set(xscale="log", yscale="log", xlim=span, xlabel="expected error, from sampling alone")
    left.set(ylabel="relative error of the drawn covariance", title="error, and what sampling explains")
    right.set_xticks(range(len(sizes)), [f"{P:,}" for P in sizes])
    right.set(xlabel="parameters of the network", ylabel="ratio of error to expected error")
    right.set_title("their ratio")
    right.set(ylim=(0, max(3.0, 1.1 * table["error_ratio"].max())), xlim=(-0.5, len(sizes) - 0.5))
    legend_of(left, "lower", 3)
    return figure


def over_confidence(tables: Mapping[str, pd.DataFrame], binned: Mapping[str, pd.DataFrame]) -> Figure:
    """E|noise|^2 in the parameter gradient by confidence, one column per network (`theory.by_confidence`).

    Above: both variants, one dot per image, lines through the means of bins. Below: the ratio of SLN's
    E|noise|^2 to variant 2's at equal sigma, its value in the first and last bin, and what it would be if all
    directions at the logits had the same weight.
    """
    size = (4.9 * len(tables), 6.4)
    figure, axes = panels(2, len(tables), size=size, sharex=True, sharey="row")
    dots = {"ls": "", "ms": 3, "alpha": 0.3, "mew": 0, "rasterized": True}  # thousands of them
    for (network, table), (above, below) in zip(tables.items(), axes.T, strict=True):
        means = binned[network].set_index("confidence")
        for variant in ("logits", "labels"):
            name, colour, marker = NOISE_ON[variant]
            above.plot(table["confidence"], table[variant], marker, color=colour, **dots)
            above.plot(means[variant], color=colour, marker=marker, ms=6, label=f"noise on {name}")
        above.set(title=network, yscale="log", xlim=(0, 1.02))
        below.plot(table["confidence"], table["ratio"], "o", color=RIGHT, **dots)
        below.plot(means["ratio"], "o-", color=RIGHT, label="in parameter space")
        for column, style, name in REFERENCES:
            below.plot(means[column], style, color="black", lw=1.2, label=name)
        below.set(xlabel="confidence: largest predicted probability")
        for place in means["ratio"].iloc[[0, -1]].items():
            above_it = {"xytext": (0, 9), "textcoords": "offset points", "ha": "center", "weight": "bold"}
            below.annotate(f"{place[1]:.1f}", place, **above_it)
    seen = "a dot per test image, lines: means of bins; one network each"
    figure.suptitle(f"How much noise does one example put into the gradient?\n({seen})")
    axes[0, 0].set_ylabel("E|noise|² in one example’s gradient")
    highest = 1.05 * max(table["ratio"].max() for table in tables.values())
    axes[1, 0].set(ylabel="ratio of SLN’s noise to variant 2’s", ylim=(0, highest))
    for ax in axes[:, 0]:
        ax.legend(loc="best")
    return figure


def over_classes(table: pd.DataFrame, sigma: float) -> Figure:
    """Noise at the logit of a class predicted with p, by number of classes (`theory.by_classes`)."""
    ax = new_axes((6.6, 4.0))
    shades = {0.5: "#009E73", 0.9: "#E69F00", 0.999: "#0072B2"}
    for probability, part in table.groupby("p"):
        colour, name = shades.get(probability), f"SLN, p = {probability:g}: formula (line), draws (dots)"
        ax.plot(part["classes"], part["std_formula"], color=colour, label=name)
        ax.plot(part["classes"], part["std_drawn"], "o", ms=4, color=colour)
    ax.plot(part["classes"], part["limit"], ":", color="black", lw=1.2, label="SLN, p → 1: σ √(C − 1)")
    name, colour, _ = NOISE_ON["logits"]
    ax.axhline(sigma, color=colour, ls="--", label=f"noise on {name}: σ")
    ax.set(xlabel="number of classes C", ylabel="std of the noise at the class’s logit")
    ax.set(title=f"σ = {sigma:g}", xlim=(0, 102), ylim=(0, 1.35 * table["limit"].max()))
    ax.legend(loc="upper left")
    return ax.figure


def stochastic_noise(sigma: float, probability: float, num_classes: int = 10) -> Figure:
    """The noise of SLN on the label, and on the gradient at the logits.

    Left: density of the entries of y + sigma z, and how often the labelled class has the largest. Right:
    standard deviation of the noise on the gradient at the logit of a class predicted with `probability`, for
    SLN and for noise on the logits' gradient (variant 2).
    """
    figure, ((left, right),) = panels(1, 2, size=(9.6, 3.6))
    z = np.random.default_rng(0).standard_normal((4000, num_classes))
    kept = (np.eye(num_classes)[0] + sigma * z).argmax(axis=1) == 0
    x = np.linspace(-4, 5, 600)
    for centre, name, colour in ((0, "other classes: y = 0", WRONG), (1, "labelled class: y = 1", RIGHT)):
        left.axvline(centre, color=colour, label=name)
        if sigma > 0:
            density = np.exp(-((x - centre) ** 2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))
            left.fill_between(x, density, color=colour, alpha=0.4, lw=0)
    left.set_title(f"σ = {sigma:.2f}: the label stays the largest in {100 * kept.mean():.0f}%")
    highest = 0.5 / min(max(sigma, 0.4), 1)  # the density's, with room for the legend
    left.set(xlabel="entry of y + σ z", ylabel="density", xlim=(-4, 5), ylim=(0, highest))
    left.legend(loc="upper right")
    here = _deviation(right, sigma, probability, num_classes)
    figure.words = (
        f"At σ = {sigma:g} the right label stays the largest of {num_classes} entries in "
        f"{100 * kept.mean():.0f}% of the draws; {here}."
    )
    return figure


def one_step(run: Run, example: int, table: pd.DataFrame) -> Figure:
    """One step by hand on a training image: label, prediction, gradient at the logits (`theory.one_step`)."""
    figure, axes = panels(1, 4, size=(9.6, 3.0), width_ratios=(0.6, 1.1, 1, 1.1))
    figure.get_layout_engine().set(wspace=0.06)
    split = run.data.train
    title = caption(run.data, int(split.given[example]), int(split.true[example]))
    tiles(axes[0, 0], split.images[[example]], [title], [WRONG], run.data.scale, columns=1)
    shown = (
        ("label", {"y": "label y", "noisy_label": "y + σ z"}),
        ("prediction", {"p": "p"}),
        ("gradient at the logits", {"gradient": "without noise: p − y", "noisy_gradient": "with noise"}),
    )
    for (title, columns), ax in zip(shown, axes[0, 1:], strict=True):
        for number, (column, name) in enumerate(columns.items()):
            place = table["class"] + 0.4 * (number - (len(columns) - 1) / 2)
            ax.bar(place, table[column], 0.4, color=("dimgrey", COLOURS["SLN"])[number], label=name)
        ax.axhline(0, color="black", lw=0.8)
        ax.set(title=title, xlabel="class")
        ax.locator_params(axis="x", integer=True, nbins=10)
        ax.grid(axis="x", visible=False)
        if len(columns) > 1:
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)
    return figure


def _deviation(ax: Axes, sigma: float, probability: float, num_classes: int) -> str:
    """Standard deviation of the noise at a class's logit by its probability, SLN and variant 2; in words."""
    p = np.linspace(0, 1, 81)
    *spread, here = noise_at_logit(np.append(p, probability), sigma, num_classes)
    ax.plot(p, spread, color=COLOURS["SLN"], label="noise on the label (SLN)")
    name, colour, _ = NOISE_ON["logits"]
    ax.axhline(sigma, ls="--", lw=1.2, color=colour, label=f"noise on {name}")
    ax.plot([probability], [here], "o", color=COLOURS["SLN-MO"], ms=8, clip_on=False)
    ax.set(xlabel="predicted probability p of the class", ylabel="std of the noise at its logit", xlim=(0, 1))
    ax.set(ylim=(0, 1.05 * max(1, sigma) * np.sqrt(num_classes - 1)))
    ax.set_title(f"C = {num_classes}, p = {probability:.2f}: std {here:.2f}")
    ax.legend(loc="upper left")
    where = f"the noise at the logit of a class with p = {probability:g}"
    return f"{where} has standard deviation {here:.2f} (noise on the logits: {sigma:g})"


def noise_at_logits(sigma: float, probability: float, num_classes: int = 10) -> Figure:
    """The whole covariance at the logits, of SLN and of noise on the logits' gradient (variant 2).

    The first class is predicted with `probability`, the others share the rest. Above: standard deviation by
    p; draws, and ellipses of two standard deviations, at the logits of the first class and of another. Below:
    both covariances of at most ten classes as heat maps on one scale, logarithmic beyond sigma^2 / 10.
    """
    figure = Figure(figsize=(9.0, 7.0), layout="none")  # fixed places: a layout takes half of a redraw
    places = [(x, y, 0.37, 0.38) for y in (0.575, 0.08) for x in (0.08, 0.52)]
    curve, cloud, *maps = map(figure.add_axes, places)
    here = _deviation(curve, sigma, probability, num_classes)
    p = peaked(probability, num_classes)
    noise = drawn_at_logits(p.clamp_min(1e-12), sigma, 300, torch_generator(0, "bootstrap")).numpy()
    cloud.plot(noise[:, 0], noise[:, 1], ".", ms=3, color=COLOURS["SLN"], alpha=0.6)
    Sigma, flat = label_noise_covariance(p, sigma).numpy(), sigma**2 * np.eye(num_classes)
    unit = max(sigma**2, 1e-9)
    span = max(np.abs(Sigma).max(), unit)
    scale = SymLogNorm(linthresh=unit / 10, vmin=-span, vmax=span)
    few = min(num_classes, 10)
    for covariance, name, colour, style, ax in (
        (Sigma, "SLN", COLOURS["SLN"], "-", maps[0]),
        (flat, f"noise on {NOISE_ON['logits'][0]}", COLOURS["logit noise"], "--", maps[1]),
    ):
        variances, directions = np.linalg.eigh(covariance[:2, :2])
        small, large = 4 * np.sqrt(variances.clip(0))  # two standard deviations to either side
        angle = np.degrees(np.arctan2(directions[1, 1], directions[0, 1]))
        line = {"fill": False, "ec": colour, "ls": style, "lw": 2, "label": name}
        cloud.add_patch(Ellipse((0, 0), large, small, angle=angle, **line))
        shown = ax.imshow(covariance[:few, :few], cmap="RdBu_r", norm=scale, interpolation="none")
        ax.set(title=f"{name}: trace {covariance.trace():.2f}", xticks=range(few), yticks=range(few))
        ax.set(xlabel="class (0 has probability p)", ylabel="class")
        ax.grid(False)
    reach = max(3 * sigma, 2.3 * np.sqrt(Sigma.diagonal()[:2].max()), 0.1)
    cloud.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", title="two standard deviations")
    cloud.set(xlabel="noise at the logit of the class of p", ylabel="at that of another class")
    cloud.legend(loc="upper right")
    place = figure.add_axes((0.90, 0.08, 0.016, 0.38))
    bar = figure.colorbar(shown, cax=place, label="covariance at the logits")
    ticks = [-span, -unit, -unit / 10, 0, unit / 10, unit, span]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
    bar.minorticks_off()
    traces = f"over all logits, its variances add up to {Sigma.trace():.2f} ({flat.trace():.2f})"
    figure.words = f"At σ = {sigma:g} and with {num_classes} classes, {here}; {traces}."
    return figure
