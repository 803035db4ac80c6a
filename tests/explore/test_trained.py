"""Sliders over trained runs, and the button that trains another."""

import asyncio

import pytest

from sln import explore, plots, runs
from sln.explore import trained
from sln.runs import background
from sln.study import comparisons
from sln.study.profiles import PROFILES
from sln.study.study import Study
from sln.utils.errors import require


@pytest.fixture
def study(smoke_study, monkeypatch):
    """The smoke study, in a notebook that a person watches."""
    monkeypatch.delenv("SLN_HEADLESS")
    return smoke_study


def options_of(panel, name):
    return [value for _, value in panel.sliders[name].options]


def test_the_sliders_offer_what_was_trained_and_nothing_else(study):
    panel = explore.TrainedRuns(study)
    texts = [text for text, _ in panel.sliders["noise_mode"].options]
    assert texts == ["symmetric", "asymmetric", "instance-dependent", "open-set"]
    assert options_of(panel, "noise_rate") == [0.0, 0.4]
    assert options_of(panel, "sigma") == [0.0, *comparisons.GRIDS["SLN"]]
    assert "σ = 1, symmetric noise at rate 0.4" in panel.picture.words.value
    assert panel.sliders["alpha"].disabled  # there is one only
    panel.sliders["noise_mode"].value = "openset"
    assert options_of(panel, "noise_rate") == [0.4]
    assert panel.picture.words.value.startswith("With σ = 1, open-set noise at rate 0.4, α = 0.99")


def test_runs_of_another_seed_are_not_offered(tmp_path, monkeypatch):
    monkeypatch.setenv("SLN_RUNS", str(tmp_path))
    study = Study("smoke")
    runs.get(study.config("sym", 0.5, seed=0), quiet=True)
    runs.get(study.config("sym", 2.0, seed=1), quiet=True)
    panel = explore.TrainedRuns(study)
    assert options_of(panel, "sigma") == [0.5]
    assert panel.sliders["sigma"].disabled


@pytest.mark.parametrize(("wanted", "found"), [(1.0, 1.0), (0.6, 0.5), (0.9, 1.0), (3.0, 1.0), ("sym", 0.0)])
def test_the_nearest_value_is_offered(wanted, found):
    assert trained.nearest([0.0, 0.5, 1.0], wanted) == found


def test_a_move_redraws_once_even_if_other_sliders_follow(study, monkeypatch):
    panel, drawn = explore.TrainedRuns(study), []
    draw = plots.training.at_epoch
    monkeypatch.setattr(plots.training, "at_epoch", lambda *args: drawn.append(args[1]) or draw(*args))
    panel.sliders["noise_mode"].value = "openset"
    assert drawn == [3]
    panel.sliders["epoch"].value = 1
    assert drawn == [3, 1]


def test_without_any_run_the_panel_states_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("SLN_RUNS", str(tmp_path / "none"))
    panel = explore.TrainedRuns(Study("smoke"))
    assert "make reproduce" in panel.picture.words.value
    assert "Train this" in panel.picture.words.value
    panel.sliders["epoch"].value = 1  # there is nothing to draw
    assert "make reproduce" in panel.picture.words.value


def press(panel, meanwhile=None):
    """Press the button in an event loop, like a kernel's, await `meanwhile()` and the end of the training."""

    async def page():
        panel.train_this.button.click()
        if meanwhile is not None:
            await meanwhile()
        await asyncio.wait_for(panel.train_this._watching, 100)

    asyncio.run(page())


def move(panel, **values):
    for setting, value in values.items():
        panel.train_this.sliders[setting].value = value


def test_training_from_the_panel_ends_with_the_run_on_the_slider(study):
    panel = explore.TrainedRuns(study)
    move(panel, sigma=0.65)
    assert "not trained yet" in panel.train_this.words.value
    press(panel)
    config = study.config("sym", 0.65)
    assert runs.find(config) is not None
    assert options_of(panel, "sigma") == sorted([0.0, 0.65, *comparisons.GRIDS["SLN"]])
    assert panel.sliders["sigma"].value == 0.65
    assert panel.picture.words.value.startswith("With σ = 0.65, symmetric")
    assert ">Done: σ = 0.65" in panel.train_this.words.value
    assert panel.train_this.picture.image.layout.visibility == "visible"
    assert (panel.train_this.button.disabled, panel.train_this.stop.disabled) == (False, True)


class FakeTraining:
    """A background training that the test drives: `epochs` finished epochs, and a state."""

    def __init__(self, config):
        self.config, self.state, self.problem, self.rows, self.seconds_left = config, "training", "", [], None

    @property
    def epoch(self):
        return len(self.rows)

    def look(self):
        return self.state

    def cancel(self):
        self.state = "cancelled"


@pytest.fixture
def fake(monkeypatch):
    """The trainings that the panel starts, which are fakes; a second one is refused while one is running."""
    started = []

    def start(config):
        require(not any(t.state == "training" for t in started), f"{config.run_id}: one run at a time")
        started.append(FakeTraining(config))
        return started[-1]

    monkeypatch.setattr(background, "start", start)
    monkeypatch.setattr(trained, "SECONDS_BETWEEN_LOOKS", 0.001)
    return started


def test_a_panel_shows_its_progress_and_can_be_cancelled(study, fake):
    panel = explore.TrainedRuns(study)
    box, messages = panel.train_this, []
    move(panel, sigma=0.65)

    async def watch():
        assert (box.button.disabled, box.stop.disabled) == (True, False)
        messages.append(box.words.value)
        fake[0].rows = [{"weights": "network", "epoch": 1, "test_accuracy": 0.3}]
        fake[0].seconds_left = 7.2
        await asyncio.sleep(0.1)
        messages.append(box.words.value)
        box.train()  # although the button is disabled
        messages.append(box.words.value)
        box.stop.click()

    press(panel, watch)
    assert ">Starting: σ = 0.65" in messages[0]
    assert "epoch 1 of 3, about 7 s left" in messages[1]
    assert "one run at a time" in messages[2]
    assert ">Cancelled after epoch 1" in box.words.value
    assert (box.button.disabled, box.stop.disabled) == (False, True)
    assert box.picture.image.layout.visibility == "visible"


def test_a_failed_training_is_shown_in_the_panel(study, fake):
    panel = explore.TrainedRuns(study)
    move(panel, sigma=0.35)

    async def fail():
        fake[0].state, fake[0].problem = "failed", "another configuration"

    press(panel, fail)
    assert ">Failed: σ = 0.35" in panel.train_this.words.value
    assert "another configuration" in panel.train_this.words.value


def test_what_is_trained_already_is_shown_and_not_trained_again(study, monkeypatch):
    monkeypatch.setattr(background, "start", None)
    panel = explore.TrainedRuns(study)
    move(panel, sigma=0.0)
    assert panel.train_this.button.description == "Show this"
    panel.train_this.button.click()
    assert panel.sliders["sigma"].value == 0.0


def test_in_a_headless_notebook_nothing_is_trained(study, monkeypatch):
    monkeypatch.setenv("SLN_HEADLESS", "1")
    monkeypatch.setattr(background, "start", None)
    panel = explore.TrainedRuns(study)
    assert panel.train_this.button.disabled
    move(panel, sigma=0.65)
    panel.train_this.train()
    assert "nothing is trained" in panel.train_this.words.value


def test_large_data_sets_have_no_button(monkeypatch, tmp_path):
    monkeypatch.setenv("SLN_RUNS", str(tmp_path))
    assert not hasattr(explore.TrainedRuns(Study("mini")), "train_this")


def test_settings_that_a_page_offers_are_ones_that_a_run_can_have():
    study = Study("smoke")
    for mode in (*PROFILES["smoke"].noise_modes, "none"):
        for rate, sigma in zip(trained.RATES[:2], trained.SIGMAS[:2], strict=True):
            config = trained.configured(study, (mode, rate, sigma, trained.ALPHAS[0]))
            assert tuple(getattr(config, setting) for setting in trained.SETTINGS[:3]) == (mode, rate, sigma)


def test_a_headless_notebook_gets_epochs_that_were_measured(monkeypatch, smoke_study):
    monkeypatch.setenv("SLN_HEADLESS", "1")
    grid = smoke_study.grid("sym", [1.0])
    found = explore.trained_runs(smoke_study, grid, 1.0)
    epochs = [int(text) for text in found.kept["epoch"]]
    assert epochs[0] == 1
    assert epochs[-1] == grid[1.0].first.config.epochs
    assert "nan" not in found.words
