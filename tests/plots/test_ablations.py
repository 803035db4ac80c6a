"""Pictures of ablations."""

import numpy as np
import pytest

from sln import plots
from sln.study import ablations


def test_every_picture_shows_its_table(smoke_study):
    rates = ablations.noise_rates(smoke_study)
    figures = [
        plots.ablations.over_rates(rates),
        plots.ablations.at_rate(rates, 0.4),
        plots.ablations.kinds_of_noise(ablations.kinds_of_noise(smoke_study)),
        plots.ablations.against(ablations.noise_for(smoke_study), "noise_for"),
        plots.ablations.corrections(ablations.corrections(smoke_study)),
        plots.ablations.class_counts(ablations.class_counts(smoke_study)),
        plots.ablations.best_sigmas(ablations.best_sigmas(smoke_study)),
    ]
    for figure in figures:
        assert isinstance(figure, plots.Figure)
        assert len(figure._repr_png_()) > 5000
    bars = figures[1].axes[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx(rates[rates["rate"] == 0.4]["mean"].tolist())


def test_bars_reach_from_the_low_to_the_high_end(smoke_study):
    table = ablations.noise_rates(smoke_study)
    below, above = plots.style.reach(table)
    np.testing.assert_allclose(table["mean"] - below, table["low"])
    np.testing.assert_allclose(table["mean"] + above, table["high"])
