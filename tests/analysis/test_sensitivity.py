"""Sensitivity of the logits: the estimate against the exact Jacobian, and ratios over seeds."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t

from sln import runs
from sln.analysis import sensitivity, theory
from sln.config import Config
from sln.datasets.images import digits
from sln.study.statistics import MethodRuns


@pytest.mark.parametrize("training", [True, False])
def test_the_estimate_is_the_exact_jacobians_squared_norm_within_sampling_error(training):
    images, targets = theory.small_images(digits(), 8)
    network = theory.fitted(theory.small_network((2, 3), 10), images, targets, steps=5).train(training)
    z = torch.randn(3000, 8, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits, J = theory.jacobian(network, images)
    found, size = sensitivity.squared_jacobian(network, images, z)
    products = J.flatten(end_dim=1) @ J.flatten(end_dim=1).T
    error = (2 * products.square().sum() / 3000).sqrt().item() / 8
    exact = J.square().sum().item() / 8
    assert abs(found - exact) < 4 * error < 0.3 * exact
    centred = logits - logits.mean(dim=1, keepdim=True)
    assert size == pytest.approx(centred.square().sum(dim=1).mean().item())


def test_the_table_is_of_both_modes_over_mini_batches_and_leaves_statistics_alone():
    found = [runs.get(Config(epochs=1, seed=seed), quiet=True) for seed in (0, 1)]
    table = sensitivity.table({"SLN": MethodRuns("SLN", found)}, batches=2, draws=1)
    assert table[["method", "seed"]].values.tolist() == [["SLN", 0], ["SLN", 1]]
    assert set(sensitivity.QUANTITIES) < set(table.columns)
    assert (table["training"] / table["evaluation"] - 1).abs().min() > 0.01
    assert table["relative"].tolist() == pytest.approx((table["training"] / table["logit_size"]).tolist())
    parameters = found[0].network().parameters()
    assert table["weights"][0] == pytest.approx(sum(p.square().sum().item() for p in parameters))
    again = sensitivity.table({"SLN": MethodRuns("SLN", found[:1])}, batches=2, draws=1)
    pd.testing.assert_frame_equal(again, table[:1])


def test_ratios_are_geometric_means_paired_over_seeds_with_t_intervals():
    ce, sln = np.array([8.0, 10.0, 15.0]), np.array([2.0, 3.0, 3.0])
    parts = [
        pd.DataFrame({"method": name, "seed": range(3)} | dict.fromkeys(sensitivity.QUANTITIES, values))
        for name, values in (("CE", ce), ("SLN", sln))
    ]
    ratios = sensitivity.ratios(pd.concat(parts, ignore_index=True))
    logs = np.log(ce / sln)
    low, high = np.exp(t.interval(0.95, 2, logs.mean(), logs.std(ddof=1) / 3**0.5))
    assert ratios.index.tolist() == list(sensitivity.QUANTITIES.values())
    row = ratios.iloc[0]
    assert (row["CE"], row["SLN"], row["verdict"]) == (11, pytest.approx(8 / 3), "holds")
    assert (row["ratio"], row["low"], row["high"]) == pytest.approx((np.exp(logs.mean()), low, high))
    words = sensitivity.describe(ratios)
    assert f"|J|² of CE is {row['ratio']:.3g} [{low:.3g}, {high:.3g}] times that of SLN" in words
    assert "seeds: 3" in words
