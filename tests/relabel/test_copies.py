"""Copies of images: near ones are found, others are not, and groups of several kinds are united."""

import io

import numpy as np
import pytest
import torch
from own_images import pictures
from PIL import Image
from sklearn.datasets import load_digits

from sln.relabel import copies
from sln.relabel.copies import by_hand, find, image_hashes, numbered, thumbnails, united
from sln.relabel.examples import checked


def found(images, given=None):
    images = torch.from_numpy(np.ascontiguousarray(images))
    given = np.arange(len(images)) % 2 if given is None else given
    return find(thumbnails(images), image_hashes(images), given)


def digits(count):
    """(count, 3, 8, 8) uint8 and the true labels (count,)."""
    data = load_digits()
    return (data.images[:count, None] * 15.9).repeat(3, axis=1).astype(np.uint8), data.target[:count]


def photographs(count, seed=0, side=32):
    """(count, 3, side, side) uint8: smooth noise, as different from each other as photographs."""
    rng = np.random.default_rng(seed)
    small = [Image.fromarray(a) for a in rng.integers(256, size=(count, 6, 6, 3), dtype=np.uint8)]
    return np.stack([np.asarray(a.resize((side, side))).transpose(2, 0, 1) for a in small])


def as_jpeg(pixels, quality=60):
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer)).transpose(2, 0, 1)


NOISE = np.random.default_rng(1).normal(0, 6, (3, 32, 32))
CHANGES = {
    "brighter": lambda a: (a * 1.1).clip(0, 255),
    "darker": lambda a: a * 0.8,
    "lighter": lambda a: (a + 20.0).clip(0, 255),
    "noise": lambda a: (a + NOISE).clip(0, 255),
    "JPEG": as_jpeg,
    "size": lambda a: np.asarray(
        Image.fromarray(a.transpose(1, 2, 0)).resize((24, 24)).resize((32, 32))
    ).transpose(2, 0, 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_near_copies(change):
    images = photographs(60)
    changed = np.stack([CHANGES[change](image) for image in images[:30]]).astype(np.uint8)
    result = found(np.concatenate([images, changed]))
    assert np.array_equal(result.groups[:30], result.groups[60:])
    assert len(np.unique(result.groups)) == 60
    assert (result.exact, result.near, result.likeness) == (0, 30, copies.LIKENESS[0])


def test_different_images_are_no_copies():
    assert found(photographs(400)).near == 0
    images, labels = digits(1797)
    result = found(images, labels)
    assert result.near <= 5  # two digits of one class can look the same at 8 x 8 pixels
    for group in np.flatnonzero(np.bincount(result.groups) > 1):
        assert len(set(labels[result.groups == group])) == 1


def test_augmented_digits_stay_together():
    images, labels = digits(200)
    rng = np.random.default_rng(0)
    three = images[None] * rng.uniform(0.8, 1.1, (3, 200, 1, 1, 1)) + rng.normal(0, 6, (3, *images.shape))
    groups = found(three.clip(0, 255).astype(np.uint8).reshape(600, 3, 8, 8), np.tile(labels, 3)).groups
    together = groups.reshape(3, 200)
    assert (together == together[0]).all(axis=0).mean() >= 0.99
    assert len(np.unique(groups)) >= 198


def test_the_groups_are_those_of_all_pairs():
    """Independent oracle: the correlation of every pair, and groups by depth-first search."""
    images = photographs(700, seed=3)  # more than a block
    images = np.concatenate([images, images[:150] // 2, images[100:200] // 3, images[:20]])
    result, N = found(images), len(images)
    small = thumbnails(torch.from_numpy(images)).numpy().astype(float)
    first = np.unique(image_hashes(torch.from_numpy(images)), return_index=True)[1]
    unit = small - small.mean(axis=1, keepdims=True)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    unit -= unit[first].mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    alike = unit @ unit.T > copies.LIKENESS[0]
    groups = np.full(N, -1)
    for start in range(N):
        reached = [start] if groups[start] < 0 else []
        while reached:
            row = reached.pop()
            groups[row] = start
            reached += np.flatnonzero(alike[row] & (groups < 0)).tolist()
    assert np.array_equal(groups[:, None] == groups, result.groups[:, None] == result.groups)
    assert (result.exact, result.near) == (20, 250)


def test_images_that_all_look_alike_are_not_one_group():
    images, labels = pictures(40, side=64)  # within a class, they differ by fine noise
    result = found(images, labels)
    assert len(np.unique(result.groups)) == 40
    assert result.likeness != copies.LIKENESS[0]
    template = np.clip(photographs(1)[0] * 0.5 + photographs(50, seed=2) * 0.1 + 50, 0, 255).astype(np.uint8)
    assert found(template).near == 0  # what all have in common is subtracted


def test_images_without_contrast_are_like_no_other():
    flat = np.stack([np.full((3, 32, 32), value, np.uint8) for value in range(0, 200, 10)])
    result = found(np.concatenate([flat, photographs(40), flat[:1]]))
    assert (result.exact, result.near) == (1, 0)
    assert found(flat).near == 0


def test_too_many_pairs_are_no_copies(monkeypatch):
    monkeypatch.setattr(copies, "PAIRS", 0)
    images = photographs(20)
    result = found(np.concatenate([images, images // 2]))
    assert (result.near, result.likeness) == (0, None)


def test_arrays_get_the_same_groups_and_those_of_features_are_identical_rows():
    images = photographs(30)
    both, labels = np.concatenate([images, images // 2]), np.arange(60) % 3
    for scaled in (both, both / np.float32(255), both.astype(np.int32) * 16):
        assert len(np.unique(checked(scaled, labels).groups)) == 30
    features = np.random.default_rng(0).normal(size=(10, 5)).astype(np.float32)
    features = np.concatenate([features, features[:3], features * 2])
    assert len(np.unique(checked(features, np.arange(23) % 2).groups)) == 20
    assert len(np.unique(checked(both, labels, groups=np.arange(60) % 20).groups)) == 20


# --- groups by hand


def test_groupings_are_united():
    united_groups = united(np.array([0, 0, 1, 2, 3]), np.array([5, 1, 1, 0, 5]))
    assert united_groups.tolist() == [0, 0, 0, 1, 0]


def test_a_pattern_groups_paths_and_others_are_alone():
    names = ["a/1_png.rf.x.png", "a/1_png.rf.y.png", "b/1_png.rf.x.png", "c.png", "d.png"]
    groups = by_hand(names, r"(.*)_png\.rf")
    assert groups[0] == groups[1]
    assert len(set(groups.tolist())) == 4
    assert len(set(numbered(["", "", None, "x", "x"]).tolist())) == 4


@pytest.mark.parametrize(
    ("pattern", "words"),
    [("(", ["no column", "regular expression"]), ("a", ["one (group)"]), ("(a)(b)", ["one (group)"])],
)
def test_bad_patterns_are_refused(pattern, words, refused):
    with refused("groups", repr(pattern), *words):
        by_hand(["ab.png"], pattern)
    with refused("'(z)' does not match", "ab.png"):
        by_hand(["ab.png"], "(z)")
