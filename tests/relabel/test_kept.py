"""Features are computed once: what is kept is not decoded again, and never used if it is damaged."""

import os

import numpy as np
import pytest
import torch
from own_images import lay, names, pictures, save, write_csv

from sln.relabel import images, kept
from sln.relabel.features import Encoder

SIDE = 16


def encode(pixels):
    return pixels.float().mean(3).flatten(1)


ENCODER = Encoder("own", SIDE, "0" * 16, encode)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "CHUNK", 8)
    return lay(tmp_path / "mine", count=24, side=40)


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are decoded."""
    seen, decode = [], images.decode
    monkeypatch.setattr(images, "decode", lambda path, *rest: seen.append(path.name) or decode(path, *rest))
    return seen


def read(source, cache=None, encoder=ENCODER):
    return images.read(source, choose=lambda side: (encoder, f"of {side}"), cache=cache, quiet=True)


def test_features_are_those_of_the_pixels_and_small_images_come_with_them(folder, tmp_path):
    found, pixels = read(folder, tmp_path), images.read(folder, size=SIDE, quiet=True)
    assert names(found) == names(pixels)
    assert torch.equal(found.images, encode(pixels.images))
    assert torch.equal(found.small, pixels.images)
    assert (found.side, found.way) == (40, "of 40")
    assert np.array_equal(found.groups, pixels.groups)


def test_large_images_are_shrunk_to_means():
    large = torch.arange(2 * 3 * 64 * 64).reshape(2, 3, 64, 64).remainder(251).to(torch.uint8)
    small = kept.shrunk(large)
    assert small.shape == (2, 3, 32, 32)
    assert small[1, 2, 3, 4] == large[1, 2, 6:8, 8:10].float().mean().round()


def test_the_second_call_decodes_nothing_and_others_only_what_is_new(folder, tmp_path, decoded):
    first = read(folder, tmp_path)
    assert len(decoded) == 24
    decoded.clear()
    second = read(folder, tmp_path)
    assert decoded == []
    assert torch.equal(second.images, first.images)
    assert torch.equal(second.small, first.small)
    save(pictures(1, seed=5, side=40)[0][0], folder / "left" / "new.png")
    save(pictures(1, seed=6, side=41)[0][0], folder / "left" / "000.png")
    third = read(folder, tmp_path)
    assert sorted(decoded) == ["000.png", "new.png"]
    assert torch.equal(third.images, read(folder).images)
    decoded.clear()
    read(folder, tmp_path, Encoder("own", SIDE, "1" * 16, encode))
    assert len(decoded) == 25


def test_other_images_of_the_same_names_sizes_and_times_are_decoded(folder, tmp_path):
    first, second = tmp_path / "first", lay(tmp_path / "second", count=24, seed=1, side=40)
    folder.rename(first)
    for path in [*first.rglob("*.png"), *second.rglob("*.png")]:
        path.write_bytes(path.read_bytes().ljust(10_000, b"\0"))
        os.utime(path, (1e9, 1e9))
    read(first, tmp_path)
    assert torch.equal(read(second, tmp_path).images, read(second).images)


def test_what_was_moved_with_its_images_is_kept(folder, tmp_path, decoded):
    before = read(folder, tmp_path / "out")
    (tmp_path / "there").mkdir()
    for name in ("mine", "out"):
        (tmp_path / name).rename(tmp_path / "there" / name)
    decoded.clear()
    assert torch.equal(read(tmp_path / "there" / "mine", tmp_path / "there" / "out").images, before.images)
    assert decoded == []


def test_an_interrupted_call_goes_on(folder, tmp_path, decoded):
    def interrupted(pixels):
        if len(decoded) > 16:
            raise KeyboardInterrupt
        return encode(pixels)

    with pytest.raises(KeyboardInterrupt):
        read(folder, tmp_path, Encoder("own", SIDE, ENCODER.key, interrupted))
    decoded.clear()
    found = read(folder, tmp_path)
    assert len(decoded) == 8
    assert torch.equal(found.images, read(folder).images)


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:-9] + b"x" + b[-8:], lambda b: b""])
def test_damaged_chunks_are_computed_again(damage, folder, tmp_path, decoded):
    whole = read(folder, tmp_path)
    file = sorted(tmp_path.glob("features-*"))[1]
    file.write_bytes(damage(file.read_bytes()))
    decoded.clear()
    assert torch.equal(read(folder, tmp_path).images, whole.images)
    assert len(decoded) == 8
    decoded.clear()
    read(folder, tmp_path)
    assert decoded == []


def test_files_that_cannot_be_decoded_are_named_by_every_call(folder, tmp_path):
    (folder / "left" / "bad.png").write_text("no image")
    for _ in range(2):
        found = read(folder, tmp_path)
        assert [name for name, _ in found.skipped] == ["left/bad.png"]
        assert len(found.images) == 24


def test_a_file_that_is_listed_twice_is_two_rows(folder, tmp_path):
    rows = [("left/000.png", "a"), ("right/001.png", "b"), ("left/002.png", "a"), ("right/003.png", "b")]
    file = write_csv(folder / "list.csv", [*rows, ("left/000.png", "b")])
    for _ in range(2):
        found = read(file, tmp_path)
        assert found.labels == ["a", "b", "a", "b", "b"]
        assert torch.equal(found.images[0], found.images[4])
        assert found.groups[0] == found.groups[4]
