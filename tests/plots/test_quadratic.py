"""Pictures of the regression with v∘v: they show their runs and table."""

import numpy as np
import pytest

from sln import plots
from sln.analysis import quadratic
from sln.analysis.quadratic import LABELS, METHODS, Setting, train


@pytest.fixture(scope="module")
def runs():
    return [train(Setting(steps=200, inherent=noise), range(3)) for noise in (0.0, 0.5)]


def test_the_picture_shows_what_was_found_and_every_seed(runs):
    table = quadratic.table(runs)
    figure = plots.quadratic.shapes_of_noise(runs, table)
    figure.canvas.draw()
    *stems, steps, ends = figure.axes
    assert np.allclose(stems[2].lines[0].get_ydata(), runs[0].found(LABELS)[0])
    assert list(stems[0].lines[1].get_xdata()) == [10, 30, 50, 70, 90]
    means = quadratic.over_seeds(table[table["inherent"] == 0], "error")
    shown = {line.get_label(): line.get_ydata() for line in steps.lines}
    assert np.allclose(shown[LABELS], means[means["method"] == LABELS]["mean"])
    seeds = np.concatenate([line.get_xdata() for line in ends.lines if len(line.get_xdata()) == 3])
    assert np.allclose(np.sort(seeds), np.sort(quadratic.last(table)["error"]))
    assert [tick.get_text() for tick in ends.get_yticklabels()] == list(METHODS)[::-1]


@pytest.mark.parametrize("values", [{"sigma": 0.0}, {"sigma": 3.0, "inherent": 1.0, "start": 0.1}])
def test_the_sliders_ends_can_be_drawn(values):
    figure = plots.quadratic.one_seed(seed=1, **values)
    figure.canvas.draw()
    run = quadratic.one_seed(1, *({"sigma": 2.0, "inherent": 0.0, "start": 1.0} | values).values())
    assert np.allclose(figure.axes[2].lines[0].get_ydata(), run.found(LABELS)[0])
    assert np.isfinite(run.v).all()
