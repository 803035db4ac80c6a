"""Runs of Clothing1M on a miniature of real JPEG files: the recipe against one by hand, runs on disk."""

import os

import clothing1m_miniature as miniature
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clothing1m_miniature import SMALL, in_folder, interrupted, numbers
from PIL import Image

from sln import runs
from sln.config import Config
from sln.datasets import clothing1m as data_set
from sln.runs import clothing1m, store
from sln.train import learning_rate
from sln.utils.devices import torchvision
from sln.utils.rng import numpy_generator, torch_generator

pytest_plugins = ["clothing1m_fixtures"]

UNCORRECTED = SMALL.replace(correction=-1)


# --- the recipe against one by hand -------------------------------------------------------------------------


def slow_images(rows, files, config, *counters):
    """Crops by torchvision's functions, one image at a time; the centre without counters."""
    functional = torchvision().transforms.functional
    normalise = torchvision().transforms.Normalize(data_set.MEAN, data_set.STD)
    found = []
    for row in rows:
        image = functional.resize(Image.open(files[row]).convert("RGB"), data_set.RESIZE)
        if counters:
            rng = numpy_generator(config.seed, "augmentation", *counters, row)
            top, left = (int(rng.integers(side - 31)) for side in (image.height, image.width))
            image = functional.crop(image, top, left, 32, 32)
            image = functional.hflip(image) if rng.random() < 0.5 else image
        else:
            image = functional.center_crop(image, 32)
        found.append(normalise(torch.from_numpy(np.array(image)).permute(2, 0, 1).double() / 255))
    return torch.stack(found)


def slow_logits(network, weights, images):
    network.eval()
    with torch.no_grad():
        return torch.func.functional_call(network, weights, (images,))


def slow_run(config, start):
    """The whole run with SGD, momentum model and correction written out."""
    data = data_set.read()
    files = [data.root / data.path(row) for row in range(56)]
    network = clothing1m.build(config)
    network.load_state_dict(start)
    names = [name for name, _ in network.named_parameters()]
    average = {name: value.clone() for name, value in start.items()}
    velocity = dict.fromkeys(names, 0.0)
    rows_of_history, corrections, kept = [], {}, []
    for epoch in range(1, config.epochs + 1):
        rows = data.subset(config.num_per_class, config.seed, epoch).tolist()
        targets = torch.eye(14)[data.labels[rows]]
        lr = config.lr * (0.1 if epoch > config.lr_drop else 1)
        if 0 < config.correction < epoch:
            counters = (epoch, 1) if config.correction_losses == "as-released" else ()
            log_p = torch.log_softmax(
                slow_logits(network, average, slow_images(rows, files, config, *counters)), 1
            )
            losses = -(targets * log_p).sum(1)
            w = ((losses - losses.min()) / (losses.max() - losses.min()))[:, None]
            y_hat = log_p.exp() if config.soft_correction else torch.eye(14)[log_p.argmax(1)]
            corrections[epoch] = (rows, w[:, 0], y_hat)
            targets = w * targets + (1 - w) * y_hat
        else:
            z = torch.randn(len(rows), 14, generator=torch_generator(config.seed, "stochastic noise", epoch))
            targets = targets + config.sigma * z
        order = torch.randperm(len(rows), generator=torch_generator(config.seed, "shuffling", epoch)).tolist()
        objective = 0.0
        for i in range(0, len(order), config.batch_size):
            batch = order[i : i + config.batch_size]
            network.train()
            logits = network(slow_images([rows[n] for n in batch], files, config, epoch, 0))
            losses = -(targets[batch] * torch.log_softmax(logits, 1)).sum(1)
            objective += losses.sum().item() / len(rows)
            gradients = torch.autograd.grad(losses.mean(), list(network.parameters()))
            with torch.no_grad():
                for name, p, g in zip(names, network.parameters(), gradients, strict=True):
                    velocity[name] = config.momentum * velocity[name] + g + config.weight_decay * p
                    p -= lr * velocity[name]
                for name, value in network.state_dict().items():
                    if value.is_floating_point():
                        average[name] = config.alpha * average[name] + (1 - config.alpha) * value
        measured = {}
        weights = {name: value.clone() for name, value in network.state_dict().items()}
        for name, read in (("network", weights), ("momentum", average)):
            for split, first in (("validation", 28), ("test", 42)):
                logits = slow_logits(network, read, slow_images(range(first, first + 14), files, config))
                labels = torch.from_numpy(data.labels[first : first + 14])
                measured[name, split] = (logits.argmax(1) == labels).float().mean().item()
                measured[name, f"{split}_loss"] = F.cross_entropy(logits, labels).item()
        rows_of_history.append({"objective": objective, "lr": lr} | measured)
        kept.append({"network": weights, "momentum": dict(average)})
    return rows_of_history, corrections, kept


def in_double_precision(patch):
    """Train in float64, so that nothing is left of the order of sums."""
    build = clothing1m.build
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (data_set.MEAN, data_set.STD))
    patch.setattr(clothing1m, "build", lambda *args, **options: build(*args, **options).double())
    patch.setattr(clothing1m, "forward", lambda network, images, config: network(images))
    patch.setattr(
        data_set, "normalise", lambda images: ((images.double() / 255 - mean) / std).permute(0, 3, 1, 2)
    )


@pytest.mark.parametrize(
    ("config", "network"),
    [
        (UNCORRECTED, "tiny"),
        pytest.param(UNCORRECTED.replace(epochs=1), "small", marks=pytest.mark.slow),
        (SMALL, "tiny"),
        (SMALL.replace(correction_losses="as-released", soft_correction=False), "tiny"),
    ],
    ids=["uncorrected", "resnet18", "corrected", "hard-as-released"],
)
def test_a_shortened_run_equals_the_recipe_by_hand(config, network, request, monkeypatch):
    assert (config.sigma, config.momentum) == (0.2, 0.9)  # as released, as is correction: -1 or 1
    request.getfixturevalue(network)
    in_double_precision(monkeypatch)
    run = in_folder(os.environ["SLN_RUNS"], config)
    folder = run.folder
    expected, corrections, kept = slow_run(config, clothing1m.build(config).state_dict())
    history = store.read_history(folder)
    assert list(history["weights"]) == ["network", "momentum"] * config.epochs
    for _, row in history.iterrows():
        wanted = expected[row["epoch"] - 1]
        assert row["objective"] == pytest.approx(wanted["objective"], rel=1e-6)
        assert row["lr"] == pytest.approx(wanted["lr"])
        assert row["test_accuracy"] == pytest.approx(wanted[row["weights"], "test"])
        assert row["validation_accuracy"] == pytest.approx(wanted[row["weights"], "validation"])
        assert row["test_loss"] == pytest.approx(wanted[row["weights"], "test_loss"], rel=1e-6)
    best = max(
        range(config.epochs), key=lambda e: expected[e]["momentum", "validation"]
    )  # the first of equals
    assert [run.final(weights).name for weights in ("network", "momentum")] == [best + 1] * 2
    saved = store.read_tensors(folder / "weights.safetensors")
    assert len(saved) == 2 * len(kept[best]["network"])
    for weights in ("network", "momentum"):
        for name, value in kept[best][weights].items():
            if value.is_floating_point():
                torch.testing.assert_close(saved[f"{weights}/{name}"], value, rtol=1e-5, atol=1e-7)
    assert sorted(path.stem for path in folder.glob("corrections/*")) == [
        f"{epoch:03d}" for epoch in corrections
    ]
    for epoch, (rows, w, y_hat) in corrections.items():
        with np.load(folder / "corrections" / f"{epoch:03d}.npz", allow_pickle=False) as arrays:
            assert arrays["index"].tolist() == rows
            assert arrays["w"] == pytest.approx(w.numpy(), abs=1e-6)
            assert (arrays["w"].min(), arrays["w"].max()) == (0, 1)
            found = arrays["predictions"]
            if not config.soft_correction:
                found = np.eye(14)[found]
            assert found == pytest.approx(y_hat.numpy(), abs=1e-6)


def test_the_released_settings_are_the_defaults():
    config = Config(dataset="clothing1m")
    assert (config.epochs, config.batch_size, config.num_per_class) == (10, 32, 18976)
    assert (config.lr, config.weight_decay, config.momentum, config.alpha) == (0.001, 0.001, 0.9, 0.999)
    assert [learning_rate(config, epoch) for epoch in (5, 6)] == [0.001, 0.0001]
    assert (data_set.RESIZE, data_set.CROP) == (256, 224)


# --- runs on disk -------------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_and_resumed_equals_an_uninterrupted_one(tiny, tmp_path):
    config = SMALL.replace(epochs=3)
    straight = in_folder(tmp_path / "straight", config)
    # 4 batches in the first epoch, 5 in the others: in the second's training, in the third's correction
    interrupted(tmp_path / "stopped", config, at=4 + 2)
    interrupted(tmp_path / "stopped", config, at=5 + 1)
    stopped = tmp_path / "stopped" / config.run_id
    assert store.read_history(stopped)["epoch"].max() == 2
    assert not (stopped / "done.json").exists()
    assert numbers(in_folder(tmp_path / "stopped", config)) == numbers(straight)
    assert len(numbers(straight)) == 4


def test_a_corrected_run_that_forks_equals_one_trained_straight_through(tiny, tmp_path, monkeypatch):
    straight = in_folder(tmp_path / "straight", SMALL)
    in_folder(tmp_path / "forked", UNCORRECTED)
    trained, epochs = clothing1m.Trainer.train_epoch, []
    monkeypatch.setattr(
        clothing1m.Trainer, "train_epoch", lambda *args: epochs.append(args[4]) or trained(*args)
    )
    assert numbers(in_folder(tmp_path / "forked", SMALL)) == numbers(straight)
    assert epochs == [2]


def test_the_first_epoch_of_the_best_validation_accuracy_is_chosen(tiny, monkeypatch):
    config = UNCORRECTED.replace(epochs=4, num_per_class=1, batch_size=14)
    # the network's own accuracies would choose the last epoch
    script = iter([(0.1, 0.2), (0.2, 0.5), (0.3, 0.5), (0.9, 0.4)])

    def measure(trainer, networks):
        return {
            weights: {"test_accuracy": 0.0, "validation_accuracy": value}
            for weights, value in zip(networks, next(script), strict=True)
        }

    monkeypatch.setattr(clothing1m.Trainer, "measure", measure)
    run = runs.get(config, quiet=True, keep_state_at=2)
    assert run.final("network")["validation_accuracy"] == 0.2
    assert run.final("momentum")["validation_accuracy"] == 0.5
    saved = store.read_tensors(run.folder / "weights.safetensors")
    state = store.read_tensors(store.state_file(run.folder, 2))
    for weights, prefix in (("network", "network/"), ("momentum", "momentum/module.")):
        for name, value in run.network(weights).state_dict().items():
            assert torch.equal(value, state[prefix + name])
            assert torch.equal(value, saved[f"{weights}/{name}"])


def test_evaluating_the_saved_networks_gives_the_chosen_rows_again(tiny):
    config = UNCORRECTED.replace(epochs=1)
    run = runs.get(config, quiet=True)
    networks = {weights: run.network(weights) for weights in ("network", "momentum")}
    measured = clothing1m.evaluate(config, networks, quiet=True)
    for _, row in run.history.iterrows():
        assert {name: row[name] for name in measured[row["weights"]]} == measured[row["weights"]]
    assert measured["network"] != measured["momentum"]


def test_mixed_precision_changes_the_last_digits_only(tiny):
    config = UNCORRECTED.replace(epochs=1, lr=0.001)
    exact, mixed = (
        runs.get(config.replace(precision=precision), quiet=True).history
        for precision in ("float32", "bfloat16")
    )
    difference = abs(exact["objective"] - mixed["objective"])[0]
    assert 1e-5 < difference < 0.1


# --- images that cannot be used


@pytest.mark.parametrize("spoilt", ["noisy_train.txt", "clean_test.txt"])
def test_a_bad_image_ends_training_with_its_name(own, tiny, spoilt, refused):
    miniature.spoil(own, corrupt=[2], missing=[5], name=spoilt)
    with refused("cannot be used", str(own / "images"), spoilt, "data check clothing1m", "--skip-bad-images"):
        runs.get(UNCORRECTED.replace(num_per_class=-1), quiet=True)


def test_training_goes_on_with_the_same_images_or_not_at_all(own, tiny, refused):
    config = SMALL.replace(num_per_class=-1, epochs=2, skip_bad_images=True)
    miniature.spoil(own, corrupt=[2], missing=[5])
    data_set.check(quiet=True)
    interrupted(os.environ["SLN_RUNS"], config, at=9)
    file = data_set.bad_list(data_set.read())
    known = file.read_text()
    file.write_text("".join(known.splitlines(keepends=True)[:-1]))
    with refused("trained on other labels"):
        runs.get(config, quiet=True)
    file.write_text(known)
    run = runs.get(config, quiet=True)
    with np.load(run.folder / "corrections" / "002.npz") as arrays:
        assert sorted(arrays["index"].tolist()) == sorted({*range(28)} - {2, 5})


# --- networks -----------------------------------------------------------------------------------------------


def test_initial_weights_come_from_the_seed_and_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first, again, other = (clothing1m.build(SMALL.replace(seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first.fc.weight.shape == (14, 512)
    assert torch.equal(first.fc.weight, again.fc.weight)
    assert not torch.equal(first.fc.weight, other.fc.weight)
    fifty = clothing1m.build(SMALL.replace(model="resnet50"))
    assert sum(p.numel() for p in fifty.parameters()) == 25_557_032 - 2048 * 986 - 986


def test_pretrained_networks_have_imagenet_weights_and_a_new_last_layer(tiny, monkeypatch):
    published = miniature.Tiny(1000).state_dict()
    monkeypatch.setattr(data_set, "imagenet_weights", lambda model: published)
    built, fresh = (clothing1m.build(SMALL, pretrained=pretrained) for pretrained in (True, False))
    for name, value in built.state_dict().items():
        expected = fresh.state_dict() if name.startswith("fc.") else published
        assert torch.equal(value, expected[name])
    assert not torch.equal(built.conv1.weight, fresh.conv1.weight)


def test_imagenet_weights_are_read_at_the_start_only(tiny, monkeypatch):
    config, read = SMALL.replace(pretrained=True), []
    published = miniature.Tiny(1000).state_dict()
    monkeypatch.setattr(data_set, "imagenet_weights", lambda model: read.append(model) or published)
    interrupted(os.environ["SLN_RUNS"], config, at=4 + 2)
    runs.get(config, quiet=True)
    assert read == ["resnet18"]


def test_synchronised_batchnorm_is_refused_on_a_cpu(tiny, refused):
    with refused("sync_batchnorm", "GPU"):
        runs.get(SMALL.replace(sync_batchnorm=True), quiet=True)


def test_a_loss_that_is_not_finite_ends_training(tiny, refused):
    with refused("the loss became", "epoch 1", "lower lr"):
        runs.get(UNCORRECTED.replace(lr=1e30, epochs=1), quiet=True)


def test_progress_counts_every_batch_of_every_pass(tiny, monkeypatch):
    passes = []

    class Counted(clothing1m.Progress):
        def __exit__(self, *error):
            passes.append((self.what, self.done, self.total))

    monkeypatch.setattr(clothing1m, "Progress", Counted)
    runs.get(SMALL, quiet=True)
    measured = ("validation and test images", 1, 1)
    assert passes == [
        ("epoch 1 of 2, training", 3, 3),
        measured,
        ("epoch 2, correcting labels", 1, 1),
        ("epoch 2 of 2, training", 3, 3),
        measured,
    ]
