"""Explorers over trained runs, with a button that trains another; and the page of them all (`make app`).

Only what is pressed is trained, and nothing here waits for it: a process of its own trains
(`sln.runs.background`), and the page looks at it twice a second.
"""

from __future__ import annotations

import asyncio
import html
from collections.abc import Callable

import ipywidgets
import pandas as pd

from sln import plots, runs
from sln.analysis import results
from sln.config import NOISE_NAMES, Config
from sln.explore import sliders
from sln.explore.sliders import Picture
from sln.runs import background, store
from sln.runs.background import Training
from sln.runs.run import Run
from sln.study.study import Study
from sln.utils.errors import InputError, require
from sln.utils.files import figures_folder, project_root, read_table

KNOBS = ("noise_mode", "noise_rate", "sigma", "alpha")  # what tells the runs of one explorer apart
SECONDS_BETWEEN_LOOKS = 0.5
RATES = (0.0, 0.9, 0.05)
SIGMAS = (0.0, 3.0, 0.05)
ALPHAS = (0.9, 0.97, 0.98, 0.99, 0.995, 0.997)
NO_RUNS = (
    "Nothing is trained yet: press “Train this” below (it takes seconds), or run make reproduce in a "
    "terminal first (minutes), and open this page again."
)


def trained(study: Study) -> dict[tuple, Run]:
    """The finished runs of a study's first seed, by (noise_mode, noise_rate, sigma, alpha), in order."""
    found = {}
    for run in runs.finished():
        if run.config.dataset == study.dataset and run.config.seed == 0:
            key = tuple(getattr(run.config, setting) for setting in KNOBS)
            if run.config == configured(study, key):
                found[key] = run
    kinds = list(dict.fromkeys([*NOISE_NAMES, *(key[0] for key in found)]))
    return {key: found[key] for key in sorted(found, key=lambda key: (kinds.index(key[0]), *key[1:]))}


def called(noise_mode: str) -> str:
    """A kind of noise in words."""
    return NOISE_NAMES.get(noise_mode, noise_mode)


def configured(study: Study, key: tuple) -> Config:
    """The configuration of a study's first seed with these KNOBS, and else the study's."""
    return study.config(**dict(zip(KNOBS, key, strict=True)), seed=0)


def is_there(config: Config) -> bool:
    """Whether the run of `config` is finished; a look at its folder, without its checksums."""
    return (store.folder(config) / "done.json").exists()


class Trained(ipywidgets.VBox):
    """Sliders over the runs that there are, and over their epochs, above `views.at_epoch`.

    Kind of noise, rate, sigma and alpha offer what was trained, each given those above it. Below them is the
    button that trains another run of the digits (`TrainThis`), which is then offered too. `start` is the
    configuration that is shown first, if it is there.
    """

    def __init__(self, study: Study, start: Config | None = None) -> None:
        start = start or study.config()
        self.study, self.runs = study, trained(study)
        self.sliders = {setting: _empty(setting) for setting in KNOBS}
        epochs = start.epochs
        self.sliders["epoch"] = sliders.slider("epoch", epochs, (1, epochs, 1))
        self.picture = Picture("640px")
        explorer = ipywidgets.VBox([*self.sliders.values(), self.picture]).add_class(sliders.EXPLORER)
        super().__init__([explorer])
        if study.dataset == "digits":  # others take hours
            self.train_this = TrainThis(study, start, self.offer)
            self.children = (*self.children, self.train_this)
        for slider in self.sliders.values():
            slider.observe(self._moved, "value")
        self._fitting = False
        self.select(tuple(getattr(start, setting) for setting in KNOBS))

    def offer(self, config: Config) -> None:
        """Look again at what is trained, and show the run of `config`."""
        self.runs = trained(self.study)
        self.select(tuple(getattr(config, setting) for setting in KNOBS))

    def select(self, key: tuple) -> None:
        """Show the run of `key`, or the nearest to it that there is; redraws once."""
        if not self.runs:
            self.picture.say(NO_RUNS)
            return
        self._fitting = True
        matching = list(self.runs)
        for place, (setting, wanted) in enumerate(zip(KNOBS, key, strict=True)):
            values = list(dict.fromkeys(known[place] for known in matching))
            value = wanted if wanted in values else min(values, key=lambda v: _apart(v, wanted))
            _offer(self.sliders[setting], values, value)
            matching = [known for known in matching if known[place] == value]
        self._fitting = False
        self.redraw()

    def redraw(self) -> None:
        """Draw the run and the epoch that the sliders are at."""
        run = self.runs[self._key()]
        self.picture.show(lambda: plots.views.at_epoch(run, self.sliders["epoch"].value))

    def _key(self) -> tuple:
        return tuple(self.sliders[setting].value for setting in KNOBS)

    def _moved(self, change: object) -> None:
        if self._fitting or not self.runs:
            return
        self.select(self._key())


def _empty(setting: str) -> ipywidgets.SelectionSlider:
    """A slider of one value, to be filled by what is trained."""
    return sliders.slider(setting, "none yet", ["none yet"])


def _apart(value: object, wanted: object) -> float:
    """How far two values are apart: numbers by their difference, all else equally."""
    both = isinstance(value, float) and isinstance(wanted, float)
    return abs(value - wanted) if both else 0.0


def _offer(slider: ipywidgets.SelectionSlider, values: list, value: object) -> None:
    """Let a slider offer `values`, and stand at `value`; it cannot be moved where there is one only."""
    options = tuple((called(v) if isinstance(v, str) else f"{v:g}", v) for v in values)
    with slider.hold_sync():
        if slider.options != options:
            slider.options = options
        slider.value = value
        slider.disabled = len(values) == 1


class TrainThis(ipywidgets.VBox):
    """Sliders for a run that nobody trained yet, and the buttons that train it and cancel that.

    `offer(config)` is called when the run is there. One run at a time; the page stays usable, and shows the
    curves so far, the epoch and the time left. Where nobody watches (`SLN_HEADLESS`), nothing is trained.
    """

    def __init__(self, study: Study, start: Config, offer: Callable[[Config], None]) -> None:
        self.study, self.training, self._offer_run = study, None, offer
        self._drawn = 0  # history rows in the picture
        self._watching: asyncio.Task | None = None  # kept here, or it could be collected while it runs
        kinds = {NOISE_NAMES[mode]: mode for mode in (*study.profile.noise_modes, "none")}
        alphas = sorted({*ALPHAS, start.alpha})
        self.sliders = {
            "noise_mode": sliders.slider("noise_mode", start.noise_mode, kinds),
            "noise_rate": sliders.slider("noise_rate", start.noise_rate, RATES),
            "sigma": sliders.slider("sigma", start.sigma, SIGMAS),
            "alpha": sliders.slider("alpha", start.alpha, alphas),
        }
        self.button = ipywidgets.Button(description="Train this", icon="play", button_style="primary")
        self.stop = ipywidgets.Button(description="Cancel", icon="stop", disabled=True)
        self.words, self.picture = ipywidgets.HTML().add_class("sln-training"), Picture("370px")
        title = ipywidgets.HTML("<b>Train another</b>, saved like any other run")
        buttons = ipywidgets.HBox([self.button, self.stop])
        super().__init__([title, *self.sliders.values(), buttons, self.words, self.picture])
        self.add_class("sln-train-this")
        self.button.on_click(lambda _: self.press())
        self.stop.on_click(lambda _: self.cancel())
        for slider in self.sliders.values():
            slider.observe(lambda _: self._stand(), "value")
        self._stand()

    @property
    def config(self) -> Config:
        """The configuration that the sliders are at."""
        values = {setting: self.sliders[setting].value for setting in KNOBS}
        values |= {"sigma": round(values["sigma"], 6), "noise_rate": round(values["noise_rate"], 6)}
        return configured(self.study, tuple(values[setting] for setting in KNOBS))

    def press(self) -> None:
        """Train what the sliders are at, unless a run is being trained, or show it if it is there."""
        config = self.config
        if is_there(config):
            self._offer_run(config)
            return
        try:
            require(not sliders.headless(), "nothing is trained where nobody watches (SLN_HEADLESS)")
            self.training = background.start(config)
        except InputError as error:
            self._say(f"Not started: {error}")
            return
        self.button.disabled, self.stop.disabled, self._drawn = True, False, 0
        self._tell(self.training)
        self._watching = asyncio.get_running_loop().create_task(self.watch())

    def cancel(self) -> None:
        """End the training that was started here; started again, it goes on where it was."""
        if self.training is not None:
            self.training.cancel()

    async def watch(self) -> None:
        """Look at the training until it ends, showing how far it is."""
        training = self.training
        while training.look() == "training":
            self._tell(training)
            await asyncio.sleep(SECONDS_BETWEEN_LOOKS)
        self.stop.disabled = True
        self._draw(training)
        what = plots.views.named(training.config)
        if training.state == "done":
            self._offer_run(training.config)
        self._stand()
        if training.state == "done":
            self._say(f"Done: {what}. The sliders above have it now.")
        elif training.state == "cancelled":
            self._say(
                f"Cancelled after epoch {training.epoch}: {what}. Train this again, and it goes on there."
            )
        else:
            self._say(f"Failed: {what}: {training.problem}")

    def _stand(self) -> None:
        """Say what pressing the button would do."""
        if self.training is not None and self.training.state == "training":
            return
        config = self.config
        there = is_there(config)
        self.button.description = "Show this" if there else "Train this"
        self.button.disabled = sliders.headless()
        self._say(f"{plots.views.named(config)}: {'trained' if there else 'not trained yet'}.")

    def _tell(self, training: Training) -> None:
        what, left = plots.views.named(training.config), training.seconds_left
        if not training.rows:
            self._say(f"Starting: {what} …")
            return
        time_left = "" if left is None else f", about {left:.0f} s left"
        self._say(f"Training: {what}: epoch {training.epoch} of {training.config.epochs}{time_left}")
        self._draw(training)

    def _draw(self, training: Training) -> None:
        if len(training.rows) != self._drawn:
            self._drawn = len(training.rows)
            self.picture.show(lambda: plots.views.live_curves(training.config, training.rows))

    def _say(self, words: str) -> None:
        self.words.value = f'<span role="status">{html.escape(words)}</span>'


# --- the page (`app.ipynb`): each section, or in words what is missing --------------------------------------


def corrections(study: Study) -> ipywidgets.Widget:
    """The images that label correction moved, epoch by epoch, in the runs of a study's first seed."""
    losses = {"given": "clean rule", "as-released": "as released"}
    found = {
        f"{called(run.config.noise_mode)}, {losses[run.config.correction_losses]}": run
        for run in runs.finished()
        if run.config.dataset == study.dataset
        and run.config.corrects
        and run.config == _correcting(study, run.config)
    }
    if not found:
        return missing("No run with label correction is trained yet")
    first = next(iter(found.values()))
    epochs = first.corrected_epochs
    return sliders.explore(
        plots.views.moved_images,
        run=(first, found),
        epoch=(epochs[-1], epochs),
        count=(16, (8, 24, 8)),
        height="560px",
    )


def _correcting(study: Study, config: Config) -> Config:
    """The study's corrected run of the first seed with the noise and the rule of `config`."""
    return study.config(
        config.noise_mode,
        config.sigma,
        correction=study.profile.correction,
        correction_losses=config.correction_losses,
    )


def landscapes(study: Study) -> ipywidgets.Widget:
    """The loss around the minima, as notebook 4 saved it, in 3-D and at any radius."""
    table = saved(study, "04_landscape_of_the_paper")
    if table is None:
        return missing("No landscape is computed yet")
    surfaces = dict(list(table.groupby("method", sort=False)))
    radii = plots.landscape.radii(surfaces)
    return sliders.explore(
        plots.views.loss_views,
        surfaces,
        labels=("given", {name: column for column, name in plots.landscape.LOSSES.items()}),
        azimuth=(plots.landscape.AZIMUTH, (-180, 180, 10)),
        elevation=(plots.landscape.ELEVATION, (0, 88, 2)),
        radius=(radii[-1], radii),
    )


def results_by_noise(study: Study) -> ipywidgets.Widget:
    """The table of results, as notebook 5 saved it, one kind of noise at a time."""
    table = saved(study, "05_results")
    if table is None:
        return missing("No results are there yet")
    kinds = {NOISE_NAMES[noise]: noise for noise in dict.fromkeys(table["noise"])}
    return sliders.explore(
        plots.views.results_of, table, results.of_the_paper(), noise=(next(iter(kinds.values())), kinds)
    )


def saved(study: Study, name: str) -> pd.DataFrame | None:
    """A table that a notebook has saved at the study's profile, or the one that is committed; else None."""
    for folder in (figures_folder(study.name), project_root() / "figures" / study.name):
        if (folder / f"{name}.csv").exists():
            return read_table(folder / f"{name}.csv")
    return None


def missing(what: str) -> ipywidgets.Widget:
    """What is not there yet, and what to do."""
    return ipywidgets.HTML(f"{html.escape(what)}: run <code>make reproduce</code> in a terminal first.")
