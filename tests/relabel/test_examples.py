"""Labelled images are checked, and bad ones are refused in one line."""

import numpy as np
import pandas as pd
import pytest
from own_images import pictures

from sln.relabel.examples import checked

IMAGES, LABELS = pictures(30)


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (IMAGES[:5], LABELS, ["5 images", "30 labels"]),
        (IMAGES[:0], [], ["(0, 3, 8, 8)"]),
        (IMAGES, LABELS * 0, ["all labels are 0"]),
        (IMAGES, [*LABELS[:-1], "a"], ["all numbers or all names"]),
        (IMAGES, [*LABELS[:-1], True], ["all numbers or all names"]),
        (np.zeros_like(IMAGES), LABELS, ["no labels are on two different images"]),
        (IMAGES, [[label] for label in LABELS], ["one per example"]),
    ],
)
def test_bad_examples_are_refused_in_one_line(images, labels, words, refused):
    with refused(*words):
        checked(images, labels)


def test_two_labels_must_be_in_two_groups_and_others_may_be_in_one(refused):
    groups = np.where(LABELS == 1, 0, np.arange(30) + 1)
    with refused("1 labels", "different groups"):
        checked(IMAGES, LABELS, groups)
    with refused("30 images and 2 groups"):
        checked(IMAGES, LABELS, [1, 2])
    assert checked(IMAGES, [*LABELS[:-1], 7]).classes == (0, 1, 7)


@pytest.mark.parametrize("kind", [list, np.array, pd.Series, pd.Categorical])
def test_groups_may_be_names_or_numbers_of_any_kind(kind):
    numbers = np.arange(30) // 3 - 5
    for values in (numbers, [f"film {number:03}" for number in numbers + 5]):
        groups = checked(IMAGES, LABELS, kind(list(values))).groups
        assert groups.tolist() == (np.arange(30) // 3).tolist()


@pytest.mark.parametrize(
    "bad", [[np.nan] * 30, [None] * 30, [1, "a", pd.Timestamp(0)] * 10, "a" * 30, 3, {"a": 1}, np.eye(30)]
)
def test_bad_groups_are_refused_in_one_line(bad, refused):
    with refused("groups"):
        checked(IMAGES, LABELS, bad)


def test_pandas_objects_go_by_place_and_the_same_index_in_another_order_is_refused(refused):
    features = pd.DataFrame(IMAGES.reshape(30, -1)[:, :9].astype(float))
    assert checked(features, pd.Series(LABELS, index=range(100, 130))).given.tolist() == LABELS.tolist()
    with refused("labels", "another order", ".loc[images.index]"):
        checked(features, pd.Series(LABELS).sort_values(kind="stable"))
    with refused("groups", "another order"):
        checked(features, LABELS, pd.Series(range(30), index=range(29, -1, -1)))
