"""Loss surfaces: the centre is the network, directions are filter-normalised, and nothing is left behind."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sln import landscape, models, runs
from sln.config import Config

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
    run = runs.get(Config(epochs=3, fork_epoch=1), quiet=True)
    for reader in ("network", "momentum"):
        network = run.network(reader)
        table = landscape.surface(network, run.data, radius=0.1, points=3, quiet=True)
        centre = table[(table["x"] == 0) & (table["y"] == 0)].iloc[0]
        assert centre["given"] == pytest.approx(run.final(reader)["train_loss"], abs=1e-6)
        assert centre["test"] == pytest.approx(run.final(reader)["test_loss"], abs=1e-6)
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
    assert landscape.losses_at(network, clean, []) == pytest.approx(slow_losses(network, [], clean), abs=1e-5)


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
    run = runs.get(Config(epochs=1, fork_epoch=1), quiet=True)
    first = landscape.surface_of(run, "momentum", radius=0.1, points=2)
    monkeypatch.setattr(landscape, "losses_at", None)
    pd.testing.assert_frame_equal(
        landscape.surface_of(run, "momentum", radius=0.1, points=2), first, rtol=0, atol=0
    )
    monkeypatch.undo()
    for changed in ({"radius": 0.2}, {"points": 3}, {"seed": 1}):
        other = landscape.surface_of(run, "momentum", **{"radius": 0.1, "points": 2} | changed)
        assert not other.equals(first)
    assert not landscape.surface_of(run, "network", radius=0.1, points=2).equals(first)
