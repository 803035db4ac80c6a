"""Pictures of landscapes: one scale for all panels, readable ticks, and words that state the range."""

import numpy as np
import pandas as pd
import pytest

from sln import plots
from sln.analysis import sharpness

LOSSES = ["given", "true", "test"]


def bowls(*heights):
    """Surfaces of known losses: height * (1 + x^2 + 2 y^2) on a grid of 5 x 5."""
    steps = np.linspace(-0.4, 0.4, 5)
    grid = pd.DataFrame([{"x": x, "y": y} for y in steps for x in steps])
    bowl = 1 + grid["x"] ** 2 + 2 * grid["y"] ** 2
    return {
        f"method {height:g}": grid.assign(given=height * bowl, true=2 * height * bowl, test=3 * height * bowl)
        for height in heights
    }


@pytest.mark.parametrize("labels", LOSSES)
def test_all_panels_have_one_z_axis_that_spans_all_losses_and_each_has_its_own_colour_bar(labels):
    tables = bowls(0.01, 1, 30)
    figure = plots.landscape.surface_3d(tables, labels)
    boxes = [ax for ax in figure.axes if ax.name == "3d"]
    bars = [ax for ax in figure.axes if ax.name != "3d"]
    everything = pd.concat(tables.values())[labels]
    assert len(boxes) == len(bars) == len(tables)
    for ax, bar, (name, table) in zip(boxes, bars, tables.items(), strict=True):
        assert 10 ** np.array(ax.get_zlim()) == pytest.approx([everything.min(), everything.max()])
        texts = [float(text.get_text()) for text in ax.get_zticklabels()]
        np.testing.assert_allclose(10 ** ax.get_zticks(), texts, rtol=0.05)  # a tick states its loss
        assert len(texts) >= 3
        assert ax.get_title() == name
        assert bar.get_xlim() == pytest.approx((table[labels].min(), table[labels].max()))


def test_a_view_can_be_turned_and_zoomed():
    tables = bowls(1, 2)
    figure = plots.landscape.surface_3d(tables, azimuth=20, elevation=50, radius=0.2)
    for ax in figure.axes[:2]:
        assert (ax.azim, ax.elev) == (20, 50)
        assert 10 ** ax.get_zlim()[1] == pytest.approx(2 * (1 + 3 * 0.2**2))
    assert plots.landscape.radii(tables) == pytest.approx([0.4])
    for radius, rows in ((0.4, 25), (0.2, 9), (0.0, 1)):
        assert [len(table) for table in plots.landscape.within(tables, radius).values()] == [rows, rows]


@pytest.mark.parametrize(("low", "high"), [(0.05, 60), (1.5, 3.6), (1.45, 1.58), (1e-6, 1e4), (2, 2.002)])
def test_ticks_lie_within_the_range_and_their_texts_differ(low, high):
    ticks = plots.landscape.round_losses(low, high)
    texts = plots.landscape.text_of(ticks)
    assert 2 <= len(set(texts)) == len(ticks)
    assert ticks.min() >= 0.99 * low
    assert ticks.max() <= 1.01 * high
    np.testing.assert_allclose([float(text) for text in texts], ticks, rtol=0.05)


def test_flat_and_single_surfaces_can_be_drawn_too():
    flat = {"flat": bowls(1)["method 1"].assign(given=1.0)}
    for tables in (bowls(1), flat):
        plots.landscape.surface_3d(tables)._repr_png_()
        plots.landscape.contours(tables)._repr_png_()
    grid = plots.landscape.contours(bowls(1, 2, 3), columns=2)
    assert [ax.get_visible() for ax in grid.axes[:4]] == [True, True, True, False]


def test_the_words_state_the_range_of_the_loss_within_the_radius():
    x = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
    grid = pd.DataFrame([(a, b, 1 + a * a + b * b) for a in x for b in x], columns=["x", "y", "given"])
    assert plots.landscape.surface_3d({"CE": grid}).words.endswith("given labels: CE 1 to 1.1")
    assert plots.landscape.contours({"CE": grid}, "given", 0.1).words == (
        "loss on training images, given labels up to 0.1 away: CE 1 to 1"
    )


def rows(**by_method):
    """A table of all measures, each with these values over seeds."""
    return pd.DataFrame(
        [
            {"method": method, "seed": seed} | dict.fromkeys(sharpness.MEASURES, value)
            for method, values in by_method.items()
            for seed, value in enumerate(values)
        ]
    )


@pytest.mark.parametrize("lowest", [0.01, -2.0])
def test_the_figure_shows_each_mean_and_spread_relative_to_ce(lowest):
    summary = sharpness.summary(rows(CE=(9, 10, 11), SLN=(1, 2, 3), other=(lowest, lowest, lowest)))
    ax = plots.landscape.sharpness(summary).axes[0]
    shown = {container.get_label(): container.lines[0].get_xdata() for container in ax.containers}
    expected = {"CE": 1.0, "SLN": 0.2, "other": lowest / 10}
    for method, value in expected.items():
        assert shown[method] == pytest.approx(np.full(len(sharpness.MEASURES), value))
        assert ax.get_xlim()[0] < value < ax.get_xlim()[1]
    assert all("SLN flatter: holds" in text.get_text() for text in ax.get_yticklabels())
