"""The command line: `python -m sln --help`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from sln import fast, noise, runs
from sln.analysis import results
from sln.config import Config
from sln.datasets import registry
from sln.datasets.load import draw_corruption, load_clean
from sln.defaults import DEFAULTS
from sln.relabel.pipeline import in_words, relabel
from sln.runs import clothing1m_train
from sln.runs.parallel import WorkerDied
from sln.study.profiles import PROFILES
from sln.study.recipes import RECIPES, recipe
from sln.train import measure
from sln.utils import distributed
from sln.utils.devices import device
from sln.utils.errors import InputError, require
from sln.utils.rng import numpy_generator

PARSERS = {"int": int, "float": float, "str": str}
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
        if distributed.is_main():  # of several processes, one says it
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
    """All commands and their options; those of a run come from the fields of Config."""
    parser = argparse.ArgumentParser(
        prog="python -m sln", description="Stochastic label noise against inherent label noise."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train",
        help="train a run, or find it, and say what came out",
        description="Train a run, or find it where it is trained already. An option that is not given is the "
        "recipe's, else the data set's: those of cifar10, cifar100 and clothing1m are the released scripts'.",
    )
    train.add_argument(
        "--recipe", metavar="NAME", help="one of the paper's experiments; `recipes` lists them"
    )
    add_config_options(train)
    add_released_options(train)
    train.set_defaults(command=train_command)

    listed = commands.add_parser(
        "recipes", help="the paper's experiments by name: released command, published accuracy, ours"
    )
    listed.set_defaults(command=recipes_command)

    of_data = commands.add_parser("data", help="list or get data sets, label files, weights").add_subparsers(
        required=True, metavar="ACTION"
    )
    of_data.add_parser("list", help="what there is, and what is here").set_defaults(command=data_list_command)
    get = of_data.add_parser("get", help="download with checksum; goes on after a break")
    get.add_argument("name", metavar="NAME", help="as `data list` shows it")
    get.add_argument(
        "--mirror", metavar="URL", help="where to get it from; the checksum decides, not the host"
    )
    get.set_defaults(command=data_get_command)

    evaluate = commands.add_parser("evaluate", help="measure a finished run afresh, from its weights")
    evaluate.add_argument("run", metavar="RUN", help="its name, as `runs list` shows it")
    evaluate.set_defaults(command=evaluate_command)

    label_noise = commands.add_parser(
        "noise", help="write noisy labels to a CSV with a manifest, or check such a file"
    )
    what = label_noise.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--out", type=Path, metavar="CSV", help="file to write; the manifest goes beside it as .json"
    )
    what.add_argument(
        "--check",
        type=Path,
        metavar="CSV",
        help="file to read and compare with the data set's training labels",
    )
    label_noise.add_argument(
        "--bernoulli",
        action="store_true",
        help="flip every example by its own coin instead of an exact count",
    )
    label_noise.add_argument(
        "--own-class",
        action="store_true",
        help="symmetric noise redraws over all classes, the own one included",
    )
    label_noise.add_argument(
        "--matrix",
        type=Path,
        metavar="CSV",
        help="any transition matrix T[true, given]: C rows of C numbers, no header",
    )
    add_config_options(label_noise, ("dataset", "noise_mode", "noise_rate", "noise_seed"))
    label_noise.set_defaults(command=noise_command)

    reproduce = commands.add_parser(
        "reproduce", help="execute the notebooks, check them, write figures and the report"
    )
    reproduce.add_argument("--profile", default="quick", help=f"one of {', '.join(PROFILES)} (default quick)")
    reproduce.add_argument(
        "--notebook", action="append", metavar="NAME", help="only this one; may be given again"
    )
    reproduce.add_argument(
        "-p",
        dest="parameters",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="one more notebook parameter",
    )
    reproduce.add_argument(
        "--dry-run", action="store_true", help="only say what would be trained, and how long it would take"
    )
    reproduce.set_defaults(command=reproduce_command)

    many = commands.add_parser(
        "sweep",
        help="train all runs of a profile, on this machine or on a Ray cluster",
        description="Train what is missing of a profile's runs, several at a time; the same command goes on "
        "where it stopped, and where a worker was killed another one does.",
    )
    many.add_argument("profile", metavar="PROFILE", help=f"one of {', '.join(PROFILES)}")
    many.add_argument(
        "--seeds", type=int, metavar="N", help="runs of every configuration (default the profile's)"
    )
    many.add_argument(
        "--workers",
        metavar="K",
        help="runs at once on every GPU, or in all where there is none, as SLN_WORKERS (default 1 a GPU, or "
        "one a processor)",
    )
    many.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="a Ray cluster that this machine is part of, say 127.0.0.1:6379 or auto; runs and data must be "
        "in folders that all its machines share",
    )
    many.add_argument(
        "--dry-run", action="store_true", help="only say what would be trained, and how long it would take"
    )
    many.set_defaults(command=sweep_command)

    add_relabel(commands.add_parser("relabel", help="find wrong labels in a folder or CSV of your images"))

    of_runs = commands.add_parser("runs", help="list, show or remove trained runs").add_subparsers(
        required=True, metavar="ACTION"
    )
    of_runs.add_parser("list", help="every run, finished or not").set_defaults(command=list_command)
    for name, command, about in (
        ("show", show_command, "one run's settings and last epoch"),
        ("remove", remove_command, "delete one run"),
    ):
        action = of_runs.add_parser(name, help=about)
        action.add_argument("run", metavar="RUN")
        action.set_defaults(command=command)
    return parser


def add_relabel(parser: argparse.ArgumentParser) -> None:
    """The options of `relabel`; one that is not given leaves no trace: the function's default holds."""
    parser.description = (
        "Judge every label by networks that were not shown it (SLN-MO-LC, cross-fitted). Writes labels.csv, "
        "corrected.csv, skipped.csv and suspects.html to a folder of its own; your files are only read."
    )
    parser.add_argument(
        "source", type=Path, metavar="FOLDER_OR_CSV", help="one sub-folder a class, or a CSV of path,label"
    )
    for name, kind, metavar, about in (
        ("out", Path, "DIR", "where the files go (default NAME-relabelled, here)"),
        ("images", Path, "FOLDER", "folder that a CSV's paths start from (default the CSV's own)"),
        ("threshold", float, "P", "labels at least that suspect are replaced in corrected.csv (0.5)"),
        (
            "sigma",
            sigma_or_auto,
            "S",
            "strength of the stochastic noise (auto: chosen on noisy labels)",
        ),
        ("folds", int, "K", "parts of which each is judged by networks trained on the others (default 5)"),
        ("repeats", int, "N", "how often all is dealt into folds anew, predictions averaged (default 1)"),
        ("epochs", int, "N", "passes over the images (default 100, fewer for more than 1,150 images)"),
        ("size", int, "PIXELS", "a side that images are resized to (default 32, less for smaller images)"),
        ("model", str, "NAME", "network: cnn, wrn-10-1 or wrn-28-2 (default cnn)"),
        ("backbone", str, "NAME", "judge features of a pretrained resnet18 or resnet50 instead of pixels"),
        ("weights", Path, "FILE", "the backbone's weights, .safetensors or torchvision's .pth"),
        ("seed", int, "N", "seed of folds and training (default 0)"),
    ):
        parser.add_argument(f"--{name}", type=kind, metavar=metavar, default=argparse.SUPPRESS, help=about)
    parser.set_defaults(command=relabel_command)


def sigma_or_auto(text: str) -> float | None:
    """`--sigma`: a number, or None for auto."""
    return None if text == "auto" else float(text)


def add_config_options(parser: argparse.ArgumentParser, names: Sequence[str] | None = None) -> None:
    """An option for every setting, or those named: --noise-mode, and --noise_mode as the released scripts do.

    An option that is not given leaves no trace, so that the recipe's or the data set's own default holds.
    """
    for setting in dataclasses.fields(Config):
        if names is not None and setting.name not in names:
            continue
        flags = list(dict.fromkeys([f"--{setting.name.replace('_', '-')}", f"--{setting.name}"]))
        shown = f"{setting.metadata['about']} ({default_in_words(setting)})".replace("%", "%%")
        shared = {"dest": setting.name, "default": argparse.SUPPRESS, "help": shown}
        if setting.type == "bool":
            parser.add_argument(*flags, action=argparse.BooleanOptionalAction, **shared)
        elif setting.name == "extra_alphas":
            parser.add_argument(*flags, type=float, nargs="+", metavar="A", **shared)
        else:
            parser.add_argument(
                *flags, type=PARSERS[str(setting.type)], metavar=str(setting.type).upper(), **shared
            )


def default_in_words(setting: dataclasses.Field) -> str:
    """`default 0.4`, or `default 0.02, CIFAR 0.001, Clothing1M 0.001`."""
    if setting.default is not None:
        return f"default {setting.default}"
    if setting.name == "baseline_parameter":
        return "default as published"
    digits, cifar, clothing = (DEFAULTS[of][setting.name] for of in ("digits", "cifar10", "clothing1m"))
    return f"default {digits}, CIFAR {cifar}, Clothing1M {clothing}"


def add_released_options(parser: argparse.ArgumentParser) -> None:
    """Options of the released scripts that are no setting: where the data is, which GPU, how many classes."""
    parser.add_argument(
        "--datapath", metavar="FOLDER", help="folder of the data, as SLN_DATA (default data/)"
    )
    parser.add_argument(
        "--num-class",
        "--num_class",
        type=int,
        metavar="INT",
        help="as the released scripts want it; the data set knows its classes, so this is only compared",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--device", metavar="NAME", help="auto, cpu, cuda or cuda:N, as SLN_DEVICE (default auto)"
    )
    parser.add_argument(
        "--speed",
        metavar="NAME",
        help=f"how, not what: {', '.join(fast.NAMES)}, as SLN_SPEED (default auto: fast on a GPU, else "
        "reference)",
    )
    where.add_argument(
        "--gpu-id", "--gpu_id", type=int, metavar="INT", help="cuda:N where there is a GPU, else the CPU"
    )


def apply_released_options(options: argparse.Namespace, config: Config) -> None:
    """Set the folder and the device; refuse a number of classes that is not the data set's."""
    require(
        options.num_class in (None, config.num_classes),
        f"num_class is {options.num_class}, {config.dataset} has {config.num_classes} classes; leave it out",
    )
    if options.datapath:
        os.environ["SLN_DATA"] = options.datapath
    if options.speed:
        os.environ["SLN_SPEED"] = options.speed
    if options.device:
        os.environ["SLN_DEVICE"] = options.device
    elif options.gpu_id is not None:
        # the released scripts, too, fall back to the CPU
        os.environ["SLN_DEVICE"] = f"cuda:{options.gpu_id}" if torch.cuda.is_available() else "cpu"
    fast.chosen(device())


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given."""
    names = {setting.name for setting in dataclasses.fields(Config)}
    return {name: value for name, value in vars(options).items() if name in names}


def train_command(options: argparse.Namespace) -> None:
    """`train`: the run's folder and its last epoch."""
    settings = settings_of(options)
    if options.recipe:
        chosen = recipe(options.recipe)
        same = settings.get("dataset", chosen.dataset) == chosen.dataset
        require(same, f"recipe {options.recipe} is for {chosen.dataset}, not for {settings.get('dataset')}")
        config = chosen.config(**settings)
    else:
        config = Config.from_dict(settings)
        if config.dataset == "cifar10" and config.noise_mode == "openset" and "noise_seed" not in settings:
            config = config.replace(noise_seed=config.seed)  # the released script draws it anew for every run
    apply_released_options(options, config)
    run = runs.get(config)
    if not distributed.is_main():
        return
    print(last_epoch(run).to_string(float_format="%.4f"))
    print(f"run: {run.folder}")


def recipes_command(options: argparse.Namespace) -> None:
    """`recipes`: the paper's experiments, published accuracies and ours, and their released commands."""
    print(results.recipe_table().drop(columns="command").to_string(index=False, justify="left"))
    print("\nThe released command of each (plain cross-entropy, ce, has none):")
    for known in RECIPES.values():
        if known.command:
            print(f"  {known.name:27} {known.command}")
    print("\nTrain one with: python -m sln train --recipe NAME --seed N")


def data_list_command(options: argparse.Namespace) -> None:
    """`data list`."""
    table = registry.listing()
    print(table[["name", "what", "MB", "present", "where"]].to_string(index=False))
    print("\nlicences, and where `data get NAME` gets them:")
    for row in table.itertuples():
        print(f"  {row.name:11} {row.licence}; {row.address}")


def data_get_command(options: argparse.Namespace) -> None:
    """`data get`."""
    found = registry.get(options.name, mirror=options.mirror)
    print("\n".join(f"got {path}" for path in found) or f"{options.name} was complete already")


def evaluate_command(options: argparse.Namespace) -> None:
    """`evaluate`: every number of the last epoch again, from the saved weights."""
    run = runs.by_name(options.run)
    networks = {weights: run.network(weights) for weights in ("network", "momentum")}
    if run.config.dataset == "clothing1m":
        measured = clothing1m_train.evaluate(run.config, networks)
    else:
        where = device()
        data = run.data.to(where)
        measured = {name: measure(network.to(where), data) for name, network in networks.items()}
    table = pd.DataFrame(measured)
    print(table.to_string(float_format="%.4f"))


def noise_command(options: argparse.Namespace) -> None:
    """`noise`: write or check a label file; prints the realised rate and transition matrix."""
    settings = settings_of(options)
    require(settings.get("dataset") != "clothing1m", "clothing1m comes with wrong labels of its own")
    config = Config.from_dict({"labels": "generated"} | settings)
    clean = load_clean(config)
    true, C = clean.train.true.numpy(), clean.num_classes
    if options.check:
        corruption = noise.Corruption.load(options.check, true=true, num_classes=C)
    else:
        corruption = draw_labels(config, true, C, options)
        corruption.save(options.out)
        print(f"wrote {options.out} and {options.out.with_suffix('.json')}")
    print(
        f"{corruption.kind}: {corruption.changed.sum()} of {len(true)} labels are wrong, "
        f"a rate of {corruption.realised_rate:.4f}"
    )
    print("T[true, given], rows sum to one:")
    print(pd.DataFrame(corruption.transition_matrix).to_string(float_format="%.3f"))


def draw_labels(
    config: Config, true: np.ndarray, num_classes: int, options: argparse.Namespace
) -> noise.Corruption:
    """The corruption that the options of `noise` ask for, the same as a run's with the same settings."""
    seed, exact = config.noise_seed, not options.bernoulli
    if options.matrix:
        require(not options.own_class, "--own-class does not go with --matrix, which says itself what stays")
        T = read_matrix(options.matrix, num_classes)
        rng = numpy_generator(seed, "inherent noise", 0)
        return noise.from_matrix(true, T, seed=seed, rng=rng, exact=exact)
    require(not options.own_class or config.noise_mode == "sym", "--own-class belongs to --noise-mode sym")
    require(
        exact or config.noise_mode in ("sym", "asym", "openset"),
        f"--bernoulli does not go with --noise-mode {config.noise_mode}, whose count is fixed",
    )
    return draw_corruption(config, exact=exact, own_class=options.own_class)


def read_matrix(path: Path, num_classes: int) -> np.ndarray:
    """A transition matrix from a CSV of numbers without header."""
    try:
        T = pd.read_csv(path, header=None).to_numpy(dtype=float)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable CSV of numbers: {' '.join(str(error).split())}") from None
    require(
        T.shape == (num_classes, num_classes),
        f"{path} holds a matrix of shape {T.shape}, the data set has {num_classes} classes",
    )
    return T


def reproduce_command(options: argparse.Namespace) -> int:
    """`reproduce`: see `sln.reproduce`."""
    from sln.reproduce.execute import parse_parameters, reproduce

    parameters = parse_parameters(options.parameters)
    return reproduce(options.profile, only=options.notebook, parameters=parameters, dry_run=options.dry_run)


def sweep_command(options: argparse.Namespace) -> int:
    """`sweep`: see `sln.study.sweep`."""
    from sln.study.sweep import sweep

    if options.workers is not None:
        os.environ["SLN_WORKERS"] = options.workers
    return sweep(options.profile, seeds=options.seeds, ray=options.ray, dry_run=options.dry_run)


def relabel_command(options: argparse.Namespace) -> None:
    """`relabel`: see `sln.relabel`."""
    given = {name: value for name, value in vars(options).items() if name not in ("command", "source")}
    if "images" in given:
        given["root"] = given.pop("images")
    found = relabel(options.source, **given)
    for sentence in in_words(found.fitted, len(found.skipped)):
        print(sentence)
    for name, why in found.skipped[:SKIPS_SHOWN]:
        print(f"  skipped {name!r}: {why}")
    print(f"{found.changed} labels at least as suspect as the threshold are replaced in corrected.csv")
    print(f"look at {found.folder / 'suspects.html'}")


def list_command(options: argparse.Namespace) -> None:
    """`runs list`."""
    table = runs.listing()
    if len(table):
        print(table.to_string(index=False, float_format="%.3f", na_rep="-"))
    else:
        print(f"no runs in {runs.runs_folder()}")


def show_command(options: argparse.Namespace) -> None:
    """`runs show`."""
    run = runs.by_name(options.run)
    print(pd.Series(run.config.to_dict()).to_string())
    print()
    print(last_epoch(run).to_string(float_format="%.4f"))


def remove_command(options: argparse.Namespace) -> None:
    """`runs remove`."""
    runs.remove(options.run)
    print(f"removed {options.run}")


def last_epoch(run: runs.Run) -> pd.DataFrame:
    """The reported epoch's history, a column per weights."""
    rows = {weights: run.final(weights) for weights in run.history["weights"].unique()}
    table = pd.DataFrame({weights: {"epoch": row.name} | row.to_dict() for weights, row in rows.items()})
    return table.drop(index=["weights", "seconds"]).astype(float)
