"""Pictures of the theory: they show the covariance and their tables."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sln import plots
from sln.analysis import theory
from sln.datasets.images import digits
from sln.method import label_noise_covariance
from sln.utils.rng import torch_generator


@pytest.fixture(scope="module")
def batch():
    return theory.small_images(digits(), 8)


@pytest.fixture(scope="module")
def networks(batch):
    return [theory.fitted(theory.small_network(size, 10), *batch, steps=5) for size in theory.SIZES[:2]]


@pytest.mark.parametrize("sigma", [0.05, 2.0])
@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("C", [2, 10, 100])
def test_the_sliders_ends_can_be_drawn_and_show_the_covariance(sigma, probability, C):
    figure = plots.theory.noise_at_logits(sigma, probability, C)
    figure.canvas.draw()
    expected = label_noise_covariance(theory.peaked(probability, C), sigma)[:10, :10].numpy()
    assert np.allclose(figure.axes[2].images[0].get_array(), expected)
    ellipse = figure.axes[1].patches[0]
    block = np.linalg.eigvalsh(expected[:2, :2]).clip(0)
    assert np.allclose(sorted([ellipse.height, ellipse.width]), 4 * np.sqrt(block), atol=1e-6)


def test_the_ellipse_holds_as_many_draws_as_two_standard_deviations_do():
    p = theory.peaked(0.9, 10)
    noise = theory.drawn_at_logits(p, 1.0, 4000, torch_generator(0, "bootstrap"))[:, :2]
    ax = plots.theory.noise_at_logits(1.0, 0.9, 10).axes[1]
    inside = ax.patches[0].contains_points(ax.transData.transform(noise.numpy())).mean()
    assert inside == pytest.approx(1 - math.exp(-2), abs=0.03)


def test_the_pictures_show_their_tables(networks, batch):
    verified = theory.verification(networks[:2], *batch, sigma=1.0, draws=50)
    left, right = plots.theory.verification(verified).axes
    shown = np.concatenate([line.get_ydata() for line in left.lines[1:]])
    assert np.allclose(np.sort(shown), np.sort(verified["frobenius_error"]))
    assert len(right.lines) == 1 + 6
    tables = {"a": theory.by_confidence(networks[0].eval(), batch[0], 1.0)}
    bins = {"a": theory.binned(tables["a"], (0, 1))}
    above, below = plots.theory.over_confidence(tables, bins).axes
    assert np.allclose(below.lines[0].get_ydata(), tables["a"]["ratio"])
    assert len(above.lines) == 4
    classes = theory.by_classes(1.0, (2, 5), (0.9,), draws=50)
    ax = plots.theory.over_classes(classes, 1.0).axes[0]
    assert np.allclose(ax.lines[1].get_ydata(), classes["std_drawn"])
    assert len(plots.theory.stochastic_noise(0.0, 0.5).axes) == 2


def test_one_step_shows_its_table_beside_the_image(few_noisy_digits):
    names = ("y", "noisy_label", "p", "gradient", "noisy_gradient")
    table = pd.DataFrame({name: np.arange(10.0) + number for number, name in enumerate(names)})
    run = SimpleNamespace(data=few_noisy_digits)
    image, *axes = plots.theory.one_step(run, 3, table.rename_axis("class").reset_index()).axes
    assert np.allclose(image.images[0].get_array(), few_noisy_digits.train.images[3, 0] / 16)
    shown = [bar.get_height() for ax in axes for bar in ax.patches]
    assert shown == table[list(names)].to_numpy().T.ravel().tolist()
