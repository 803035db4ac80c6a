"""Pictures of notebook 12: dots, intervals and lines are the tables' numbers."""

import pandas as pd
import pytest

from sln import plots

MEASURED = {"data": "images", "corrected": False, "seed": 0, "validation_accuracy": 0.5}


def test_every_method_and_difference_has_its_row_per_data_set():
    numbers = {"seeds": 5, "mean": 80.0, "low": 70.0, "high": 95.0}
    methods = [{"data": d, "method": m} | numbers for d in ("images", "table") for m in ("CE", "CE early")]
    gains = [{"data": d, "difference": "SLN minus CE"} | numbers for d in ("images", "table")]
    figure = plots.own_loop.results(pd.DataFrame(methods), pd.DataFrame(gains))
    assert [ax.get_title() for ax in figure.axes[:2]] == ["images", "table"]
    above, _, *differences = figure.axes
    assert [label.get_text() for label in above.get_yticklabels()] == ["CE early", "CE"]
    assert [label.get_text() for label in differences[0].get_yticklabels()] == ["SLN minus CE"]
    for below in differences:
        (segment,) = below.collections[0].get_segments()
        assert segment[:, 0] == pytest.approx([70, 95])
    assert figure.get_suptitle() == "5 seeds, bars: 95% t intervals"


def test_the_slider_draws_the_curves_of_its_sigma():
    found = [
        MEASURED | {"sigma": s, "weights": w, "epoch": e, "test_accuracy": s / 2, "wrong_memorised": e / 4}
        for s in (0.0, 1.0) for w in ("network", "momentum") for e in (2, 4)
    ]  # fmt: skip
    figure = plots.own_loop.over_epochs(found, 1.0)
    assert figure.get_suptitle() == "images, σ = 1"
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert lines["SLN-MO"].get_ydata() == pytest.approx([0.5, 0.5])
    assert {"CE", "CE-MO", "SLN", "SLN-MO"} <= lines.keys()
    assert not {"SLN", "SLN-MO"} & {
        line.get_label() for line in plots.own_loop.over_epochs(found, 0.0).axes[0].lines
    }
