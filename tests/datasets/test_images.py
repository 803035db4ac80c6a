"""CIFAR as a run sees it: cut, averaged down, with released or own labels, on miniatures of the files."""

import dataclasses
import hashlib

import cifar_miniature
import numpy as np
import pandas as pd
import pytest
import torch

from sln import noise, runs, train
from sln.config import Config
from sln.datasets import download, load
from sln.datasets import images as source
from sln.utils import devices
from sln.utils.files import data_folder


@pytest.fixture
def ten(tmp_path, monkeypatch):
    """CIFAR-10 with 5 x 12 training and 12 test images."""
    monkeypatch.setenv("SLN_DATA", str(tmp_path / "data"))
    made = cifar_miniature.make("cifar10", monkeypatch, each=12)
    made.lay(data_folder())
    return made


@pytest.fixture
def hundred(tmp_path, monkeypatch):
    """CIFAR-100 with 40 training and 40 test images."""
    monkeypatch.setenv("SLN_DATA", str(tmp_path / "data"))
    made = cifar_miniature.make("cifar100", monkeypatch, each=40, seed=9)
    made.lay(data_folder())
    return made


def pixels(made, training=True):
    return torch.from_numpy(made.images[training].reshape(-1, 3, 32, 32))


def clean(dataset="cifar10", **settings):
    return source.clean(Config(dataset=dataset, noise_mode="none", **settings))


# --- which images -------------------------------------------------------------------------------------------


def test_all_images_are_there_in_the_files_order_and_none_is_held_out(ten):
    whole = clean()
    assert torch.equal(whole.train.images, pixels(ten))
    assert whole.train.true.tolist() == ten.labels[True]
    assert torch.equal(whole.test.images, pixels(ten, training=False))
    assert whole.test.true.tolist() == ten.labels[False]
    assert (len(whole.validation), whole.classes, whole.padding) == (0, ten.classes, 4)
    assert whole.train.images.dtype == torch.uint8


def test_the_subsets_are_the_first_images_and_the_last_of_them_are_held_out(ten):
    cut = clean(subset=20, held_out=0.3, test_subset=5)
    assert torch.equal(torch.cat([cut.train.images, cut.validation.images]), pixels(ten)[:20])
    assert (len(cut.train), len(cut.validation), len(cut.test)) == (14, 6, 5)
    assert torch.equal(cut.test.images, pixels(ten, training=False)[:5])


def test_a_subset_larger_than_the_data_set_is_refused(ten, refused):
    with refused("a subset of 61 images", "there are 60"):
        clean(subset=61)
    with refused("a subset of 13 images", "there are 12"):
        clean(test_subset=13)
    with refused("held_out 0.9", "leaves none to train on"):
        clean(subset=1, held_out=0.9)


def test_averaging_down_gives_the_mean_of_each_square_rounded(ten):
    small = clean(downsample=4)
    squares = pixels(ten).double().reshape(-1, 3, 8, 4, 8, 4).mean(dim=(3, 5))
    assert small.train.images.shape == (60, 3, 8, 8)
    assert (small.train.images.double() - squares).abs().max() <= 0.5
    assert small.padding == 1


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_pixels_are_normalised_by_the_released_means(dataset, request):
    request.getfixturevalue("ten" if dataset == "cifar10" else "hundred")
    whole = clean(dataset)
    released = {"cifar10": (0.4914, 0.2023), "cifar100": (0.5071, 0.2675)}[dataset]
    got = whole.normalise(whole.train.images[:1])[0, 0]
    expected = (whole.train.images[0, 0].double() / 255 - released[0]) / released[1]
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)


# --- which labels -------------------------------------------------------------------------------------------


def release(made, given, monkeypatch, mode="sym"):
    """A label file for the miniature, in the place of the published one."""
    path = data_folder() / "labels" / "sln" / made.name / f"{mode}0.4.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"label": made.labels[True], "label_noisy": given}).to_csv(path, index=False)
    checksum = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    file = download.File(download.label_places(made.name, path.name), checksum, path.name)
    monkeypatch.setattr(download, "SLN_LABELS", dataclasses.replace(download.SLN_LABELS, files=(file,)))
    return path


def test_released_labels_go_to_the_images_of_their_rows_held_out_ones_too(ten, monkeypatch):
    given = np.random.default_rng(0).integers(10, size=60)
    release(ten, given, monkeypatch)
    config = Config(dataset="cifar10", noise_mode="sym", subset=20, held_out=0.25)
    noisy = load.load_data(config)
    assert noisy.train.given.tolist() == given[:15].tolist()
    assert noisy.validation.given.tolist() == given[15:20].tolist()
    assert noisy.train.true.tolist() == ten.labels[True][:15]
    assert noisy.test.given.tolist() == noisy.test.true.tolist() == ten.labels[False]
    corruption = load.draw_corruption(config)
    assert corruption.given.tolist() == given[:15].tolist()
    assert corruption.kind == "sym"


def test_a_fold_is_a_block_of_images_with_the_labels_of_their_rows(ten, monkeypatch):
    given = np.random.default_rng(0).integers(10, size=60)
    release(ten, given, monkeypatch)
    config = Config(dataset="cifar10", noise_mode="sym", subset=20, held_out=0.25, test_subset=5, fold=1)
    noisy, whole = load.load_data(config), clean()
    assert noisy.train.given.tolist() == given[20:35].tolist()
    assert noisy.validation.given.tolist() == given[35:40].tolist()
    assert torch.equal(noisy.train.images, whole.train.images[20:35])
    assert torch.equal(noisy.test.images, whole.test.images[5:10])
    assert load.draw_corruption(config).given.tolist() == given[20:35].tolist()


def test_blocks_are_disjoint_until_the_images_are_used_up(refused):
    assert [source.block(20, fold, 60) for fold in range(4)] == [
        slice(0, 20), slice(20, 40), slice(40, 60), slice(0, 20)
    ]  # fmt: skip
    assert source.block(0, 3, 60) == slice(0, 60)
    assert source.block(50, 1, 60) == slice(0, 50)
    with refused("a subset of 61 images was asked for, there are 60"):
        source.block(61, 0, 60)


def test_the_fold_of_whole_data_sets_is_always_the_first():
    assert Config(dataset="cifar10", fold=3) == Config(dataset="cifar10")
    assert Config(dataset="cifar10", fold=3, subset=20).fold == 3


def test_labels_of_another_data_set_are_refused_with_the_first_mismatch(ten, monkeypatch, refused):
    true = list(ten.labels[True])
    ten.labels[True][3] = (true[3] + 1) % 10
    release(ten, true, monkeypatch)
    with refused(f"true label {(true[3] + 1) % 10} at row 3, the data set has {true[3]} there"):
        load.load_data(Config(dataset="cifar10", noise_mode="sym"))


def test_your_own_label_file_is_used(ten, tmp_path):
    given = [(label + 1) % 10 for label in ten.labels[True]]
    pd.DataFrame({"label": ten.labels[True], "label_noisy": given}).to_csv(tmp_path / "mine.csv", index=False)
    config = Config(dataset="cifar10", noise_mode="sym", labels=str(tmp_path / "mine.csv"))
    assert load.load_data(config).train.given.tolist() == given


def test_your_own_labels_of_the_digits_are_trained_on_and_validation_labels_drawn(tmp_path):
    true = source.digits().train.true
    mine = noise.symmetric(true.numpy(), 10, 0.25, seed=0)
    mine.save(tmp_path / "mine.csv")
    noisy = load.load_data(Config(labels=str(tmp_path / "mine.csv")))
    assert noisy.train.given.tolist() == mine.given.tolist()
    assert torch.equal(noisy.validation.given, load.load_data(Config()).validation.given)


@pytest.mark.parametrize(
    ("dataset", "mode"), [("cifar10", "asym"), ("cifar100", "asym"), ("cifar100", "sym")]
)
def test_generated_labels_have_exact_counts_and_follow_the_data_sets_map(dataset, mode, request):
    made = request.getfixturevalue("ten" if dataset == "cifar10" else "hundred")
    config = Config(dataset=dataset, noise_mode=mode, labels="generated", noise_seed=4)
    split = load.load_data(config).train
    true, given = np.array(made.labels[True]), split.given.numpy()
    wrong = given != true
    if mode == "sym":
        assert wrong.sum() == round(0.4 * len(true))
        return
    targets = (
        {9: 1, 2: 0, 4: 7, 3: 5, 5: 3} if dataset == "cifar10" else {i: (i + 1) % 100 for i in range(100)}
    )
    assert all(targets[t] == g for t, g in zip(true[wrong], given[wrong], strict=True))
    assert wrong.sum() == round(0.4 * sum(t in targets for t in true))
    again = load.load_data(config.replace(noise_seed=5)).train.given
    assert not torch.equal(again, split.given)


def test_instance_dependent_labels_are_drawn_by_a_network_of_the_configuration(ten):
    config = Config(
        dataset="cifar10",
        noise_mode="dependent",
        noise_rate=0.3,
        labels="generated",
        model="wrn-10-1",
        threads=1,
        downsample=4,
    )
    split = load.load_data(config).train
    assert int(split.wrong.sum()) == 18
    base = load.data_settings(config)
    scores = load.averaged_softmax(clean(downsample=4), base, load.AVERAGED_EPOCHS, network=0)
    expected = noise.instance_dependent(np.array(ten.labels[True]), scores, 0.3, seed=0)
    assert split.given.tolist() == expected.given.tolist()
    assert base.epochs == 300  # the recipe's other settings are the network's, too
    other = load.data_settings(config.replace(sigma=1.0, seed=7, epochs=3))
    assert other == base


def test_open_set_images_are_cifar_100s_by_the_seeds_index(ten, hundred):
    config = Config(dataset="cifar10", noise_mode="openset", noise_seed=2)
    split, corruption = load.load_data(config).train, load.draw_corruption(config)
    replaced = torch.from_numpy(corruption.replaced_by >= 0)
    assert int(replaced.sum()) == 24
    assert torch.equal(split.images[~replaced], pixels(ten)[~replaced])
    outside = pixels(hundred)[torch.from_numpy(corruption.replaced_by)[replaced]]
    assert torch.equal(split.images[replaced], outside)
    assert split.given.tolist() == ten.labels[True]
    assert torch.equal(split.wrong, replaced)
    assert len(set(corruption.replaced_by[corruption.replaced_by >= 0])) == 24


def test_open_set_noise_without_cifar_100_says_how_to_get_it(ten, refused):
    with refused("CIFAR-100", "python -m sln data get cifar100"):
        load.load_data(Config(dataset="cifar10", noise_mode="openset"))


def test_true_labels_are_loaded_once_for_every_noise_on_them(ten):
    config = Config(dataset="cifar10", noise_mode="sym", labels="generated")
    for seed in (0, 1):
        load.load_data(config.replace(noise_seed=seed, noise_rate=0.1 * seed))
    assert len(load.cache) == 3
    assert load.load_clean(config) is load.load_clean(config.replace(noise_mode="asym", noise_seed=3))


def test_the_least_recently_used_data_leave_the_memory():
    first = load.load_data(Config(noise_seed=0))
    for seed in range(1, 2 * load.MAX_CACHED):
        load.load_data(Config(noise_seed=seed))
        assert load.load_data(Config(noise_seed=0)) is first
        assert len(load.cache) <= load.MAX_CACHED
    assert {key[0].noise_seed for key in load.cache} >= {0, 2 * load.MAX_CACHED - 1}
    assert 1 not in {key[0].noise_seed for key in load.cache}


def test_a_label_file_that_changes_is_read_again(ten, tmp_path):
    path, true = tmp_path / "mine.csv", np.array(ten.labels[True])
    config = Config(dataset="cifar10", noise_mode="sym", labels=str(path))
    for shift in (1, 22):  # the second file is longer
        given = (true + shift) % 10
        table = pd.DataFrame({"label": true, "label_noisy": given, "comment": shift})
        table.to_csv(path, index=False)
        assert load.load_data(config).train.given.tolist() == given.tolist()


def test_runs_that_differ_in_other_settings_share_their_data(ten):
    a = load.load_data(Config(dataset="cifar10", noise_mode="none", sigma=0.0))
    assert load.load_data(Config(dataset="cifar10", noise_mode="none", seed=3, epochs=7)) is a


def test_a_run_on_your_own_labels_is_not_found_after_they_have_changed(ten, tmp_path, refused):
    path, true = tmp_path / "mine.csv", ten.labels[True]
    pd.DataFrame({"label": true, "label_noisy": true}).to_csv(path, index=False)
    config = Config(
        dataset="cifar10", noise_mode="sym", labels=str(path), model="wrn-10-1", downsample=4,
        epochs=1, threads=1, subset=20,
    )  # fmt: skip
    run = runs.get(config, quiet=True)
    assert runs.find(config) == run
    pd.DataFrame({"label": true, "label_noisy": [(y + 1) % 10 for y in true]}).to_csv(path, index=False)
    for ask in (runs.find, runs.get):
        with refused("was trained on other labels", str(path), "runs remove"):
            ask(config)


def test_a_corrected_run_does_not_fork_from_a_run_on_other_labels(ten, tmp_path, refused):
    path, true = tmp_path / "mine.csv", ten.labels[True]
    pd.DataFrame({"label": true, "label_noisy": true}).to_csv(path, index=False)
    plain = Config(
        dataset="cifar10", noise_mode="sym", labels=str(path), model="wrn-10-1", downsample=4,
        epochs=2, correction=-1, threads=1, subset=20, held_out=0.5,
    )  # fmt: skip
    runs.get(plain, quiet=True, keep_state_at=1)
    # only held-out labels differ
    changed = [*true[:10], *((y + 1) % 10 for y in true[10:])]
    pd.DataFrame({"label": true, "label_noisy": changed}).to_csv(path, index=False)
    with refused("was trained on other labels", plain.run_id):
        runs.get(plain.replace(correction=1), quiet=True)


def test_labels_are_pinned_by_a_seed_or_a_checksum_and_not_by_a_file_or_a_network():
    def pinned(**settings):
        return load.labels_are_pinned(Config(**settings))

    assert pinned()
    assert pinned(noise_mode="openset")
    assert pinned(dataset="cifar10")
    assert pinned(dataset="cifar10", noise_mode="human-worst")
    assert pinned(dataset="clothing1m")
    assert not pinned(noise_mode="dependent")
    assert not pinned(labels="mine.csv")


@pytest.mark.parametrize("mode", ["openset", "dependent"])
def test_labels_that_the_noise_command_wrote_can_be_trained_on(mode, tmp_path):
    written = load.draw_corruption(Config(noise_mode=mode, noise_seed=5))
    written.save(tmp_path / "mine.csv")
    drawn = load.load_data(Config(noise_mode=mode, noise_seed=5))
    filed = load.load_data(Config(noise_mode=mode, noise_seed=5, labels=str(tmp_path / "mine.csv")))
    for part in ("train", "validation"):
        for ours, theirs in zip(getattr(filed, part).tensors, getattr(drawn, part).tensors, strict=True):
            assert torch.equal(ours, theirs)


# --- a run on them ------------------------------------------------------------------------------------------


def test_a_run_on_photographs_is_saved_found_and_read(ten, monkeypatch):
    release(ten, np.random.default_rng(0).integers(10, size=60), monkeypatch)
    config = Config(
        dataset="cifar10", noise_mode="sym", model="wrn-10-1", downsample=4, epochs=2,
        batch_size=16, correction=1, correction_losses="as-released", threads=1, held_out=0.2,
    )  # fmt: skip
    run = runs.get(config, quiet=True)
    assert runs.get(config, quiet=True) == run
    measured = train.measure(run.network("momentum"), run.data)
    for name, value in measured.items():
        assert value == pytest.approx(run.final("momentum")[name], rel=1e-5), name
    assert run.corrected_epochs == [2]
    assert len(run.examples) == 48


# --- where --------------------------------------------------------------------------------------------------


def test_the_device_is_the_cpu_unless_a_gpu_is_there(monkeypatch, refused):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("auto", "cpu", ""):
        monkeypatch.setenv("SLN_DEVICE", name)
        assert devices.device() == torch.device("cpu")
    for name, words in {"cuda:1": "torch sees 0 GPUs", "gpu": "allowed are", "cuda:x": "allowed are"}.items():
        monkeypatch.setenv("SLN_DEVICE", name)
        with refused(repr(name), words):
            devices.device()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, index in {"auto": 0, "cuda": 0, "cuda:1": 1}.items():
        monkeypatch.setenv("SLN_DEVICE", name)
        assert devices.device() == torch.device("cuda", index)


def test_moving_data_moves_images_and_keeps_labels(ten):
    whole = clean().to(torch.device("meta"))
    assert whole.device.type == "meta"
    assert {split.images.device.type for split in (whole.train, whole.validation, whole.test)} == {"meta"}
    assert whole.train.given.device.type == "cpu"


def test_torchvision_can_be_imported_beside_a_torch_of_another_build():
    assert devices.torchvision() is devices.torchvision()
    assert devices.torchvision().models.resnet18(num_classes=3).fc.out_features == 3
