"""The command line: `python -m sln --help`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from sln import runs
from sln.analysis import results
from sln.config import SETTINGS, Config
from sln.datasets import clothing1m as clothing1m_images
from sln.datasets import label_files, registry
from sln.datasets.load import draw_corruption, load_clean
from sln.relabel.pipeline import THRESHOLD, describe, relabel
from sln.runs import clothing1m
from sln.runs.parallel import WorkerDied
from sln.study.profiles import PROFILES
from sln.study.recipes import RECIPES, recipe
from sln.train import measure
from sln.utils import distributed, speeds
from sln.utils.devices import device
from sln.utils.errors import InputError, require
from sln.utils.settings import Range

Option = tuple[tuple[str, ...], dict[str, Any]]
# the words, one line about it, its options, what it does
COMMANDS: list[tuple[str, str, Sequence[Option], Callable[[argparse.Namespace], int | None]]] = []
GROUPS = {"data": "list or get data sets, label files, weights", "runs": "list, show or remove trained runs"}
SKIPS_SHOWN = 10  # of the images that `relabel` leaves out; skipped.csv has them all


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns 0, 1 when a reproduction failed or a worker was killed, 2 for bad input, 130 for Ctrl-C.
    """
    options = build_parser().parse_args(arguments)
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
        # who reads our output has seen enough (`| head`); leave nothing for Python to complain about at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("sln: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """All of COMMANDS and their options; an option that is not given leaves no trace (argparse.SUPPRESS)."""
    about = "Stochastic label noise against inherent label noise."
    parser = argparse.ArgumentParser(prog="python -m sln", description=about)
    subparsers = {"": parser.add_subparsers(required=True, metavar="COMMAND")}
    for words, about, options, run in COMMANDS:
        group, _, name = words.rpartition(" ")
        if group not in subparsers:
            grouped = subparsers[""].add_parser(group, help=GROUPS[group])
            subparsers[group] = grouped.add_subparsers(required=True, metavar="ACTION")
        described = " ".join((run.__doc__ or "").split())
        one = subparsers[group].add_parser(name, help=about, description=described)
        for flags, keywords in options:
            one.add_argument(*flags, **{"default": argparse.SUPPRESS} | keywords)
        one.set_defaults(command=run)
    return parser


def command(words: str, about: str, *options: Option) -> Callable:
    """Make a function of the parsed options the command `words`; its docstring is the longer help."""

    def register(run: Callable[[argparse.Namespace], int | None]) -> Callable:
        COMMANDS.append((words, about, options, run))
        return run

    return register


def option(*flags: str, **keywords: Any) -> Option:
    """The arguments of `ArgumentParser.add_argument`."""
    return flags, keywords


def switch(flag: str, about: str) -> Option:
    """An option without a value, False by default."""
    return option(flag, action="store_true", default=False, help=about)


def settings_options(*names: str) -> list[Option]:
    """An option per setting (default all): --noise-mode, and --noise_mode as in the released scripts."""
    found = []
    for name in names or SETTINGS:
        kind, default = SETTINGS[name].type, SETTINGS[name].metadata["default"]
        flags = dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"])
        if isinstance(default, dict):
            words = "{digits}, letters {letters}, CIFAR {cifar10}, Clothing1M {clothing1m}"
            default = words.format(**default)
        default = "as published" if name == "baseline_parameter" else default
        shown = f"{meaning(name)} (default {default})".replace("%", "%%")
        if kind == "bool":
            keywords: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        elif name == "extra_alphas":
            keywords = {"type": float, "nargs": "+", "metavar": "A"}
        else:
            keywords = {"type": {"int": int, "float": float, "str": str}[kind], "metavar": kind.upper()}
        found.append(option(*flags, dest=name, help=shown, **keywords))
    return found


def meaning(name: str) -> str:
    """What a setting is, the few data sets it belongs to, its values if they are words."""
    about, allowed, only = (SETTINGS[name].metadata[key] for key in ("about", "allowed", "only"))
    if isinstance(allowed, dict):
        allowed = dict.fromkeys(word for words in allowed.values() for word in words)
    words = f": {', '.join(allowed)}" if allowed and not isinstance(allowed, Range) else ""
    return (f"{', '.join(only)}: " if 0 < len(only) <= 2 else "") + about + words


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given."""
    return {name: value for name, value in vars(options).items() if name in SETTINGS}


RUN = option("run", metavar="RUN", help="its name, as `runs list` shows it")
DRY_RUN = switch("--dry-run", "only print what would be trained, and about how long it takes")


def sigma_or_auto(text: str) -> float | None:
    """`--sigma`: a number, or None for auto."""
    return None if text == "auto" else float(text)


# --- training -----------------------------------------------------------------------------------------------


@command(
    "train",
    "train a run, or find it, and print its last epoch",
    option("--recipe", metavar="NAME", help="one of the paper's experiments; `recipes` lists them"),
    *settings_options(),
    option("--datapath", metavar="FOLDER", help="folder of the data, as SLN_DATA (default data/)"),
    option("--num-class", "--num_class", type=int, metavar="INT", help="only compared with the data set's"),
    option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N, as SLN_DEVICE (default auto)"),
    option("--gpu-id", "--gpu_id", type=int, metavar="INT", help="cuda:N where there is a GPU, else the CPU"),
    option(
        "--speed",
        metavar="NAME",
        help=f"how, not what: {', '.join(speeds.NAMES)}, as SLN_SPEED (default auto: "
        "fast on a GPU, else reference)",
    ),
)
def train_command(options: argparse.Namespace) -> None:
    """Train a run, or find it if it is trained already.

    An option that is not given is the recipe's, else the data set's: those of cifar10, cifar100 and
    clothing1m are the released scripts'.
    """
    settings = settings_of(options)
    if "recipe" in options:
        chosen = recipe(options.recipe)
        same = settings.get("dataset", chosen.dataset) == chosen.dataset
        require(same, f"recipe {options.recipe} is for {chosen.dataset}, not for {settings.get('dataset')}")
        config = chosen.config(**settings)
    else:
        config = Config.from_dict(settings)
        if config.dataset == "cifar10" and config.noise_mode == "openset" and "noise_seed" not in settings:
            config = config.replace(noise_seed=config.seed)  # the released script draws it for every run
    use_released_options(options, config)
    run = runs.get(config)
    if distributed.is_main():
        print(run.last_epoch().to_string(float_format="%.4f"))
        print(f"run: {run.folder}")


def use_released_options(options: argparse.Namespace, config: Config) -> None:
    """Set folder, speed and device, as the released scripts' options do; check the number of classes."""
    given = vars(options)
    require(
        given.get("num_class", config.num_classes) == config.num_classes,
        f"num_class is {given.get('num_class')}, {config.dataset} has {config.num_classes} classes",
    )
    require("device" not in given or "gpu_id" not in given, "--device does not go with --gpu-id, give one")
    if "gpu_id" in given:  # the released scripts, too, fall back to the CPU
        given["device"] = f"cuda:{options.gpu_id}" if torch.cuda.is_available() else "cpu"
    for name, variable in (("datapath", "SLN_DATA"), ("speed", "SLN_SPEED"), ("device", "SLN_DEVICE")):
        if name in given:
            os.environ[variable] = given[name]
    speeds.chosen(device())


@command("recipes", "the paper's experiments by name: released command, published accuracy, ours")
def recipes_command(options: argparse.Namespace) -> None:
    """List the paper's experiments, published accuracies and ours, and their released commands."""
    print(results.recipe_table().drop(columns="command").to_string(index=False, justify="left"))
    print("\nThe released command of each (plain cross-entropy, ce, has none):")
    for known in RECIPES.values():
        if known.command:
            print(f"  {known.name:27} {known.command}")
    print("\nTrain one with: python -m sln train --recipe NAME --seed N")


@command("evaluate", "measure a finished run again, from its weights", RUN)
def evaluate_command(options: argparse.Namespace) -> None:
    """Every number of the last epoch again, from the saved weights."""
    run = runs.by_name(options.run)
    networks = {weights: run.network(weights) for weights in ("network", "momentum")}
    if run.config.dataset == "clothing1m":
        measured = clothing1m.evaluate(run.config, networks)
    else:
        where = device()
        data = run.data.to(where)
        measured = {name: measure(network.to(where), data) for name, network in networks.items()}
    print(pd.DataFrame(measured).to_string(float_format="%.4f"))


@command(
    "sweep",
    "train all runs of a profile, on this machine or on a Ray cluster",
    option("profile", metavar="PROFILE", help=f"one of {', '.join(PROFILES)}"),
    option("--seeds", type=int, metavar="N", help="runs of every configuration (default the profile's)"),
    option(
        "--workers",
        metavar="K",
        help="runs at once on every GPU, or in all without one, as SLN_WORKERS (1 per GPU or processor)",
    ),
    option(
        "--ray",
        metavar="ADDRESS",
        help="a cluster this machine is part of, e.g. auto; its machines share the folders of runs and data",
    ),
    DRY_RUN,
)
def sweep_command(options: argparse.Namespace) -> int:
    """Train what is missing of a profile's runs, several at a time.

    The same command goes on where it stopped, and where a worker was killed another one does.
    """
    from sln.study.sweep import sweep

    if "workers" in options:
        os.environ["SLN_WORKERS"] = options.workers
    given = {name: value for name, value in vars(options).items() if name in ("seeds", "ray", "dry_run")}
    return sweep(options.profile, **given)


@command("runs list", "every run, finished or not")
def list_command(options: argparse.Namespace) -> None:
    """List every run: done, or the last epoch saved; test accuracy; size."""
    table = runs.listing()
    if len(table):
        print(table.to_string(index=False, float_format="%.3f", na_rep="-"))
    else:
        print(f"no runs in {runs.runs_folder()}")


@command("runs show", "one run's settings and last epoch", RUN)
def show_command(options: argparse.Namespace) -> None:
    """One run's settings and last epoch."""
    run = runs.by_name(options.run)
    print(pd.Series(run.config.to_dict()).to_string())
    print()
    print(run.last_epoch().to_string(float_format="%.4f"))


@command("runs remove", "delete one run", RUN)
def remove_command(options: argparse.Namespace) -> None:
    """Delete one run."""
    runs.remove(options.run)
    print(f"removed {options.run}")


# --- data and labels ----------------------------------------------------------------------------------------


@command("data list", "what there is, and what is here")
def data_list_command(options: argparse.Namespace) -> None:
    """List data sets, label files and weights: size, licence, address, and what is here."""
    table = registry.listing()
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
    found = registry.get(options.name, mirror=options.mirror)
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
    switch("--bernoulli", "flip every example independently instead of an exact count"),
    switch("--own-class", "symmetric noise redraws over all classes, the own one included"),
    option("--matrix", type=Path, metavar="CSV", help="any T[true, given]: C rows of C numbers, no header"),
    *settings_options("dataset", "noise_mode", "noise_rate", "noise_seed"),
)
def noise_command(options: argparse.Namespace) -> None:
    """Write or check a label file; prints the realised rate and the transition matrix."""
    require(("out" in options) != ("check" in options), "give either --out (to write) or --check (to read)")
    settings = settings_of(options)
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


@command(
    "relabel",
    "find wrong labels in a folder or CSV of your images",
    option("source", type=Path, metavar="FOLDER_OR_CSV", help="a sub-folder per class, or path,label"),
    option("--out", type=Path, metavar="DIR", help="where the files go (default NAME-relabelled, here)"),
    option("--images", dest="root", type=Path, metavar="FOLDER", help="where a CSV's paths start"),
    option("--threshold", type=float, metavar="P", help="replace labels at least that suspect (default 0.5)"),
    option("--sigma", type=sigma_or_auto, metavar="S", help="stochastic noise (auto: on noisy labels)"),
    option("--folds", type=int, metavar="K", help="parts, each judged by networks trained on the others (5)"),
    option("--repeats", type=int, metavar="N", help="divisions into folds, predictions averaged (default 1)"),
    option("--epochs", type=int, metavar="N", help="passes (default 100, fewer for more than 1,150 images)"),
    option("--size", type=int, metavar="PIXELS", help="side that images are resized to (32)"),
    option("--model", metavar="NAME", help="network: cnn, wrn-10-1 or wrn-28-2 (default cnn)"),
    option("--backbone", metavar="NAME", help="judge features of a pretrained resnet18 or resnet50 instead"),
    option("--weights", type=Path, metavar="FILE", help="the backbone's, .safetensors or torchvision's .pth"),
    option("--seed", type=int, metavar="N", help="seed of folds and training (default 0)"),
)
def relabel_command(options: argparse.Namespace) -> None:
    """Judge every label by networks that were not trained on it (SLN-MO-LC, cross-fitted).

    Writes labels.csv, corrected.csv, skipped.csv and suspects.html to a folder of its own; your files are
    only read.
    """
    found = relabel(**{name: value for name, value in vars(options).items() if name != "command"})
    for sentence in describe(found.fitted, len(found.skipped)):
        print(sentence)
    for name, why in found.skipped[:SKIPS_SHOWN]:
        print(f"  skipped {name!r}: {why}")
    suspect = f"at least as suspect as the threshold ({vars(options).get('threshold', THRESHOLD):g})"
    print(f"{found.changed} labels {suspect} are replaced in corrected.csv; lower it to replace more")
    print(f"look at {found.folder / 'suspects.html'}")


# --- notebooks ----------------------------------------------------------------------------------------------


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
