"""The fragment of <sln-train>: its data are the package's digits, and it asks for nothing from outside."""

import base64
import re
import zlib

import numpy as np
from sklearn.datasets import load_digits

from sln.datasets.images import digits
from sln.plots.style import COLOURS
from sln.reproduce import live


def test_the_page_has_every_digit_once_and_the_packages_training_images_first():
    packed = re.search(r'<script type="text/plain">(.*?)</script>', live.fragment())[1]
    assert len(packed) <= 60_000
    content = np.frombuffer(zlib.decompress(base64.b64decode(packed)), np.uint8)
    pixels, labels = content[: 64 * 1797].reshape(64, 1797).T, content[64 * 1797 :]
    train = digits().train
    assert np.array_equal(pixels[: len(train)].reshape(-1, 8, 8), train.images[:, 0].numpy())
    assert np.array_equal(labels[: len(train)], train.true.numpy())
    bunch = load_digits()
    rows = [np.column_stack(both).tolist() for both in ((pixels, labels), (bunch.data, bunch.target))]
    assert sorted(rows[0]) == sorted(rows[1])
    assert f'data-train="{len(train)}"' in live.fragment()


def test_the_fragment_is_the_same_every_time_and_has_nothing_that_loads_or_runs():
    fragment = live.fragment("there")
    assert fragment == live.fragment("there")
    assert fragment.count('id="there') == 5
    assert not re.search(r"\b(src|href|style|on\w+)=", fragment)
    assert re.findall(r"<script[^>]*>", fragment) == ['<script type="text/plain">']
    assert "url(" not in live.STYLE
    assert "@import" not in live.STYLE


def test_the_curves_have_the_methods_colours():
    light, dark = re.findall(r"--plain: (#\w+); --noise: (#\w+)", live.STYLE)
    assert light == (COLOURS["CE"], COLOURS["SLN-MO"])
    assert dark == (COLOURS["CE-MO"], COLOURS["SLN"])
