"""Pictures of labels: rates in the titles, frames by whether a label is right."""

import numpy as np
import pandas as pd
import pytest
import torch

from sln import analysis, plots
from sln.config import Config
from sln.datasets.load import draw_corruption, load_data


@pytest.mark.parametrize("mode", ["none", "sym", "asym", "dependent", "openset"])
def test_label_noise_shows_the_realised_rate(mode):
    figure = plots.labels.label_noise(Config(), mode, 0.4)
    realised = draw_corruption(Config(noise_mode=mode, noise_rate=0.4)).realised_rate
    assert f"{100 * realised:.1f}% wrong" in figure.axes[0].get_title()


def test_images_are_shown_as_training_sees_them_and_framed_by_their_labels(monkeypatch):
    config, shown = Config(noise_mode="openset"), {}
    monkeypatch.setattr(
        plots.labels,
        "gallery",
        lambda images, titles, wrong, scale, heading: shown.update(images=images, wrong=wrong, scale=scale),
    )
    plots.labels.labelled_images(config, np.arange(30))
    split = load_data(config).train
    assert torch.equal(shown["images"], split.images[:30])
    assert shown["wrong"] == split.wrong[:30].tolist()
    assert any(shown["wrong"])
    assert shown["scale"] == 16
    digits = load_data(config)
    assert plots.labels.caption(digits, 3, -1) == "given 3\nis none"
    assert plots.labels.caption(digits, 3, 3) == "3"
    assert plots.labels.caption(digits, 3, 4) == "given 3\nis 4"


def test_bins_of_realised_rates_hold_equally_many_whole_counts():
    draws = analysis.exact_and_bernoulli(np.arange(1150) % 10, 10, rate=0.4, draws=40)
    meanings = analysis.rate_meanings(np.arange(1150) % 10, 10, rates=[0.0, 1.0])
    ax = plots.labels.meaning_of_rate(draws, meanings, rate=0.4, examples=1150).axes[0]
    edges = 1150 * np.array([bar.get_x() for bar in ax.patches])
    assert np.allclose(edges % 1, 0.5)
    assert np.allclose(np.diff(edges), round(np.diff(edges)[0]))
    assert sum(bar.get_height() for bar in ax.patches) == 40


def test_a_worked_example_stacks_the_targets_entries(smoke_study):
    rules = {name: smoke_study.corrected("sym", correction_losses=name) for name in ("given", "as-released")}
    example = analysis.label_correction.telling_example(rules)
    table = analysis.label_correction.worked_example(rules, example)
    figure = plots.labels.worked_example(rules["given"].first, table)
    assert len(figure.axes) == 3
    part, bars = table[table["rule"] == "given"], figure.axes[1].patches
    assert np.allclose([bar.get_height() for bar in bars[: len(part)]], part["on_given"])
    assert np.isclose(bars[-1].get_y() + bars[-1].get_height(), 1)


def test_the_rules_of_w_are_drawn_with_their_intervals():
    columns = {
        f"{c}{end}": [v, v + 1]
        for c in ("accuracy", "gain", "labels")
        for end, v in (("", 5), ("_low", 4), ("_high", 7))
    }
    table = pd.DataFrame({"rule": ["a", "b"], "seeds": 3} | columns)
    figure = plots.labels.weights_ablation(table)
    for ax in figure.axes:
        segments = ax.collections[0].get_segments()
        assert [segment[:, 0].tolist() for segment in segments] == [[4, 7], [5, 8]]
