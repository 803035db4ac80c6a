"""Sliders over trained runs, with a button that trains another.

Only the run that is asked for is trained, by a process of its own (`sln.runs.background`), and the page looks
at it twice a second.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Callable

import ipywidgets

from sln import runs
from sln.config import EMBEDDED, NOISE_NAMES, Config
from sln.explore import widgets
from sln.explore.widgets import Picture
from sln.plots import training as pictures
from sln.runs import background, store
from sln.runs.background import Training
from sln.runs.run import Run
from sln.study.study import Study
from sln.utils.errors import InputError, require

SETTINGS = ("noise_mode", "noise_rate", "sigma", "alpha")  # in which the runs of one explorer differ
SECONDS_BETWEEN_LOOKS = 0.5
RATES = (0.0, 0.9, 0.05)
SIGMAS = (0.0, 3.0, 0.05)
ALPHAS = (0.9, 0.97, 0.98, 0.99, 0.995, 0.997)
NO_RUNS = (
    "Nothing is trained yet: press “Train this” below (it takes seconds), or run make reproduce in a "
    "terminal first (minutes), and open this page again."
)


def trained(study: Study) -> dict[tuple, Run]:
    """The finished runs of a study's first seed by their SETTINGS, sorted."""
    found = {}
    for run in runs.finished():
        if run.config.dataset == study.dataset and run.config.seed == 0:
            key = key_of(run.config)
            if run.config == configured(study, key):
                found[key] = run
    kinds = list(dict.fromkeys([*NOISE_NAMES, *(key[0] for key in found)]))
    return {key: found[key] for key in sorted(found, key=lambda key: (kinds.index(key[0]), *key[1:]))}


def key_of(config: Config) -> tuple:
    """The SETTINGS of a configuration."""
    return tuple(getattr(config, name) for name in SETTINGS)


def configured(study: Study, key: tuple) -> Config:
    """The configuration of a study's first seed with these SETTINGS."""
    return study.config(**dict(zip(SETTINGS, key, strict=True)), seed=0)


def noise_name(noise_mode: str) -> str:
    """A kind of noise in words."""
    return NOISE_NAMES.get(noise_mode, noise_mode)


def is_trained(config: Config) -> bool:
    """Whether the run of `config` is finished; its checksums are not read."""
    return (store.folder(config) / "done.json").exists()


class TrainedRuns(ipywidgets.VBox):
    """Sliders over the trained runs and their epochs, above `plots.training.at_epoch`.

    The slider of each of the SETTINGS offers what was trained with the values above it. The button below
    trains another run of the digits (`TrainThis`), which the sliders then offer too. `start` is shown first,
    if it is trained.
    """

    def __init__(self, study: Study, start: Config | None = None) -> None:
        start = start or study.config()
        self.study, self.runs = study, trained(study)
        self.sliders = {name: widgets.slider(name, "none yet", ["none yet"]) for name in SETTINGS}
        self.sliders["epoch"] = widgets.slider("epoch", start.epochs, (1, start.epochs, 1))
        self.picture = Picture("640px")
        explorer = ipywidgets.VBox([*self.sliders.values(), self.picture]).add_class(widgets.EXPLORER)
        super().__init__([explorer])
        if study.dataset in EMBEDDED:  # others take hours
            self.train_this = TrainThis(study, start, self.show_run)
            self.children = (*self.children, self.train_this)
        for slider in self.sliders.values():
            slider.observe(self._moved, "value")
        self._updating = False
        self.snap_to_trained_run(key_of(start))

    def show_run(self, config: Config) -> None:
        """Look again for trained runs, and show the run of `config`."""
        self.runs = trained(self.study)
        self.snap_to_trained_run(key_of(config))

    def snap_to_trained_run(self, key: tuple) -> None:
        """Show the trained run whose SETTINGS are nearest to `key`; redraws once."""
        if not self.runs:
            self.picture.show_words(NO_RUNS)
            return
        self._updating = True
        matching = list(self.runs)
        for place, (name, wanted) in enumerate(zip(SETTINGS, key, strict=True)):
            values = list(dict.fromkeys(known[place] for known in matching))
            value = nearest(values, wanted)
            _offer(self.sliders[name], values, value)
            matching = [known for known in matching if known[place] == value]
        self._updating = False
        self.redraw()

    def redraw(self) -> None:
        """Draw the run and the epoch of the sliders."""
        run = self.runs[self._key()]
        self.picture.show(lambda: pictures.at_epoch(run, self.sliders["epoch"].value))

    def _key(self) -> tuple:
        return tuple(self.sliders[name].value for name in SETTINGS)

    def _moved(self, change: object) -> None:
        if not self._updating and self.runs:
            self.snap_to_trained_run(self._key())


def nearest(values: list, wanted: object) -> object:
    """The value nearest to `wanted`: of numbers by difference, of names the same one or the first."""
    if wanted in values or not isinstance(wanted, float):
        return wanted if wanted in values else values[0]
    return min(values, key=lambda value: abs(value - wanted))


def _offer(slider: ipywidgets.SelectionSlider, values: list, value: object) -> None:
    """Let a slider offer `values` and stand at `value`; a single value disables it."""
    options = tuple((noise_name(v) if isinstance(v, str) else f"{v:g}", v) for v in values)
    with slider.hold_sync():
        if slider.options != options:
            slider.options = options
        slider.value = value
        slider.disabled = len(values) == 1


class TrainThis(ipywidgets.VBox):
    """Sliders for any run, and the buttons that train it and cancel that.

    `show_run(config)` is called when the run is finished. One run trains at a time. The page stays usable and
    shows the curves so far, the epoch and the time left. With `SLN_HEADLESS` nothing is trained.
    """

    def __init__(self, study: Study, start: Config, show_run: Callable[[Config], None]) -> None:
        self.study, self.training, self._show_run = study, None, show_run
        self._rows_drawn = 0
        self._watching: asyncio.Task | None = None  # a reference, so that it is not garbage-collected
        kinds = {NOISE_NAMES[mode]: mode for mode in (*study.profile.noise_modes, "none")}
        controls = (kinds, RATES, SIGMAS, sorted({*ALPHAS, start.alpha}))
        self.sliders = {
            name: widgets.slider(name, getattr(start, name), control)
            for name, control in zip(SETTINGS, controls, strict=True)
        }
        self.button = ipywidgets.Button(description="Train this", icon="play", button_style="primary")
        self.stop = ipywidgets.Button(description="Cancel", icon="stop", disabled=True)
        self.words, self.picture = ipywidgets.HTML().add_class("sln-training"), Picture("370px")
        title = ipywidgets.HTML("<b>Train another</b>, saved like any other run")
        buttons = ipywidgets.HBox([self.button, self.stop])
        super().__init__([title, *self.sliders.values(), buttons, self.words, self.picture])
        self.add_class("sln-train-this")
        self.button.on_click(lambda _: self.train())
        self.stop.on_click(lambda _: self.cancel())
        for slider in self.sliders.values():
            slider.observe(lambda _: self.update_button(), "value")
        self.update_button()

    @property
    def config(self) -> Config:
        """The configuration of the sliders."""
        values = (self.sliders[name].value for name in SETTINGS)
        key = tuple(round(value, 6) if isinstance(value, float) else value for value in values)
        return configured(self.study, key)

    def train(self) -> None:
        """Train the sliders' run unless another is being trained, or show it if it is trained."""
        config = self.config
        if is_trained(config):
            self._show_run(config)
            return
        try:
            require(not widgets.headless(), "nothing is trained with SLN_HEADLESS; use make lab")
            self.training = background.start(config)
        except InputError as error:
            self.show_message(f"Not started: {error}")
            return
        self.button.disabled, self.stop.disabled, self._rows_drawn = True, False, 0
        self.show_progress()
        self._watching = asyncio.get_running_loop().create_task(self.watch())

    def cancel(self) -> None:
        """End the training; started again, it goes on from its last checkpoint."""
        if self.training is not None:
            self.training.cancel()

    async def watch(self) -> None:
        """Show the progress until the training ends, and then its result."""
        training = self.training
        while training.look() == "training":
            self.show_progress()
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        self.stop.disabled = True
        self._draw(training)
        if training.state == "done":
            self._show_run(training.config)
        self.update_button()
        what = pictures.describe(training.config)
        messages = {
            "done": f"Done: {what}. The sliders above have it now.",
            "cancelled": f"Cancelled after epoch {training.epoch}: {what}. “Train this” continues there.",
        }
        self.show_message(messages.get(training.state, f"Failed: {what}: {training.problem}"))

    def update_button(self) -> None:
        """Label the button with what it does now."""
        if self.training is not None and self.training.state == "training":
            return
        config, there = self.config, is_trained(self.config)
        self.button.description = "Show this" if there else "Train this"
        self.button.disabled = widgets.headless()
        self.show_message(f"{pictures.describe(config)}: {'trained' if there else 'not trained yet'}.")

    def show_progress(self) -> None:
        """The epoch, the time left and the curves so far."""
        training, left = self.training, self.training.seconds_left
        what = pictures.describe(training.config)
        if not training.rows:
            self.show_message(f"Starting: {what} …")
            return
        time_left = "" if left is None else f", about {left:.0f} s left"
        self.show_message(f"Training: {what}: epoch {training.epoch} of {training.config.epochs}{time_left}")
        self._draw(training)

    def _draw(self, training: Training) -> None:
        if len(training.rows) != self._rows_drawn:
            self._rows_drawn = len(training.rows)
            self.picture.show(lambda: pictures.live_curves(training.config, training.rows))

    def show_message(self, words: str) -> None:
        """Words between the buttons and the picture."""
        self.words.value = f'<span role="status">{html.escape(words)}</span>'
