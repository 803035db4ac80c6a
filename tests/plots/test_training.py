"""Pictures of training: their lines, colours and words are the runs' numbers."""

import numpy as np
import pandas as pd

from sln import plots, runs
from sln.config import Config


def test_live_curves_keep_their_axis_and_show_what_was_measured():
    config = Config(epochs=40)
    assert [ax.get_xlim() for ax in plots.training.live_curves(config, []).axes] == [(1, 40)] * 3
    row = {"weights": "network", "test_accuracy": 0.3, "right_accuracy": np.nan}
    rows = [row | {"epoch": 1}, row | {"epoch": 2, "right_accuracy": 0.5}]
    right, _, test = plots.training.live_curves(config, rows).axes
    assert test.lines[0].get_xydata().tolist() == [[1, 0.3], [2, 0.3]]
    assert right.lines[0].get_xydata().tolist() == [[2, 0.5]]
    assert test.get_xlim() == (1, 40)


def test_the_picture_of_an_epoch_shows_memorised_labels_in_their_colour(smoke_study):
    run = runs.find(smoke_study.config("sym", 1.0))
    shown = run.examples[run.examples["given"] != run.examples["true"]].head(plots.training.LOOKED_AT)
    figure = plots.training.at_epoch(run, 3)
    titles = [ax.get_title() for ax in figure.axes if "read as" in ax.get_title()]
    assert titles == [
        f"given {row.given}\nis {row.true}\nread as {row.network_prediction}" for row in shown.itertuples()
    ]
    colours = [ax.title.get_color() for ax in figure.axes if "read as" in ax.get_title()]
    expected = [
        plots.WRONG if row.network_prediction == row.given
        else plots.RIGHT if row.network_prediction == row.true
        else "black"
        for row in shown.itertuples()
    ]  # fmt: skip
    assert colours == expected


def test_the_words_are_the_historys_numbers_at_that_epoch(smoke_study):
    run = runs.find(smoke_study.config("sym", 1.0))
    for epoch in (1, 2, 3):
        words = plots.training.at_epoch(run, epoch).words
        for weights, form in (("network", "test accuracy {} ("), ("momentum", "({}) by the network")):
            assert form.format(f"{run.of(weights)['test_accuracy'][epoch]:.0%}") in words
    first, last = (plots.training.at_epoch(run, epoch).words for epoch in (1, 3))
    assert "wrong labels memorised not measured yet (not measured yet)" in first
    assert f"memorised {run.of('network')['wrong_memorised'][3]:.0%} (" in last


def test_one_momentum_model_is_brought_forward():
    rows = [(epoch, a, 0.1 * epoch + a / 10, 0.01) for a in (0.0, 0.9, 0.99) for epoch in (1, 2)]
    table = pd.DataFrame(rows, columns=["epoch", "alpha", "mean", "std"])
    figure = plots.training.momentum_models(table, 0.9)
    assert [line.get_alpha() for line in figure.axes[0].lines] == [0.25, None, 0.25]
    assert figure.words == (
        "α = 0.9: test accuracy 29.0 ± 1.0% after the last epoch; the network itself 20.0%"
    )
