"""What all figures share."""

import io
import os
import subprocess
import sys

import pandas as pd
import pytest

from sln import plots
from sln.plots import style
from sln.study.study import METHODS, VARIANTS, Study


def test_a_picture_is_what_savefig_writes():
    shown, saved = (plots.theory.stochastic_noise(1.0, 0.9) for _ in range(2))
    buffer = io.BytesIO()
    saved.savefig(buffer, format="png", dpi=saved.dpi)
    assert shown._repr_png_() == buffer.getvalue()


PICTURE = """
import sys
from sln import plots
figure = plots.theory.stochastic_noise(1.0, 0.9)
figure.suptitle("α ± 1% -1")
figure.savefig(sys.argv[1])
"""
THEIRS = """text.usetex: True
font.family: monospace
font.size: 30
mathtext.fontset: cm
lines.linestyle: --
axes.prop_cycle: cycler(color=["k"])
axes.titlecolor: red
savefig.transparent: True
savefig.bbox: tight
"""


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_figures_do_not_depend_on_the_settings_of_the_user(kind, tmp_path):
    drawn = []
    for name, rc in {"ours": "", "theirs": THEIRS}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "matplotlibrc").write_text(rc)
        environment = os.environ | {"MATPLOTLIBRC": str(tmp_path / name / "matplotlibrc")}
        environment |= {"SOURCE_DATE_EPOCH": "0", "MPLBACKEND": "tkagg" if rc else "agg"}
        file = tmp_path / name / f"figure.{kind}"
        subprocess.run([sys.executable, "-c", PICTURE, file], check=True, env=environment)
        drawn.append(file.read_bytes())
    assert drawn[0] == drawn[1]


def test_saving_does_not_move_what_has_fixed_places():
    grid = pd.DataFrame([(x, y) for y in (-1.0, 0.0, 1.0) for x in (-1.0, 0.0, 1.0)], columns=["x", "y"])
    surface = grid.assign(given=grid["x"] ** 2, true=0.0, test=0.0)
    figure = plots.landscape.surface_3d({"CE": surface, "SLN": surface})
    before = figure._repr_png_()
    figure.savefig(io.BytesIO(), format="png")
    assert figure._repr_png_() == before


def test_a_caption_is_the_sentence_it_was_saved_with_and_what_was_found():
    figure = plots.theory.stochastic_noise(1.0, 0.9)
    found, before = figure.words, figure._repr_png_()
    assert figure.caption() == figure.alt() == found
    shows = "It is the noise."
    Study("smoke").save(figure, pd.DataFrame({"x": [1]}), "07_a", shows)
    bundle, metadata = figure._repr_mimebundle_()
    assert bundle["text/plain"] == f"{shows} {found}"
    assert metadata["image/png"] == dict.fromkeys(("alt", "caption"), f"{shows} {found}")
    assert figure._repr_png_() == before
    # a figure that comes without any is described by its titles and axes, and has no caption
    bare = style.new_axes()
    bare.set(xlabel="$x$", ylabel="y", title="a title")
    assert (bare.figure.caption(), bare.figure.alt()) == ("", "a title: y over x")


def test_a_legend_names_bars_only_where_there_are_several_seeds():
    assert style.bars_of(pd.DataFrame({"seeds": [2, 5]})) == "5 seeds, bars: 95% t intervals"
    assert style.bars_of(pd.DataFrame({"seeds": [1]})) == "1 seed"


def test_a_method_has_one_colour_and_no_two_share_it():
    assert set(plots.COLOURS) == set(plots.STYLES) == {*METHODS, *VARIANTS}
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)
