"""Clothing1M on a miniature of real JPEG files: lists, images, draws, the recipe against one by hand."""

import collections
import functools
import hashlib
import json
import math
import multiprocessing
import os
import shutil
import signal

import clothing1m_miniature as miniature
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sln.config import Config
from sln.datasets import clothing1m
from sln.runs import clothing1m_train, store
from sln.utils.rng import numpy_generator, torch_generator
from sln.utils.vision import torchvision

# 14 of 28 training images an epoch in batches of 5, 5 and 4; settings large enough to show in the weights
SMALL = Config(
    dataset="clothing1m", model="resnet18", pretrained=False, epochs=2, num_per_class=1, batch_size=5,
    lr=0.01, lr_drop=1, weight_decay=0.05, alpha=0.9, seed=5, threads=1,
)  # fmt: skip
UNCORRECTED = SMALL.replace(correction=-1)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A miniature that no test changes."""
    return miniature.make(tmp_path_factory.mktemp("clothing"))


@pytest.fixture
def here(whole, monkeypatch):
    """The whole miniature as the data folder's, decoded in this process."""
    monkeypatch.setenv("SLN_DATA", str(whole.parent))
    monkeypatch.setenv("SLN_DECODERS", "0")
    return whole


@pytest.fixture
def own(here, tmp_path, monkeypatch):
    """A copy that the test may spoil."""
    monkeypatch.setenv("SLN_DATA", str(tmp_path))
    return shutil.copytree(here, tmp_path / "Clothing1M")


@pytest.fixture
def small(here, monkeypatch):
    """Crops of 32 pixels instead of 224, for tests that train."""
    monkeypatch.setattr(clothing1m, "RESIZE", 40)
    monkeypatch.setattr(clothing1m, "CROP", 32)
    return here


class Tiny(torch.nn.Module):
    """A network with all kinds of tensors that a ResNet has, and few of them."""

    def __init__(self, num_classes):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 8, 5, stride=4)
        self.bn1 = torch.nn.BatchNorm2d(8)
        self.fc = torch.nn.Linear(8, num_classes)

    def forward(self, x):
        return self.fc(torch.relu(self.bn1(self.conv1(x))).mean(dim=(2, 3)))


@pytest.fixture
def tiny(small, monkeypatch):
    """`small`, with a tiny network in the place of ResNet-18."""
    monkeypatch.setattr(torchvision().models, "resnet18", Tiny)
    return small


def in_folder(folder, config, **options):
    """The folder of the run of `config`, trained below `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLN_RUNS", str(folder))
        clothing1m_train.train_run(config, quiet=True, **options)
        return store.folder(config)


def numbers(folder):
    """Everything of a run that must not depend on how it came about; the larger files as checksums."""
    found = {
        path.relative_to(folder).as_posix(): store.sha256(path)
        for pattern in ("weights.safetensors", "corrections/*.npz")
        for path in folder.glob(pattern)
    }
    return found | {
        "history": pd.read_csv(folder / "history.csv", dtype=str).drop(columns="seconds").to_csv()
    }


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
    with refused(str(file), "line 15", "leads out of"):
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
    """Clothing1M with so many training images of each class, and no files."""
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
    assert np.array_equal(clothing1m.crop(clothing1m.resize(image), None), np.asarray(centre(image)))
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
        assert np.array_equal(clothing1m.crop(clothing1m.resize(image), rng), expected)
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
    images = clothing1m.Images(clothing1m.read(), 0)
    whys = {row: images[row, clothing1m.CENTRE][1] for row in range(1, 7)}
    assert "truncated" in whys[1]
    assert whys[2] == "it is missing"
    assert whys[3] == whys[6] == "it is none of JPEG, PNG, GIF, WEBP, BMP"
    assert "directory" in whys[4]
    assert "2000 x 10" in whys[5]


# --- decoding in other processes ----------------------------------------------------------------------------


def pixels(keys, batch_size, workers, seed=0):
    """Images of (row, view), read in batches by so many workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLN_DECODERS", str(workers))
        with clothing1m.Decoder(clothing1m.read(), seed) as decoder:
            passes = []
            for _ in range(2):  # workers serve more than one pass
                batches = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
                read = list(decoder.read(batches))
                assert [len(images) for images, _ in read] == [len(batch) for batch in batches]
                passes.append(torch.cat([images for images, _ in read]))
    assert torch.equal(*passes)
    assert multiprocessing.active_children() == []
    return passes[0]


def test_pixels_depend_on_seed_view_and_row_not_on_workers_batches_or_order(here):
    keys = [(row, view) for row in (3, 5, 9, 30) for view in ((1, 0), (1, 1), (2, 0), ())]
    alone = pixels(keys, 16, workers=0)
    assert alone.shape == (16, 224, 224, 3)
    assert len({image.numpy().tobytes() for image in alone}) == 16
    together = pixels(keys[::-1], 3, workers=2)
    assert torch.equal(together.flip(0), alone)
    other = pixels(keys, 16, workers=0, seed=1)
    assert [torch.equal(a, b) for a, b in zip(alone, other, strict=True)] == [False, False, False, True] * 4


def test_no_worker_stays_after_an_error_or_a_kill(here, monkeypatch, refused):
    monkeypatch.setenv("SLN_DECODERS", "2")
    data, batches = clothing1m.read(), [[(row, ())] for row in range(28)]

    def broken_off(error):
        with clothing1m.Decoder(data, 0) as decoder:
            next(decoder.read(batches))
            assert len(multiprocessing.active_children()) == 2
            raise error

    for error in (KeyboardInterrupt, ZeroDivisionError):
        with pytest.raises(error):
            broken_off(error)
        assert multiprocessing.active_children() == []
    with refused("was killed", "SLN_DECODERS"), clothing1m.Decoder(data, 0) as decoder:
        for _ in decoder.read(batches):
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)
    assert multiprocessing.active_children() == []


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


@pytest.mark.parametrize("spoilt", ["noisy_train.txt", "clean_test.txt"])
def test_a_bad_image_ends_training_with_its_name(own, tiny, spoilt, monkeypatch, refused):
    monkeypatch.setenv("SLN_DATA", str(own.parent))
    miniature.spoil(own, corrupt=[2], missing=[5], name=spoilt)
    expected = {"noisy_train.txt": "cannot be used", "clean_test.txt": "2 such images are known"}[spoilt]
    with refused(expected, str(own / "images"), spoilt, "--skip-bad-images"):
        clothing1m_train.train_run(UNCORRECTED.replace(num_per_class=-1), quiet=True)


def test_bad_images_are_found_counted_named_and_left_out(own, tiny, capsys, monkeypatch):
    monkeypatch.setenv("SLN_DATA", str(own.parent))
    monkeypatch.setenv("SLN_DECODERS", "2")
    miniature.spoil(own, corrupt=[2], missing=[5])
    miniature.spoil(own, missing=[0], name="clean_test.txt")
    measure_test, tested = clothing1m_train.measure_test, []
    monkeypatch.setattr(
        clothing1m_train,
        "measure_test",
        lambda logits, true: tested.append(len(true)) or measure_test(logits, true),
    )
    config = UNCORRECTED.replace(num_per_class=-1, epochs=1, skip_bad_images=True)
    clothing1m_train.train_run(config)
    data, told = clothing1m.read(), capsys.readouterr().err
    assert "3 of 56 images are left out" in told
    table = pd.read_csv(store.folder(config) / "bad_images.csv")
    assert list(zip(table["list"], table["line"], strict=True)) == [
        ("noisy_train.txt", 3), ("noisy_train.txt", 6), ("clean_test.txt", 1)
    ]  # fmt: skip
    assert table["image"].tolist() == [data.path(row) for row in (2, 5, 42)]
    assert all(f"{data.path(row)} (" in told for row in (2, 5, 42))
    assert list(table["problem"][1:]) == ["it is missing"] * 2
    assert tested == [13, 13]


def test_the_scan_is_done_once_for_the_same_lists(own, tmp_path, monkeypatch, refused):
    miniature.spoil(own, corrupt=[2])
    data = clothing1m.read()
    left = functools.partial(clothing1m.without_bad_images, data, quiet=True)
    assert left(tmp_path / "runs" / "a").bad == (2,)
    monkeypatch.setattr(clothing1m, "scan", lambda data, quiet: [(7, "it is missing")])
    assert left(tmp_path / "runs" / "b").bad == (2,)
    (kept,) = (tmp_path / "runs").glob("clothing1m-bad-images-*.csv")
    assert data.checksum[:12] in kept.name
    kept.unlink()
    assert left(tmp_path / "runs" / "b").bad == (2,)  # a run goes on with what it began with
    assert left(tmp_path / "runs" / "c").bad == (7,)
    for wrong in ("list,line,image,problem\nclean_val.txt,1,images/other.jpg,x\n", "a,b\n1,2\n", "", "\0"):
        (tmp_path / "runs" / "b" / "bad_images.csv").write_text(wrong)
        with refused("bad_images.csv does not fit", "remove it"):
            left(tmp_path / "runs" / "b")


def test_a_list_without_one_good_image_is_refused(own, tmp_path, refused):
    miniature.spoil(own, missing=range(14), name="clean_val.txt")
    with refused("no image of clean_val.txt can be used"):
        clothing1m.without_bad_images(clothing1m.read(), tmp_path, quiet=True)


# --- the recipe against one by hand -------------------------------------------------------------------------


def slow_images(rows, files, config, *counters):
    """Crops by torchvision's functions, one image at a time; the centre without counters."""
    functional = torchvision().transforms.functional
    normalise = torchvision().transforms.Normalize(clothing1m.MEAN, clothing1m.STD)
    found = []
    for row in rows:
        image = functional.resize(Image.open(files[row]).convert("RGB"), clothing1m.RESIZE)
        if counters:
            rng = numpy_generator(config.seed, "augmentation", *counters, row)
            top, left = (int(rng.integers(side - 31)) for side in (image.height, image.width))
            image = functional.crop(image, top, left, 32, 32)
            image = functional.hflip(image) if rng.random() < 0.5 else image
        else:
            image = functional.center_crop(image, 32)
        found.append(normalise(torch.from_numpy(np.array(image)).permute(2, 0, 1).double() / 255))
    return torch.stack(found)


def slow_logits(network, weights, images):
    network.eval()
    with torch.no_grad():
        return torch.func.functional_call(network, weights, (images,))


def slow_run(config, start):
    """The whole run with SGD, momentum model and correction written out."""
    data = clothing1m.read()
    files = [data.root / data.path(row) for row in range(56)]
    network = clothing1m_train.build(config)
    network.load_state_dict(start)
    names = [name for name, _ in network.named_parameters()]
    average = {name: value.clone() for name, value in start.items()}
    velocity = dict.fromkeys(names, 0.0)
    rows_of_history, corrections, kept = [], {}, []
    for epoch in range(1, config.epochs + 1):
        rows = data.subset(config.num_per_class, config.seed, epoch).tolist()
        targets = torch.eye(14)[data.labels[rows]]
        lr = config.lr * (0.1 if epoch > config.lr_drop else 1)
        if 0 < config.correction < epoch:
            counters = (epoch, 1) if config.correction_losses == "as-released" else ()
            log_p = torch.log_softmax(
                slow_logits(network, average, slow_images(rows, files, config, *counters)), 1
            )
            losses = -(targets * log_p).sum(1)
            w = ((losses - losses.min()) / (losses.max() - losses.min()))[:, None]
            y_hat = log_p.exp() if config.soft_correction else torch.eye(14)[log_p.argmax(1)]
            corrections[epoch] = (rows, w[:, 0], y_hat)
            targets = w * targets + (1 - w) * y_hat
        else:
            z = torch.randn(len(rows), 14, generator=torch_generator(config.seed, "stochastic noise", epoch))
            targets = targets + config.sigma * z
        order = torch.randperm(len(rows), generator=torch_generator(config.seed, "shuffling", epoch)).tolist()
        objective = 0.0
        for i in range(0, len(order), config.batch_size):
            batch = order[i : i + config.batch_size]
            network.train()
            logits = network(slow_images([rows[n] for n in batch], files, config, epoch, 0))
            losses = -(targets[batch] * torch.log_softmax(logits, 1)).sum(1)
            objective += losses.sum().item() / len(rows)
            gradients = torch.autograd.grad(losses.mean(), list(network.parameters()))
            with torch.no_grad():
                for name, p, g in zip(names, network.parameters(), gradients, strict=True):
                    velocity[name] = config.momentum * velocity[name] + g + config.weight_decay * p
                    p -= lr * velocity[name]
                for name, value in network.state_dict().items():
                    if value.is_floating_point():
                        average[name] = config.alpha * average[name] + (1 - config.alpha) * value
        measured = {}
        weights = {name: value.clone() for name, value in network.state_dict().items()}
        for name, read in (("network", weights), ("momentum", average)):
            for split, first in (("validation", 28), ("test", 42)):
                logits = slow_logits(network, read, slow_images(range(first, first + 14), files, config))
                labels = torch.from_numpy(data.labels[first : first + 14])
                measured[name, split] = (logits.argmax(1) == labels).float().mean().item()
                measured[name, f"{split}_loss"] = F.cross_entropy(logits, labels).item()
        rows_of_history.append({"objective": objective, "lr": lr} | measured)
        kept.append({"network": weights, "momentum": dict(average)})
    return rows_of_history, corrections, kept


def in_double_precision(patch):
    """Train in float64, so that nothing is left of the order of sums."""
    build = clothing1m_train.build
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (clothing1m.MEAN, clothing1m.STD))
    patch.setattr(clothing1m_train, "build", lambda *args, **options: build(*args, **options).double())
    patch.setattr(clothing1m_train, "forward", lambda network, images, config: network(images))
    patch.setattr(
        clothing1m, "normalise", lambda images: ((images.double() / 255 - mean) / std).permute(0, 3, 1, 2)
    )


@pytest.mark.parametrize(
    ("config", "network"),
    [
        (UNCORRECTED, "tiny"),
        (UNCORRECTED.replace(epochs=1), "small"),
        (SMALL, "tiny"),
        (SMALL.replace(correction_losses="as-released", soft_correction=False), "tiny"),
    ],
    ids=["uncorrected", "resnet18", "corrected", "hard-as-released"],
)
def test_a_shortened_run_equals_the_recipe_by_hand(config, network, request, monkeypatch):
    assert (config.sigma, config.momentum) == (0.2, 0.9)  # as released, as is correction: -1 or 1
    request.getfixturevalue(network)
    in_double_precision(monkeypatch)
    folder = in_folder(os.environ["SLN_RUNS"], config)
    expected, corrections, kept = slow_run(config, clothing1m_train.build(config).state_dict())
    history = store.read_history(folder)
    assert list(history["weights"]) == ["network", "momentum"] * config.epochs
    for _, row in history.iterrows():
        wanted = expected[row["epoch"] - 1]
        assert row["objective"] == pytest.approx(wanted["objective"], rel=1e-6)
        assert row["lr"] == pytest.approx(wanted["lr"])
        assert row["test_accuracy"] == pytest.approx(wanted[row["weights"], "test"])
        assert row["validation_accuracy"] == pytest.approx(wanted[row["weights"], "validation"])
        assert row["test_loss"] == pytest.approx(wanted[row["weights"], "test_loss"], rel=1e-6)
    best = max(
        range(config.epochs), key=lambda e: expected[e]["momentum", "validation"]
    )  # the first of equals
    assert history["chosen"].tolist() == [int(epoch == best + 1) for epoch in history["epoch"]]
    saved = store.read_tensors(folder / "weights.safetensors")
    assert len(saved) == 2 * len(kept[best]["network"])
    for weights in ("network", "momentum"):
        for name, value in kept[best][weights].items():
            if value.is_floating_point():
                torch.testing.assert_close(saved[f"{weights}/{name}"], value, rtol=1e-5, atol=1e-7)
    assert sorted(path.stem for path in folder.glob("corrections/*")) == [
        f"{epoch:03d}" for epoch in corrections
    ]
    for epoch, (rows, w, y_hat) in corrections.items():
        with np.load(folder / "corrections" / f"{epoch:03d}.npz", allow_pickle=False) as arrays:
            assert arrays["index"].tolist() == rows
            assert arrays["w"] == pytest.approx(w.numpy(), abs=1e-6)
            assert (arrays["w"].min(), arrays["w"].max()) == (0, 1)
            found = arrays["predictions"]
            if not config.soft_correction:
                found = np.eye(14)[found]
            assert found == pytest.approx(y_hat.numpy(), abs=1e-6)


def test_the_released_settings_are_the_defaults():
    config = Config(dataset="clothing1m")
    assert (config.epochs, config.batch_size, config.num_per_class) == (10, 32, 18976)
    assert (config.lr, config.weight_decay, config.momentum, config.alpha) == (0.001, 0.001, 0.9, 0.999)
    assert [clothing1m_train.learning_rate(config, epoch) for epoch in (5, 6)] == [0.001, 0.0001]
    assert (clothing1m.RESIZE, clothing1m.CROP) == (256, 224)


# --- runs on disk -------------------------------------------------------------------------------------------


class Stop(BaseException):
    """Ctrl-C, or the machine going down."""


def interrupted(folder, config, at):
    """Train until `at` batches were counted, then stop as by Ctrl-C."""
    counted, advance = 0, clothing1m_train.Progress.advance

    def count(self, **facts):
        nonlocal counted
        counted += 1
        if counted == at:
            raise Stop
        advance(self, **facts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clothing1m_train.Progress, "advance", count)
        with pytest.raises(Stop):
            in_folder(folder, config)


def test_a_run_that_was_stopped_and_resumed_equals_an_uninterrupted_one(tiny, tmp_path):
    config = SMALL.replace(epochs=3)
    straight = in_folder(tmp_path / "straight", config)
    # 5 batches in the first epoch, 6 in the others: in the second's training, in the third's correction
    interrupted(tmp_path / "stopped", config, at=5 + 2)
    interrupted(tmp_path / "stopped", config, at=6 + 1)
    stopped = tmp_path / "stopped" / config.run_id
    assert store.read_history(stopped)["epoch"].max() == 2
    assert not (stopped / "done.json").exists()
    assert numbers(in_folder(tmp_path / "stopped", config)) == numbers(straight)
    assert len(numbers(straight)) == 4
    assert not list(stopped.glob("*checkpoint*")) + list(stopped.glob(".*"))


def test_a_run_that_was_stopped_while_it_was_sealed_is_not_lost(tiny, monkeypatch):
    config = UNCORRECTED.replace(epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(store, "seal", lambda path: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            clothing1m_train.train_run(config, quiet=True)
    monkeypatch.setattr(clothing1m_train, "train_epoch", None)  # not trained again
    clothing1m_train.train_run(config, quiet=True)
    sums = json.loads((store.folder(config) / "done.json").read_text())["sha256"]
    there = {path.name for path in store.folder(config).iterdir()} - {"done.json"}
    assert there == sums.keys()
    assert {"config.json", "versions.json", "history.csv", "weights.safetensors"} <= there


def test_a_corrected_run_that_forks_equals_one_trained_straight_through(tiny, tmp_path, monkeypatch):
    straight = in_folder(tmp_path / "straight", SMALL)
    in_folder(tmp_path / "forked", UNCORRECTED, keep_state_at=1)
    trained, epochs = clothing1m_train.train_epoch, []
    monkeypatch.setattr(
        clothing1m_train, "train_epoch", lambda *args: epochs.append(args[5]) or trained(*args)
    )
    assert numbers(in_folder(tmp_path / "forked", SMALL)) == numbers(straight)
    assert epochs == [2]


def test_a_state_of_another_network_and_a_history_that_is_too_short_are_refused(tiny, tmp_path, refused):
    interrupted(tmp_path / "runs", SMALL, at=5 + 2)
    folder = store.folder(SMALL)
    history = (folder / "history.csv").read_text()
    (folder / "history.csv").write_text("\n".join(history.splitlines()[:2]) + "\n")
    with refused("history.csv is damaged", "epoch 1", "runs remove"):
        clothing1m_train.train_run(SMALL, quiet=True)
    tensors = store.read_tensors(folder / "checkpoint.safetensors")
    del tensors["network/fc.bias"]
    store.write_tensors(folder / "checkpoint.safetensors", tensors)
    with refused("checkpoint.safetensors is damaged", "fc.bias", "runs remove"):
        clothing1m_train.train_run(SMALL, quiet=True)


def test_the_first_epoch_of_the_best_validation_accuracy_is_chosen(tiny, monkeypatch):
    config = UNCORRECTED.replace(epochs=4, num_per_class=1, batch_size=14)
    # the network's own accuracies would choose the last epoch
    script = iter([(0.1, 0.2), (0.2, 0.5), (0.3, 0.5), (0.9, 0.4)])

    def measure(networks, job, progress):
        return {
            weights: {"test_accuracy": 0.0, "validation_accuracy": value}
            for weights, value in zip(networks, next(script), strict=True)
        }

    monkeypatch.setattr(clothing1m_train, "measure", measure)
    folder = in_folder(os.environ["SLN_RUNS"], config, keep_state_at=2)
    history = store.read_history(folder)
    assert history["chosen"].tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    saved = store.read_tensors(folder / "weights.safetensors")
    state = store.read_tensors(store.state_file(folder, 2))
    for weights, prefix in (("network", "network/"), ("momentum", "momentum/module.")):
        for name, value in clothing1m_train.network(config, folder, weights).state_dict().items():
            assert torch.equal(value, state[prefix + name])
            assert torch.equal(value, saved[f"{weights}/{name}"])


def test_evaluating_the_saved_networks_gives_the_chosen_rows_again(tiny):
    config = UNCORRECTED.replace(epochs=1)
    folder = in_folder(os.environ["SLN_RUNS"], config)
    networks = {
        weights: clothing1m_train.network(config, folder, weights) for weights in ("network", "momentum")
    }
    measured = clothing1m_train.evaluate(config, networks, quiet=True)
    for _, row in store.read_history(folder).iterrows():
        assert {name: row[name] for name in measured[row["weights"]]} == measured[row["weights"]]
    assert measured["network"] != measured["momentum"]


def test_mixed_precision_changes_the_last_digits_only(tiny):
    config = UNCORRECTED.replace(epochs=1, lr=0.001)
    exact, mixed = (
        store.read_history(in_folder(os.environ["SLN_RUNS"], config.replace(precision=precision)))
        for precision in ("float32", "bfloat16")
    )
    difference = abs(exact["objective"] - mixed["objective"])[0]
    assert 1e-5 < difference < 0.1


# --- networks -----------------------------------------------------------------------------------------------


def test_initial_weights_come_from_the_seed_and_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first, again, other = (clothing1m_train.build(SMALL.replace(seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.fc.weight.shape == (14, 512)
    assert torch.equal(first.fc.weight, again.fc.weight)
    assert not torch.equal(first.fc.weight, other.fc.weight)
    fifty = clothing1m_train.build(SMALL.replace(model="resnet50"))
    assert sum(p.numel() for p in fifty.parameters()) == 25_557_032 - 2048 * 986 - 986


def test_pretrained_networks_have_imagenet_weights_and_a_new_last_layer(tmp_path, monkeypatch, refused):
    monkeypatch.setenv("SLN_DATA", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with refused("resnet50-0676ba61.pth", str(tmp_path / "hub"), "`python -m sln data get resnet50`"):
        clothing1m_train.build(SMALL.replace(model="resnet50"), pretrained=True)
    torch.manual_seed(7)
    published = torchvision().models.resnet18()
    torch.save(published.state_dict(), tmp_path / "weights")
    name = f"resnet18-{store.sha256(tmp_path / 'weights')[:8]}.pth"
    monkeypatch.setitem(clothing1m_train.IMAGENET, "resnet18", name)
    for place in (tmp_path / "hub" / "checkpoints", tmp_path):
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "weights", place / name)
        built, fresh = (clothing1m_train.build(SMALL, pretrained=pretrained) for pretrained in (True, False))
        (place / name).unlink()
        for key, value in built.state_dict().items():
            expected = fresh if key.startswith("fc.") else published
            assert torch.equal(value, expected.state_dict()[key])
        assert not torch.equal(built.conv1.weight, fresh.conv1.weight)
    (tmp_path / name).write_bytes(b"of somebody else")
    with refused(name, "not the published file", name[9:17]):
        clothing1m_train.build(SMALL, pretrained=True)


def test_synchronised_batchnorm_is_refused_on_a_cpu(tiny, monkeypatch, refused):
    monkeypatch.setenv("SLN_DEVICE", "cpu")
    with refused("sync_batchnorm", "GPU"):
        clothing1m_train.train_run(SMALL.replace(sync_batchnorm=True), quiet=True)


def test_a_loss_that_is_not_finite_ends_training(tiny, refused):
    with refused("the loss became", "epoch 1", "lower lr"):
        clothing1m_train.train_run(UNCORRECTED.replace(lr=1e30, epochs=1), quiet=True)


def test_progress_counts_every_batch_of_an_epoch(tiny, monkeypatch):
    counts = collections.Counter()

    class Counted(clothing1m_train.Progress):
        def __exit__(self, *error):
            counts[self.what, self.done, self.total] += 1

    monkeypatch.setattr(clothing1m_train, "Progress", Counted)
    clothing1m_train.train_run(SMALL, quiet=True)
    # three batches of training, validation, test; in the second epoch the correction too
    assert counts == {("epoch 1 of 2", 5, 5): 1, ("epoch 2 of 2", 6, 6): 1}
