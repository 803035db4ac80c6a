"""Pictures of results."""

import pandas as pd

from sln import plots
from sln.analysis import results


def test_results_stand_beside_the_papers():
    table = pd.DataFrame(
        {"noise": ["sym", "sym", "asym"], "method": ["CE", "CE-MO", "CE"], "mean": [50.0, 60.0, 70.0]}
    ).assign(std=1.0)
    figure = plots.results.one_noise(table, results.of_the_paper(), "sym")
    assert figure.words == "symmetric: CE 50.0 ± 1.0 (paper 53.16), CE-MO 60.0 ± 1.0"
    assert [patch.get_height() for patch in figure.axes[0].patches] == [50.0, 60.0]
