"""Clothing1M on a miniature of real JPEG files: lists, draws, images, the list of bad images, weights."""

import gc
import hashlib
import math
import multiprocessing
import os
import shutil
import signal
import time

import clothing1m_miniature as miniature
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from sln.cli import main
from sln.datasets import clothing1m
from sln.utils.devices import torchvision
from sln.utils.rng import numpy_generator

pytest_plugins = ["clothing1m_fixtures"]


# --- the lists ----------------------------------------------------------------------------------------------


def test_rows_are_the_lines_of_the_three_lists_one_after_the_other(here):
    data = clothing1m.read()
    expected = [
        (file, label) for name in clothing1m.LISTS.values() for file, label in miniature.listed(here, name)
    ]
    assert [data.root / data.path(row) for row in range(56)] == [file for file, _ in expected]
    assert data.labels.tolist() == [label for _, label in expected]
    rows = {split: data.rows(split).tolist() for split in clothing1m.SPLITS}
    assert rows == {
        "train": list(range(28)), "validation": list(range(28, 42)), "test": list(range(42, 56))
    }  # fmt: skip
    lines = [data.line(row) for row in (0, 27, 28, 55)]
    assert lines == [
        ("noisy_train.txt", 1),
        ("noisy_train.txt", 28),
        ("clean_val.txt", 1),
        ("clean_test.txt", 14),
    ]


def test_the_data_folder_may_be_the_data_set_itself(here, monkeypatch):
    below = clothing1m.read()
    monkeypatch.setenv("SLN_DATA", str(here))
    assert clothing1m.read().root == below.root
    assert clothing1m.read().checksum == below.checksum


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("annotations", ["folder annotations", "Clothing1M and "]),
        ("annotations/clean_val.txt", ["list clean_val.txt", "annotations;"]),
        ("images", ["folder images"]),
    ],
)
def test_what_is_missing_is_named_with_where_to_get_it(own, name, words, refused):
    (own / name).rename(own / "elsewhere")
    with refused(*words, "looked for in", str(own), "authors", "chenpf1025/SLN"):
        clothing1m.read()


@pytest.mark.parametrize(
    "line", ["", "images/1.jpg", "images/1.jpg 14", "images/1.jpg -1", "images/1.jpg x", "images/1.jpg  1",
             "images/a b.jpg 1", "images/1.jpg 1 2", "images/1.jpg 1.0"]
)  # fmt: skip
def test_a_malformed_line_is_named(own, line, refused):
    file = own / "annotations" / "noisy_train.txt"
    lines = file.read_text().splitlines()
    lines[4] = line
    file.write_text("\n".join(lines))
    with refused(str(file), "line 5", "a label from 0 to 13"):
        clothing1m.read()


@pytest.mark.parametrize(
    "path", ["../secret.jpg", "images/../../secret.jpg", "/etc/secret.jpg", "C:/secret.jpg",
             "images\\..\\secret.jpg", "images//1.jpg", "images/./1.jpg"]
)  # fmt: skip
def test_a_path_that_leaves_the_folder_is_refused(own, path, refused):
    file = own / "annotations" / "clean_test.txt"
    file.write_text(file.read_text() + f"{path} 3\n")
    with refused(str(file), "line 15", "below the data set's folder"):
        clothing1m.read()


def test_lists_that_are_empty_or_no_text_are_refused_and_windows_line_ends_are_not(own, refused):
    file = own / "annotations" / "clean_val.txt"
    content = file.read_bytes()
    file.write_bytes(content.replace(b"\n", b"\r\n"))
    assert clothing1m.read().sizes == (28, 14, 14)
    for bad, words in ((b"", "lists no images"), (b"\xff\xfe 1\n", "not readable text")):
        file.write_bytes(bad)
        with refused(str(file), words):
            clothing1m.read()


# --- the class-balanced draw --------------------------------------------------------------------------------


def lists_only(counts, bad=()):
    """Clothing1M with `counts` training images of each class, and no files."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(14), counts))
    return clothing1m.Clothing1M(None, np.array([b"x"] * (len(labels) + 2)), np.append(labels, [0, 0]),
                                 (len(labels), 1, 1), "", tuple(bad))  # fmt: skip


@pytest.mark.parametrize("num_per_class", [1, 5, 30])
def test_each_class_gives_as_many_as_asked_for_or_all_it_has(num_per_class):
    counts = [3, 40, 5, 6, 0, *range(10, 19)]
    data = lists_only(counts)
    rows = data.subset(num_per_class, seed=1, epoch=2)
    assert (np.diff(rows) > 0).all()  # each once
    assert rows.min() >= 0
    assert rows.max() < sum(counts)
    drawn = np.bincount(data.labels[rows], minlength=14)
    assert drawn.tolist() == [min(n, num_per_class) for n in counts]


def test_minus_one_gives_all_images():
    assert lists_only([2] * 14).subset(-1, seed=1, epoch=1).tolist() == list(range(28))


def test_the_draw_depends_on_seed_and_epoch_only():
    data = lists_only([50] * 14)
    draws = [data.subset(10, seed, epoch).tolist() for seed in (0, 1) for epoch in (1, 2)]
    assert draws == [data.subset(10, seed, epoch).tolist() for seed in (0, 1) for epoch in (1, 2)]
    assert len({tuple(draw) for draw in draws}) == 4


def test_every_image_of_a_class_is_drawn_equally_often():
    data, draws = lists_only([8] * 14), 2000
    counts = np.zeros(112)
    for epoch in range(draws):
        counts[data.subset(2, 0, epoch)] += 1
    # hypergeometric: each is drawn with probability 1/4; 112 z-scores stay below 4.5
    z = (counts - draws / 4) / math.sqrt(draws * 3 / 16)
    assert np.abs(z).max() < 4.5
    assert z.std() > 0.5


def test_bad_images_are_never_drawn():
    counts = [4] * 14
    bad = np.flatnonzero(lists_only(counts).labels[:56] == 3)[:3].tolist()
    data = lists_only(counts, bad)
    rows = data.subset(4, 0, 1)
    assert not set(rows.tolist()) & set(bad)
    assert np.bincount(data.labels[rows]).tolist() == [4, 4, 4, 1, *[4] * 10]


# --- images -------------------------------------------------------------------------------------------------


class Draws:
    """torchvision's random numbers for one image, from our stream: the crop's top and left, then the flip."""

    def __init__(self, rng):
        self.rng, self.flipped = rng, False

    def randint(self, low, high, size):
        return torch.tensor([self.rng.integers(low, high)])

    def rand(self, n):
        number = self.rng.random()
        self.flipped = number < 0.5
        return torch.tensor([number])


@pytest.mark.parametrize("size", [(300, 400), (90, 61), (256, 256), (256, 500), (61, 256), (223, 224)])
def test_views_are_torchvisions_bit_for_bit(size, monkeypatch):
    transforms = torchvision().transforms
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    centre = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    assert np.array_equal(clothing1m.crop(image, None), np.asarray(centre(image)))
    training = transforms.Compose(
        [transforms.Resize(256), transforms.RandomCrop(224), transforms.RandomHorizontalFlip()]
    )
    seen = set()
    for row in range(8):
        draws = Draws(numpy_generator(0, "augmentation", 1, 0, row))
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randint", draws.randint)
            patch.setattr(torch, "rand", draws.rand)
            expected = np.asarray(training(image))
        rng = numpy_generator(0, "augmentation", 1, 0, row)
        assert np.array_equal(clothing1m.crop(image, rng), expected)
        seen.add((draws.flipped, hashlib.sha256(expected.tobytes()).hexdigest()))
    assert len(seen) == 8
    assert {flipped for flipped, _ in seen} == {False, True}


def test_normalised_images_are_torchvisions_bit_for_bit():
    transforms = torchvision().transforms
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    to_tensor = transforms.Compose(
        [transforms.ToTensor(),
         transforms.Normalize((0.6959, 0.6537, 0.6371), (0.3113, 0.3192, 0.3214))]
    )  # fmt: skip
    expected = torch.stack([to_tensor(image) for image in images])
    assert torch.equal(clothing1m.normalise(torch.from_numpy(images)), expected)


def test_images_of_every_kind_become_rgb(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "image.jpg"
    grey = Image.fromarray(rng.integers(0, 256, (30, 40), dtype=np.uint8))
    grey.save(path, "PNG")
    assert np.array_equal(clothing1m.decode(path), np.stack([grey] * 3, axis=2))
    Image.fromarray(np.full((30, 40), 77, np.uint8)).save(path, "JPEG")
    assert np.abs(np.asarray(clothing1m.decode(path)).astype(int) - 77).max() <= 1
    colours = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    alpha = rng.integers(0, 256, (30, 40, 1), dtype=np.uint8)
    Image.fromarray(np.concatenate([colours, alpha], axis=2)).save(path, "PNG")
    assert np.array_equal(clothing1m.decode(path), colours)
    few = colours // 64 * 64
    palette = Image.fromarray(few).quantize(256)
    palette.save(path, "PNG", transparency=bytes(range(64)))  # Pillow warns of this one
    assert np.array_equal(clothing1m.decode(path), few)
    # all of the yellow ink and half of the black: red and green are half gone, blue is gone
    Image.merge("CMYK", [Image.new("L", (40, 30), ink) for ink in (0, 0, 255, 128)]).save(path, "JPEG")
    expected = np.broadcast_to([127, 127, 0], (30, 40, 3))
    assert np.abs(np.asarray(clothing1m.decode(path)).astype(int) - expected).max() <= 3


def test_a_file_that_is_no_image_is_a_fault_with_its_reason(own):
    files = [file for file, _ in miniature.listed(own)]
    miniature.spoil(own, corrupt=[1], missing=[2])
    files[3].write_text("%!PS-Adobe-3.0 EPSF-3.0\n")  # Pillow would start Ghostscript on this
    files[4].unlink()
    files[4].mkdir()
    Image.new("RGB", (2000, 10)).save(files[5], "JPEG")
    files[6].write_bytes(b"")
    images = clothing1m.Images(clothing1m.read(), 0, clothing1m.CENTRE)
    whys = {row: images[row][1] for row in range(1, 7)}
    assert "truncated" in whys[1]
    assert whys[2] == "it is missing"
    assert whys[3] == whys[6] == "it is none of JPEG, PNG, GIF, WEBP, BMP"
    assert "directory" in whys[4]
    assert "2000 x 10" in whys[5]


# --- decoding in other processes ----------------------------------------------------------------------------


def pixels(rows, view, batch_size, workers, seed=0):
    """Images of one view of rows, read in batches by `workers` processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLN_DECODERS", str(workers))
        batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        read = list(clothing1m.decoded(clothing1m.read(), batches, view, seed))
    assert [len(images) for images, _ in read] == [len(batch) for batch in batches]
    assert multiprocessing.active_children() == []
    return torch.cat([images for images, _ in read])


def test_pixels_depend_on_seed_view_and_row_not_on_workers_batches_or_order(here):
    rows, views = [3, 5, 9, 30], [(1, 0), (1, 1), (2, 0), clothing1m.CENTRE]
    alone = torch.cat([pixels(rows, view, 4, workers=0) for view in views])
    assert alone.shape == (16, 224, 224, 3)
    assert len({image.numpy().tobytes() for image in alone}) == 16
    together = torch.cat([pixels(rows[::-1], view, 3, workers=2).flip(0) for view in views[1:3]])
    assert torch.equal(together, alone[4:12])
    other = torch.cat([pixels(rows, view, 4, workers=0, seed=1) for view in views])
    assert [torch.equal(a, b) for a, b in zip(alone, other, strict=True)] == [False] * 12 + [True] * 4


SEVERAL = [[row] for row in range(28)]
# torch's error for a worker that ends badly may come while objects are deleted, where Python only prints it
worker_errors_in_del = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def no_worker_stays() -> bool:
    gc.collect()  # an error's traceback may hold the iterator
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)  # a worker that ends needs a moment
    return not multiprocessing.active_children()


@worker_errors_in_del
def test_no_worker_stays_after_a_pass_that_ends_early(here, monkeypatch):
    monkeypatch.setenv("SLN_DECODERS", "2")
    early = iter(clothing1m.decoded(clothing1m.read(), SEVERAL, clothing1m.CENTRE, 0))
    next(early)
    assert len(multiprocessing.active_children()) == 2
    del early
    assert no_worker_stays()


@worker_errors_in_del
@pytest.mark.slow
def test_a_killed_worker_is_one_line_and_no_other_stays(here, monkeypatch, refused):
    monkeypatch.setenv("SLN_DECODERS", "2")
    with refused("was killed", "SLN_DECODERS below 2"), clothing1m.decoding():
        for _ in clothing1m.decoded(clothing1m.read(), SEVERAL, clothing1m.CENTRE, 0):
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)
    assert no_worker_stays()


def test_other_errors_of_a_pass_stay_what_they_are():
    with pytest.raises(RuntimeError, match="CUDA"), clothing1m.decoding():
        raise RuntimeError("CUDA out of memory")


def test_decoders_are_as_asked_for(monkeypatch, refused):
    monkeypatch.setenv("SLN_DECODERS", "3")
    assert clothing1m.decoders() == 3
    monkeypatch.delenv("SLN_DECODERS")
    assert 1 <= clothing1m.decoders() <= min(8, os.cpu_count())
    for wrong in ("-1", "many", "1.5"):
        monkeypatch.setenv("SLN_DECODERS", wrong)
        with refused("SLN_DECODERS", wrong):
            clothing1m.decoders()


# --- bad images ---------------------------------------------------------------------------------------------


def test_the_check_lists_bad_images_and_they_are_left_out(own, capsys, refused):
    miniature.spoil(own, corrupt=[2], missing=[5])
    miniature.spoil(own, missing=[0], name="clean_test.txt")
    with refused("missing", "`python -m sln data check clothing1m`"):
        clothing1m.read(skip_bad_images=True)
    assert main(["data", "check", "clothing1m"]) == 0
    file = clothing1m.bad_list(clothing1m.read())
    assert f"3 images cannot be used; {file} lists them" in capsys.readouterr().out
    table, data = pd.read_csv(file), clothing1m.read(skip_bad_images=True)
    assert list(zip(table["list"], table["line"], strict=True)) == [
        ("noisy_train.txt", 3), ("noisy_train.txt", 6), ("clean_test.txt", 1)
    ]  # fmt: skip
    assert table["image"].tolist() == [data.path(row) for row in (2, 5, 42)]
    assert list(table["problem"][1:]) == ["it is missing"] * 2
    assert data.bad == (2, 5, 42)
    assert [len(data.rows(split)) for split in clothing1m.SPLITS] == [26, 14, 13]
    assert clothing1m.read().bad == ()


def test_only_clothing1m_can_be_checked(capsys):
    with pytest.raises(SystemExit):
        main(["data", "check", "cifar10"])
    assert "invalid choice" in capsys.readouterr().err


def test_a_complete_data_set_has_an_empty_list(here):
    assert len(clothing1m.check(quiet=True)) == 0
    assert clothing1m.read(skip_bad_images=True).bad == ()


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "", "\0"])
def test_a_damaged_list_of_bad_images_is_refused(here, content, refused):
    file = clothing1m.bad_list(clothing1m.read())
    file.parent.mkdir()
    file.write_text(content)
    with refused(str(file), "damaged", "data check clothing1m"):
        clothing1m.read(skip_bad_images=True)


def test_a_list_without_one_good_image_is_refused(own, refused):
    miniature.spoil(own, missing=range(14), name="clean_val.txt")
    clothing1m.check(quiet=True)
    with refused("no image of clean_val.txt can be used"):
        clothing1m.read(skip_bad_images=True)


# --- ImageNet weights ---------------------------------------------------------------------------------------


def test_imagenet_weights_are_read_from_two_places_and_checked(tmp_path, monkeypatch, refused):
    monkeypatch.setenv("SLN_DATA", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with refused("resnet50-0676ba61.pth", str(tmp_path / "hub"), "`python -m sln data get resnet50`"):
        clothing1m.imagenet_weights("resnet50")
    published = {"conv1.weight": torch.rand(3)}
    torch.save(published, tmp_path / "weights")
    name = f"resnet18-{hashlib.sha256((tmp_path / 'weights').read_bytes()).hexdigest()[:8]}.pth"
    monkeypatch.setitem(clothing1m.IMAGENET, "resnet18", name)
    for place in (tmp_path / "hub" / "checkpoints", tmp_path):
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "weights", place / name)
        assert torch.equal(clothing1m.imagenet_weights("resnet18")["conv1.weight"], published["conv1.weight"])
        (place / name).unlink()
    (tmp_path / name).write_bytes(b"another file")
    with refused(name, "not the published file", name[9:17]):
        clothing1m.imagenet_weights("resnet18")
