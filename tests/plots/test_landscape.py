"""Pictures of landscapes: heights that compare, readable ticks, and words that state the range."""

import numpy as np
import pandas as pd
import pytest

from sln import plots
from sln.analysis import landscape, sharpness

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
def test_all_panels_z_axes_span_the_same_height_and_each_has_its_own_colour_bar(labels):
    tables = bowls(0.01, 1, 30)
    figure = plots.landscape.surface_3d(tables, labels)
    boxes = [ax for ax in figure.axes if ax.name == "3d" and ax.get_visible()]
    bars = [ax for ax in figure.axes if ax.name != "3d"]
    spans = [table[labels].max() - table[labels].min() for table in tables.values()]
    assert len(boxes) == len(bars) == len(tables)
    for letter, ax, bar, (name, table) in zip("abc", boxes, bars, tables.items(), strict=True):
        low, high = table[labels].min(), table[labels].max()
        bottom, top = ax.get_zlim()
        assert top - bottom == pytest.approx(max(spans))
        assert 0 <= bottom <= low
        assert top >= high * (1 - 1e-9)
        assert ax.get_title().startswith(f"({letter}) {name}\n{low:.2f} to {high:.2f}")
        assert bar.get_xlim() == pytest.approx((low, high))


def test_a_view_can_be_turned_and_zoomed():
    tables = bowls(1, 2)
    figure = plots.landscape.surface_3d(tables, azimuth=20, elevation=50, radius=0.2)
    for ax in figure.axes[:2]:
        assert (ax.azim, ax.elev) == (20, 50)
        assert np.diff(ax.get_zlim())[0] == pytest.approx(2 * 3 * 0.2**2)
    assert plots.landscape.radii(tables) == pytest.approx([0.4])
    for radius, rows in ((0.4, 25), (0.2, 9), (0.0, 1)):
        assert [len(table) for table in plots.landscape.within(tables, radius).values()] == [rows, rows]


def test_the_papers_losses_are_in_the_title_only_where_they_compare():
    ce = {"CE": bowls(1)["method 1"]}
    assert "paper" not in plots.landscape.surface_3d(ce).axes[0].get_title()  # up to 0.4
    near = {"CE": ce["CE"].assign(x=ce["CE"]["x"] / 4, y=ce["CE"]["y"] / 4)}
    title = plots.landscape.surface_3d(near | bowls(2)).axes[0].get_title()
    assert title.endswith("; paper 0.3 to 1.8")
    assert "paper" not in plots.landscape.surface_3d(near, "true").axes[0].get_title()


def test_seen_from_above_every_panel_shows_the_rise_above_its_centre_exactly_at_the_grid():
    tables = bowls(0.01, 1, 30)
    figure = plots.landscape.contours(tables)
    assert [ax.get_visible() for ax in figure.axes[:4]] == [True, True, True, False]
    for name, table in tables.items():
        steps, rise = plots.landscape._above_the_centre(table, "given")
        corner = table["given"].max() - table["given"].min()
        assert rise[0, 0] == pytest.approx(corner)
        assert rise[len(steps) // 2, len(steps) // 2] == pytest.approx(0, abs=1e-9)
        assert rise[0, 40] > 1.5 * rise[40, 0], name  # the second direction is the steeper one
    labels = [{text.get_text() for text in ax.texts} for ax in figure.axes[:3]]
    assert len(set().union(*labels)) > 2


def test_rises_and_ranges_show_their_tables():
    table = pd.DataFrame({"method": ["CE", "CE", "SLN", "SLN"], "pair": 1, "r": [0.1, 0.2] * 2})
    table = table.assign(given=[1, 4, -0.1, 0.2])
    both = pd.concat([table.assign(statistics=how) for how in ("centre", "recomputed")])
    ax = plots.landscape.rises(both).axes[0]
    assert [line.get_label() for line in ax.lines][:2] == ["CE, kept", "SLN, kept"]
    assert [line.get_linestyle() for line in ax.lines] == ["-", "-", "--", "--"]
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), [np.nan, 0.2])
    surfaces = {name: pd.DataFrame({"given": [1.0, 1.0 + k]}) for k, name in enumerate(landscape.PAPER)}
    bars = plots.landscape.ranges(landscape.ranges(surfaces)).axes[0].patches
    assert [bar.get_width() for bar in bars[:4]] == [0, 1, 2, 3]
    assert bars[4].get_x() + bars[4].get_width() == pytest.approx(1.8)


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


def test_the_words_state_the_range_of_the_loss_within_the_radius():
    x = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
    grid = pd.DataFrame([(a, b, 1 + a * a + b * b) for a in x for b in x], columns=["x", "y", "given"])
    assert plots.landscape.surface_3d({"CE": grid}).words.endswith(
        "the loss is 1.00 to 1.08 for CE (training images, given labels)."
    )
    assert plots.landscape.contours({"CE": grid}, "given", 0.1).words == (
        "The loss up to 0.1 away is 1.00 to 1.02 for CE (training images, given labels)."
    )


def rows(**by_method):
    """A table of all measures, each with these values over seeds."""
    return pd.DataFrame(
        [
            {"method": method, "seed": seed}
            | dict.fromkeys([*sharpness.MEASURES, "squared_norm"], value)
            | {f"{name}_evaluation": value for name in sharpness.CONTROLS}
            for method, values in by_method.items()
            for seed, value in enumerate(values)
        ]
    )


@pytest.mark.parametrize("lowest", [0.01, -2.0])
def test_the_figure_shows_each_mean_and_spread_relative_to_ce(lowest):
    summary = sharpness.summary(rows(CE=(9, 10, 11), SLN=(1, 2, 3), other=(lowest, lowest, lowest)))
    ax = plots.landscape.sharpness(summary).axes[0]
    shown = {container.get_label(): container.lines[0].get_xdata() for container in ax.containers}
    measures = len(sharpness.MEASURES) + 1
    expected = {"CE": 1.0, "SLN": 0.2, "other": lowest / 10}
    for method, value in expected.items():
        assert shown[method] == pytest.approx(np.full(measures, value))
        assert ax.get_xlim()[0] < value < ax.get_xlim()[1]
    assert ax.get_yticklabels()[0].get_text() == sharpness.MEASURES[sharpness.SCALE_FREE]
