"""Drawn letters: their images, classes and inherent noise."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier

from sln import runs
from sln.config import Config
from sln.data import SPLITS
from sln.datasets import letters as source
from sln.datasets import load


def parts(data):
    return [getattr(data, name) for name in SPLITS]


def images(data):
    """Every image of the data as bytes."""
    return {image.numpy().tobytes() for split in parts(data) for image in split.images}


def letters(**settings):
    return load.load_data(Config(dataset="letters", **settings))


def test_a_fold_is_drawn_the_same_again_bit_for_bit():
    first = source.letters(10, 3)
    source.letters.cache_clear()
    source.glyphs.cache_clear()
    again = source.letters(10, 3)
    assert again is not first
    for a, b in zip(parts(first), parts(again), strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.true, b.true)


def test_no_image_is_in_two_folds_or_twice_in_one():
    one, other = images(source.letters(10, 0)), images(source.letters(10, 1))
    assert len(one) == len(other) == sum(source.SIZES.values())
    assert not one & other
    outside = {image.numpy().tobytes() for image in source.outside_letters(10, 0)}
    assert len(outside) == source.OUTSIDE
    assert not outside & one


@pytest.mark.parametrize("classes", [2, 5, 10, 26])
def test_every_number_of_classes_has_as_many_images_and_as_many_of_each_class(classes):
    data = source.letters(classes, 0)
    assert data.num_classes == classes
    for split, size in zip(parts(data), source.SIZES.values(), strict=True):
        assert split.images.shape == (size, 1, source.SIDE, source.SIDE)
        assert split.images.dtype == torch.uint8
        counts = torch.bincount(split.true, minlength=classes)
        assert len(counts) == classes
        assert counts.max() - counts.min() <= 1
        assert torch.equal(split.given, split.true)


def test_normalised_training_pixels_have_mean_zero_and_deviation_one():
    data = source.letters(10, 0)
    pixels = data.normalise(data.train.images)
    assert abs(pixels.mean().item()) < 1e-4
    assert abs(pixels.std().item() - 1) < 1e-4


def test_the_classes_are_all_capital_letters_each_once():
    assert sorted(source.letters(26, 0).classes) == [chr(ord("A") + i) for i in range(26)]


@pytest.mark.parametrize(("classes", "least"), [(2, 0.85), (10, 0.65), (26, 0.5)])
def test_a_linear_classifier_reads_new_images_of_every_class(classes, least):
    data = source.letters(classes, 0)
    flat = [split.images.flatten(1).numpy() / 255 for split in parts(data)]
    right = RidgeClassifier().fit(flat[0], data.train.true).predict(flat[2]) == data.test.true.numpy()
    assert right.mean() > least
    each = np.bincount(data.test.true, weights=right) / np.bincount(data.test.true)
    assert each.min() > 2.5 / classes or (classes == 2 and each.min() > 0.8)


def test_every_letter_differs_from_every_other_in_every_font():
    glyphs = source.glyphs().flatten(2)
    assert (glyphs.sum(dim=2) > 0).all()
    for font in glyphs.transpose(0, 1):
        assert len(font.unique(dim=0)) == 26


def test_outside_letters_are_of_the_other_letters_in_equal_numbers(monkeypatch):
    drawn = []
    monkeypatch.setattr(source, "draw", lambda letter, generator: drawn.append(letter))
    source.outside_letters.__wrapped__(10, 0)
    assert torch.bincount(drawn[0], minlength=26).tolist() == [0] * 10 + [125] * 16


def test_open_set_noise_puts_other_letters_in_the_place_of_classes():
    clean, noisy = letters(noise_mode="none"), letters(noise_mode="openset")
    outside = {image.numpy().tobytes() for image in source.outside_letters(10, 0)}
    replaced = noisy.train.true == -1
    assert replaced.sum() == 480
    assert {image.numpy().tobytes() for image in noisy.train.images[replaced]} <= outside
    assert torch.equal(noisy.train.images[~replaced], clean.train.images[~replaced])


def test_open_set_noise_needs_a_letter_that_is_no_class(refused):
    assert (letters(noise_mode="openset", classes=25).train.true == -1).sum() == 480
    with refused("open-set noise", "classes is 26"):
        letters(noise_mode="openset", classes=26)


@pytest.mark.parametrize("classes", [2, 5, 10, 25, 26])
def test_asymmetric_noise_turns_each_first_of_a_pair_into_the_second(classes):
    data = letters(noise_mode="asym", classes=classes)
    changed = {(data.classes[t], data.classes[g]) for _, g, t in zip(*data.train.tensors, strict=True)}
    pairs = {(a, b) for a, b in changed if a != b}
    expected = [source.LETTERS[i : i + 2] for i in range(0, classes, 2)]
    assert pairs == {tuple(pair) for pair in expected if len(pair) == 2 and pair[1] in data.classes}
    assert {("E", "F")} <= pairs


def test_the_labels_of_a_fold_are_wrong_as_often_as_asked_for_and_test_labels_never():
    data = letters(fold=2)
    assert data.train.wrong.sum() == 480
    assert data.validation.wrong.sum() == 120
    assert not data.test.wrong.any()
    assert torch.equal(data.test.images, source.letters(10, 2).test.images)


@pytest.mark.parametrize("classes", [1, 27])
def test_other_numbers_of_classes_are_refused(classes, refused):
    with refused(f"{classes} classes", "2 to 26"):
        source.letters(classes, 0)


def test_a_missing_font_is_named(monkeypatch, refused):
    monkeypatch.setattr(source, "FONTS", ("NoSuchFont",))
    with refused("NoSuchFont.ttf", "reinstall matplotlib"):
        source.glyphs.__wrapped__()


def test_a_run_trains_on_letters(monkeypatch):
    monkeypatch.setitem(source.SIZES, "train", 200)
    monkeypatch.setitem(source.SIZES, "test", 100)
    load.cache.clear()
    source.letters.cache_clear()
    run = runs.get(Config(dataset="letters", classes=5, epochs=1, fold=9))
    assert run.config.run_id.startswith("letters-sym0.4-sln1-seed0-")
    assert len(run.examples) == 200
    assert run.history["test_accuracy"].notna().all()
    source.letters.cache_clear()
