"""Sliders over trained runs, with a button that trains another in a process of its own."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Callable, Mapping

import ipywidgets

from sln import runs
from sln.config import EMBEDDED, NOISE_NAMES, Config
from sln.explore import widgets
from sln.explore.player import Player
from sln.plots import Figure
from sln.plots import training as pictures
from sln.runs import background, store
from sln.runs.run import Run
from sln.study.statistics import MethodRuns
from sln.study.study import Study
from sln.utils.errors import InputError, require
from sln.utils.progress import headless

SETTINGS = ("noise_mode", "noise_rate", "sigma", "alpha")  # in which the runs of one explorer differ
SECONDS_BETWEEN_LOOKS = 0.5
RATES, SIGMAS = (0.0, 0.9, 0.05), (0.0, 3.0, 0.05)
ALPHAS = (0.9, 0.97, 0.98, 0.99, 0.995, 0.997)
NO_RUNS = "Nothing is trained yet: press “Train this” below (it takes seconds), or run make reproduce in a "
NO_RUNS += "terminal first (minutes), and open this page again."


def trained(study: Study) -> dict[tuple, Run]:
    """The finished runs of a study's first seed by their SETTINGS, sorted."""
    dataset = study.dataset
    same = (run for run in runs.finished() if run.config.dataset == dataset and run.config.seed == 0)
    found = {key_of(run.config): run for run in same if run.config == configured(study, key_of(run.config))}
    kinds = list(dict.fromkeys([*NOISE_NAMES, *(key[0] for key in found)]))
    return {key: found[key] for key in sorted(found, key=lambda key: (kinds.index(key[0]), *key[1:]))}


def key_of(config: Config) -> tuple:
    """The SETTINGS of a configuration."""
    return tuple(getattr(config, name) for name in SETTINGS)


def configured(study: Study, key: tuple) -> Config:
    """The configuration of a study's first seed with these SETTINGS."""
    return study.config(**dict(zip(SETTINGS, key, strict=True)), seed=0)


def is_trained(config: Config) -> bool:
    """Whether the run of `config` is finished; its checksums are not read."""
    return (store.folder(config) / "done.json").exists()


def written() -> list[int]:
    """When runs were finished, in nanoseconds."""
    return sorted(path.stat().st_mtime_ns for path in runs.runs_folder().glob("[!.]*/done.json"))


class TrainedRuns(widgets.Shown):
    """Sliders over the trained runs and their epochs, above `plots.training.at_epoch`.

    The slider of each of the SETTINGS offers what was trained with the values above it; `TrainThis` below
    trains another run of the digits, which they then offer too. `start` is shown first, if it is trained.
    """

    def __init__(self, study: Study, start: Config | None = None) -> None:
        start = start or study.config()
        self.study, self.start, self._updating, self.runs, self._seen = study, start, False, {}, []
        self.sliders = {name: widgets.slider(name, "none yet", ["none yet"]) for name in SETTINGS}
        self.sliders["epoch"] = widgets.slider("epoch", start.epochs, (1, start.epochs, 1))
        explorer = widgets.Panel(self.sliders, "200px")
        self.picture = explorer.picture
        # pressed by panel.js when a page is opened, whose kernel may have been ready since before a training
        self.opened = ipywidgets.Button(layout={"display": "none"}).add_class("sln-opened")
        self.opened.on_click(lambda _: self._look_again())
        super().__init__([explorer, self.opened])
        if study.dataset in EMBEDDED:  # others take hours
            self.train_this = TrainThis(study, start, self.show_run)
            self.children = (explorer, self.opened, self.train_this)
        for slider in self.sliders.values():
            slider.observe(self._moved, "value")
        widgets.soon(lambda: self.show_run(start))

    def show_run(self, config: Config) -> None:
        """Look again for trained runs, and show the one whose SETTINGS are nearest to those of `config`."""
        self.runs, self._seen = trained(self.study), written()
        self._show_nearest(key_of(config))

    def _look_again(self) -> None:
        """`show_run` with the values of the sliders, if runs were trained since the last look."""
        if written() != self._seen:
            shown = [self.sliders[name].value for name in SETTINGS]
            self.show_run(configured(self.study, tuple(shown)) if self.runs else self.start)
            if hasattr(self, "train_this"):
                self.train_this.update_button()

    def _moved(self, change: object) -> None:
        if not self._updating:
            self._show_nearest(tuple(self.sliders[name].value for name in SETTINGS))

    def _show_nearest(self, wanted: tuple) -> None:
        """Draw once, whichever sliders follow."""
        if not self.runs:
            self.picture.words.value = NO_RUNS
            return
        self._updating, matching = True, list(self.runs)
        for place, name in enumerate(SETTINGS):
            values = list(dict.fromkeys(key[place] for key in matching))
            value = nearest(values, wanted[place])
            options = tuple((NOISE_NAMES.get(v, v) if isinstance(v, str) else f"{v:g}", v) for v in values)
            slider = self.sliders[name]
            with slider.hold_sync():
                if slider.options != options:  # setting them moves the slider
                    slider.options = options
                slider.value, slider.disabled = value, len(values) == 1
            matching = [key for key in matching if key[place] == value]
        self._updating = False
        self.picture.show(lambda: pictures.at_epoch(self.runs[matching[0]], self.sliders["epoch"].value))


def trained_runs(study: Study, grid: Mapping[float, MethodRuns], sigma: float) -> TrainedRuns | Player:
    """`TrainedRuns`, of `grid` at first; in a notebook that `reproduce` executes, a Player over `grid`."""
    if not headless():
        return TrainedRuns(study, grid[sigma].first.config)

    def at_epoch(sigma: float, epoch: int) -> Figure:
        return pictures.at_epoch(grid[sigma].first, epoch)

    last = grid[sigma].first.config.epochs
    epochs = sorted({1, *range(last, 0, -max(1, last // 5))})  # nothing is measured before the first
    return widgets.play(at_epoch, sigma=(sigma, list(grid)), epoch=(last, epochs))


def nearest(values: list, wanted: object) -> object:
    """The value nearest to `wanted`: of numbers by difference, of names the same one or the first."""
    if isinstance(wanted, str):
        return wanted if wanted in values else values[0]
    return min(values, key=lambda value: abs(value - wanted))


class TrainThis(widgets.Shown):
    """Sliders for any run, and the buttons that train it and cancel that.

    `show_run(config)` is called when the run is finished. One run trains at a time, and the page stays
    usable; a cancelled run goes on from its last checkpoint. With `SLN_HEADLESS` nothing is trained.
    """

    def __init__(self, study: Study, start: Config, show_run: Callable[[Config], None]) -> None:
        self.study, self.training, self._show_run, self._rows_drawn = study, None, show_run, 0
        self._watching: asyncio.Task | None = None  # a reference, so that it is not garbage-collected
        kinds = {NOISE_NAMES[mode]: mode for mode in (*study.profile.noise_modes, "none")}
        controls = (kinds, RATES, SIGMAS, sorted({*ALPHAS, start.alpha}))
        sliders = map(widgets.slider, SETTINGS, key_of(start), controls)
        self.sliders = dict(zip(SETTINGS, sliders, strict=True))
        self.button = ipywidgets.Button(description="Train this", button_style="primary")
        self.stop = ipywidgets.Button(description="Cancel", disabled=True)
        self.words, self.picture = ipywidgets.HTML().add_class("sln-training"), widgets.Picture("0")
        title = ipywidgets.HTML("<b>Train another</b>, saved like any other run")
        buttons = ipywidgets.HBox([self.button, self.stop])
        controls = ipywidgets.VBox([title, *self.sliders.values(), buttons, self.words])
        super().__init__([controls, self.picture])
        self.add_class("sln-train-this")
        self.button.on_click(lambda _: self.train())
        self.stop.on_click(lambda _: self.training.cancel())
        for slider in self.sliders.values():
            slider.observe(lambda _: self.update_button(), "value")
        self.update_button()

    def _config(self) -> Config:
        values = (self.sliders[name].value for name in SETTINGS)
        key = tuple(round(value, 6) if isinstance(value, float) else value for value in values)
        return configured(self.study, key)

    def train(self) -> None:
        """Train the sliders' run unless another is being trained, or show it if it is trained."""
        config = self._config()
        if is_trained(config):
            self._show_run(config)
            return
        try:
            require(not widgets.headless(), "nothing is trained with SLN_HEADLESS; use make lab")
            self.training = background.start(config)
        except InputError as error:
            self._show_message(f"Not started: {error}")
            return
        self.button.disabled, self.stop.disabled, self._rows_drawn = True, False, 0
        self._show_progress()
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        training = self.training
        while training.look() == "training":
            self._show_progress()
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        self.stop.disabled = True
        self._show_progress()
        if training.state == "done":
            self._show_run(training.config)
        self.update_button()
        what = pictures.describe(training.config)
        messages = {
            "done": f"Done: {what}. The sliders above have it now.",
            "cancelled": f"Cancelled after epoch {training.epoch}: {what}. “Train this” continues there.",
        }
        self._show_message(messages.get(training.state, f"Failed: {what}: {training.problem}"))

    def update_button(self) -> None:
        """Show whether the sliders' run is trained, unless one is being trained."""
        if self.training is not None and self.training.state == "training":
            return
        config = self._config()
        there = is_trained(config)
        self.button.description = "Show this" if there else "Train this"
        self.button.disabled = widgets.headless()
        self._show_message(f"{pictures.describe(config)}: {'trained' if there else 'not trained yet'}.")

    def _show_progress(self) -> None:
        training, config, left = self.training, self.training.config, self.training.seconds_left
        what, time_left = pictures.describe(config), "" if left is None else f", about {left:.0f} s left"
        progress = f"Training: {what}: epoch {training.epoch} of {config.epochs}{time_left}"
        self._show_message(progress if training.rows else f"Starting: {what} …")
        if len(training.rows) != self._rows_drawn:
            self._rows_drawn = len(training.rows)
            self.picture.show(lambda: pictures.live_curves(config, training.rows))

    def _show_message(self, words: str) -> None:
        self.words.value = f'<span role="status">{html.escape(words)}</span>'
