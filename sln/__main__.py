"""The command line: `python -m sln --help`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sln import data, noise, runs
from sln.config import Config
from sln.errors import InputError, require
from sln.loading import draw_corruption
from sln.streams import numpy_generator
from sln.study import PROFILES
from sln.train import measure

PARSERS = {"int": int, "float": float, "str": str}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, 1 when a reproduction failed, 2 for bad input, 130 for Ctrl-C."""
    options = build_parser().parse_args(arguments)
    try:
        code = options.command(options) or 0
        sys.stdout.flush()
        return code
    except InputError as error:
        print(f"sln: {error}", file=sys.stderr)
        return 2
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

    train = commands.add_parser("train", help="train a run, or find it, and say what came out")
    add_config_options(train)
    train.set_defaults(command=train_command)

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
    reproduce.set_defaults(command=reproduce_command)

    of_runs = commands.add_parser("runs", help="list, show or remove trained runs").add_subparsers(
        required=True, metavar="ACTION"
    )
    of_runs.add_parser("list", help="every run, finished or not").set_defaults(command=list_command)
    for name, command, about in (
        ("show", show_command, "one run's knobs and last epoch"),
        ("remove", remove_command, "delete one run"),
    ):
        action = of_runs.add_parser(name, help=about)
        action.add_argument("run", metavar="RUN")
        action.set_defaults(command=command)
    return parser


def add_config_options(parser: argparse.ArgumentParser, names: Sequence[str] | None = None) -> None:
    """An option for every knob, or those named: --noise-mode, and --noise_mode as the released scripts do."""
    for knob in dataclasses.fields(Config):
        if names is not None and knob.name not in names:
            continue
        flags = list(dict.fromkeys([f"--{knob.name.replace('_', '-')}", f"--{knob.name}"]))
        shown = f"{knob.metadata['about']} (default {knob.default})".replace("%", "%%")
        if knob.type == "bool":
            parser.add_argument(*flags, dest=knob.name, action="store_true", help=shown)
        elif knob.name == "extra_alphas":
            parser.add_argument(
                *flags, dest=knob.name, type=float, nargs="+", default=(), metavar="A", help=shown
            )
        else:
            parser.add_argument(
                *flags,
                dest=knob.name,
                type=PARSERS[str(knob.type)],
                default=knob.default,
                metavar=str(knob.type).upper(),
                help=shown,
            )


def config_of(options: argparse.Namespace) -> Config:
    """The Config that the options name."""
    names = {knob.name for knob in dataclasses.fields(Config)}
    return Config.from_dict({name: value for name, value in vars(options).items() if name in names})


def train_command(options: argparse.Namespace) -> None:
    """`train`: the run's folder and its last epoch."""
    run = runs.get(config_of(options))
    print(last_epoch(run).to_string(float_format="%.4f"))
    print(f"run: {run.folder}")


def evaluate_command(options: argparse.Namespace) -> None:
    """`evaluate`: every number of the last epoch again, from the saved weights."""
    run = runs.by_name(options.run)
    table = pd.DataFrame(
        {reader: measure(run.network(reader), run.data) for reader in ("network", "momentum")}
    )
    print(table.to_string(float_format="%.4f"))


def noise_command(options: argparse.Namespace) -> None:
    """`noise`: write or check a label file; prints the realised rate and transition matrix."""
    config = config_of(options)
    clean = data.digits()
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
    """The corruption that the options of `noise` ask for, the same as a run's with the same knobs."""
    seed, exact = config.noise_seed, not options.bernoulli
    if options.matrix:
        require(not options.own_class, "--own-class does not go with --matrix, which says itself what stays")
        T = read_matrix(options.matrix, num_classes)
        rng = numpy_generator(seed, "inherent noise", 0)
        return noise.from_matrix(true, T, seed=seed, rng=rng, exact=exact)
    require(not options.own_class or config.noise_mode == "sym", "--own-class belongs to --noise-mode sym")
    require(
        exact or config.noise_mode != "dependent",
        "--bernoulli does not go with --noise-mode dependent, whose count is exact by construction",
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
    from sln.reproduce import parse_parameters, reproduce  # papermill and Jupyter only where they are needed

    return reproduce(options.profile, only=options.notebook, parameters=parse_parameters(options.parameters))


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
    """The last epoch's history, a column a reader."""
    return run.history.groupby("reader", sort=False).last().drop(columns=["seconds"]).T


if __name__ == "__main__":
    sys.exit(main())
