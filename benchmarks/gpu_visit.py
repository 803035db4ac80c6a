"""A visit to a GPU: checks, benchmark, training, surfaces, and a small parcel to take home; resumable.

    python benchmarks/gpu_visit.py --minutes 9 --out OUT [--released FOLDER]     there, again and again
    python benchmarks/gpu_visit.py --take-home OUT                               at home: runs into runs/

Needs torch, torchvision, numpy, pandas, scikit-learn, tqdm, safetensors and filelock; for the checks pytest,
pytest-timeout and hypothesis, for the benchmark psutil; neither network nor Jupyter. The data must be in
`SLN_DATA`. A visit starts nothing that it cannot leave: training is a process of its own that is ended when
time is up and goes on from its checkpoints the next time (same `--work` folder), so a visit ends within its
minutes. After every stage that ended, a line says what is there; OUT is complete at any time.

Order: (a) the equivalence checks and the benchmark, (b) the profile's runs: symmetric noise, first seed (CE,
SLN, then LC), the variants of SGD noise that the landscape figure needs, the other kinds of noise, then more
seeds, (c) surfaces of 51 x 51 points on a fixed subset. OUT holds whole runs, but with weights in float16
and without training states; benchmark tables; a manifest of machine, versions and times.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from sln import files, landscape, runs, store, together
from sln.config import Config
from sln.devices import device
from sln.errors import InputError
from sln.study import VARIANTS, Study

HERE = Path(__file__).resolve().parent
READY = 20  # seconds that packing the parcel takes, kept free at the end
SURFACES = 60  # seconds kept free for them after training
MEASURING = 180  # seconds that each stage before training may take
SURFACE = {"radius": 1.0, "points": 51, "images": 10_000}


# --- what is trained, in which order ------------------------------------------------------------------------


def groups(study: Study) -> Iterator[tuple[str, list[Config]]]:
    """The profile's runs, most wanted first: name and configurations that can be trained together."""
    profile = study.profile
    first, *others = profile.noise_modes
    yield from _table(study, first, range(1))
    yield (
        f"{first}: variants of SGD noise",
        [config for arm in study.matched(first).values() for config in arm.configs[:1]],
    )
    for noise_mode in others:
        yield from _table(study, noise_mode, range(1))
    for noise_mode in profile.noise_modes:
        yield from _table(study, noise_mode, range(1, profile.seeds))


def _table(study: Study, noise_mode: str, seeds: range) -> Iterator[tuple[str, list[Config]]]:
    """CE and SLN, which are their momentum models too, then the correction that forks from SLN."""
    arms = study.arms(noise_mode)
    for name, methods in (("CE and SLN", ("CE", "SLN")), ("label correction", ("SLN-MO-LC",))):
        configs = [arms[method].configs[seed] for method in methods for seed in seeds]
        yield f"{noise_mode}: {name}, seeds {seeds.start}..{seeds.stop - 1}", configs


def train(study: Study, at_once: int) -> bool:
    """All groups in turn; what cannot be trained here, because its data is missing, is named and left out.

    Returns whether all is trained.
    """
    complete = True
    for name, configs in groups(study):
        try:
            together.get_together(configs, at_once, name)
            print(f"done: {name}", flush=True)
        except InputError as error:
            print(f"left out: {name}: {error}", flush=True)
            complete = False
    return complete


def surfaces(study: Study) -> None:
    """The loss surfaces of the landscape figure, kept beside their runs; only of runs that are there."""
    mode = study.profile.noise_modes[0]
    shown = {name: arm.configs[0] for name, arm in study.arms(mode).items() if name in ("CE", "SLN")}
    shown |= {name: arm.configs[0] for name, arm in study.matched(mode).items() if name in VARIANTS}
    size = SURFACE if study.dataset != "digits" else {"radius": 1.0, "points": 5}
    for name, config in shown.items():
        run = runs.find(config)
        if run is None:
            print(f"no surface of {name}: it is not trained yet", flush=True)
            continue
        landscape.surface_of(run, "network", **size)
        print(f"done: surface of {name}", flush=True)


# --- a visit ------------------------------------------------------------------------------------------------


class Visit:
    """So many minutes on this machine."""

    def __init__(self, minutes: float, out: Path, profile: str, at_once: int) -> None:
        self.end = time.monotonic() + 60 * minutes - READY
        self.out, self.profile, self.at_once = out, profile, at_once
        self.times: dict[str, float] = {}
        out.mkdir(parents=True, exist_ok=True)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.end - time.monotonic()

    def stage(
        self, name: str, command: list[str], *, once: bool = True, most: float = math.inf, spare: float = 0
    ) -> bool:
        """Run a command until it ends or time is up, its output in OUT. Returns whether it ended well.

        most : seconds that it may take; spare : seconds that it must leave
        """
        log, done = self.out / f"{name}.log", self.out / f".{name}.done"
        if once and done.exists():
            return True
        if self.left - spare < 10:
            return False
        start = time.monotonic()
        with log.open("a") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            try:
                code = process.wait(timeout=min(most, self.left - spare))
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()
                code = None
        self.times[name] = round(time.monotonic() - start, 1)
        told = {0: "done", None: "time is up, goes on next time"}.get(code, f"failed with exit code {code}")
        print(f"{name}: {told} ({self.times[name]} s, see {log})", flush=True)
        if code == 0:
            done.touch()
        return code == 0

    def pack(self) -> None:
        """Finished runs into OUT, small, and the manifest."""
        for run in runs.finished():
            export(run, self.out / "runs")
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
        manifest = {"gpu": gpu, **store.versions(), "profile": self.profile, "at once": self.at_once}
        files.write_json(self.out / "manifest.json", manifest | {"seconds": self.times})


def visit(options: argparse.Namespace) -> None:
    """All stages, as far as time goes."""
    here = Visit(options.minutes, options.out, options.profile, options.at_once)
    script = [sys.executable, str(HERE / "gpu_visit.py"), "--profile", options.profile]
    if not options.only_train:
        tests = str(HERE.parent / "tests" / "test_fast.py")
        here.stage("checks", [sys.executable, "-m", "pytest", "-q", "-m", "gpu", tests], most=MEASURING)
        table = str(here.out / "speeds.csv")
        here.stage("speeds", [sys.executable, str(HERE / "speeds.py"), "--out", table], most=MEASURING)
        if options.released:
            compare = [sys.executable, str(HERE / "released.py"), "--code", str(options.released)]
            compare += ["--rounds", "1", "--out", str(here.out / "released.csv")]
            here.stage("released", compare, most=MEASURING)
    training = [*script, "--stage", "train", "--at-once", str(options.at_once)]
    trained = here.stage("train", training, spare=SURFACES)
    # a picture of what is trained by now is worth more than a few epochs, so it may be asked for again
    here.stage("surfaces", [*script, "--stage", "surfaces"], once=trained)
    here.pack()
    print(f"packed: {sorted(path.name for path in (here.out / 'runs').glob('*'))}")


def export(run: runs.Run, folder: Path) -> Path:
    """A copy of a run with float16 weights and without training states, sealed anew: some megabytes."""
    target = folder / run.folder.name
    if (target / "done.json").exists():
        for new in (run.folder / "surfaces").glob("*.csv"):
            if not (target / "surfaces" / new.name).exists():
                (target / "surfaces").mkdir(exist_ok=True)
                shutil.copy2(new, target / "surfaces")
        return target
    shutil.rmtree(target, ignore_errors=True)  # an earlier copy that was cut short
    shutil.copytree(run.folder, target, ignore=shutil.ignore_patterns("state-*", "weights*", "done.json"))
    weights = store.read_tensors(run.folder / "weights.safetensors")
    small = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    store.write_tensors(target / "weights.safetensors", small)
    store.seal(target)
    return target


def take_home(out: Path) -> None:
    """Put the parcel's runs into runs/, those that are not there yet."""
    parcel = sorted((out / "runs").glob("*/done.json"))
    if not parcel:
        raise SystemExit(f"no finished runs in {out / 'runs'}; was this folder packed by a visit?")
    for done in parcel:
        target = files.runs_folder() / done.parent.name
        if target.exists():
            print(f"there already: {target.name}")
            continue
        shutil.copytree(done.parent, target.with_name(f".{target.name}"), dirs_exist_ok=True)
        target.with_name(f".{target.name}").rename(target)
        print(f"taken home: {target.name}")


def main() -> None:
    """A visit, one of its stages, or what comes after it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9.0, help="that this visit may take (default 9)")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="the parcel (default build/gpu)")
    parser.add_argument("--work", type=Path, help="where runs are trained and kept (default runs/)")
    parser.add_argument("--profile", default="cifar10")
    parser.add_argument("--at-once", type=int, default=4, help="runs at once (default 4)")
    parser.add_argument("--released", type=Path, help="folder of the released code, to compare with")
    parser.add_argument("--only-train", action="store_true", help="no checks and no benchmark")
    parser.add_argument("--stage", choices=("train", "surfaces"), help=argparse.SUPPRESS)
    parser.add_argument("--take-home", type=Path, metavar="OUT", help="put a parcel's runs into runs/")
    options = parser.parse_args()
    if options.work:
        os.environ["SLN_RUNS"] = str(options.work.resolve())
    if options.take_home:
        take_home(options.take_home)
    elif options.stage == "train":
        if not train(Study(options.profile), options.at_once):
            raise SystemExit(1)  # what was left out is asked for again at the next visit
    elif options.stage == "surfaces":
        surfaces(Study(options.profile))
    else:
        print(f"device {device()}, {options.minutes} minutes", flush=True)
        visit(options)


if __name__ == "__main__":
    main()
