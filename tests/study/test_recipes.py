"""The paper's experiments: every released command, by its recipe and as typed; each for a short epoch."""

import dataclasses
import hashlib
import shlex
import sys

import cifar_miniature
import clothing1m_miniature
import numpy as np
import pandas as pd
import pytest
import torch

from sln import noise, runs
from sln.analysis import results
from sln.cli import main
from sln.config import NUM_CLASSES, Config
from sln.datasets import download, load
from sln.study.recipes import RECIPES, SIGMAS, recipe, recipe_of
from sln.utils.devices import torchvision

RELEASED = [known for known in RECIPES.values() if known.command]
SHORT = ["--epochs", "2", "--measure-train-every", "2"]


# --- what the recipes are -----------------------------------------------------------------------------------


def test_there_are_the_16_released_commands_and_cross_entropy_beside_each_pair():
    assert len(RELEASED) == 16
    assert len(RECIPES) == 24
    assert [name for name in RECIPES if name.endswith("-ce")] == [
        name.removesuffix("-sln") + "-ce" for name in RECIPES if name.endswith("-sln")
    ]


@pytest.mark.parametrize("known", RELEASED, ids=lambda known: known.name)
def test_a_released_command_typed_here_is_its_recipe(known, monkeypatch):
    asked = []
    monkeypatch.setattr(runs, "get", lambda config: asked.append(config) or sys.exit(0))
    monkeypatch.setenv("SLN_DATA", "elsewhere")
    script, *flags = shlex.split(known.command)
    dataset = "clothing1m" if "clothing" in script else "cifar10"  # the scripts' own defaults
    with pytest.raises(SystemExit):
        main(["train", *([] if "--dataset" in flags else ["--dataset", dataset]), *flags])
    with pytest.raises(SystemExit):
        main(["train", "--recipe", known.name])
    # typed with a seed, open-set noise is drawn from that seed, as in the recipe
    with pytest.raises(SystemExit):
        main(["train", *([] if "--dataset" in flags else ["--dataset", dataset]), *flags, "--seed", "3"])
    assert asked.pop().noise_seed == known.config(3).noise_seed
    typed, named = asked
    # a typed command corrects by the losses of the clean rule, the recipe by the authors'
    assert typed.replace(correction_losses=named.correction_losses) == named
    assert named.correction_losses == ("as-released" if "--correction -1" not in known.command else "given")


@pytest.mark.parametrize("known", RECIPES.values(), ids=lambda known: known.name)
def test_a_run_of_a_recipe_with_any_seed_is_recognised(known):
    for seed in (0, 3):
        assert recipe_of(known.config(seed)) is known
        assert recipe_of(known.config(seed, threads=7, measure_train_every=1)) is known
    assert recipe_of(known.config(0, sigma=0.77)) is None
    assert recipe_of(known.config(0, epochs=9)) is None
    config = known.config(3)
    assert (config.dataset, config.noise_mode, config.seed) == (known.dataset, known.noise, 3)
    assert config.noise_seed == (3 if known.noise == "openset" else 0)
    if config.sigma:
        assert config.sigma == SIGMAS[known.dataset][known.noise]
    assert config.corrects == ("SLN-MO-LC" in known.reads.values())
    assert recipe_of(Config()) is None


def test_the_corrected_recipes_fork_from_the_uncorrected_ones():
    for known in RECIPES.values():
        if known.name.endswith("-lc"):
            plain = recipe(known.name.removesuffix("-mo-lc"))
            assert known.config(2).uncorrected == plain.config(2)
            # which keeps its state there by default
            assert known.config(2).correction == known.config(2).default("correction")


def test_an_unknown_recipe_is_refused_and_the_nearest_named(refused):
    with refused("unknown recipe 'cifar10-sym-sln-mo'", "did you mean 'cifar10-sym-sln-mo-lc'?"):
        recipe("cifar10-sym-sln-mo")


def test_a_recipe_does_not_take_another_data_set(capsys):
    assert main(["train", "--recipe", "cifar10-sym-sln", "--dataset", "cifar100"]) == 2
    assert "cifar10-sym-sln is for cifar10, not for cifar100" in capsys.readouterr().err


# --- for a short epoch --------------------------------------------------------------------------------------


def label_files(folder, dataset, true):
    """Label files for a miniature, as a source lists them."""
    listed, C = [], NUM_CLASSES[dataset]
    for mode in ("sym", "asym", "dependent"):
        T = noise.symmetric_matrix(C, 0.4)
        if mode == "asym":
            T = noise.asymmetric_matrix(C, 0.4, load.class_map(dataset, C))
        given = noise.from_matrix(np.array(true), T, seed=0).given
        path = folder / "labels" / "sln" / dataset / f"{mode}0.4.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"label": true, "label_noisy": given}).to_csv(path, index=False)
        checksum = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        listed.append(download.File(download.label_places(dataset, path.name), checksum, path.name))
    return listed


@pytest.fixture(scope="module")
def shortened(tmp_path_factory):
    """A data folder with all data sets in miniature, and one runs folder: corrected runs fork from others."""
    folder, listed = tmp_path_factory.mktemp("data"), []
    clothing1m_miniature.make(folder)
    with pytest.MonkeyPatch.context() as patch:
        for dataset, each in (("cifar10", 4), ("cifar100", 20)):
            made = cifar_miniature.make(dataset, patch, each=each)
            made.lay(folder)
            listed += label_files(folder, dataset, made.labels[True])
        changed = dataclasses.replace(download.SLN_LABELS, files=tuple(listed))
        patch.setattr(download, "SLN_LABELS", changed)
        yield folder, tmp_path_factory.mktemp("runs")


class SmallResNet(torch.nn.Sequential):
    """In the place of ResNet-18, whose last layer is `fc`, too."""

    def __init__(self, num_classes):
        super().__init__()
        self.conv1, self.bn1 = torch.nn.Conv2d(3, 8, 7, stride=16), torch.nn.BatchNorm2d(8)
        self.pool, self.flat = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
        self.fc = torch.nn.Linear(8, num_classes)


def train_shortened(known, shortened, monkeypatch, capsys, *settings):
    """The run of `sln train --recipe` with two short epochs."""
    monkeypatch.setenv("SLN_DECODERS", "0")
    monkeypatch.setenv("SLN_DATA", str(shortened[0]))
    monkeypatch.setenv("SLN_RUNS", str(shortened[1]))
    correction = ["--correction", "1"] if known.config().corrects else []
    assert main(["train", "--recipe", known.name, *SHORT, *correction, *settings]) == 0
    printed = capsys.readouterr()
    assert "test_accuracy" in printed.out
    run = runs.by_name(printed.out.rsplit("/", 1)[1].strip())
    assert list(run.of("momentum").index) == [1, 2]
    assert np.isfinite(run.history[["objective", "test_accuracy", "test_loss"]].to_numpy()).all()
    return run


@pytest.mark.parametrize("known", RECIPES.values(), ids=lambda known: known.name)
def test_every_experiment_runs_for_two_short_epochs_of_a_small_network(known, shortened, monkeypatch, capsys):
    size = ["--subset", "20", "--test-subset", "4", "--batch-size", "16", "--model", "wrn-10-1"]
    if known.dataset == "clothing1m":
        monkeypatch.setattr(torchvision().models, "resnet18", SmallResNet)
        size = ["--num-per-class", "1", "--model", "resnet18", "--no-pretrained"]
    run = train_shortened(known, shortened, monkeypatch, capsys, *size)
    assert run.config.sigma == known.config().sigma
    corrected = sorted(path.name for path in run.folder.glob("corrections/*"))
    assert corrected == (["002.npz"] if run.config.corrects else [])
    if known.dataset == "clothing1m":
        return
    split = run.data.train
    if known.noise == "openset":
        assert int(split.wrong.sum()) == round(0.4 * 20)
        assert (split.true[split.wrong] == -1).all()
    else:
        on_file = pd.read_csv(
            shortened[0] / "labels" / "sln" / known.dataset / f"{known.noise}0.4.csv", nrows=20
        )
        assert split.given.tolist() == on_file["label_noisy"].tolist()
        assert split.true.tolist() == on_file["label"].tolist()


@pytest.mark.slow
def test_the_released_network_trains(shortened, monkeypatch, capsys):
    size = ["--subset", "20", "--test-subset", "4"]
    run = train_shortened(recipe("cifar10-sym-sln"), shortened, monkeypatch, capsys, *size)
    assert run.config.model == "wrn-28-2"


def test_a_shortened_run_is_none_of_the_papers(shortened, monkeypatch):
    monkeypatch.setenv("SLN_RUNS", str(shortened[1]))
    assert (results.of_the_recipes()["seeds"] == 0).all()


# --- beside the paper ---------------------------------------------------------------------------------------


def finished(known, seed, accuracies):
    """A finished run without training: its last test accuracies by weights."""
    run = runs.Run(known.config(seed), runs.runs_folder())
    rows = [
        {"epoch": epoch, "weights": weights, "test_accuracy": value * epoch / 2}
        for epoch in (1, 2)
        for weights, value in accuracies.items()
    ]
    run.__dict__["history"] = pd.DataFrame(rows)
    return run


def test_the_table_has_our_accuracy_beside_the_papers_and_the_difference(monkeypatch, capsys):
    known = recipe("cifar10-sym-sln")
    trained = [
        finished(known, 0, {"network": 0.79, "momentum": 0.84}),
        finished(known, 4, {"network": 0.83, "momentum": 0.86}),
        finished(known, 4, {"network": 0.99, "momentum": 0.99}),  # the same seed with other threads, say
        runs.Run(Config(), runs.runs_folder()),  # of no recipe
    ]
    monkeypatch.setattr(runs, "finished", lambda: iter(trained))
    table = results.of_the_recipes().set_index(["recipe", "method"])
    assert len(table) == 32
    sln = table.loc[("cifar10-sym-sln", "SLN")]
    assert (sln["seeds"], sln["ours"], sln["paper"]) == (2, pytest.approx(81.0), 80.00)
    assert sln["ours_std"] == pytest.approx(np.std([79, 83], ddof=1))
    assert sln["difference"] == pytest.approx(1.0)
    assert table.loc[("cifar10-sym-sln", "SLN-MO"), "ours"] == pytest.approx(85.0)
    others = table.drop(index=["cifar10-sym-sln"], level=0)
    assert (others["seeds"] == 0).all()
    assert others[["ours", "difference"]].isna().all(axis=None)
    assert main(["recipes"]) == 0
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    line = next(line for line in lines if line[:2] == ["cifar10-sym-sln", "SLN"])
    assert line == ["cifar10-sym-sln", "SLN", "80.00", "±", "0.61", "81.00", "±", "2.83", "2", "+1.00"]
    assert printed.count("no runs") == 30
    assert printed.count("not at hand") == 4  # the paper's Clothing1M
    for released in RELEASED:
        assert released.command in printed
