"""The embedded digits and the inherent noise that is put on them."""

import collections
import dataclasses
import hashlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_sample_images

from sln import data, noise
from sln.config import Config
from sln.datasets import images as source
from sln.datasets import load
from sln.train import State


def images_and_labels(split):
    """Every (image, label) of a split, as a multiset."""
    images, labels = split.images.numpy(), split.true.tolist()
    return collections.Counter((image.tobytes(), label) for image, label in zip(images, labels, strict=True))


def same(a, b):
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("images", "given", "true"))


# --- the splits ---------------------------------------------------------------------------------------------


def test_the_splits_have_the_published_sizes_and_labels():
    clean = source.digits()
    published = {
        "train": (1150, "37f0d2572157c9c3b41dd303f430395cff3564526bea7be5c5304f76962e6eb9"),
        "validation": (287, "79e1ac71237c8dc13b19424fd17b66a463bb32d4bd27b8b41c5cf5fed175cd24"),
        "test": (360, "a941d7998e4d0bfc2e1e7730e48ff33c5c03e0d2081c6162be9f09842d244cd1"),
    }
    for name, (size, sha256) in published.items():
        split = getattr(clean, name)
        assert len(split) == len(split.images) == len(split.true) == size
        assert hashlib.sha256(split.true.numpy().astype("<i8").tobytes()).hexdigest() == sha256


def test_every_image_of_the_digits_is_in_one_split_once():
    bunch = load_digits()
    everything = collections.Counter(
        (image.astype(np.uint8).tobytes(), label)
        for image, label in zip(bunch.images, bunch.target.tolist(), strict=True)
    )
    clean = source.digits()
    together = images_and_labels(clean.train) + images_and_labels(clean.validation)
    assert together + images_and_labels(clean.test) == everything


def test_five_folds_test_every_digit_once():
    bunch = load_digits()
    tested = sum((images_and_labels(source.digits(fold).test) for fold in range(5)), collections.Counter())
    assert tested == collections.Counter(
        (image.astype(np.uint8).tobytes(), label)
        for image, label in zip(bunch.images, bunch.target.tolist(), strict=True)
    )
    assert [len(source.digits(fold).train) for fold in range(5)] == [1150] * 5
    assert torch.equal(source.digits(5).test.images, source.digits(0).test.images)


def test_every_split_has_its_share_of_every_class_within_one():
    clean = source.digits()
    whole = torch.cat([getattr(clean, name).true for name in data.SPLITS]).bincount(minlength=10)
    for name in data.SPLITS:
        split = getattr(clean, name)
        share = whole * len(split) / 1797
        assert ((split.true.bincount(minlength=10) - share).abs() <= 1).all()


def test_digits_are_whole_pixels_with_true_labels():
    clean = source.digits()
    for split in (clean.train, clean.validation, clean.test):
        assert split.images.shape[1:] == (1, 8, 8)
        assert split.images.dtype == torch.uint8
        assert split.images.max() == 16
        assert split.given.dtype == split.true.dtype == torch.int64
        assert not split.wrong.any()
    assert clean.num_classes == 10


def test_normalised_training_images_have_mean_0_and_deviation_1():
    clean = source.digits()
    pixels = clean.normalise(clean.train.images)
    assert pixels.dtype == torch.float32
    assert pixels.shape == (1150, 1, 8, 8)
    assert pixels.double().mean().item() == pytest.approx(0, abs=1e-6)
    assert pixels.double().std().item() == pytest.approx(1, abs=1e-6)


def test_normalising_is_done_channel_by_channel():
    images = torch.stack([torch.full((2, 2), 51), torch.full((2, 2), 255)])[None].to(torch.uint8)
    two_channels = dataclasses.replace(source.digits(), scale=255.0, mean=(0.2, 0.5), std=(0.1, 0.25))
    normalised = two_channels.normalise(images)
    assert normalised[0, :, 0, 0].tolist() == pytest.approx([0, 2], abs=1e-6)


# --- fewer classes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 4, 10])
def test_the_first_classes_are_kept_whole_in_their_order_and_pixels_scaled_as_before(classes):
    whole, kept = source.digits(), load.load_data(Config(classes=classes, noise_mode="none"))
    assert kept.num_classes == classes
    assert kept.classes == tuple("0123456789")[:classes]
    assert (kept.mean, kept.std, kept.scale) == (whole.mean, whole.std, whole.scale)
    for name in data.SPLITS:
        before, after = getattr(whole, name), getattr(kept, name)
        rows = [n for n, label in enumerate(before.true.tolist()) if label < classes]
        assert same(after, before[torch.tensor(rows)])


@pytest.mark.parametrize("mode", ["sym", "openset"])
def test_noise_on_fewer_classes_stays_within_them(mode):
    noisy = load.load_data(Config(classes=4, noise_mode=mode))
    for split in (noisy.train, noisy.validation):
        assert set(split.given.tolist()) == {0, 1, 2, 3}
        assert split.wrong.sum().item() == round(0.4 * len(split))
    assert noisy.test.true.max() == 3
    assert not noisy.test.wrong.any()


def test_labels_of_fewer_classes_can_be_saved_and_trained_on_and_others_are_refused(tmp_path, refused):
    four, file = Config(classes=4, noise_seed=7), tmp_path / "four.csv"
    record = load.draw_corruption(four)
    record.save(file)
    assert len(record.given) == len(load.load_data(four).train)
    filed = load.load_data(Config(classes=4, labels=str(file)))
    assert filed.train.given.tolist() == record.given.tolist()
    state = State(Config(classes=4, labels=str(file)), filed)
    assert state.network(filed.normalise(filed.train.images[:2])).shape == (2, 4)
    assert state.targets.shape == (len(filed.train), 4)
    with refused(f"{len(filed.train)} labels"):
        load.load_data(Config(labels=str(file)))


# --- images of no class -------------------------------------------------------------------------------------


def test_outside_images_look_like_digits_to_a_program_and_are_cut_from_the_photographs():
    outside = source.outside_digits()
    assert outside.shape == (884, 1, 8, 8)
    assert outside.dtype == torch.uint8
    assert outside.max() == 16
    photos = load_sample_images().images
    for index, photo, top, left in ((0, 0, 0, 0), (27, 0, 24, 24), (442, 1, 0, 0), (883, 1, 384, 600)):
        for row, column in ((0, 0), (3, 5), (7, 7)):
            y, x = top + 3 * row, left + 3 * column
            grey = photos[photo][y : y + 3, x : x + 3].astype(float).mean() / 255 * 16
            assert abs(outside[index, 0, row, column].item() - grey) <= 0.5 + 1e-3


def test_outside_images_are_none_of_the_digits():
    digits = {image.tobytes() for image in load_digits().images.astype(np.uint8)}
    assert not digits & {image.tobytes() for image in source.outside_digits().numpy()}


# --- inherent noise -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["sym", "asym", "openset"])
def test_train_and_validation_are_corrupted_and_test_is_not(mode):
    clean = source.digits()
    before = {name: images_and_labels(getattr(clean, name)) for name in data.SPLITS}
    noisy = load.corrupt(clean, Config(noise_mode=mode))
    assert same(noisy.test, clean.test)
    for name in ("train", "validation"):
        split = getattr(noisy, name)
        share = (
            0.4 if mode != "asym" else 0.4 * np.isin(getattr(clean, name).true, [*noise.DIGITS_MAP]).mean()
        )
        assert abs(split.wrong.sum().item() - share * len(split)) <= 0.5
    assert {name: images_and_labels(getattr(clean, name)) for name in data.SPLITS} == before
    assert not clean.train.wrong.any()
    assert (noisy.mean, noisy.std, noisy.classes) == (clean.mean, clean.std, clean.classes)


def test_no_noise_leaves_every_label_as_it_is():
    clean = source.digits()
    same_again = load.corrupt(clean, Config(noise_mode="none"))
    assert all(same(getattr(same_again, name), getattr(clean, name)) for name in data.SPLITS)


@pytest.mark.parametrize("mode", ["sym", "asym"])
def test_label_noise_changes_given_labels_only(mode):
    clean = source.digits()
    noisy = load.corrupt(clean, Config(noise_mode=mode))
    for name in ("train", "validation"):
        assert torch.equal(getattr(noisy, name).images, getattr(clean, name).images)
        assert torch.equal(getattr(noisy, name).true, getattr(clean, name).true)


def test_asymmetric_noise_goes_from_each_confusable_digit_to_the_one_it_looks_like():
    noisy = load.corrupt(source.digits(), Config(noise_mode="asym"))
    for split in (noisy.train, noisy.validation):
        moves = set(zip(split.true[split.wrong].tolist(), split.given[split.wrong].tolist(), strict=True))
        assert moves == {(7, 1), (2, 7), (3, 8), (5, 6), (6, 5)}


def test_each_split_is_corrupted_by_its_own_stream():
    clean = source.digits()
    noisy = load.corrupt(clean, Config(noise_mode="sym", noise_rate=0.3, noise_seed=5))
    for number, name in ((0, "train"), (1, "validation")):
        expected = noise.symmetric(getattr(clean, name).true.numpy(), 10, 0.3, seed=5, split=number).given
        assert getattr(noisy, name).given.tolist() == expected.tolist()


def test_the_noise_of_one_split_does_not_depend_on_the_other(few_digits):
    clean, config = source.digits(), Config(noise_mode="openset")
    other = dataclasses.replace(clean, train=few_digits.train)
    assert same(load.corrupt(clean, config).validation, load.corrupt(other, config).validation)


@pytest.mark.parametrize("mode", ["sym", "asym", "openset"])
def test_the_noise_seed_fixes_the_noise_and_no_other_setting_matters(mode):
    config = Config(noise_mode=mode)
    trained_otherwise = config.replace(seed=9, sigma=0.0, epochs=3, alpha=0.5, noise_on="logits")
    first, again = load.load_data(config), load.load_data(trained_otherwise)
    load.cache.clear()
    assert same(first.train, again.train)
    assert same(first.train, load.load_data(config).train)
    assert not same(first.train, load.load_data(config.replace(noise_seed=1)).train)


def test_open_set_noise_puts_outside_images_in_place_and_keeps_every_given_label():
    clean, outside = source.digits(), {image.tobytes() for image in source.outside_digits().numpy()}
    noisy = load.corrupt(clean, Config(noise_mode="openset"))
    for name in ("train", "validation"):
        before, after = getattr(clean, name), getattr(noisy, name)
        assert torch.equal(after.given, before.given)
        replaced = torch.tensor([image.tobytes() in outside for image in after.images.numpy()])
        assert replaced.sum().item() == round(0.4 * len(before))
        assert torch.equal(replaced, after.true == -1)
        assert torch.equal(replaced, after.wrong)
        assert torch.equal(after.images[~replaced], before.images[~replaced])
        assert torch.equal(after.true[~replaced], before.true[~replaced])


def test_open_set_images_are_those_that_the_record_names():
    config, clean = Config(noise_mode="openset", noise_seed=2), source.digits()
    record = load.draw_corruption(config)
    images = load.corrupt(clean, config).train.images
    for n in np.flatnonzero(record.replaced_by >= 0):
        assert torch.equal(images[n], source.outside_digits()[record.replaced_by[n]])


@pytest.mark.parametrize("mode", ["none", "sym", "asym", "openset"])
def test_the_labels_that_can_be_saved_are_those_that_a_run_trains_on(mode):
    config = Config(noise_mode=mode, noise_seed=4)
    record, train = load.draw_corruption(config), load.load_data(config).train
    assert record.given.tolist() == train.given.tolist()
    assert record.true.tolist() == train.true.tolist()


def test_instance_dependent_noise_reads_the_scores_of_its_own_split(few_digits):
    generator = np.random.default_rng(0)
    scores = generator.dirichlet(np.ones(10), size=72 + 30)
    noisy = load.corrupt(few_digits, Config(noise_mode="dependent", noise_rate=0.25), scores)
    for name, own in (("train", scores[:72]), ("validation", scores[72:])):
        true = getattr(few_digits, name).true.numpy()
        expected = noise.instance_dependent(true, own, 0.25, seed=0).given
        assert getattr(noisy, name).given.tolist() == expected.tolist()


def test_an_image_of_no_class_that_is_not_there_is_refused(tmp_path, refused):
    true = source.digits().train.true.numpy()
    made = noise.open_set(true, 10, 10_000, 0.4, seed=0)
    made.save(tmp_path / "mine.csv")
    with refused("replaced_by is up to", "mine.csv", "884 images of no class"):
        load.load_data(Config(noise_mode="openset", labels=str(tmp_path / "mine.csv")))


def test_scores_that_are_there_are_read_where_nothing_can_be_written(monkeypatch):
    config = Config(noise_mode="dependent", noise_rate=0.2)
    given = load.load_data(config).train.given
    load.cache.clear()
    monkeypatch.setattr(load, "lock", None)
    assert torch.equal(load.load_data(config).train.given, given)


def test_instance_dependent_noise_without_scores_is_refused(refused):
    with refused("averaged softmax", "load_data"):
        load.corrupt(source.digits(), Config(noise_mode="dependent"))
