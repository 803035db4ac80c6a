"""Sharpness against exact Hessians, losses that are quadratic, and a second library."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import eigsh
from scipy.stats import t
from torch import nn

from sln import models, runs
from sln.analysis import landscape, sharpness
from sln.config import Config
from sln.study.statistics import MethodRuns
from sln.utils.rng import torch_generator


@pytest.fixture
def tiny():
    """A network of 67 parameters in double precision, eight images in the place of a batch, and labels."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).double()
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    network[1].running_var.fill_(2.0)
    images = torch.randn(8, 6, generator=generator, dtype=torch.float64)
    return network, images, torch.randint(0, 3, (8,), generator=generator)


def hessian_of(network, images, labels, *, training=False, **options):
    parts = sharpness.loss_parts(network, images, labels, training=training)
    return sharpness.hessian(parts, sharpness.parameters_of(network), keep=True, **options)


def exact_hessian(network, images, labels, *, training=False):
    """All (P, P) second derivatives of PyTorch's own mean cross-entropy, in one batch."""
    names = [name for name, _ in network.named_parameters()]
    shapes = [parameter.shape for parameter in network.parameters()]
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network.train(training)

    def loss(*values):
        weights = dict(zip(names, values, strict=True)) | buffers
        return F.cross_entropy(torch.func.functional_call(network, weights, (images,)), labels)

    values = tuple(parameter.detach() for parameter in network.parameters())
    blocks = torch.autograd.functional.hessian(loss, values)
    sizes = [shape.numel() for shape in shapes]
    rows = [
        torch.cat([block.reshape(size, -1) for block in row], 1)
        for size, row in zip(sizes, blocks, strict=True)
    ]
    return torch.cat(rows)


def quadratic(eigenvalues, slope, seed=0):
    """L = slope . theta + theta' A theta / 2, in two parts, its A = Q diag(eigenvalues) Q', and the slope."""
    generator = torch.Generator().manual_seed(seed)
    size = len(eigenvalues)
    Q, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    A = Q @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ Q.T
    g = slope * torch.randn(size, generator=generator, dtype=torch.float64)
    return [lambda theta: theta @ g + theta @ A @ theta / 6, lambda theta: theta @ A @ theta / 3], A, g


# --- the loss as a function of one vector -------------------------------------------------------------------


def test_value_and_gradient_are_those_of_the_mean_over_all_batches(tiny, monkeypatch):
    network, images, labels = tiny
    monkeypatch.setattr(sharpness, "BATCH", 3)  # 3, 3 and 2 images
    parts = sharpness.loss_parts(network, images, labels, training=False)
    theta = sharpness.parameters_of(network)
    assert len(parts) == 3
    loss = F.cross_entropy(network(images), labels)
    loss.backward()
    assert sharpness.value(parts, theta) == pytest.approx(loss.item(), rel=1e-12)
    expected = torch.cat([parameter.grad.flatten() for parameter in network.parameters()])
    torch.testing.assert_close(sum(sharpness.gradients(parts, theta.requires_grad_())), expected)


# --- the Hessian --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("keep", [True, False])
def test_products_are_those_with_the_exact_hessian(tiny, keep, training, monkeypatch):
    network, images, labels = tiny
    H = exact_hessian(network, images, labels, training=training)
    monkeypatch.setattr(sharpness, "BATCH", 3)
    parts = sharpness.loss_parts(network, images, labels, training=training)
    assert len(parts) == (1 if training else 3)
    product = sharpness.hessian_product(parts, sharpness.parameters_of(network), keep=keep)
    for column in range(0, len(H), 13):
        torch.testing.assert_close(product(torch.eye(len(H), dtype=torch.float64)[column]), H[:, column])


def test_eigenvalues_are_those_of_the_exact_hessian_and_the_trace_lies_around_its(tiny):
    network, images, labels = tiny
    H = exact_hessian(network, images, labels)
    exact = torch.linalg.eigvalsh(H).flip(0)
    assert exact[-1] < -1e-3  # so that "largest" is not the same as "largest in size"
    found = hessian_of(network, images, labels, k=4, probes=200)
    assert [found[f"eigenvalue_{i}"] for i in (1, 2, 3, 4)] == pytest.approx(exact[:4].tolist(), rel=1e-3)
    rest = exact[4:]
    error = math.sqrt(2 * (rest**2).sum() / 200)  # of Hutchinson's estimator, at most
    assert found["trace"] == pytest.approx(H.trace().item(), abs=3 * error)
    assert 3 * error < 0.1 * H.trace()  # otherwise the law is empty


def test_a_trace_all_of_whose_eigenvalues_are_taken_out_is_exact_and_one_that_is_diagonal_too():
    theta = torch.zeros(6, dtype=torch.float64)
    few = [5.0, 3.0, 0.0, 0.0, 0.0, 0.0]
    parts, _, _ = quadratic(few, 1.0)
    product = sharpness.hessian_product(parts, theta)
    values, vectors = sharpness.largest_eigenvalues(product, theta, 2, torch.Generator().manual_seed(0))
    trace = sharpness.trace(product, values, vectors, 1, torch.Generator().manual_seed(1))
    assert trace == pytest.approx(8.0, abs=1e-6)
    diagonal = torch.tensor([4.0, -1.0, 2.0])
    none = torch.zeros(3, 0), torch.zeros(0)
    assert sharpness.trace(lambda v: diagonal * v, none[1], none[0], 1, torch.Generator()) == 5.0


def test_statistics_are_those_of_the_images_in_training_mode_and_running_ones_are_left_alone(tiny):
    network, images, labels = tiny
    largest = {}
    for training in (True, False):
        network.train(not training)  # the mode that was left behind does not matter
        largest[training] = hessian_of(network, images, labels, training=training, k=1, probes=0)
        exact = torch.linalg.eigvalsh(exact_hessian(network, images, labels, training=training))[-1].item()
        assert largest[training]["eigenvalue_1"] == pytest.approx(exact, rel=1e-3)
        assert (network[1].running_var == 2.0).all()
        assert network[1].num_batches_tracked == 0
    assert largest[True]["eigenvalue_1"] != pytest.approx(largest[False]["eigenvalue_1"], rel=0.05)


def test_many_images_are_equal_batches_each_with_its_own_statistics(tiny, monkeypatch):
    network, images, labels = tiny
    monkeypatch.setattr(sharpness, "STATISTICS_BATCH", 5)
    parts = sharpness.loss_parts(network, images, labels)
    found = sharpness.value(parts, sharpness.parameters_of(network))
    network.train()
    halves = [F.cross_entropy(network(images[i : i + 4]), labels[i : i + 4]).item() for i in (0, 4)]
    assert found == pytest.approx(np.mean(halves), rel=1e-9)


def eigenvalues_by_curvlinops(network, images, labels, k):
    """The k largest eigenvalues, falling, of the same Hessian by the library curvlinops."""
    network.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it still scripts functions with torch.jit
        from curvlinops import HessianLinearOperator

        operator = HessianLinearOperator(
            network, nn.CrossEntropyLoss(), list(network.parameters()), [(images, labels)]
        )
        values = eigsh(operator.to_scipy(), k, which="LA", return_eigenvectors=False)
    return sorted(values.tolist(), reverse=True)


def test_curvlinops_finds_the_same_eigenvalues(few_noisy_digits):
    network = models.build("cnn", in_channels=1, num_classes=10, seed=0)
    data = landscape.EvaluationSet(few_noisy_digits)
    found = hessian_of(network, data.train, data.given, k=3, probes=1)
    theirs = eigenvalues_by_curvlinops(network, data.train, data.given, k=3)
    assert [found[f"eigenvalue_{i}"] for i in (1, 2, 3)] == pytest.approx(theirs, rel=1e-3)


# --- how the loss rises nearby ------------------------------------------------------------------------------


def test_the_average_increase_of_a_quadratic_loss_is_rho_squared_trace_over_2p():
    eigenvalues = [9.0, 4.0, 1.0, 0.5, -0.25, 0.0]
    parts, _, _ = quadratic(eigenvalues, slope=100.0)  # the opposites take the slope out
    theta = torch.ones(6, dtype=torch.float64)
    for rho in (0.1, 3.0):
        generator = torch_generator(0, "landscape", 4)
        found = sharpness.average_increase(parts, theta, rho, 4000, generator)
        assert found == pytest.approx(rho**2 * sum(eigenvalues) / 12, rel=0.05)
    sphere, _, _ = quadratic([2.0] * 6, slope=0.0)  # the same in every direction: exact for one
    found = sharpness.average_increase(sphere, torch.zeros(6).double(), 0.5, 1, torch.Generator())
    assert found == pytest.approx(0.25, rel=1e-12)


def test_the_filter_increase_is_what_the_landscape_shows_along_the_same_directions(few_noisy_digits):
    network = models.build("cnn", in_channels=1, num_classes=10, seed=0)
    seen = landscape.EvaluationSet(few_noisy_digits)
    parts = sharpness.loss_parts(network, seen.train, seen.given, training=False)
    lines = [
        landscape.line(network, few_noisy_digits, radius=0.5, points=3, seed=seed)["given"].tolist()
        for seed in (0, 1)
    ]
    expected = np.mean([(low + high) / 2 - centre for low, centre, high in lines])
    found = sharpness.filter_increase(parts, network, 0.5, directions=2)
    assert found == pytest.approx(expected, rel=1e-3)
    assert expected > 1e-3


def test_sams_step_on_a_quadratic_loss_is_its_formula():
    parts, A, g = quadratic([9.0, 4.0, 1.0, 0.5, -0.25], slope=1.0)
    theta, rho = torch.full((5,), 0.3, dtype=torch.float64), 0.2
    slope = g + A @ theta
    u = slope / slope.norm()
    expected = rho * slope.norm() + rho**2 * (u @ A @ u) / 2
    assert sharpness.worst_increase(parts, theta, rho) == pytest.approx(expected.item(), rel=1e-12)
    assert expected > 0  # a step of the wrong sign would fall


def test_projected_ascent_finds_the_worst_point_of_a_ball():
    parts, A, g = quadratic([9.0, 4.0, 1.0, 0.5, 0.25], slope=0.3)
    theta, rho = torch.zeros(5, dtype=torch.float64), 0.5
    sam = sharpness.worst_increase(parts, theta, rho)
    found = sharpness.worst_increase(parts, theta, rho, steps=100)
    # the maximum over the sphere: (mu I - A) d = g with |d| = rho, mu above the largest eigenvalue
    low, high = 9.0 + 1e-9, 100.0
    for _ in range(200):
        mu = (low + high) / 2
        d = torch.linalg.solve(mu * torch.eye(5, dtype=torch.float64) - A, g)
        low, high = (mu, high) if d.norm() > rho else (low, mu)
    assert found == pytest.approx((g @ d + d @ A @ d / 2).item(), rel=1e-4)
    assert found > 1.05 * sam


def test_more_steps_never_find_less_and_no_point_lies_outside_the_ball(tiny):
    network, images, labels = tiny
    theta, asked = sharpness.parameters_of(network), []
    (part,) = sharpness.loss_parts(network, images, labels)

    def watched(x):
        asked.append((x - theta).norm().item())
        return part(x)

    found = [sharpness.worst_increase([watched], theta, 0.3, steps) for steps in range(6)]
    assert found == sorted(found)
    assert max(asked) == pytest.approx(0.3, rel=1e-9)


# --- scale --------------------------------------------------------------------------------------------------


def test_a_scale_that_changes_no_output_changes_the_hessian_but_not_the_filter_normalised_rise():
    generator = torch.Generator().manual_seed(1)
    network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    images = torch.randn(8, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (8,), generator=generator)
    options = {"k": 1, "probes": 50, "directions": 2, "steps": 0}
    before = sharpness.measure(network, images, labels, **options)
    with torch.no_grad():
        network[0].weight *= 0.1
        network[0].bias *= 0.1
        network[2].weight /= 0.1
    after = sharpness.measure(network, images, labels, **options)
    assert after["loss"] == pytest.approx(before["loss"], rel=1e-10)
    assert after["filter_increase"] == pytest.approx(before["filter_increase"], rel=1e-8)
    assert after["eigenvalue_1"] > 2 * before["eigenvalue_1"]


# --- tables -------------------------------------------------------------------------------------------------

QUICK = {"k": 2, "probes": 1, "directions": 1, "steps": 1}


def test_the_table_has_a_row_a_method_and_seed_and_is_computed_once(monkeypatch):
    found = [runs.get(Config(epochs=1, seed=seed), quiet=True) for seed in (0, 1)]
    methods = {
        "SLN": MethodRuns("SLN", found, "network"),
        "SLN-MO": MethodRuns("SLN-MO", found[:1], "momentum"),
    }
    table = sharpness.table(methods, images=60, **QUICK)
    assert table[["method", "seed"]].values.tolist() == [["SLN", 0], ["SLN", 1], ["SLN-MO", 0]]
    assert set(sharpness.MEASURES) < set(table.columns)
    assert np.isfinite(table.drop(columns="method").to_numpy()).all()
    seen = landscape.EvaluationSet(landscape.first_images(found[0].data, 60))
    loss = landscape.losses_at(found[0].network("momentum"), seen, [], "recomputed")["given"]
    assert table["loss"].iloc[2] == pytest.approx(loss, rel=1e-3)  # variances over n - 1 there
    theta = sharpness.parameters_of(found[0].network("momentum"))
    assert table["squared_norm"].iloc[2] == pytest.approx(theta.square().sum().item())
    monkeypatch.setattr(sharpness, "measure", None)
    pd.testing.assert_frame_equal(sharpness.table(methods, images=60, **QUICK), table, rtol=0, atol=0)


def test_the_first_images_and_their_given_labels_are_measured():
    run = runs.get(Config(epochs=1), quiet=True)
    seen = landscape.EvaluationSet(landscape.first_images(run.data, 80))
    found = sharpness.measures_of(run, "network", images=80, **QUICK)
    expected = F.cross_entropy(run.network("network").train()(seen.train), seen.given).item()
    assert found["loss"] == pytest.approx(expected, rel=1e-5)


def rows(**by_method):
    """A table of all measures, each with these values over seeds."""
    columns = [*sharpness.MEASURES, "squared_norm", *(f"{name}_evaluation" for name in sharpness.CONTROLS)]
    return pd.DataFrame(
        [
            {"method": method, "seed": seed} | dict.fromkeys(columns, value)
            for method, values in by_method.items()
            for seed, value in enumerate(values)
        ]
    )


@pytest.mark.parametrize(
    ("sln", "verdict"),
    [
        ((1, 2, 3), "holds"),
        ((17, 18, 19), "does not hold"),
        ((8, 9, 13), "cannot be told with 3 seeds"),
        ((-8, 9, 13), "cannot be told with 3 seeds"),
        ((-3, -1, -2), "holds"),
    ],
)
def test_the_verdict_is_that_of_the_paired_interval(sln, verdict):
    summary = sharpness.summary(rows(CE=(9, 10, 11), SLN=sln))
    assert summary["measure"].unique().tolist() == [*sharpness.MEASURES, "squared_norm"]
    ce, ours = (summary[summary["method"] == method] for method in ("CE", "SLN"))
    assert set(ce["verdict"][:-1]) == {verdict}
    assert ce["verdict"].iloc[-1] == ""  # |theta|^2 is not a sharpness
    assert set(ours["verdict"]) == {""}
    assert ce["scale_free"].tolist() == [True] + 6 * [False]
    apart = np.array([9, 10, 11]) - sln if min(sln) < 0 else np.log(np.array([9, 10, 11]) / sln)
    low, high = t.interval(0.95, 2, apart.mean(), apart.std(ddof=1) / math.sqrt(3))
    shown = ce[["ratio", "low", "high"]].iloc[0].astype(float)
    expected = np.array([apart.mean(), low, high])
    np.testing.assert_allclose(shown, expected if min(sln) < 0 else np.exp(expected))
    first = ce.iloc[0]
    assert (first["mean"], first["std"], first["relative"], first["relative_std"]) == (10, 1, 1, 0.1)
    assert ours.iloc[0]["relative"] == pytest.approx(np.mean(sln) / 10)
    assert first["evaluation"] == 10


def test_one_seed_settles_nothing():
    summary = sharpness.summary(rows(CE=(9,), SLN=(1,)))
    assert set(summary[summary["method"] == "CE"]["verdict"]) == {"cannot be told with 1 seed", ""}
    assert "cannot be told with 1 seed by the scale-free measure" in sharpness.describe(summary)


def test_means_are_a_row_per_method_in_the_order_of_the_table():
    table = sharpness.means(sharpness.summary(rows(SLN=(1, 2, 3), CE=(9, 10, 11))))
    assert table.index.tolist() == ["SLN", "CE"]
    controls = [f"{sharpness.MEASURES[name]}, evaluation mode" for name in sharpness.CONTROLS]
    assert table.columns.tolist() == [*sharpness.MEASURES.values(), "squared_norm", *controls]
    assert set(table.loc["CE"]) == {10}


def test_the_words_lead_with_the_scale_free_measure():
    table = rows(CE=(9, 10, 11), SLN=(1, 1.1, 1.2))
    table.loc[table["method"] == "CE", "trace"] = [0.1, 0.11, 0.12]
    words = sharpness.describe(sharpness.summary(table))
    assert words.startswith("SLN flatter than CE: holds by the scale-free measure (ratio 9.09 [")
    assert words.endswith("by the 5 others: holds (4), does not hold (1).")
