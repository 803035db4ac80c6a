"""A visit of two commands to a borrowed GPU: measure, then train what the paper's table needs most.

There, one right after the other, on a machine with PyTorch where neither `sln` nor a network is needed:

    python benchmarks/gpu_visit.py --call 1 --out OUT [--released FOLDER]
    SLN_DATA=... python benchmarks/gpu_visit.py --call 2 --out OUT [--continue PARCEL]

Before and after, at home:

    python benchmarks/gpu_visit.py --plan [--carry FOLDER ...]   the time table, what is trained, what travels
    python benchmarks/gpu_visit.py --take-home OUT               finished runs into runs/, figures/PROFILE/

Call 1 needs no data: it checks the fast path against the plain loop, measures every speed, and sets the
released code (FOLDER) beside ours. Call 2 trains the profile's runs in the order of `families`, as many as
fit at once, with thinned test passes, and packs a parcel. It goes on from an earlier visit's PARCEL. Each
call ends by itself within its time table; a stage that fails or is late is named, and the next one goes on.
A speed that fails its checks, or whose graphs cannot be captured, gives way to the next slower one.

OUT is complete at any time: log.txt, manifest.json, the tables of call 1 or history.csv (a row per epoch and
weights, as it is trained), and parcel.00, ... (`parcel`). WORK, a temporary folder by default, is what the
calls share. OUT may be emptied between them.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import measuring  # noqa: F401  which makes sln importable
import parcel
import torch

from sln import analysis, plots, runs
from sln.analysis import results
from sln.config import Config
from sln.runs import one_gpu, store
from sln.study.statistics import MethodRuns
from sln.study.study import Study
from sln.train import Epoch
from sln.utils import files
from sln.utils.devices import device
from sln.utils.errors import InputError, require
from sln.utils.graphs import CaptureFailed
from sln.utils.speeds import SPEEDS, chosen

HERE = Path(__file__).resolve().parent
WORK = Path(tempfile.gettempdir()) / "sln-visit"
TRAVELS = 64 * 2**20  # bytes that one call may send there
# seconds since its call's start by which a stage has ended; what one leaves, the next has
CALL_1 = {"checks": 100, "released": 160, "speeds": 200}
CALL_2 = {"train": 375, "parcel": 400}
PACKING = CALL_2["parcel"] - CALL_2["train"]
LOADING = 20  # seconds until call 2's first step: data, capture, compiled code from call 1
# seconds per epoch and run of the paper's network at compiled with 2 runs at once, as measured on an H100
SECONDS_PER_EPOCH = 1.0
SPARE = 0.92  # share of the training time that the plan counts on
TEST_EVERY = 5  # epochs
AT_ONCE = 3  # runs
CHECKPOINT = 30.0  # seconds between checkpoints of a run
STUCK = 60  # seconds without an epoch, after the first: the GPU hangs, and another process goes on
FAILED_CAPTURE = 3  # exit code of a training process


# --- what is trained, in which order ------------------------------------------------------------------------


def families(study: Study) -> Iterator[list[Config]]:
    """Runs that belong together, most wanted first: a run, and the corrected run that forks from it.

    Seed 0 of the first kind of noise: SLN with its correction, CE, then the variants of SGD noise that the
    landscape figure needs; the other kinds; then all again with further seeds.
    """
    for seed in study.seeds:
        for noise_mode in study.profile.noise_modes:
            arms = study.arms(noise_mode)
            yield [arms["SLN"].configs[seed], arms["SLN-MO-LC"].configs[seed]]
            yield [arms["CE"].configs[seed]]
            if seed == 0 and noise_mode == study.profile.noise_modes[0]:
                matched = study.matched(noise_mode)
                yield from ([matched[name].configs[0]] for name in ("logit noise", "gradient noise"))


def missing(study: Study) -> list[list[Config]]:
    """The families that are not finished here, without what data are not here for."""
    found = []
    for family in families(study):
        try:
            left = [thinned(config) for config in family if runs.find(config) is None]
        except InputError as error:
            print(f"left out: {family[0].run_id}: {error}", flush=True)
            continue
        if left:
            found.append(left)
    return found


def thinned(config: Config) -> Config:
    """The same run with test passes every few epochs: the paper's recipe does not depend on them."""
    return config.replace(measure_test_every=TEST_EVERY)


def epochs_left(family: list[Config]) -> int:
    """Epochs that a family still needs: from its checkpoints, and a corrected run from its fork."""
    total = 0
    for config in family:
        done = 0
        with contextlib.suppress(InputError):
            done = int(store.read_history(store.folder(config))["epoch"].max())
        parents = {one.run_id for one in family} | {run.folder.name for run in runs.finished()}
        forks = config.corrects and config.uncorrected.run_id in parents
        total += config.epochs - max(done, config.correction if forks else 0)
    return total


def groups(wanted: list[list[Config]], seconds: float, per_epoch: float) -> tuple[list[Config], list[Config]]:
    """The families that can be finished in the time, most wanted first and at least one, and all others.

    The others are trained with what time is left, and go on at another visit.
    """
    budget, fit = SPARE * seconds / per_epoch, 0
    while fit < len(wanted) and ((budget := budget - epochs_left(wanted[fit])) >= 0 or fit == 0):
        fit += 1
    first, rest = ([config for family in part for config in family] for part in (wanted[:fit], wanted[fit:]))
    return first, rest


# --- the stage that trains, a process of its own ------------------------------------------------------------


def train(study: Study, until: float, per_epoch: float, history: Path, at_once: int = AT_ONCE) -> None:
    """Train both groups until `until` (time.monotonic), then leave every run at a whole epoch."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))

    def row(config: Config, epoch: Epoch) -> None:
        for numbers in epoch.rows:
            parcel.write_row(history, {"run": config.run_id, **numbers}, quiet=True)

    def stop() -> bool:
        return bool(stopped) or time.monotonic() > until

    for group in groups(missing(study), until - time.monotonic() - LOADING, per_epoch):
        if stop():
            return
        failed = []
        for config, error in one_gpu.train(
            group,
            at_once,
            keep_state_at=study.profile.correction,
            checkpoint_seconds=CHECKPOINT,
            stop=stop,
            on_epoch=row,
        ):
            print(f"{config.run_id}: {error or 'finished'}", flush=True)
            begun = (store.folder(config) / "config.json").exists()  # else its data are missing
            if error and begun and not isinstance(error, runs.Stopped):
                failed.append(error)
        if failed:
            raise failed[0]


# --- a call -------------------------------------------------------------------------------------------------


@dataclass
class Call:
    """One command of a visit: its stages, one after another, each a process that ends by its time."""

    out: Path
    work: Path
    start: float
    seconds: dict[str, float]
    said: dict[str, str]

    def run(
        self, name: str, by: float, *command: str, grows: Path | None = None, **environment: str
    ) -> int | None:
        """Run a stage until it ends, or `by` seconds after the start of the call; its exit code.

        None: it was late. It is asked to end, and killed five seconds later.
        grows : a file that it adds to; if that stops for STUCK seconds, the stage is ended and has failed
        """
        begun, here = time.monotonic(), str(HERE.parent)
        path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"} | environment
        with (self.out / "log.txt").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, *command], stdout=log, stderr=subprocess.STDOUT, env=environment
            )
            code, what = self._ended(process, by, grows)
        self.note(name, what, begun)
        return code

    def _ended(self, process: subprocess.Popen, by: float, grows: Path | None) -> tuple[int | None, str]:
        last, begun = time.monotonic() + 1e9, time.time()  # when a row came, once there is one
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout=0.5)
                return code, f"failed with exit code {code}" if code else "done"
            if grows and grows.exists() and grows.stat().st_mtime > begun:
                begun, last = grows.stat().st_mtime, time.monotonic()
            now = time.monotonic()
            if now > max(self.start + by, self.start + 1) or now - last > STUCK:
                break
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return (-1, "stuck") if now - last > STUCK else (None, "late")

    def note(self, name: str, what: str, begun: float) -> None:
        """Print how a stage went, and write the manifest."""
        self.seconds[name], self.said[name] = round(time.monotonic() - begun, 1), what
        print(f"{name}: {what} ({self.seconds[name]} s)", flush=True)
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
        manifest = {"gpu": gpu, **store.versions(), "seconds": self.seconds, "stages": self.said}
        files.write_json(self.out / "manifest.json", manifest)


def call_1(call: Call, options: argparse.Namespace) -> None:
    """Checks, speeds, and the released code beside ours."""
    by = {name: end * options.seconds / max(CALL_1.values()) for name, end in CALL_1.items()}
    small = ["--small"] if options.small else []
    checked = ["--speeds", "bfloat16", *small] if options.small else []  # compiled compiles for a minute
    table = {name: str(call.out / f"{name}.csv") for name in CALL_1}
    scripts = {name: str(HERE / f"{name}.py") for name in ("gpu_checks", "speeds", "released")}
    call.run("checks", by["checks"], scripts["gpu_checks"], "--out", table["checks"], *checked)
    if Path(table["checks"]).exists():
        shutil.copy2(table["checks"], call.work)  # for call 2, which finds OUT empty
    if options.released:
        call.run(
            "released",
            by["released"],
            *(scripts["released"], "--code", str(options.released), "--noise", "--out", table["released"]),
            *("--images", "6400", "--tests", "1280", "--rounds", "2", "--speeds", sound_speeds(call.work)[0]),
        )
    more = ["--rounds", "1" if options.small else "3", "--kernels", str(call.out / "kernels.txt"), *small]
    more += ["--speeds", "reference", "bfloat16"] if options.small else ["--at-once", "2", "3", "4", "6"]
    call.run("speeds", by["speeds"], scripts["speeds"], "--out", table["speeds"], *more)
    if Path(table["speeds"]).exists():
        shutil.copy2(table["speeds"], call.work)


def call_2(call: Call, options: argparse.Namespace) -> None:
    """Training at the fastest speed that is sound, and the parcel."""
    os.environ["SLN_RUNS"] = str(call.work / "runs")
    study = Study(options.profile, guesses=True)
    if options.continued:
        print(f"continued: {', '.join(parcel.unpack(options.continued, files.runs_folder()))}", flush=True)
    seconds = options.seconds - PACKING
    rows = call.out / "history.csv"
    # where runs at once fail, one after another; where that fails, more slowly
    for speed, at_once in itertools.product(sound_speeds(call.work), (AT_ONCE, 1)):
        stage = ["--stage", "train", "--profile", options.profile, "--out", str(call.out)]
        stage += ["--until", str(call.start + seconds), "--work", str(call.work), "--at-once", str(at_once)]
        script, name = str(HERE / "gpu_visit.py"), f"train at {speed}, {at_once} at once"
        if call.run(name, seconds + 5, script, *stage, grows=rows, SLN_SPEED=speed) in (0, None):
            break
    begun = time.monotonic()
    wanted = [config for family in families(study) for config in family]
    waiting = [c for c in wanted if c.corrects and not store.folder(c).exists()]
    left_out = parcel.pack(
        files.runs_folder(),
        call.out,
        [config.run_id for config in wanted],
        [config.uncorrected.run_id for config in waiting[:1]],
    )
    call.note("parcel", f"without {', '.join(left_out)}" if left_out else "done", begun)


def sound_speeds(work: Path) -> list[str]:
    """The speeds to try, the fastest first: those that passed their checks, where call 1 made them."""
    names = list(SPEEDS)
    names = names[names.index(chosen(device())) :: -1]
    if (work / "checks.csv").exists():
        checks = files.read_table(work / "checks.csv")
        passed = checks.groupby(checks["check"].str.partition(":")[0])["passed"].all()
        names = [name for name in names if passed.get(name, False) or name == "reference"]
    return names


def seconds_per_epoch(work: Path) -> float:
    """Of a run, at the best speed and AT_ONCE runs: as call 1 measured it here, else the estimate."""
    try:
        table = files.read_table(work / "speeds.csv")
    except OSError:
        return SECONDS_PER_EPOCH
    measured = table[(table["what"] == "run-epochs") & (table["at_once"] <= AT_ONCE)]
    return float(1 / measured["value"].max()) if len(measured) else SECONDS_PER_EPOCH


# --- at home ------------------------------------------------------------------------------------------------


def plan(options: argparse.Namespace) -> None:
    """Print the time table, what is trained, and what travels."""
    study, per_epoch = Study(options.profile, guesses=True), seconds_per_epoch(options.work)
    print(f"call 1: {', '.join(f'{name} until {by} s' for name, by in CALL_1.items())}")
    print(f"call 2: {', '.join(f'{name} until {by} s' for name, by in CALL_2.items())}")
    print(f"in all {max(CALL_1.values()) + max(CALL_2.values())} s")
    first, rest = groups(missing(study), CALL_2["train"] - LOADING, per_epoch)
    print(f"at {per_epoch:g} s per epoch and run, {AT_ONCE} runs at once:")
    for config in first:
        print(f"  finished: {config.run_id}")
    for config in rest[:AT_ONCE]:
        print(f"  then, as far as time goes: {config.run_id}")
    print(f"  later: {max(0, len(rest) - AT_ONCE)} more runs")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=HERE.parent, capture_output=True, check=True)
    tracked = [HERE.parent / name for name in listed.stdout.decode().split("\0") if name]
    code = sum(path.stat().st_size for path in tracked if path.is_file() and "figures" not in path.parts)
    for folder in options.carry or [None]:
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder else 0
        what = f"the code without figures/ and {folder}" if folder else "the code without figures/"
        print(f"{what}: {(code + size) / 2**20:.1f} of {TRAVELS / 2**20:.0f} MiB")
        require(code + size <= TRAVELS, f"{folder} is too large to travel with the code; split it")


def take_home(folder: Path, profile: str) -> None:
    """Finished runs of a parcel into runs/, and the figures that they make into figures/PROFILE/."""
    with tempfile.TemporaryDirectory() as temporary:
        names = parcel.unpack(folder, Path(temporary))
        for name in names:
            source, target = Path(temporary) / name, files.runs_folder() / name
            if not (source / "done.json").exists():
                epoch = (
                    int(store.read_history(source)["epoch"].max()) if (source / "history.csv").exists() else 0
                )
                print(f"unfinished, at epoch {epoch}: {name}; --continue {folder} trains it on")
            elif target.exists():
                print(f"there already: {name}")
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(source, target.with_name(f".{name}"), dirs_exist_ok=True)
                target.with_name(f".{name}").rename(target)
                print(f"taken home: {name}")
    draw(Study(profile, guesses=True), files.read_json(folder / "manifest.json"))


def draw(study: Study, manifest: dict) -> None:
    """Figures of the profile's runs that are here, under the names of the notebooks; the visit's manifest."""
    table = results.of_the_recipes()
    if table["seeds"].any():
        figure = plots.results.beside_published(table, analysis.results.published())
        shows = "Each ring is a test accuracy that the paper published, each filled mark one of this study."
        study.save(figure, table, "06_beside_the_paper", shows)
    arms = study.arms(study.profile.noise_modes[0]) | study.matched(study.profile.noise_modes[0])
    found = {name: (runs.find(arm.configs[0]), arm.weights) for name, arm in arms.items()}
    readings = {name: MethodRuns(name, [run], weights) for name, (run, weights) in found.items() if run}
    if readings:
        curves = analysis.curves(readings, list(plots.training.LEARNING))
        figure = plots.training.curves(curves, heading="40% symmetric noise, seed 0")
        shows = "The panels show right labels learnt, wrong labels memorised and test accuracy over epochs."
        study.save(figure, curves, "02_curves", shows)
    path = files.figures_folder(study.name) / "manifest.json"
    visits = files.read_json(path).get("visits", []) if path.exists() else []
    if manifest not in visits:
        files.write_json(path, {"profile": study.name, "visits": [*visits, manifest]})
    print(f"written: {', '.join(sorted(file.name for file in path.parent.iterdir()))} in {path.parent}")


def main() -> None:
    """A call, its training stage, or what comes before and after."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--call", type=int, choices=(1, 2), help="the first or second command of a visit")
    what.add_argument("--plan", action="store_true", help="print the time table and what travels")
    what.add_argument("--take-home", type=Path, metavar="OUT", help="put a parcel's runs into runs/")
    what.add_argument("--stage", choices=("train",), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="what comes back")
    parser.add_argument("--work", type=Path, default=WORK, help=f"what the calls share (default {WORK})")
    parser.add_argument("--profile", default="cifar10")
    parser.add_argument("--released", type=Path, metavar="FOLDER", help="the released code, for call 1")
    parser.add_argument("--continue", type=Path, dest="continued", metavar="PARCEL", help="an earlier OUT")
    parser.add_argument("--carry", type=Path, nargs="+", help="folders that travel with one call each")
    parser.add_argument("--seconds", type=float, help="that the call may take (default 200 and 400)")
    parser.add_argument("--small", action="store_true", help="call 1 with a small network: a rehearsal")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    start = time.monotonic()
    try:
        if options.plan:
            return plan(options)
        if options.take_home:
            return take_home(options.take_home, options.profile)
        require(options.out is not None, "--out is missing: the folder that comes back")
        options.out.mkdir(parents=True, exist_ok=True)
        options.work.mkdir(parents=True, exist_ok=True)
        if options.stage:
            history = options.out / "history.csv"
            study = Study(options.profile, guesses=True)
            per_epoch = seconds_per_epoch(options.work)
            return train(study, options.until, per_epoch, history, options.at_once)
        options.seconds = options.seconds or max((CALL_1 if options.call == 1 else CALL_2).values())
        call = Call(options.out, options.work, start, {}, {})
        print(f"call {options.call} on {device()}", flush=True)
        return (call_1 if options.call == 1 else call_2)(call, options)
    except InputError as error:
        print(f"gpu_visit: {error}", file=sys.stderr)
        sys.exit(2)
    except CaptureFailed as error:
        print(f"gpu_visit: {error}", flush=True)
        sys.exit(FAILED_CAPTURE)


if __name__ == "__main__":
    main()
