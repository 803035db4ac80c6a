"""The picture of the spirals shows what the networks predict, where the points are."""

import numpy as np
import pytest

from sln import plots
from sln.analysis import spirals
from sln.plots.spirals import ARMS, GRID, REACH, plane, shades


def test_the_map_has_its_points_in_the_places_of_the_picture():
    places = plane().reshape(GRID, GRID, 2)
    assert places[0, 0].tolist() == [-REACH, -REACH]
    assert places[0, -1].tolist() == pytest.approx([REACH, -REACH])  # a row goes along x


def test_no_colour_where_nothing_is_predicted_and_the_class_s_own_where_all_is():
    p = np.tile([1 / 3, 1 / 3, 1 / 3], (GRID**2, 1))
    assert np.allclose(shades(p), 1)
    p[-1] = (0, 1, 0)
    red, green, blue = shades(p)[-1, -1]
    assert ARMS[1] == "#D55E00"
    assert red > green > blue
    p[-1] = (0.1, 0.8, 0.1)
    assert shades(p)[-1, -1, 2] > blue  # less certain, paler


def test_the_picture_shows_every_point_once_and_its_numbers(monkeypatch):
    monkeypatch.setattr(spirals, "EPOCHS", (1,))
    spirals.TRAINED.clear()
    figure = plots.spirals.memorising(0.5, 0.4, 1)
    scores = spirals.trained(0.5, 0.4, plots.spirals.SEED).scores(1)
    spirals.TRAINED.clear()
    for ax, name in zip(figure.axes, ("CE", "SLN", "SLN-MO"), strict=True):
        sizes = [len(points.get_offsets()) for points in ax.collections]
        assert sum(sizes) == spirals.POINTS
        assert sum(sizes[1::2]) == 120  # rings
        assert f"{scores.loc[name, 'true_accuracy']:.0f}% accurate" in ax.get_title()
        assert f"{scores.loc[name, 'memorised']:.0f}% memorised" in ax.get_title()
    assert "epoch 1" in figure.words
    assert "memorised" not in plots.spirals.words(90.0, np.nan)
