"""Pictures of flatness: they show their tables."""

import numpy as np
import pytest

from sln import plots
from sln.analysis import flatness
from sln.study import mechanism


def test_late_noise_has_a_line_per_arm_and_marks_its_start(smoke_study):
    table = flatness.late(smoke_study)
    figure = plots.flatness.late(table)
    assert len(figure._repr_png_()) > 5000
    for (column, title), ax in zip(plots.flatness.ALONG.items(), figure.axes, strict=True):
        assert ax.get_title() == title
        *lines, start = ax.lines
        assert start.get_xdata()[0] == flatness.switch(table)
        for line, (_, part) in zip(lines, table.groupby("method", sort=False), strict=True):
            np.testing.assert_allclose(line.get_ydata(), part.groupby("epoch")[column].mean())


def test_less_sure_has_a_row_per_model_and_a_column_per_quantity(smoke_study):
    table = mechanism.less_sure(smoke_study)
    figure = plots.flatness.less_sure(table)
    assert len(figure._repr_png_()) > 5000
    assert len(figure.axes) == 6
    ax = figure.axes[3]  # the linear model's accuracy; first SLN, on top plain training
    rows = table[(table["model"] == "frozen") & (table["quantity"] == "accuracy")].set_index("method")["mean"]
    shown = ax.containers[0].lines[0].get_xdata()
    assert shown.tolist() == pytest.approx(rows[["SLN", "penalty", "CE"]].tolist())


def test_methods_are_numbered_by_sharpness(smoke_study):
    table = flatness.of_methods(smoke_study)
    figure = plots.flatness.of_methods(table)
    assert len(figure._repr_png_()) > 5000
    ranked, (dots,) = table.sort_values("rise"), figure.axes[0].collections
    assert dots.get_offsets().tolist() == ranked[["rise", "accuracy"]].to_numpy().tolist()
    assert dots.get_array().tolist() == ranked["memorised"].tolist()
    assert [text.get_text() for text in figure.legends[0].texts] == [
        f"{number}  {name}" for number, name in enumerate(ranked["method"], start=1)
    ]
