"""Whatever people hand to `fit` is read as pixels and a list of labels, or refused in one line."""

import numpy as np
import pandas as pd
import pytest
import torch
from own_images import pictures
from PIL import Image
from scipy import sparse
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from sln.relabel import images as files
from sln.relabel.kinds import pixels_of, unpacked, values_of

IMAGES, LABELS = pictures(12)
LAST = np.ascontiguousarray(IMAGES.transpose(0, 2, 3, 1))  # channels last
FEATURES = np.arange(60.0).reshape(12, 5)
RAGGED = [np.zeros((3, 8, 8 + number % 2), np.uint8) for number in range(12)]
EXPECTED = torch.from_numpy(IMAGES)


class Pairs(Dataset):
    """A data set of the user's own; `item` makes a row of an image and a label."""

    classes = None

    def __init__(self, item=lambda image, label: (image, label), classes=None):
        self.item, self.classes = item, classes

    def __len__(self):
        return 12

    def __getitem__(self, number):
        return self.item(Image.fromarray(LAST[number]), int(LABELS[number]))


class Stream(IterableDataset):
    """It has no length."""

    def __iter__(self):
        yield from zip(IMAGES, LABELS, strict=True)


def memmap(tmp_path):
    written = np.memmap(tmp_path / "pixels", np.uint8, "w+", shape=IMAGES.shape)
    written[:] = IMAGES
    return np.memmap(tmp_path / "pixels", np.uint8, "r", shape=IMAGES.shape)


@pytest.mark.parametrize(
    "images",
    [
        IMAGES,
        LAST,
        IMAGES[:, ::-1][:, ::-1],
        EXPECTED.clone().requires_grad_(False),
        [Image.fromarray(image) for image in LAST],
        pd.Series([Image.fromarray(image) for image in LAST], index=range(5, 17)),
        list(IMAGES),
        tuple(LAST),
        iter(IMAGES),
        list(EXPECTED),
        IMAGES.tolist(),
        np.array([None, *(Image.fromarray(image) for image in LAST)], dtype=object)[1:],
        np.ma.array(IMAGES),
        *(IMAGES.astype(kind) for kind in (">u2", "<u4", np.int64, np.float16, np.float64, np.longdouble)),
        torch.from_numpy(IMAGES).float().requires_grad_(),
        torch.from_numpy(IMAGES).to(torch.bfloat16),
        TensorDataset(EXPECTED, torch.from_numpy(LABELS)),
        Pairs(),
        Subset(Pairs(), range(12)),
        Pairs(lambda image, label: {"image": image, "label": label}),
        Pairs(lambda image, label: image),
    ],
)
def test_images_of_every_kind_are_the_same_pixels(images):
    assert torch.equal(pixels_of(images).double(), EXPECTED.double())


def test_a_file_that_is_only_read_and_grey_images_and_features_are_taken(tmp_path):
    assert torch.equal(pixels_of(memmap(tmp_path)), EXPECTED)
    assert torch.equal(pixels_of(IMAGES[:, 0]), EXPECTED[:, :1])
    for features in (
        FEATURES,
        FEATURES.tolist(),
        pd.DataFrame(FEATURES),
        pd.DataFrame(FEATURES).astype("Int64"),
    ):
        assert torch.equal(pixels_of(features)[:, :, 0, 0], torch.from_numpy(FEATURES).float())


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (None, ["NoneType", "allowed are"]),
        ("folder", ["str", "allowed are"]),
        ({"a": IMAGES}, ["dict"]),
        (7, ["int"]),
        (["a.png"] * 12, ["names of files", "relabel"]),
        (np.array(["a.png"] * 12), ["real numbers"]),
        (RAGGED, ["images 0 and 1 differ", "PIL images, which are resized"]),
        (np.array([*RAGGED, None], dtype=object)[:-1], ["images 0 and 1 differ"]),
        ([*IMAGES[:-1], IMAGES[-1] / 255], ["images 0 and 11 differ", "torch.uint8", "torch.float32"]),
        ([*IMAGES[:-1], None], ["image 11", "real numbers"]),
        ([[1.0, 2.0], [1.0, [2.0]]], ["real numbers"]),
        ([Image.new("I;16", (8, 8))] * 12, ["more than 8 bits", "I;16", "np.asarray"]),
        ([], ["no images"]),
        (IMAGES[:0], ["(0, 3, 8, 8)"]),
        (FEATURES[:, :0], ["(12, 0)"]),
        (IMAGES[:, :, :4], ["at least 8 x 8 pixels"]),
        (np.repeat(IMAGES, 2, 1)[:, :5], ["(12, 5, 8, 8)", "1 to 4 channels"]),
        (IMAGES[0, 0, 0], ["shape (8,)"]),
        (IMAGES > 100, ["real numbers", "bool"]),
        (torch.from_numpy(IMAGES > 100), ["real numbers", "bool"]),
        (IMAGES.astype(complex), ["real numbers", "complex"]),
        (np.where(IMAGES == 0, np.inf, IMAGES), ["infinite or missing"]),
        (np.where(IMAGES == 0, np.nan, IMAGES), ["infinite or missing"]),
        (IMAGES * 1e30, ["values up to 2e+32", "1e+15"]),
        (np.ma.masked_greater(IMAGES, 200), ["masked values"]),
        (sparse.csr_matrix(FEATURES), ["sparse", "toarray"]),
        (torch.from_numpy(FEATURES).to_sparse(), ["sparse", "to_dense"]),
        (pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}), ["column 'b'"]),
        (pd.DataFrame({"a": [1.0, None]}), ["infinite or missing"]),
        (Stream(), ["without a length"]),
    ],
)
def test_other_images_are_refused_in_one_line(images, words, refused):
    with refused(*words):
        pixels_of(images)


def test_a_damaged_picture_is_named(tmp_path, refused):
    Image.fromarray(LAST[0]).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    with Image.open(tmp_path / "cut.png") as cut, refused("image 1 cannot be read"):
        pixels_of([Image.fromarray(LAST[0]), cut])


def test_pictures_are_resized_as_files_are(tmp_path):
    rng, opened = np.random.default_rng(0), []
    for number, (mode, size) in enumerate(
        [("RGB", (60, 40)), ("L", (20, 33)), ("RGBA", (50, 28)), ("P", (28, 90))]
    ):
        for name in ("a", "b"):
            channels = {"RGB": (3,), "L": (), "RGBA": (4,), "P": (3,)}[mode]
            image = Image.fromarray(rng.integers(256, size=(*size[::-1], *channels), dtype=np.uint8))
            image = image.convert("P") if mode == "P" else image
            path = tmp_path / "mine" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            exif = Image.Exif()
            exif[0x0112] = 6
            image.save(path, exif=exif)
    found = files.read(tmp_path / "mine", quiet=True)
    opened = [Image.open(tmp_path / "mine" / entry.name) for entry in found.entries]
    assert found.images.shape == (8, 3, 28, 28)
    assert torch.equal(pixels_of(opened), found.images)
    assert pixels_of(opened, side=9).shape == (8, 3, 9, 9)


def test_a_data_set_brings_its_labels_and_their_names(refused):
    assert unpacked(Pairs())[1] == LABELS.tolist()
    assert unpacked(Pairs(classes=["cat", "dog"]))[1] == [["cat", "dog"][label] for label in LABELS]
    assert unpacked(Pairs(), "given instead")[1] == "given instead"
    assert values_of(unpacked(TensorDataset(EXPECTED, torch.from_numpy(LABELS)))[1]) == LABELS.tolist()
    with refused("row 0 of the data set has no label"):
        unpacked(Pairs(lambda image, label: image))
    for images in (IMAGES, list(IMAGES), pd.DataFrame(FEATURES)):
        with refused("labels are None"):
            unpacked(images)


def test_classes_may_be_tuples_of_words_or_share_a_name():
    assert set(unpacked(Pairs(classes=[("tench", "Tinca"), ("crane",)]))[1]) == {"tench, Tinca", "crane"}
    assert set(unpacked(Pairs(classes=["crane", "crane"]))[1]) == {"crane (0)", "crane (1)"}


def test_labels_that_are_names_stay_and_others_are_refused(refused):
    named = Pairs(lambda image, label: (image, f"n{label}"), classes=["cat", "dog"])
    assert unpacked(named)[1] == [f"n{label}" for label in LABELS]
    one_hot = Pairs(lambda image, label: (image, torch.eye(2)[label]), classes=["cat", "dog"])
    with refused("labels has a Tensor in row 0"):
        values_of(unpacked(one_hot)[1])
    for outside in (2, float("nan")):
        data = Pairs(lambda image, label, outside=outside: (image, outside), classes=["cat", "dog"])
        with refused("some labels are missing"):
            values_of(unpacked(data)[1])


def test_a_hugging_face_data_set_has_columns(refused):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"img": datasets.Image(), "fine": datasets.ClassLabel(names=["cat", "dog"])})
    columns = {"img": [Image.fromarray(image) for image in LAST], "fine": LABELS.tolist()}
    data = datasets.Dataset.from_dict(columns, features=features)
    pixels, labels = unpacked(data)
    assert torch.equal(pixels, EXPECTED)
    assert labels == [["cat", "dog"][label] for label in LABELS]
    assert torch.equal(pixels_of(data), EXPECTED)
    assert values_of(unpacked(data, data["fine"])[1]) == LABELS.tolist()
    with refused("splits", "data['train']"):
        unpacked(datasets.DatasetDict(train=data))
    with refused("without a length"):
        unpacked(data.to_iterable_dataset())
    with refused("columns img, x", "'label'", "rename_column"):
        unpacked(data.rename_column("fine", "x").cast_column("x", datasets.Value("int64")))
    unlabelled = datasets.Dataset.from_dict(columns | {"fine": [-1, *LABELS.tolist()[1:]]}, features=features)
    with refused("labels are missing", "row 0"):
        values_of(unpacked(unlabelled)[1])


NAMES = np.array(["cat", "dog"])[LABELS]


@pytest.mark.parametrize(
    "labels",
    [
        NAMES,
        list(NAMES),
        NAMES.tolist(),
        (name for name in NAMES),
        pd.Series(NAMES, index=range(100, 112)),
        pd.Series(NAMES).astype("category"),
        pd.Series(NAMES, dtype="string"),
        pd.Categorical(NAMES),
        pd.DataFrame({"label": NAMES}),
        NAMES[:, None],
        NAMES.astype("S"),
    ],
)
def test_labels_of_every_kind_are_the_same_names(labels):
    values = values_of(labels)
    assert values == NAMES.tolist()
    assert {type(value) for value in values} == {str}


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        LABELS.astype(float),
        torch.from_numpy(LABELS),
        torch.from_numpy(LABELS)[:, None],
        torch.from_numpy(LABELS).float().requires_grad_(),
        list(torch.from_numpy(LABELS)),
        pd.Series(LABELS, dtype="Int64"),
        LABELS.astype(np.uint64) + 0,
        LABELS.astype(">i4"),
    ],
)
def test_numbers_of_every_kind_are_the_same_labels(labels):
    assert values_of(labels) == LABELS.tolist()


def test_dates_stay_dates():
    days = np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[ns]")
    assert values_of(days) == values_of(pd.Series(days)) == [*pd.Series(days)]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (None, ["NoneType"]),
        ("abab", ["a str"]),
        (dict(enumerate(NAMES)), ["a dict"]),
        (set(NAMES), ["a set"]),
        (np.eye(2)[LABELS], ["shape (12, 2)", "argmax(1)"]),
        (pd.DataFrame({"a": NAMES, "b": NAMES}), ["shape (12, 2)"]),
        ([(1, 0), (0, 1)], ["a tuple in row 0", "one per example"]),
        ([[1], [0]], ["a list in row 0"]),
        (["a", None], ["row 1 has None", "1 in all"]),
        (pd.Series(["a", None, None], dtype="string"), ["row 1 has <NA>", "2 in all"]),
        (pd.Series([1, pd.NA], dtype="Int64"), ["row 1 has <NA>"]),
        ([1.0, np.nan], ["row 1 has nan"]),
        (pd.Series([pd.Timestamp("2020-01-01"), pd.NaT]), ["row 1 has NaT"]),
        (pd.Categorical(["a", None]), ["row 1 has nan"]),
        (np.array(["a", np.nan]), ["row 1 has 'nan'"]),
        (["a", " "], ["row 1 has ' '"]),
    ],
)
def test_other_labels_are_refused_in_one_line(labels, words, refused):
    with refused("labels", *words):
        values_of(labels)
