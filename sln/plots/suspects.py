"""Pictures of suspect labels: what notebook 9 shows."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from torch import Tensor

from sln.plots import base
from sln.plots.base import Figure


def suspects(
    images: Tensor, labels: pd.DataFrame, true: np.ndarray, first: int = 1, count: int = 16
) -> Figure:
    """`count` labels from rank `first` on: given → suggested, framed by whether the given label is right.

    images : (N, 3, H, W) uint8; labels : `scores.table`, in the same order; true : (N,)
    """
    shown = labels.sort_values("rank").iloc[first - 1 : first - 1 + count]
    wrong = (shown["given"] != true[shown.index]).tolist()
    titles = [
        f"{row.given} → {row.suggested}\nsuspect {row.suspect:.2f}" for row in shown.itertuples(index=False)
    ]
    heading = f"ranks {first} to {first + len(shown) - 1}, given → suggested; {sum(wrong)} are wrong"
    figure = base.gallery(images[shown.index.tolist()], titles, wrong, heading=heading, scale=255)
    figure.words = heading
    return figure


def over_threshold(table: pd.DataFrame, ax: Axes) -> Axes:
    """Precision, recall and the labels' truth over the threshold (`evaluate.over_threshold`)."""
    for column, name, colour, style in (
        ("precision", "precision: flagged labels that are wrong", "#0072B2", "-"),
        ("recall", "recall: wrong labels that are flagged", "#CC79A7", "--"),
        ("true_after", "labels that are true once the flagged are replaced", "#009E73", "-."),
    ):
        ax.plot(table["threshold"], table[column], color=colour, ls=style, marker="o", ms=3, label=name)
    ax.set(xlabel="threshold on how suspect a label is", ylabel="share", xlim=(0, 1), ylim=(0, 1.02))
    ax.legend(loc="lower left")
    return ax
