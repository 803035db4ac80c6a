"""What all figures share."""

import io

import pandas as pd

from sln import plots
from sln.plots import style
from sln.study.study import METHODS, VARIANTS


def test_a_picture_is_what_savefig_writes():
    shown, saved = (plots.theory.stochastic_noise(1.0, 0.9) for _ in range(2))
    buffer = io.BytesIO()
    saved.savefig(buffer, format="png", dpi=saved.dpi)
    assert shown._repr_png_() == buffer.getvalue()


def test_saving_does_not_move_what_has_fixed_places():
    grid = pd.DataFrame([(x, y) for y in (-1.0, 0.0, 1.0) for x in (-1.0, 0.0, 1.0)], columns=["x", "y"])
    surface = grid.assign(given=grid["x"] ** 2, true=0.0, test=0.0)
    figure = plots.landscape.surface_3d({"CE": surface, "SLN": surface})
    before = figure._repr_png_()
    figure.savefig(io.BytesIO(), format="png")
    assert figure._repr_png_() == before


def test_a_legend_names_bars_only_where_there_are_several_seeds():
    assert style.bars_of(pd.DataFrame({"seeds": [2, 5]})) == "5 seeds, bars: 95% t intervals"
    assert style.bars_of(pd.DataFrame({"seeds": [1]})) == "1 seed"


def test_a_method_has_one_colour_and_no_two_share_it():
    assert set(plots.COLOURS) == set(plots.STYLES) == {*METHODS, *VARIANTS}
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)
