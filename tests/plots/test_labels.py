"""Pictures of labels: rates in the titles, frames by whether a label is right."""

import numpy as np
import pytest
import torch

from sln import plots
from sln.config import Config
from sln.datasets.load import draw_corruption, load_data


@pytest.mark.parametrize("mode", ["none", "sym", "asym", "dependent", "openset"])
def test_label_noise_shows_the_realised_rate(mode):
    figure = plots.labels.label_noise(Config(), mode, 0.4)
    realised = draw_corruption(Config(noise_mode=mode, noise_rate=0.4)).realised_rate
    assert f"{100 * realised:.1f}% wrong" in figure.subfigs[0].axes[0].get_title()


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
