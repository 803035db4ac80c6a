"""The pictures of the regulariser: lines are predictions, dots are measurements."""

import numpy as np
import pandas as pd

from sln.analysis.regulariser import noise_over_curvature
from sln.plots import regulariser


def test_lines_are_predicted_and_dots_measured():
    rows = {"case": ["a", "a", "b", "b"], "step": [1, 2, 1, 2]}
    for column, start in (("extra", 1.0), ("drift", 5.0)):
        rows |= {column: [start, 2, 3, 4], f"{column}_measured": [7.0, 8, 9, 10], f"{column}_error": 0.1}
    rows["rest"] = 2.0
    left, right = regulariser.drift(pd.DataFrame(rows)).axes
    assert [line.get_ydata().tolist() for line in left.lines[1::3]] == [[1, 2], [3, 4]]
    assert right.containers[0].lines[0].get_ydata().tolist() == [7, 8]


def test_the_ratio_is_that_of_the_other_panel():
    left, right = regulariser.noise_over_curvature(noise_over_curvature(points=5)).axes
    noise, curvature = (line.get_ydata() for line in left.lines)
    np.testing.assert_allclose(right.lines[0].get_ydata(), noise / curvature)
