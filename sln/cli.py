"""The command line: `python -m sln --help`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sln import runs
from sln.config import SETTINGS, Config
from sln.datasets import clothing1m as clothing1m_images
from sln.datasets import download, label_files
from sln.datasets.load import draw_corruption, load_clean
from sln.relabel import command as relabelling
from sln.runs import clothing1m
from sln.runs.parallel import WorkerDied
from sln.study.profiles import PROFILES
from sln.study.recipes import RECIPES, recipe
from sln.train import measure
from sln.utils import distributed, speeds
from sln.utils.devices import device
from sln.utils.errors import InputError, require
from sln.utils.settings import Option, Range, option

GROUPS = {"data": "list or get data sets, label files, weights", "runs": "list, show or remove trained runs"}
DEFAULTS = "{digits}, letters {letters}, CIFAR {cifar10}, Clothing1M {clothing1m}"

parser = argparse.ArgumentParser(
    prog="python -m sln", description="Stochastic label noise against inherent label noise."
)
subparsers = {"": parser.add_subparsers(required=True, metavar="COMMAND")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command: 1 if a reproduction failed or a worker was killed, 2 for bad input, 130 for Ctrl-C."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: not every terminal can show σ and ±
    options = parser.parse_args(arguments)
    try:
        code = options.command(options) or 0
        sys.stdout.flush()
        return code
    except InputError as error:
        if distributed.is_main():  # one of several processes prints it
            print(f"sln: {error}", file=sys.stderr)
        return 2
    except WorkerDied as error:
        print(f"sln: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # who reads our output has seen enough (`| head`); Python must not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("sln: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130


def command(words: str, about: str, *options: Option) -> Callable:
    """Make a function of the parsed options the command `words`; its docstring is the longer help."""

    def register(run: Callable[[argparse.Namespace], int | None]) -> Callable:
        group, _, name = words.rpartition(" ")
        if group not in subparsers:
            grouped = subparsers[""].add_parser(group, help=GROUPS[group])
            subparsers[group] = grouped.add_subparsers(required=True, metavar="ACTION")
        facts = {"help": about, "description": " ".join((run.__doc__ or "").split())}
        # an option that is not given leaves no trace
        one = subparsers[group].add_parser(name, **facts, argument_default=argparse.SUPPRESS)
        for flags, keywords in options:
            one.add_argument(*flags, **keywords)
        one.set_defaults(command=run)
        return run

    return register


def settings_options(*names: str) -> list[Option]:
    """An option per setting (default all): --noise-mode, and --noise_mode as in the released scripts."""
    kinds = {kind.__name__: {"type": kind, "metavar": kind.__name__.upper()} for kind in (int, float, str)}
    kinds |= {"bool": {"action": argparse.BooleanOptionalAction}}
    kinds |= {"tuple[float, ...]": {"type": float, "nargs": "+", "metavar": "A"}}
    found = []
    for name in names or SETTINGS:
        facts, flags = SETTINGS[name].metadata, dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"])
        default, about, allowed, only = (facts[key] for key in ("default", "about", "allowed", "only"))
        if isinstance(default, dict):
            default = DEFAULTS.format(**default)
        default = "as published" if name == "baseline_parameter" else default
        if isinstance(allowed, dict):
            allowed = dict.fromkeys(word for words in allowed.values() for word in words)
        words = f": {', '.join(allowed)}" if allowed and not isinstance(allowed, Range) else ""
        few = f"{', '.join(only)}: " if 0 < len(only) <= 2 else ""  # data sets that it belongs to
        shown = f"{few}{about}{words} (default {default})".replace("%", "%%")
        found.append(option(*flags, dest=name, help=shown, **kinds[SETTINGS[name].type]))
    return found


def given(options: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Those of the options `names` that were given."""
    return {name: value for name, value in vars(options).items() if name in names}


SWITCH = {"action": "store_true", "default": False}
SPEEDS = f"how, not what: {', '.join(speeds.NAMES)}, as SLN_SPEED"
RUN = option("run", metavar="RUN", help="its name, as `runs list` shows it")
WORKERS = "runs at once on every GPU, or in all without one, as SLN_WORKERS (1 per GPU or processor)"
CLUSTER = "a cluster this machine is part of, e.g. auto; its machines share the folders of runs and data"
DRY_RUN = option("--dry-run", help="only print what would be trained, and about how long it takes", **SWITCH)


@command(
    "train",
    "train a run, or find it, and print its last epoch",
    option("--recipe", metavar="NAME", help="one of the paper's experiments; `recipes` lists them"),
    *settings_options(),
    option("--datapath", metavar="FOLDER", help="folder of the data, as SLN_DATA (default data/)"),
    option("--num-class", "--num_class", type=int, metavar="INT", help="only compared with the data set's"),
    option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N, as SLN_DEVICE (default auto)"),
    option("--gpu-id", "--gpu_id", type=int, metavar="INT", help="cuda:N where there is a GPU, else the CPU"),
    option("--speed", metavar="NAME", help=f"{SPEEDS} (default auto: fast on a GPU, else reference)"),
)
def train_command(options: argparse.Namespace) -> None:
    """Train a run, or find it if it is trained already.

    An option that is not given is the recipe's, else the data set's: those of cifar10, cifar100 and
    clothing1m are the released scripts'.
    """
    settings = given(options, SETTINGS)
    if "recipe" in options:
        chosen = recipe(options.recipe)
        same = settings.get("dataset", chosen.dataset) == chosen.dataset
        require(same, f"recipe {options.recipe} is for {chosen.dataset}, not for {settings.get('dataset')}")
        config = chosen.config(**settings)
    else:
        config = Config.from_dict(settings)
        if config.dataset == "cifar10" and config.noise_mode == "openset" and "noise_seed" not in settings:
            config = config.replace(noise_seed=config.seed)  # the released script draws it for every run
    C, asked = config.num_classes, vars(options).get("num_class", config.num_classes)
    require(asked == C, f"num_class is {asked}, {config.dataset} has {C} classes")
    both = "device" in options and "gpu_id" in options
    require(not both, "--device does not go with --gpu-id, give one")
    if "gpu_id" in options:  # the released scripts, too, fall back to the CPU
        options.device = f"cuda:{options.gpu_id}" if torch.cuda.is_available() else "cpu"
    for name, value in given(options, ("datapath", "speed", "device")).items():
        os.environ[{"datapath": "SLN_DATA", "speed": "SLN_SPEED", "device": "SLN_DEVICE"}[name]] = value
    speeds.chosen(device())
    run = runs.get(config)
    if distributed.is_main():
        print(run.last_epoch().to_string(float_format="%.4f"))
        print(f"run: {run.folder}")


@command("recipes", "the paper's experiments by name: released command, published accuracy, ours")
def recipes_command(options: argparse.Namespace) -> None:
    """List the paper's experiments, published accuracies and ours, and their released commands."""
    from sln.analysis import results

    print(results.recipe_table().drop(columns="command").to_string(index=False, justify="left"))
    print("\nThe released command of each (plain cross-entropy, ce, has none):")
    print("\n".join(f"  {known.name:27} {known.command}" for known in RECIPES.values() if known.command))
    print("\nTrain one with: python -m sln train --recipe NAME --seed N")


@command("evaluate", "measure a finished run again, from its weights", RUN)
def evaluate_command(options: argparse.Namespace) -> None:
    """Every number of the last epoch again, from the saved weights."""
    run = runs.by_name(options.run)
    networks = {weights: run.network(weights) for weights in ("network", "momentum")}
    if run.config.dataset == "clothing1m":
        measured = clothing1m.evaluate(run.config, networks)
    else:
        data = run.data.to(device())
        measured = {name: measure(network.to(data.device), data) for name, network in networks.items()}
    print(pd.DataFrame(measured).to_string(float_format="%.4f"))


@command(
    "sweep",
    "train all runs of a profile, on this machine or on a Ray cluster",
    option("profile", metavar="PROFILE", help=f"one of {', '.join(PROFILES)}"),
    option("--seeds", type=int, metavar="N", help="runs of every configuration (default the profile's)"),
    option("--workers", metavar="K", help=WORKERS),
    option("--ray", metavar="ADDRESS", help=CLUSTER),
    DRY_RUN,
)
def sweep_command(options: argparse.Namespace) -> int:
    """Train what is missing of a profile's runs, several at a time.

    The same command goes on where it stopped, and where a worker was killed another one does.
    """
    from sln.study.sweep import sweep

    if "workers" in options:
        os.environ["SLN_WORKERS"] = options.workers
    return sweep(options.profile, **given(options, ("seeds", "ray", "dry_run")))


@command("runs list", "every run, finished or not")
def list_command(options: argparse.Namespace) -> None:
    """List every run: done, or the last epoch saved; test accuracy; size.

    Runs that are damaged are named on stderr, a line each.
    """
    table = runs.listing(on_damaged=lambda error: print(f"sln: {error}", file=sys.stderr))
    none = f"no runs in {runs.runs_folder()}"
    print(table.to_string(index=False, float_format="%.3f", na_rep="-") if len(table) else none)


@command("runs show", "one run's settings and last epoch", RUN)
def show_command(options: argparse.Namespace) -> None:
    """One run's settings and last epoch."""
    run = runs.by_name(options.run)
    print(pd.Series(run.config.to_dict()).to_string(), end="\n\n")
    print(run.last_epoch().to_string(float_format="%.4f"))


@command("runs remove", "delete one run", RUN)
def remove_command(options: argparse.Namespace) -> None:
    """Delete one run."""
    runs.remove(options.run)
    print(f"removed {options.run}")


@command("data list", "what there is, and what is here")
def data_list_command(options: argparse.Namespace) -> None:
    """List data sets, label files and weights: size, licence, address, and what is here."""
    table = download.listing()
    print(table[["name", "what", "MB", "present", "where"]].to_string(index=False))
    print("\nlicences, and where `data get NAME` gets them:")
    for row in table.itertuples():
        print(f"  {row.name:11} {row.licence}; {row.address}")


@command(
    "data get",
    "download and check",
    option("name", metavar="NAME", help="as `data list` shows it"),
    option("--mirror", metavar="URL", default=None, help="another address; the checksum is the same"),
)
def data_get_command(options: argparse.Namespace) -> None:
    """Download and check; the same command goes on after a break."""
    found = download.get(options.name, mirror=options.mirror)
    print("\n".join(f"got {path}" for path in found) or f"{options.name} was complete already")


@command("data check", "list the bad images of Clothing1M", option("name", choices=["clothing1m"]))
def data_check_command(options: argparse.Namespace) -> None:
    """Decode every image once; `train --skip-bad-images` leaves out those that are listed."""
    bad = clothing1m_images.check()
    file = clothing1m_images.bad_list(clothing1m_images.read())
    print(f"{len(bad)} images cannot be used; {file} lists them; --skip-bad-images leaves them out")


@command(
    "noise",
    "write noisy labels to a CSV with a manifest, or check such a file",
    option("--out", type=Path, metavar="CSV", help="file to write; the manifest goes beside it as .json"),
    option("--check", type=Path, metavar="CSV", help="file to compare with the data set's training labels"),
    option("--bernoulli", help="flip every example independently instead of an exact count", **SWITCH),
    option("--own-class", help="symmetric noise redraws over all classes, the true one included", **SWITCH),
    option("--matrix", type=Path, metavar="CSV", help="any T[true, given]: C rows of C numbers, no header"),
    *settings_options("dataset", "noise_mode", "noise_rate", "noise_seed"),
)
def noise_command(options: argparse.Namespace) -> None:
    """Write or check a label file; prints the realised rate and the transition matrix."""
    require(("out" in options) != ("check" in options), "give either --out (to write) or --check (to read)")
    settings = given(options, SETTINGS)
    require(settings.get("dataset") != "clothing1m", "clothing1m comes with wrong labels of its own")
    config = Config.from_dict({"labels": "generated"} | settings)
    clean = load_clean(config)
    true, C = clean.train.true.numpy(), clean.num_classes
    if "check" in options:
        corruption = label_files.from_csv(options.check, true, C)
    else:
        matrix = label_files.read_matrix(options.matrix, C) if "matrix" in options else None
        exact, own_class = not options.bernoulli, options.own_class
        corruption = draw_corruption(config, exact=exact, own_class=own_class, matrix=matrix)
        corruption.save(options.out)
        print(f"wrote {options.out} and {options.out.with_suffix('.json')}")
    wrong, rate = corruption.changed.sum(), corruption.realised_rate
    print(f"{corruption.kind}: {wrong} of {len(true)} labels are wrong, a rate of {rate:.4f}")
    print("T[true, given], rows sum to one:")
    print(pd.DataFrame(corruption.transition_matrix).to_string(float_format="%.3f"))


command("relabel", "find wrong labels in your images", *relabelling.OPTIONS)(relabelling.run)


@command(
    "reproduce",
    "execute the notebooks, check them, write figures and the report",
    option("--profile", default="quick", help=f"one of {', '.join(PROFILES)} (default quick)"),
    option("--notebook", action="append", default=None, metavar="NAME", help="only this one; repeatable"),
    option("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE", help="of a notebook"),
    DRY_RUN,
)
def reproduce_command(options: argparse.Namespace) -> int:
    """Execute the notebooks of a profile, check what they promise, write figures and the report."""
    from sln.reproduce.execute import parse_parameters, reproduce

    parameters = parse_parameters(options.parameters)
    return reproduce(options.profile, only=options.notebook, parameters=parameters, dry_run=options.dry_run)
