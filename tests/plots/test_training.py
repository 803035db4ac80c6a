"""Pictures of training: their lines, colours and words are the runs' numbers."""

import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba

from sln import analysis, plots, runs
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
    rows = [row | {"epoch": 1, "right_accuracy": 0.5, "wrong_memorised": 0.1}, row | {"epoch": 2}]
    words = "has learnt 50% of right labels, memorised 10% of wrong ones and reads 30% of test images right."
    assert plots.training.live_curves(config, rows).words.endswith(words)  # where all three were measured


def test_the_picture_of_an_epoch_shows_memorised_labels_in_their_colour(smoke_study):
    run = runs.find(smoke_study.config("sym", 1.0))
    shown = run.examples[run.examples["given"] != run.examples["true"]].head(plots.training.LOOKED_AT)
    figure = plots.training.at_epoch(run, 3)
    titles = [text for text in figure.axes[-1].texts if "read as" in text.get_text()]
    assert [title.get_text() for title in titles] == [
        f"given {row.given}\nis {row.true}\nread as {row.network_prediction}" for row in shown.itertuples()
    ]
    colours = [title.get_color() for title in titles]
    expected = [
        plots.WRONG if row.network_prediction == row.given
        else plots.RIGHT if row.network_prediction == row.true
        else "black"
        for row in shown.itertuples()
    ]  # fmt: skip
    assert colours == expected
    assert [tuple(frame.get_edgecolor()) for frame in figure.axes[-1].patches] == [*map(to_rgba, colours)]


def test_the_words_are_the_historys_numbers_at_that_epoch(smoke_study):
    run = runs.find(smoke_study.config("sym", 1.0))
    for epoch in (1, 2, 3):
        words = plots.training.at_epoch(run, epoch).words
        for weights, form in (("network", "reads {} ("), ("momentum", "({}) of test images")):
            assert form.format(f"{run.of(weights)['test_accuracy'][epoch]:.0%}") in words
        assert f"memorised {run.of('network')['wrong_memorised'][epoch]:.0%} (" in words


def test_without_wrong_labels_there_is_nothing_memorised_to_show(smoke_study):
    run = runs.get(smoke_study.config(noise_rate=0.0, epochs=1))
    figure = plots.training.at_epoch(run, 1)
    assert "memorised – of wrong ones" in figure.words
    assert "nan" not in figure.words


def test_one_momentum_model_is_brought_forward():
    rows = [(epoch, a, 0.1 * epoch + a / 10, 0.01) for a in (0.0, 0.9, 0.99) for epoch in (1, 2)]
    table = pd.DataFrame(rows, columns=["epoch", "alpha", "mean", "std"]).assign(seeds=3)
    figure = plots.training.momentum_models(table, 0.9)
    assert [line.get_alpha() for line in figure.axes[0].lines] == [0.25, None, 0.25]
    assert "over 3 seeds" in figure.axes[0].get_title()
    assert figure.words == (
        "With α = 0.9, test accuracy after the last epoch is 29.0 ± 1.0%; "
        "that of the network itself is 20.0%."
    )


def test_the_ends_of_momentum_models_are_named_apart_from_each_other():
    rows = [(epoch, a, 0.9 + a / 100) for a in (0.0, 0.9, 0.97, 0.99) for epoch in (1, 2)]
    table = pd.DataFrame(rows, columns=["epoch", "alpha", "mean"]).assign(std=0.0, seeds=3)
    names = plots.training.momentum_models(table).axes[0].texts
    assert [name.get_text().split(":")[0] for name in names] == [
        "α = 0.99",
        "α = 0.97",
        "α = 0.9",
        "the network itself",
    ]
    assert (np.diff([name.get_position()[1] for name in names]) < -0.05).all()


def test_smoothing_is_a_centred_mean_after_the_first_epochs():
    measured = pd.Series(np.arange(1.0, 31) ** 2, index=range(1, 31))
    smooth = plots.training.smoothed(measured)
    assert smooth[:10].tolist() == measured[:10].tolist()
    assert smooth[20] == np.mean([x**2 for x in range(18, 23)])
    sparse = measured[measured.index % 5 == 0]  # nothing to average within two epochs
    assert plots.training.smoothed(sparse).tolist() == sparse.tolist()
    assert plots.training.smoothed(measured[:0]).empty


def test_early_stopping_is_marked_where_the_table_has_it(smoke_study):
    methods = smoke_study.methods("sym")
    table, accuracies = analysis.curves(methods, ["test_accuracy"]), analysis.accuracies(methods)
    figure = plots.training.curves(table, {"test_accuracy": ""}, stopped=accuracies.query("method == 'CE'"))
    (mark,) = (line for line in figure.axes[0].lines if line.get_marker() == "v")
    row = accuracies.query("method == 'CE' and reading == 'stopped early'").iloc[0]
    assert mark.get_xydata().tolist() == [[row["epoch"], row["mean"] / 100]]


def test_no_stochastic_noise_has_the_colour_of_ce():
    columns = ("test_accuracy", "wrong_memorised", "validation_accuracy")
    rows = [
        {"sigma": s, "weights": w, "seeds": 2, "ceiling": 0.6}
        | {f"{column}_{of}": 0.5 for column in columns for of in ("mean", "std")}
        for s in (0.0, 1.0) for w in ("network", "momentum")
    ]  # fmt: skip
    left, _, right = plots.training.over_sigma(pd.DataFrame(rows), 1.0).axes
    at = {line.get_color(): line.get_xdata()[0] for line in left.lines if line.get_marker() == "o"}
    assert {name: at[colour] for name, colour in plots.COLOURS.items() if colour in at} == {
        "CE": 0, "CE-MO": 0, "SLN": 1, "SLN-MO": 1,
    }  # fmt: skip
    assert [0.6, 0.6] in [list(line.get_ydata()) for line in right.lines]


def test_accuracies_are_drawn_at_their_means(smoke_study):
    table = analysis.accuracies(smoke_study.methods("sym"))
    ax = plots.training.accuracies(table).axes[0]
    drawn = sorted(x for line in ax.lines if line.get_marker() in "osv" for x in line.get_xdata())
    assert np.allclose(drawn, sorted(table["mean"]))
