"""Labelled images are checked, and bad ones are refused in one line."""

import numpy as np
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
        (IMAGES, [*LABELS[:-1], 2], ["label 2", "row 29", "one image"]),
        (IMAGES, [*LABELS[:-1], "a"], ["all numbers or all names"]),
        (IMAGES, [*LABELS[:-1], None], ["all numbers or all names"]),
        (IMAGES, [*LABELS[:-1], float("nan")], ["missing"]),
        (IMAGES, [[label] for label in LABELS], ["one per example"]),
        (IMAGES.transpose(0, 2, 3, 1), LABELS, ["(30, 8, 8, 3)", "channels"]),
        (IMAGES[:, :, :4], LABELS, ["at least 8 x 8 pixels"]),
        (IMAGES[0, 0, 0], LABELS, ["shape (8,)"]),
        (IMAGES > 100, LABELS, ["real numbers"]),
        (np.where(IMAGES == 0, np.inf, IMAGES), LABELS, ["infinite or missing"]),
    ],
)
def test_bad_examples_are_refused_in_one_line(images, labels, words, refused):
    with refused(*words):
        checked(images, labels)


def test_a_label_that_is_in_one_group_only_is_refused(refused):
    groups = np.where(LABELS == 1, 0, np.arange(30) + 1)
    with refused("label 1", "one image"):
        checked(IMAGES, LABELS, groups)
    with refused("groups has shape (2,)", "one value per example"):
        checked(IMAGES, LABELS, [1, 2])
