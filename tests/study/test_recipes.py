"""The paper's experiments: every released command, by its recipe and as it was typed, for a short epoch."""

import dataclasses
import hashlib
import shlex
import sys

import cifar_miniature
import clothing1m_miniature
import numpy as np
import pandas as pd
import pytest

from sln import noise, runs
from sln.analysis import results
from sln.cli import main
from sln.config import Config
from sln.datasets import load, registry
from sln.defaults import DEFAULTS
from sln.study.recipes import RECIPES, SIGMAS, recipe, recipe_of
from sln.utils.files import data_folder

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
    # typed with a seed, open-set noise is drawn anew, as in the recipe and the released script
    with pytest.raises(SystemExit):
        main(["train", *([] if "--dataset" in flags else ["--dataset", dataset]), *flags, "--seed", "3"])
    assert asked.pop().noise_seed == known.config(3).noise_seed
    typed, named = asked
    # typed, the losses of the correction are the clean default's; the recipe's are the authors'
    assert typed.replace(correction_losses=named.correction_losses) == named
    assert named.correction_losses == ("as-released" if "--correction -1" not in known.command else "given")


@pytest.mark.parametrize("known", RECIPES.values(), ids=lambda known: known.name)
def test_a_run_of_a_recipe_is_known_for_it_whatever_its_seed(known):
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
            assert known.config(2).correction == DEFAULTS[known.dataset]["correction"]


def test_an_unknown_recipe_is_refused_and_the_nearest_named(refused):
    with refused("unknown recipe 'cifar10-sym-sln-mo'", "did you mean 'cifar10-sym-sln-mo-lc'?"):
        recipe("cifar10-sym-sln-mo")


def test_a_recipe_does_not_take_another_data_set(capsys):
    assert main(["train", "--recipe", "cifar10-sym-sln", "--dataset", "cifar100"]) == 2
    assert "cifar10-sym-sln is for cifar10, not for cifar100" in capsys.readouterr().err


# --- for a short epoch --------------------------------------------------------------------------------------


def small_labels(folder, dataset, true, monkeypatch):
    """Released label files for a miniature: of its length, their checksums in the place of the published."""
    found = []
    for mode in ("sym", "asym", "dependent"):
        rng, C = np.random.default_rng(0), 100
        T = noise.asymmetric_matrix(C, 0.4, load.class_map(dataset))
        T = noise.symmetric_matrix(C, 0.4) if mode != "asym" else T
        given = noise.flip(np.array(true), T, rng)
        path = folder / "labels" / "sln" / dataset / f"{mode}0.4.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"label": true, "label_noisy": given}).to_csv(path, index=False)
        checksum = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        found.append(registry.File(registry.label_places(dataset, path.name), checksum))
    others = [file for file in registry.SLN_LABELS.files if f"/{dataset}/" not in file.places[0]]
    changed = dataclasses.replace(registry.SLN_LABELS, files=(*others, *found))
    monkeypatch.setattr(registry, "SLN_LABELS", changed)


@pytest.fixture(scope="module")
def shortened(tmp_path_factory):
    """A data folder of the real CIFAR-10 and its label files, and CIFAR-100 and Clothing1M in miniature.

    One runs folder for all, so that a corrected run finds the one that it forks from.
    """
    real = data_folder().resolve()
    if not (real / "cifar-10-batches-py").is_dir() or not (real / "labels" / "sln" / "cifar10").is_dir():
        pytest.skip(f"CIFAR-10 and the released label files are not in {real}")
    folder = tmp_path_factory.mktemp("data")
    (folder / "labels" / "sln").mkdir(parents=True)
    for place in ("cifar-10-batches-py", "labels/sln/cifar10"):
        (folder / place).symlink_to(real / place)
    clothing1m_miniature.make(folder)
    with pytest.MonkeyPatch.context() as patch:
        hundred = cifar_miniature.make("cifar100", patch, each=160)
        hundred.lay(folder)
        small_labels(folder, "cifar100", hundred.labels[True], patch)
        yield folder, tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("known", RECIPES.values(), ids=lambda known: known.name)
def test_every_experiment_runs_for_a_shortened_epoch(known, shortened, monkeypatch, capsys):
    monkeypatch.setenv("SLN_DATA", str(shortened[0]))
    monkeypatch.setenv("SLN_RUNS", str(shortened[1]))
    size = ["--subset", "132", "--test-subset", "16"]  # one whole batch of 128 and a smaller one
    if not known.command:
        size = ["--subset", "16", "--test-subset", "16"]
    if known.dataset == "clothing1m":
        size = ["--num-per-class", "1", "--model", "resnet18", "--no-pretrained"]
    size += ["--correction", "1"] if known.config().corrects else []
    assert main(["train", "--recipe", known.name, *SHORT, *size]) == 0
    told = capsys.readouterr()
    assert "test_accuracy" in told.out
    run = runs.by_name(told.out.rsplit("/", 1)[1].strip())
    assert run.config.sigma == known.config().sigma
    assert list(run.of("momentum").index) == [1, 2]
    assert np.isfinite(run.history[["objective", "test_accuracy", "test_loss"]].to_numpy()).all()
    assert sorted(run.corrections()) == ([2] if run.config.corrects else [])
    if known.name.endswith("-ce") or known.dataset == "clothing1m":
        return
    split = run.data.train
    if known.noise == "openset":
        assert int(split.wrong.sum()) == round(0.4 * 132)
        assert (split.true[split.wrong] == -1).all()
    else:
        on_file = pd.read_csv(
            shortened[0] / "labels" / "sln" / known.dataset / f"{known.noise}0.4.csv", nrows=132
        )
        assert split.given.tolist() == on_file["label_noisy"].tolist()
        assert split.true.tolist() == on_file["label"].tolist()


def test_a_shortened_run_is_none_of_the_papers(shortened, monkeypatch):
    monkeypatch.setenv("SLN_RUNS", str(shortened[1]))
    assert (results.of_the_recipes()["seeds"] == 0).all()


# --- beside the paper ---------------------------------------------------------------------------------------


def finished(known, seed, accuracies):
    """What `runs.finished` gives, without the training: last test accuracies by weights."""
    run = runs.Run(known.config(seed), runs.runs_folder())
    rows = [
        {"epoch": epoch, "weights": weights, "test_accuracy": value * epoch / 2}
        for epoch in (1, 2)
        for weights, value in accuracies.items()
    ]
    run.__dict__["history"] = pd.DataFrame(rows)
    return run


def test_our_runs_stand_beside_the_papers_with_their_difference(monkeypatch, capsys):
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
    told = capsys.readouterr().out
    lines = [line.split() for line in told.splitlines()]
    line = next(line for line in lines if line[:2] == ["cifar10-sym-sln", "SLN"])
    assert line == ["cifar10-sym-sln", "SLN", "80.00", "±", "0.61", "81.00", "±", "2.83", "2", "+1.00"]
    assert told.count("no runs") == 30
    assert told.count("not at hand") == 4  # the paper's Clothing1M
    for released in RELEASED:
        assert released.command in told
