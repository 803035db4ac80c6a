"""Pictures of confidence: bars, lines and colours by their numbers."""

import numpy as np
import pandas as pd
import pytest

from sln import noise
from sln.analysis import confidence, stacked
from sln.analysis.confidence import Floors
from sln.plots import confidence as plots
from sln.plots import training
from sln.plots.style import COLOURS


@pytest.fixture
def demanded():
    return Floors(noise.symmetric_matrix(10, 0.4), np.full(10, 0.1))


def dashed(ax):
    return [line for line in ax.lines if line.get_linestyle() == "--"]


def test_histograms_mark_what_the_noise_alone_demands(smoke_study):
    grid = smoke_study.grid("sym", (0.0, 1.0))
    figure, floors = plots.histograms(grid, 1.0), confidence.floors(grid[0.0].first.data)
    assert [ax.get_title() for ax in figure.axes] == ["CE", "CE-MO", "SLN, σ = 1", "SLN-MO, σ = 1"]
    for ax in figure.axes:
        assert [line.get_xdata()[0] for line in dashed(ax)] == [floors.p_right, floors.p_wrong]


def test_over_epochs_each_panel_has_its_own_floor(smoke_study, demanded):
    table = confidence.over_epochs(smoke_study.methods("sym"))
    figure = plots.over_epochs(training.curves(table, confidence.OVER_EPOCHS), demanded)
    lines = [ax.lines[-1].get_ydata()[0] for ax in figure.axes]
    assert lines == pytest.approx([0.6, 0.4 / 9, 0.6])


def test_reliability_leaves_out_bins_of_few_images_and_fades_others(demanded):
    bins = pd.DataFrame(
        {"low": [0, 0.25, 0.5, 0.75], "high": [0.25, 0.5, 0.75, 1], "examples": [1, 10, 50, 0]}
    )
    bins["accuracy"] = [1.0, 0.3, 0.6, np.nan]
    kinds = {confidence.TEST: bins, confidence.VALIDATION: bins}
    table = stacked(kinds, "labels").assign(method="CE")
    rows = [("error", 0.2), ("error_given", 0.4)]
    calibrated = pd.DataFrame([{"quantity": q, "mean": m, "low": 0.1, "high": 0.5} for q, m in rows])
    figure = plots.reliability(table, calibrated.assign(method="CE", seeds=3), demanded)
    assert figure.legends[0].get_title().get_text().startswith("3 seeds together")
    for ax, title in zip(
        figure.axes, ("CE\nerror 0.20 [0.10, 0.50]", "error 0.40 [0.10, 0.50]"), strict=True
    ):
        assert ax.get_title() == title
        bars = [bar for container in ax.containers for bar in container]
        assert {(bar.get_x(), bar.get_height()): bar.get_alpha() < 0.5 for bar in bars} == {
            (0.5, 0.6): False,
            (0.25, 0.3): True,
        }


def test_markers_stand_at_the_means_and_bars_reach_over_the_intervals():
    rows = [("SLN", "as trained", 0.4, 0.3, 0.6), ("SLN", "T inverted", 0.1, 0.0, 0.2)]
    table = pd.DataFrame(rows, columns=["method", "remedy", "error", "low", "high"])
    ax = plots.temperatures(table.assign(seeds=5)).axes[0]
    found = [(c.lines[0].get_xdata()[0], c.lines[2][0].get_segments()[0][:, 0]) for c in ax.containers]
    for (mean, ends), (_, _, wanted, low, high) in zip(found, rows, strict=True):
        assert mean == wanted
        np.testing.assert_allclose(ends, [low, high])


def test_memorised_nats_have_the_floor_at_zero():
    table = pd.DataFrame(
        {"method": ["CE"], "below": [1.0], "low": [0.9], "high": [1.2], "floor": [1.55]}
    ).assign(seeds=1)
    ax = plots.memorised_nats(table).axes[0]
    assert "1.550" in ax.get_xlabel()
    assert [line.get_xdata()[0] for line in dashed(ax)] == [0]


def test_clean_price_draws_methods_and_leaves_differences_to_the_sentence():
    rows = [(m, q, 0.9, 0.8, 1.0) for m in ("CE", "SLN", "SLN minus CE") for q in ("accuracy", "confidence")]
    table = pd.DataFrame(rows, columns=["method", "quantity", "mean", "low", "high"]).assign(seeds=5)
    figure = plots.clean_price(table)
    assert [ax.get_xlabel() for ax in figure.axes] == ["accuracy", "confidence"]
    assert [len(ax.containers) for ax in figure.axes] == [2, 2]


def test_a_dissection_stacks_shares_to_one_in_colours_of_no_method(smoke_study):
    tables = {"SLN": confidence.dissection(smoke_study.methods("sym")["SLN"], intervals=10)}
    ax = plots.dissections(tables).axes[0]
    heights = [[bar.get_height() for bar in container] for container in ax.containers]
    np.testing.assert_allclose(np.sum(heights, axis=0), 1)
    assert ax.containers[-1][-1].get_x() + ax.containers[-1][-1].get_width() == pytest.approx(100)
    assert not set(plots.DISSECTION_COLOURS.values()) & set(COLOURS.values())
