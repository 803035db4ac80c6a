"""Loss surfaces: the centre is the network, directions are filter-normalised, and nothing is left behind."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sln import models, runs
from sln.analysis import landscape
from sln.config import Config
from sln.study.statistics import MethodRuns

LOSSES = ["given", "true", "test"]


def a_network(seed=0):
    return models.build("cnn", in_channels=1, num_classes=10, seed=seed).eval()


def filters(network, direction):
    """Every filter's name, weights and direction: a convolution's output channel or a linear layer's row."""
    for name, weight in network.named_parameters():
        if name.endswith("weight") and not name.startswith("bn"):
            for channel in range(len(weight)):
                yield f"{name}[{channel}]", weight[channel].detach(), direction[name][channel]


def norm(values):
    return sum(value**2 for value in values.double().flatten().tolist()) ** 0.5


def slow_losses(network, moves, clean):
    """The three losses of a copy of the network that has really been moved, batch by batch of one."""
    moved = a_network()
    moved.load_state_dict(network.state_dict())
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            for step, direction in moves:
                parameter += step * direction[name]
        logits = {
            part: moved(clean.normalise(getattr(clean, part).images)).double() for part in ("train", "test")
        }
    known = clean.train.true >= 0
    return {
        "given": F.cross_entropy(logits["train"], clean.train.given).item(),
        "true": F.cross_entropy(logits["train"][known], clean.train.true[known]).item(),
        "test": F.cross_entropy(logits["test"], clean.test.true).item(),
    }


# --- directions ---------------------------------------------------------------------------------------------


def test_every_filter_of_a_direction_has_the_norm_of_its_weights():
    network = a_network()
    for direction in landscape.directions(network, seed=1):
        checked = 0
        for name, weight, d in filters(network, direction):
            assert norm(d) == pytest.approx(norm(weight), rel=1e-5), name
            checked += 1
        assert checked == 16 + 16 + 32 + 10


def test_biases_and_batchnorm_parameters_are_not_moved():
    network = a_network()
    for direction in landscape.directions(network):
        assert set(direction) == {name for name, _ in network.named_parameters()}
        for name in (
            "bn1.weight",
            "bn1.bias",
            "bn2.weight",
            "bn2.bias",
            "bn3.weight",
            "bn3.bias",
            "linear.bias",
        ):
            assert (direction[name] == 0).all()


def test_one_seed_gives_every_network_the_same_directions_up_to_the_filters_norms():
    first, second = a_network(seed=1), a_network(seed=2)
    for x, y in zip(landscape.directions(first, 7), landscape.directions(second, 7), strict=True):
        for (name, w, d), (_, v, e) in zip(filters(first, x), filters(second, y), strict=True):
            torch.testing.assert_close(d / norm(w), e / norm(v), msg=name, rtol=1e-5, atol=1e-6)
            assert norm(w) != pytest.approx(norm(v), rel=1e-6)


def test_the_two_directions_and_those_of_another_seed_are_different():
    network = a_network()
    x, y = landscape.directions(network, 0)
    z, _ = landscape.directions(network, 1)
    for a, b in ((x, y), (x, z), (y, z)):
        a, b = (torch.cat([d.flatten() for d in direction.values()]) for direction in (a, b))
        assert abs(F.cosine_similarity(a, b, dim=0).item()) < 0.1  # about 1/sqrt(7000) by chance


def test_a_filter_of_zeros_is_not_moved():
    network = a_network()
    with torch.no_grad():
        network.conv2.weight[3] = 0
    x, _ = landscape.directions(network)
    assert (x["conv2.weight"][3] == 0).all()
    assert all(torch.isfinite(d).all() for d in x.values())


# --- surfaces -----------------------------------------------------------------------------------------------


def test_the_centre_of_a_surface_is_the_runs_own_loss():
    run = runs.get(Config(epochs=3), quiet=True)
    for weights in ("network", "momentum"):
        network = run.network(weights)
        table = landscape.surface(network, run.data, radius=0.1, points=3, quiet=True)
        centre = table[(table["x"] == 0) & (table["y"] == 0)].iloc[0]
        assert centre["given"] == pytest.approx(run.final(weights)["train_loss"], abs=1e-6)
        assert centre["test"] == pytest.approx(run.final(weights)["test_loss"], abs=1e-6)
        assert centre[LOSSES].to_dict() == pytest.approx(slow_losses(network, [], run.data), abs=1e-5)
        middle = landscape.line(network, run.data, radius=0.1, points=3).iloc[1]
        assert middle["x"] == 0
        assert middle[LOSSES].to_dict() == centre[LOSSES].to_dict()


def test_every_point_is_the_loss_of_a_network_that_has_really_been_moved(few_noisy_digits):
    network = a_network()
    x, y = landscape.directions(network, 4)
    table = landscape.surface(network, few_noisy_digits, radius=0.5, points=3, seed=4, quiet=True)
    assert sorted(zip(table["x"], table["y"], strict=True)) == [
        (a, b) for a in (-0.5, 0, 0.5) for b in (-0.5, 0, 0.5)
    ]
    for row in table.to_dict("records"):
        expected = slow_losses(network, [(row["x"], x), (row["y"], y)], few_noisy_digits)
        assert {name: row[name] for name in LOSSES} == pytest.approx(expected, rel=1e-5)
    assert table[LOSSES].std().min() > 1e-3  # otherwise nothing was moved


def test_a_line_is_the_middle_row_of_the_surface(few_noisy_digits):
    network, size = a_network(), {"radius": 0.5, "points": 3, "seed": 4}
    table = landscape.surface(network, few_noisy_digits, **size, quiet=True)
    row = table[table["y"] == 0].sort_values("x").reset_index(drop=True).drop(columns="y")
    pd.testing.assert_frame_equal(landscape.line(network, few_noisy_digits, **size), row, rtol=1e-6)


def test_swapping_the_directions_transposes_the_surface(few_noisy_digits, monkeypatch):
    network, size = a_network(), {"radius": 0.5, "points": 3, "quiet": True}
    as_drawn = landscape.surface(network, few_noisy_digits, **size)
    x, y = landscape.directions(network)
    monkeypatch.setattr(landscape, "directions", lambda network, seed: (y, x))
    swapped = landscape.surface(network, few_noisy_digits, **size)
    for loss in LOSSES:
        a, b = (table.pivot(index="y", columns="x", values=loss).to_numpy() for table in (as_drawn, swapped))
        np.testing.assert_allclose(a, b.T, rtol=1e-5)
        assert not np.allclose(a, b, rtol=1e-3)


def test_images_of_no_class_count_for_the_given_labels_only(few_noisy_digits):
    network, split = a_network(), few_noisy_digits.train
    some_without_class = torch.where(torch.arange(72) < 30, -1, split.true)
    clean = dataclasses.replace(few_noisy_digits, train=dataclasses.replace(split, true=some_without_class))
    assert landscape.losses_at(network, landscape.EvaluationSet(clean), []) == pytest.approx(
        slow_losses(network, [], clean), abs=1e-5
    )


def test_looking_at_the_surface_leaves_the_network_as_it_was(few_noisy_digits):
    network = a_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    landscape.surface(network, few_noisy_digits, radius=1.0, points=2, quiet=True)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("c", [0.01, 7.0])
def test_rescaling_that_does_not_change_the_function_does_not_change_the_picture(
    c, few_noisy_digits, monkeypatch
):
    clean = few_noisy_digits
    monkeypatch.setattr(type(clean), "normalise", lambda self, images: images.double() / 16 - 0.3)
    network = nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)
    )
    network.double()
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    before = landscape.surface(network, clean, radius=0.5, points=3, quiet=True)
    line_before = landscape.line(network, clean, radius=0.5, points=3)
    with torch.no_grad():
        network[0].weight *= c
        network[0].bias *= c
        network[2].weight /= c
    pd.testing.assert_frame_equal(
        landscape.surface(network, clean, radius=0.5, points=3, quiet=True), before, rtol=1e-10
    )
    pd.testing.assert_frame_equal(
        landscape.line(network, clean, radius=0.5, points=3), line_before, rtol=1e-10
    )
    assert before[LOSSES].std().min() > 1e-3


def test_the_surface_of_a_run_is_computed_once_and_read_back_exactly(monkeypatch):
    run = runs.get(Config(epochs=1), quiet=True)
    first = landscape.surface_of(run, "momentum", radius=0.1, points=2)
    monkeypatch.setattr(landscape, "losses_at", None)
    pd.testing.assert_frame_equal(
        landscape.surface_of(run, "momentum", radius=0.1, points=2), first, rtol=0, atol=0
    )
    monkeypatch.undo()
    for changed in ({"radius": 0.2}, {"points": 3}, {"images": 50}):
        other = landscape.surface_of(run, "momentum", **{"radius": 0.1, "points": 2} | changed)
        assert not other.equals(first)
    assert not landscape.surface_of(run, "network", radius=0.1, points=2).equals(first)


def test_surfaces_of_earlier_versions_are_found_under_their_names():
    run = runs.get(Config(epochs=1), quiet=True)
    landscape.surface_of(run, "network", radius=0.5, points=2)
    landscape.surface_of(run, "network", radius=0.5, points=2, images=50)
    assert {path.name for path in (run.folder / "surfaces").iterdir()} == {
        "network-radius0.5-points2-seed0.csv",
        "network-radius0.5-points2-seed0-images50.csv",
    }


# --- the paper's picture, and mean rises --------------------------------------------------------------------


def panels(*spans):
    """Surfaces of the paper's four panels with these lowest and highest losses."""
    named = zip(landscape.PAPER, spans, strict=True)
    return {name: pd.DataFrame({"given": [low, (low + high) / 2, high]}) for name, (low, high) in named}


def test_the_ranges_stand_beside_the_papers_and_the_words_compare_the_order():
    table = landscape.ranges(panels((0.2, 3.5), (1.7, 2.6), (1.5, 1.58), (1.6, 1.65)))
    assert table["panel"].tolist() == ["a", "b", "c", "d"]
    assert table["method"].tolist() == list(landscape.PAPER)
    row = table.iloc[1]
    assert (row["equation"], row["lowest"], row["highest"]) == ("Eq. 1", 1.7, 2.6)
    assert (row["paper_lowest"], row["paper_highest"]) == (1.7, 2.5)
    words = landscape.describe_ranges(table)
    assert "CE 0.20 to 3.50 (paper 0.3 to 1.8)" in words
    assert "the paper’s order" in words
    assert "18 times as much as SLN (paper: 27 times)" in words
    other = landscape.describe_ranges(landscape.ranges(panels((0.2, 3.5), (1.7, 2.6), (1.5, 1.52), (1, 2))))
    assert "CE, SLN, gradient noise, logit noise; in the paper CE, gradient noise" in other


def test_a_line_is_described_by_its_middle_and_its_ends():
    x = np.linspace(-1, 1, 5)
    table = pd.DataFrame({"x": x, "given": 1 + x**2, "true": 2 + x**2, "test": 3 + x**2})
    text = landscape.describe_lines({"CE": table})
    assert "CE: 1.00 on given labels, 2.00 on true ones, 3.00 on test images" in text
    assert text.endswith("it rises by 1.00 to the ends.")


def test_lines_and_surfaces_have_at_their_centres_what_training_recorded(smoke_study):
    methods = {name: smoke_study.methods("sym")[name] for name in ("CE", "SLN-MO")}
    lines = landscape.lines(methods, radius=0.1, points=3)
    surfaces = landscape.surfaces(methods, radius=0.1, points=3)
    for name, method in methods.items():
        recorded = method.first.final(method.weights)["train_loss"]
        assert lines[name]["given"][1] == pytest.approx(recorded, abs=1e-5)
        assert surfaces[name]["given"][4] == pytest.approx(recorded, abs=1e-5)
    errors = landscape.centre_errors(methods)
    assert errors["method"].tolist() == ["CE", "SLN-MO"]
    assert errors[["given", "test"]].to_numpy().max() < 1e-5


@pytest.mark.parametrize("statistics", landscape.AROUND)
def test_the_rise_is_the_mean_over_both_directions_and_their_opposites(statistics, few_noisy_digits):
    network, images = a_network(), landscape.EvaluationSet(few_noisy_digits)
    size = {"radius": 0.8, "points": 2, "seed": 3, "statistics": statistics}
    table = landscape.rise(network, few_noisy_digits, **size)
    assert table["r"].tolist() == [0.4, 0.8]
    x, y = landscape.directions(network, 3)
    moves = [], [(0.8, x)], [(-0.8, x)], [(0.8, y)], [(-0.8, y)]
    centre, *around = (pd.Series(landscape.losses_at(network, images, move, statistics)) for move in moves)
    expected = sum(around) / 4 - centre
    assert table.iloc[1][LOSSES].to_dict() == pytest.approx(expected.to_dict(), rel=1e-3)
    assert expected["given"] > 1e-3


def test_rises_are_by_method_pair_and_statistics_and_computed_once(monkeypatch):
    run = runs.get(Config(epochs=1), quiet=True)
    methods = {name: MethodRuns(name, [run], name) for name in ("network", "momentum")}
    size = {"radius": 0.5, "points": 1, "images": 50}
    table = landscape.rises(methods, pairs=2, statistics=landscape.AROUND, **size)
    assert len(table.groupby(["method", "pair", "statistics"])) == len(table) == 8
    data = landscape.first_images(run.data, 50)
    alone = landscape.rise(run.network("momentum"), data, radius=0.5, points=1, seed=1)
    found = table.query("method == 'momentum' and pair == 2 and statistics == 'centre'")
    assert found["given"].item() == pytest.approx(alone["given"].item())
    monkeypatch.setattr(landscape, "losses_at", None)
    pd.testing.assert_frame_equal(
        landscape.rises(methods, pairs=2, statistics=landscape.AROUND, **size), table
    )


# --- BatchNorm's statistics ---------------------------------------------------------------------------------


def moved_copy(network, step, direction):
    """A copy of the network that has really been moved."""
    copy = a_network()
    copy.load_state_dict(network.state_dict())
    with torch.no_grad():
        for name, parameter in copy.named_parameters():
            parameter += step * direction[name]
    return copy


def by_hand(network, images):
    """Mean and variance, as PyTorch keeps it (over n - 1), of the three BatchNorms' inputs on one batch."""

    def normalised(x, bn):
        centred = x - x.mean(dim=(0, 2, 3), keepdim=True)
        variance = centred.square().mean(dim=(0, 2, 3), keepdim=True)
        n = x.numel() / x.shape[1]
        found.append((x.mean(dim=(0, 2, 3)), variance.flatten() * n / (n - 1)))
        x = centred / (variance + bn.eps).sqrt()
        return (x * bn.weight[:, None, None] + bn.bias[:, None, None]).clamp(min=0)

    found = []
    with torch.no_grad():
        x = normalised(network.conv1(images), network.bn1)
        x = F.max_pool2d(normalised(network.conv2(x), network.bn2), 2)
        normalised(network.conv3(x), network.bn3)
    return {f"bn{i + 1}": statistics for i, statistics in enumerate(found)}


@pytest.mark.parametrize("step", [0.0, 0.4])
def test_recomputed_statistics_are_those_of_one_full_batch(step, few_noisy_digits):
    network = a_network()
    x, _ = landscape.directions(network)
    copy, seen = moved_copy(network, step, x), landscape.EvaluationSet(few_noisy_digits)
    found = landscape.batchnorm_statistics(network, landscape.moved(network, [(step, x)]), seen.train)
    for bn, (mean, variance) in by_hand(copy, seen.train).items():
        torch.testing.assert_close(found[f"{bn}.running_mean"], mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[f"{bn}.running_var"], variance, rtol=1e-4, atol=1e-6)
        copy.get_submodule(bn).running_mean.copy_(mean)
        copy.get_submodule(bn).running_var.copy_(variance)
    expected = slow_losses(copy, [], few_noisy_digits)
    losses = landscape.losses_at(network, seen, [(step, x)], "recomputed")
    assert losses == pytest.approx(expected, rel=1e-4)
    assert losses != pytest.approx(landscape.losses_at(network, seen, [(step, x)]), rel=1e-3)


def test_statistics_in_several_batches_are_the_mean_over_equal_batches(few_noisy_digits, monkeypatch):
    network, seen = a_network(), landscape.EvaluationSet(few_noisy_digits)  # 72 images
    monkeypatch.setattr(landscape, "STATISTICS_BATCH", 30)
    found = landscape.batchnorm_statistics(network, {}, seen.train)
    parts = [by_hand(network, images) for images in seen.train.split(24)]
    for bn in parts[0]:
        for index, name in enumerate(("running_mean", "running_var")):
            mean = torch.stack([part[bn][index] for part in parts]).mean(dim=0)
            torch.testing.assert_close(found[f"{bn}.{name}"], mean, rtol=1e-4, atol=1e-5)


def test_unknown_statistics_are_refused(few_noisy_digits, refused):
    network = a_network()
    with refused("unknown BatchNorm statistics 'recomputd'", "recomputed"):
        landscape.rise(network, few_noisy_digits, radius=1, points=2, statistics="recomputd")
    with refused("unknown BatchNorm statistics 'centre'", "interpolated"):
        landscape.between(network, network, few_noisy_digits, statistics="centre")


def test_recomputing_leaves_the_network_as_it_was(few_noisy_digits):
    network = a_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    landscape.rise(network, few_noisy_digits, radius=1.0, points=2, statistics="recomputed")
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# --- between two minima -------------------------------------------------------------------------------------


def two_networks():
    """Two networks that also differ in biases, BatchNorm parameters and running statistics."""
    networks = a_network(1), a_network(2)
    generator = torch.Generator().manual_seed(0)
    for network in networks:
        for name, value in network.state_dict().items():
            if value.is_floating_point() and ("bn" in name or "bias" in name):
                value.add_(torch.rand(value.shape, generator=generator))
    return networks


def test_the_line_meets_both_networks_and_is_of_their_weighted_means_between(few_noisy_digits):
    first, second = two_networks()
    table = landscape.between(first, second, few_noisy_digits, quarter=2, statistics="interpolated")
    assert table["t"].tolist() == [t / 8 for t in range(-2, 11)]
    table = table.set_index("t")
    assert table.loc[0.0].to_dict() == pytest.approx(slow_losses(first, [], few_noisy_digits), rel=1e-5)
    assert table.loc[1.0].to_dict() == pytest.approx(slow_losses(second, [], few_noisy_digits), rel=1e-5)
    quarter = a_network()
    end = second.state_dict()
    mixed = {n: 0.75 * v + 0.25 * end[n] for n, v in first.state_dict().items() if v.is_floating_point()}
    quarter.load_state_dict(mixed, strict=False)
    expected = slow_losses(quarter, [], few_noisy_digits)
    assert table.loc[0.25].to_dict() == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(slow_losses(first, [], few_noisy_digits), rel=1e-2)


def test_the_line_runs_the_same_both_ways(few_noisy_digits):
    first, second = two_networks()
    for statistics in landscape.BETWEEN:
        there, back = (
            landscape.between(*pair, few_noisy_digits, quarter=1, statistics=statistics)[LOSSES].to_numpy()
            for pair in ((first, second), (second, first))
        )
        np.testing.assert_allclose(there, back[::-1], rtol=1e-4)


def test_recomputed_statistics_at_both_ends_are_each_networks_own(few_noisy_digits):
    first, second = two_networks()
    seen = landscape.EvaluationSet(few_noisy_digits)
    table = landscape.between(first, second, few_noisy_digits, quarter=1).set_index("t")
    for t, network in ((0.0, first), (1.0, second)):
        expected = landscape.losses_at(network, seen, [], "recomputed")
        assert table.loc[t].to_dict() == pytest.approx(expected, rel=1e-5)


def test_a_negative_variance_has_no_loss(few_noisy_digits):
    first, second = two_networks()
    second.bn1.running_var.mul_(100)
    table = landscape.between(first, second, few_noisy_digits, quarter=1, statistics="interpolated")
    assert table[LOSSES].isna().all(axis=1).tolist() == [True] + 6 * [False]


def test_the_line_between_two_methods_meets_what_training_recorded_and_is_computed_once(monkeypatch):
    run = runs.get(Config(epochs=2), quiet=True)
    other = runs.get(Config(epochs=2, sigma=0), quiet=True)
    methods = {"SLN-MO": MethodRuns("SLN-MO", [run], "momentum"), "CE": MethodRuns("CE", [other], "network")}
    tables = landscape.between_methods(methods, "SLN-MO", "CE", quarter=1)
    table = tables["interpolated"].set_index("t")
    for t, method in enumerate(methods.values()):
        recorded = method.first.final(method.weights)
        assert table["given"][float(t)] == pytest.approx(recorded["train_loss"], abs=1e-6)
        assert table["test"][float(t)] == pytest.approx(recorded["test_loss"], abs=1e-6)
    monkeypatch.setattr(landscape, "losses", None)
    again = landscape.between_methods(methods, "SLN-MO", "CE", quarter=1)
    for statistics in landscape.BETWEEN:
        pd.testing.assert_frame_equal(again[statistics], tables[statistics], rtol=0, atol=0)


def test_the_references_are_of_the_second_seed_over_the_firsts_data():
    found = [runs.get(Config(epochs=1, seed=seed, noise_seed=seed), quiet=True) for seed in (0, 1)]
    methods = {name: MethodRuns(name, found, name) for name in ("network", "momentum")}
    tables = landscape.between_methods(methods, "network", "momentum", quarter=1)
    assert list(tables) == [*landscape.BETWEEN, "network", "momentum"]
    other = landscape.EvaluationSet(found[0].data)
    expected = landscape.losses_at(found[1].network("momentum"), other, [], "recomputed")
    assert tables["momentum"].set_index("t").loc[1.0].to_dict() == pytest.approx(expected, rel=1e-5)
    alone = {name: MethodRuns(name, found[:1], name) for name in methods}
    again = landscape.between_methods(alone, "network", "momentum", quarter=1)
    assert list(again) == list(landscape.BETWEEN)


def test_a_barrier_is_the_height_above_the_line_between_the_ends_and_not_beyond_them():
    t = np.array([-0.25, 0, 0.5, 1, 1.25])
    table = pd.DataFrame({"t": t, "given": [9, 1, 4, 3, 9], "true": [9, 1, 2, 3, 9], "test": [9, 1, 0, 3, 9]})
    found = landscape.barriers({"recomputed": table, "interpolated": table})
    assert found.index.tolist() == ["recomputed"]
    assert found.loc["recomputed"].tolist() == [2, 0, 0]
