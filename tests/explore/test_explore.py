"""Sliders and the button that trains, without a browser: what they show, and what they do."""

import ast
import asyncio
import io
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from sln import plots, reproduce, runs
from sln.analysis import results
from sln.config import Config
from sln.explore import sliders, trained
from sln.runs import background
from sln.study.profiles import PROFILES
from sln.study.study import Study
from sln.utils.errors import InputError
from sln.utils.files import figures_folder

PAGE = Path(__file__).parents[2] / "sln" / "explore" / "app.ipynb"
ENDLESS = Config(epochs=5000)


def titled(fixed, sigma, epoch=1):
    """A figure that says what it was asked for; sigma 2 cannot be drawn."""
    if sigma == 2:
        raise InputError("no run with sigma 2")
    ax = plots.new_axes((2.0, 1.0))
    ax.set_title(f"{fixed}, σ = {sigma:g}\nepoch {epoch}")
    return ax.figure


def size_of(image):
    return Image.open(io.BytesIO(image.value)).size


# --- sliders and pictures


def test_a_picture_is_what_savefig_writes():
    shown, saved = (plots.theory.stochastic_noise(1.0, 0.9) for _ in range(2))
    buffer = io.BytesIO()
    saved.savefig(buffer, format="png", dpi=saved.dpi)
    assert shown._repr_png_() == buffer.getvalue()


def test_a_slider_redraws_once_with_its_value_and_the_words_follow():
    drawn = []

    def draw(fixed, sigma):
        drawn.append((fixed, sigma))
        return titled(fixed, sigma)

    panel = sliders.explore(draw, "fixed", sigma=(1.0, [0.5, 1.0]))
    before = panel.picture.image.value
    panel.sliders["sigma"].value = 0.5
    assert drawn == [("fixed", 1.0), ("fixed", 0.5)]
    assert panel.picture.words.value == "fixed, σ = 0.5, epoch 1"
    assert panel.picture.image.value != before
    assert panel.sliders["sigma"].description == "σ"
    assert panel.sliders["sigma"].continuous_update is False


@pytest.mark.parametrize("control", [(0.0, 0.9, 0.1), [0.1, 0.2], {"a": 0.1}])
def test_a_slider_that_cannot_show_its_start_is_refused(control, refused):
    with refused("starts at 1.0"):
        sliders.slider("sigma", 1.0, control)


@pytest.mark.parametrize(("values", "disabled"), [([1.0], True), ([0.5, 1.0], False)])
def test_a_slider_of_one_value_cannot_be_moved(values, disabled):
    assert sliders.slider("sigma", 1.0, values).disabled is disabled


def test_a_slider_for_no_argument_is_refused_naming_the_nearest(refused):
    with refused("did you mean 'noise_rate'"):
        sliders.explore(plots.views.label_noise, noise_rat=(0.1, [0.1]))
    with refused("did you mean 'noise_rate'"):
        sliders.frames(plots.views.label_noise, noise_rat=(0.1, [0.1]))


def test_an_error_is_shown_in_words_and_the_picture_that_no_longer_fits_is_hidden(monkeypatch):
    monkeypatch.delenv("SLN_HEADLESS")
    panel = sliders.explore(titled, "a", sigma=(1.0, [1.0, 2.0]))
    panel.sliders["sigma"].value = 2.0
    assert ">no run with sigma 2<" in panel.picture.words.value
    assert panel.picture.image.layout.visibility == "hidden"
    panel.sliders["sigma"].value = 1.0
    assert panel.picture.words.value == "a, σ = 1, epoch 1"
    assert panel.picture.image.layout.visibility == "visible"


def test_an_error_of_the_code_is_named_and_cannot_bring_markup_into_the_page(monkeypatch):
    monkeypatch.delenv("SLN_HEADLESS")
    panel = sliders.explore(lambda sigma: {}[f"<b>{sigma}</b>"], sigma=(1.0, [1.0]))
    assert "KeyError: &#x27;&lt;b&gt;1.0&lt;/b&gt;" in panel.picture.words.value


def test_when_nobody_watches_an_error_is_raised():
    with pytest.raises(InputError, match="no run with sigma 2"):
        sliders.explore(titled, "a", sigma=(2.0, [2.0]))
    panel = sliders.explore(titled, "a", sigma=(1.0, [1.0, 2.0]))
    with pytest.raises(InputError, match="no run with sigma 2"):
        panel.sliders["sigma"].value = 2.0


def test_every_value_of_a_slider_gives_a_picture_of_the_same_size():
    controls = {"sigma": (1.0, (0.05, 2.0, 0.05)), "probability": (0.9, (0.0, 1.0, 0.01))}
    panel = sliders.explore(plots.theory.noise_at_logits, **controls, num_classes=(10, (2, 100, 1)))
    size, words = size_of(panel.picture.image), panel.picture.words.value
    for name, value in (("sigma", 0.05), ("probability", 0.0), ("num_classes", 100)):
        panel.sliders[name].value = value
        assert size_of(panel.picture.image) == size
        assert panel.picture.words.value != words
        words = panel.picture.words.value


def test_frames_are_drawn_beforehand_and_linked_without_python():
    panel = sliders.frames(titled, "a", sigma=(0.5, [0.1, 0.5, 1.0]))
    chosen, stack = panel.children
    assert [picture.words.value for picture in stack.children] == [
        f"a, σ = {sigma:g}, epoch 1" for sigma in (0.1, 0.5, 1.0)
    ]
    assert len({picture.image.value for picture in stack.children}) == 3
    assert stack.selected_index == chosen.index == 1
    links = [widget for widget in _all_widgets() if type(widget).__name__ == "Link"]
    assert [(link.source, link.target) for link in links if link.source[0] is chosen] == [
        ((chosen, "index"), (stack, "selected_index"))
    ]


def _all_widgets():
    import ipywidgets.widgets.widget as module

    return list(module._instances.values())


@pytest.mark.parametrize("values", [list(range(13)), (0, 5, 1)])
def test_frames_take_few_values_and_say_so(values, refused):
    with refused("at most 12 values"):
        sliders.frames(titled, "a", epoch=(1, values))


# --- the explorer over trained runs, and its button


@pytest.fixture(autouse=True)
def nothing_is_left_training():
    """What a test started is ended after it."""
    yield
    if background._current is not None:
        background._current.cancel()
    background._current = None


@pytest.fixture(scope="module")
def few_runs(tmp_path_factory):
    """Runs of a study's first seed at smoke size: two sigmas of symmetric noise, one of open-set noise."""
    folder = tmp_path_factory.mktemp("few")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLN_RUNS", str(folder))
        study = Study("smoke")
        for mode, sigma, seed in (("sym", 0.0, 0), ("sym", 1.0, 0), ("openset", 0.5, 0), ("sym", 2.0, 1)):
            runs.get(study.config(mode, sigma, seed), quiet=True)
        runs.get(study.config("sym", 1.0, correction=1), quiet=True)
    return folder


@pytest.fixture
def study(few_runs, monkeypatch, tmp_path):
    """That study, watched; what is trained by a test goes to a folder of links to those runs."""
    (tmp_path / "runs").mkdir()
    for path in few_runs.iterdir():
        (tmp_path / "runs" / path.name).symlink_to(path)
    monkeypatch.delenv("SLN_HEADLESS")
    return Study("smoke")


def test_the_explorer_offers_what_was_trained_and_nothing_else(study):
    panel = trained.Trained(study)
    assert [text for text, _ in panel.sliders["noise_mode"].options] == ["symmetric", "open-set"]
    assert [value for _, value in panel.sliders["sigma"].options] == [0.0, 1.0]  # sigma 2 is another seed's
    assert "σ = 1, symmetric noise at rate 0.4" in panel.picture.words.value
    assert panel.sliders["alpha"].disabled  # there is one only
    panel.sliders["noise_mode"].value = "openset"
    assert [value for _, value in panel.sliders["sigma"].options] == [0.5]
    assert panel.picture.words.value.startswith("σ = 0.5, open-set noise at rate 0.4, α = 0.99, epoch 3")


def test_the_explorer_redraws_once_a_move_also_where_other_sliders_follow(study, monkeypatch):
    panel, drawn = trained.Trained(study), []
    draw = plots.views.at_epoch
    monkeypatch.setattr(plots.views, "at_epoch", lambda *args: drawn.append(args[1]) or draw(*args))
    panel.sliders["noise_mode"].value = "openset"
    assert drawn == [3]
    panel.sliders["epoch"].value = 1
    assert drawn == [3, 1]


def test_the_words_are_the_historys_numbers_at_that_epoch(study):
    run = runs.find(study.config("sym", 1.0))
    for epoch in (1, 2, 3):
        words = plots.views.at_epoch(run, epoch).words
        for weights, form in (("network", "test accuracy {} ("), ("momentum", "({}) by the network")):
            assert form.format(f"{run.of(weights)['test_accuracy'][epoch]:.0%}") in words
    assert "wrong labels memorised not measured yet (not measured yet)" in plots.views.at_epoch(run, 1).words
    assert f"memorised {run.of('network')['wrong_memorised'][3]:.0%} (" in plots.views.at_epoch(run, 3).words


def test_without_any_run_the_explorer_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "none"))
    panel = trained.Trained(Study("smoke"))
    assert "make reproduce" in panel.picture.words.value
    assert "Train this" in panel.picture.words.value
    panel.sliders["epoch"].value = 1  # there is nothing to draw
    assert "make reproduce" in panel.picture.words.value


def pressed(panel, until, press=lambda panel: panel.train_this.button.click()):
    """Press in an event loop, as a kernel has one, do `until(panel)`, and wait for the end of the watch."""

    async def page():
        press(panel)
        await until(panel)
        await asyncio.wait_for(panel.train_this._watching, 100)

    asyncio.run(page())


async def nothing(panel):
    pass


def at(panel, **values):
    for setting, value in values.items():
        panel.train_this.sliders[setting].value = value


def test_training_from_the_panel_ends_with_the_run_on_the_slider(study):
    panel = trained.Trained(study)
    at(panel, sigma=0.65)
    assert "not trained yet" in panel.train_this.words.value
    pressed(panel, nothing)
    config = study.config("sym", 0.65)
    assert runs.find(config) is not None
    assert [value for _, value in panel.sliders["sigma"].options] == [0.0, 0.65, 1.0]
    assert panel.sliders["sigma"].value == 0.65
    assert panel.picture.words.value.startswith("σ = 0.65, symmetric")
    assert ">Done: σ = 0.65" in panel.train_this.words.value
    assert panel.train_this.picture.image.layout.visibility == "visible"
    assert (panel.train_this.button.disabled, panel.train_this.stop.disabled) == (False, True)


def test_a_panel_shows_its_progress_and_can_be_cancelled(study, monkeypatch):
    monkeypatch.setattr(trained, "SECONDS_BETWEEN_LOOKS", 0.05)
    monkeypatch.setattr(trained, "configured", lambda *_: ENDLESS)
    told = []

    async def cancel(panel):
        assert (panel.train_this.button.disabled, panel.train_this.stop.disabled) == (True, False)
        while not told or " of 5000" not in told[-1]:
            told.append(panel.train_this.words.value)
            await asyncio.sleep(0.05)
        panel.train_this.button.click()  # a disabled button that is pressed all the same
        told.append(panel.train_this.words.value)
        panel.train_this.stop.click()

    panel = trained.Trained(study)
    pressed(panel, cancel)
    assert ">Starting:" in told[0]
    assert ">Training:" in told[-2]
    assert "one run at a time" in told[-1]
    assert ">Cancelled after epoch" in panel.train_this.words.value
    assert (panel.train_this.button.disabled, panel.train_this.stop.disabled) == (False, True)
    assert not panel.train_this.training._process.is_alive()


def test_what_is_trained_already_is_shown_and_not_trained_again(study, monkeypatch):
    monkeypatch.setattr(background, "start", None)
    panel = trained.Trained(study)
    at(panel, sigma=0.0)
    assert panel.train_this.button.description == "Show this"
    panel.train_this.button.click()
    assert panel.sliders["sigma"].value == 0.0


def test_a_failed_training_is_said_in_the_panel(study):
    config = study.config("sym", 0.35)
    (runs.runs_folder() / config.run_id).mkdir()
    (runs.runs_folder() / config.run_id / "config.json").write_text('{"lr": 0.5}')
    panel = trained.Trained(study)
    at(panel, sigma=0.35)
    pressed(panel, nothing)
    assert ">Failed: σ = 0.35" in panel.train_this.words.value
    assert "another configuration" in panel.train_this.words.value


def test_when_nobody_watches_nothing_is_trained(study, monkeypatch):
    monkeypatch.setenv("SLN_HEADLESS", "1")
    monkeypatch.setattr(background, "start", None)
    panel = trained.Trained(study)
    assert panel.train_this.button.disabled
    at(panel, sigma=0.65)
    panel.train_this.press()
    assert "nothing is trained" in panel.train_this.words.value


def test_large_data_sets_have_no_button(monkeypatch, tmp_path):
    monkeypatch.setenv("SLN_RUNS", str(tmp_path))
    assert not hasattr(trained.Trained(Study("mini")), "train_this")


# --- the figures and the page


def test_live_curves_keep_their_axis_and_show_what_was_measured():
    config = Config(epochs=40)
    assert [ax.get_xlim() for ax in plots.views.live_curves(config, []).axes] == [(1, 40)] * 3
    row = {"weights": "network", "test_accuracy": 0.3, "right_accuracy": np.nan}
    rows = [row | {"epoch": 1}, row | {"epoch": 2, "right_accuracy": 0.5}]
    right, _, test = plots.views.live_curves(config, rows).axes
    assert test.lines[0].get_xydata().tolist() == [[1, 0.3], [2, 0.3]]
    assert right.lines[0].get_xydata().tolist() == [[2, 0.5]]
    assert test.get_xlim() == (1, 40)


def test_the_picture_of_an_epoch_shows_memorised_labels_in_their_colour(study):
    run = runs.find(study.config("sym", 1.0))
    shown = run.examples[run.examples["given"] != run.examples["true"]].head(plots.views.LOOKED_AT)
    figure = plots.views.at_epoch(run, 3)
    titles = [ax.get_title() for ax in figure.axes if "read as" in ax.get_title()]
    assert titles == [
        f"given {row.given}\nis {row.true}\nread as {row.network_prediction}" for row in shown.itertuples()
    ]
    colours = [ax.title.get_color() for ax in figure.axes if "read as" in ax.get_title()]
    expected = [
        plots.WRONG if row.network_prediction == row.given
        else plots.RIGHT if row.network_prediction == row.true
        else "black"
        for row in shown.itertuples()
    ]  # fmt: skip
    assert colours == expected


def test_one_momentum_model_is_brought_forward():
    rows = [(epoch, a, 0.1 * epoch + a / 10, 0.01) for a in (0.0, 0.9, 0.99) for epoch in (1, 2)]
    table = pd.DataFrame(rows, columns=["epoch", "alpha", "mean", "std"])
    figure = plots.views.momentum_models(table, 0.9)
    assert [line.get_alpha() for line in figure.axes[0].lines] == [0.25, None, 0.25]
    assert figure.words == (
        "α = 0.9: test accuracy 29.0 ± 1.0% after the last epoch; the network itself 20.0%"
    )


def test_results_stand_beside_the_papers():
    table = pd.DataFrame(
        {"noise": ["sym", "sym", "asym"], "method": ["CE", "CE-MO", "CE"], "mean": [50.0, 60.0, 70.0]}
    ).assign(std=1.0)
    figure = plots.views.results_of(table, results.of_the_paper(), "sym")
    assert figure.words == "symmetric: CE 50.0 ± 1.0 (paper 53.16), CE-MO 60.0 ± 1.0"
    assert [patch.get_height() for patch in figure.axes[0].patches] == [50.0, 60.0]


def test_views_say_how_far_the_loss_goes_within_the_radius():
    x = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
    grid = pd.DataFrame([(a, b, 1 + a * a + b * b) for a in x for b in x], columns=["x", "y", "given"])
    assert plots.views.loss_views({"CE": grid}).words.endswith("given labels: CE 1 to 1.1")
    assert plots.views.loss_surfaces({"CE": grid}, "given", 0.1).words == (
        "loss on training images, given labels up to 0.1 away: CE 1 to 1"
    )


def test_the_page_shows_what_there_is_and_says_what_is_missing(study):
    corrected = trained.corrections(study)
    assert [text for text, _ in corrected.sliders["run"].options] == ["symmetric, clean rule"]
    assert corrected.picture.words.value.startswith("the 16 that the clean rule moved furthest, epoch 3")
    for make in (trained.landscapes, trained.results_by_noise):
        assert "make reproduce" in make(study).value
    quick = trained.results_by_noise(Study("quick"))  # committed
    quick.sliders["noise"].value = "openset"
    assert quick.picture.words.value.startswith("open-set: CE ")
    assert trained.landscapes(Study("quick")).picture.words.value.startswith("from -60°, 22° up; loss on")


def test_the_page_says_where_there_is_no_corrected_run(monkeypatch, tmp_path):
    monkeypatch.setenv("SLN_RUNS", str(tmp_path))
    assert "make reproduce" in trained.corrections(Study("smoke")).value
    assert not list(tmp_path.iterdir())  # and trains none


@pytest.mark.slow
def test_the_page_runs_where_nothing_is_trained_and_trains_nothing(tmp_path):
    values = {"PROFILE": "smoke"}
    outcome = reproduce.run_notebook(PAGE, tmp_path / "app.ipynb", values, "smoke")
    assert outcome.problems == []
    assert not list(runs.runs_folder().glob("*/config.json"))


def test_the_page_is_stripped_and_defines_nothing():
    notebook = nbformat.read(PAGE, as_version=4)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [(cell.outputs, cell.execution_count) for cell in code] == [([], None)] * len(code)
    kinds = (ast.ClassDef, ast.FunctionDef, ast.For, ast.While)
    assert not [node for cell in code for node in ast.walk(ast.parse(cell.source)) if isinstance(node, kinds)]


def test_a_table_of_this_profile_comes_before_the_committed_one():
    folder = figures_folder("quick")
    folder.mkdir(parents=True)
    (folder / "05_results.csv").write_text("noise,method,mean,std\nsym,CE,1.5,0.5\n")
    assert trained.saved(Study("quick"), "05_results")["mean"].tolist() == [1.5]


def test_settings_that_a_page_offers_are_ones_that_a_run_can_have():
    study = Study("smoke")
    for mode in (*PROFILES["smoke"].noise_modes, "none"):
        for rate, sigma in zip(trained.RATES[:2], trained.SIGMAS[:2], strict=True):
            config = trained.configured(study, (mode, rate, sigma, trained.ALPHAS[0]))
            assert tuple(getattr(config, setting) for setting in trained.KNOBS[:3]) == (mode, rate, sigma)
    assert torch.get_num_threads() == 1
