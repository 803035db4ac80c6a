"""Cross-fitting: no network judges labels it was trained on, and training is the study's own method."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from own_images import pictures
from PIL import Image

import sln
from sln.metrics import accuracy
from sln.relabel import crossfit
from sln.relabel.crossfit import FoldModel, assign_folds, fit, train_fold, training_data
from sln.relabel.examples import Examples, checked
from sln.train import State, predict
from sln.train import train as study_train

QUICK = {"sigma": 0.5, "folds": 3, "repeats": 1, "epochs": 2, "quiet": True}
IMAGES, LABELS = pictures(30)
FEATURES = pd.DataFrame(IMAGES.reshape(30, -1)[:, :40].astype(float))


def some_examples(labels, groups):
    images = np.zeros((len(labels), 1, 8, 8), np.uint8)
    return Examples(torch.from_numpy(images), torch.tensor(labels), (0, 1, 2), np.array(groups))


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


# --- folds


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=40), st.integers(2, 6))
def test_folds_keep_groups_whole_and_spread_every_label_evenly(pairs, folds):
    labels, groups = zip(*pairs, strict=True)
    fold = assign_folds(some_examples(labels, groups), folds, seed=3)
    firsts = np.unique(groups, return_index=True)[1]
    for group in set(groups):
        assert len(set(fold[np.array(groups) == group])) == 1
    for label in (None, *set(np.array(labels)[firsts])):
        rows = firsts if label is None else firsts[np.array(labels)[firsts] == label]
        counts = np.bincount(fold[rows], minlength=folds)
        assert counts.sum() == len(rows)
        assert counts.max() - counts.min() <= 1


def test_every_repeat_and_seed_has_its_own_folds_and_the_same_ones_each_time():
    examples = checked(IMAGES, LABELS)
    folds = [assign_folds(examples, 3, seed, repeat) for seed, repeat in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert len({fold.tobytes() for fold in folds}) == 4
    assert np.array_equal(assign_folds(examples, 3, 0, 1), folds[1])
    seeds = [of.config.seed for of in crossfit.fold_models(examples, 5, 3, None, "cnn", 0)]
    assert len(set(seeds)) == 15


# --- which network judges which example


def test_a_network_depends_on_its_training_examples_and_not_on_those_held_out():
    fold_model = FoldModel(crossfit.recipe("cnn", 20, 3, 7), np.arange(30) % 3 == 0).with_sigma(0.5)

    def network(images, labels):
        state = train_fold((fold_model, images, labels, 2))
        return {name: values for name, values in state.items() if name != "probabilities"}

    usual = network(IMAGES, LABELS)
    other_images, other_labels = IMAGES.copy(), LABELS.copy()
    other_images[fold_model.held_out] = 255 - other_images[fold_model.held_out]
    other_labels[fold_model.held_out] = 1 - other_labels[fold_model.held_out]
    assert same(network(other_images, other_labels), usual)
    other_labels[1] = 1 - other_labels[1]
    assert not same(network(other_images, other_labels), usual)


def test_labels_that_can_only_be_memorised_are_not_predicted_by_networks_that_did_not_see_them():
    rng = np.random.default_rng(1)
    images, labels = rng.integers(256, size=(60, 1, 8, 8), dtype=np.uint8), np.arange(60) % 2
    settings = {"sigma": 0.0, "folds": 2, "repeats": 1, "epochs": 100, "quiet": True}
    fitted = fit(images, labels, **settings)
    assert accuracy(fitted.probabilities, fitted.given) < 0.75  # a coin's toss, 0.5 ± 0.06
    fold_model = FoldModel(crossfit.recipe("cnn", 60, 100, 0).replace(sigma=0.0), np.zeros(60, dtype=bool))
    data = training_data(torch.from_numpy(images), torch.from_numpy(labels), fold_model.held_out, 2)
    network = crossfit.trained(data, fold_model.config)
    assert accuracy(predict(network, data.train, data), data.train.given) > 0.9


def test_probabilities_are_the_mean_over_the_networks_that_held_the_example_out():
    fitted = fit(IMAGES, LABELS, **QUICK | {"repeats": 2})
    assert len(fitted.states) == 6
    times = np.bincount(np.concatenate([state["held_out"] for state in fitted.states]), minlength=30)
    assert (times == 2).all()
    expected = torch.zeros(30, 2)
    for (network, state), kept in zip(fitted.networks(), fitted.states, strict=True):
        pixels = torch.from_numpy(IMAGES).float()[kept["held_out"]]
        mean, std = (state[name].view(1, 3, 1, 1) for name in ("mean", "std"))
        with torch.no_grad():
            expected[kept["held_out"]] += F.softmax(network((pixels - mean) / std), dim=1) / 2
    alone = crossfit.by_networks(checked(IMAGES, LABELS), fitted.states)
    torch.testing.assert_close(alone, expected)
    for p in (alone, fitted.probabilities):
        torch.testing.assert_close(p.sum(dim=1), torch.ones(30))


def test_the_discriminant_is_given_what_the_last_layer_sees():
    fitted = fit(IMAGES, LABELS, **QUICK)
    for network, state in fitted.networks():
        mean, std = (state[name].view(1, 3, 1, 1) for name in ("mean", "std"))
        seen = crossfit.last_inputs(network, torch.from_numpy(IMAGES), state)
        with torch.no_grad():
            logits = network((torch.from_numpy(IMAGES).float() - mean) / std)
            torch.testing.assert_close(network.linear(seen), logits)


def test_identical_images_are_in_one_fold():
    images, labels = np.concatenate([IMAGES, IMAGES[:4]]), np.concatenate([LABELS, LABELS[:4]])
    fold = assign_folds(checked(images, labels), 5, seed=0)
    assert np.array_equal(fold[30:], fold[:4])
    together = np.repeat(np.arange(10), 3)
    fold = assign_folds(checked(IMAGES, LABELS, together), 5, seed=0)
    assert all(len(set(fold[together == group])) == 1 for group in range(10))


# --- what is trained


@pytest.mark.parametrize("epochs", [4, 20])
def test_the_network_is_the_momentum_model_that_the_studys_loop_trains(epochs):
    config = crossfit.recipe("cnn", 20, epochs, 3).replace(sigma=0.5)
    assert config.corrects
    data = training_data(torch.from_numpy(IMAGES), torch.from_numpy(LABELS), np.arange(30) % 3 == 0, 2)
    state = State(config, data)
    *_, last = study_train(state, data, config)
    assert last.number == epochs
    ours, theirs = crossfit.trained(data, config).state_dict(), state.averages["momentum"].module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_pixels_are_normalised_by_those_that_are_trained_on():
    held_out = np.arange(30) % 3 == 0
    data = training_data(torch.from_numpy(IMAGES), torch.from_numpy(LABELS), held_out, 2)
    pixels = data.normalise(data.train.images)
    torch.testing.assert_close(pixels.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(pixels.std(dim=(0, 2, 3), correction=0), torch.ones(3))
    black = training_data(torch.zeros(6, 1, 8, 8), torch.arange(6) % 2, np.arange(6) < 2, 2)
    assert (black.normalise(black.train.images) == 0).all()


def test_the_recipe_of_the_digits_is_the_default_and_other_sizes_take_about_as_many_steps():
    usual = sln.Config(noise_mode="none", correction=90)
    assert crossfit.recipe("cnn", 1150, None, 0) == usual
    for examples in (20, 100, 1000, 4000, 20_000):
        config = crossfit.recipe("cnn", examples, None, 0)
        steps = config.epochs * -(-examples // config.batch_size)
        assert 8 <= config.batch_size <= 64
        assert 30 <= config.epochs <= 100
        assert (0.9 * 1800 <= steps <= 1.1 * 1800) or examples in (20, 100, 20_000)


@pytest.mark.parametrize(("model", "least"), [("cnn", 30), ("linear", 5)])
def test_large_sets_take_few_epochs_and_the_number_of_images_shown_is_capped(model, least):
    epochs = [crossfit.recipe(model, examples, None, 0).epochs for examples in (20_000, 120_000, 1_000_000)]
    assert epochs == [6 if model == "linear" else least, 5, 1]
    assert crossfit.recipe(model, 1_000_000, 40, 0).epochs == 40  # as asked for


def test_features_get_a_linear_head_that_learns_their_classes():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = rng.normal(size=(60, 40)) + 6 * np.eye(3, 40)[labels]
    given = labels.copy()
    given[:6] = (given[:6] + 1) % 3
    fitted = fit(features, given, sigma=0.2, folds=3, repeats=1, quiet=True)
    assert fitted.model == "linear"
    assert (fitted.probabilities.argmax(dim=1).numpy() == labels).mean() > 0.8
    assert fitted.predict(features).shape == (60, 3)


def test_it_finds_the_wrong_labels_and_suggests_the_right_ones():
    images, true = pictures(80)
    given = true.copy()
    wrong = np.arange(0, 80, 10)
    given[wrong] = 1 - given[wrong]
    names = np.array(["left", "right"])
    fitted = fit(images, names[given], sigma=0.5, folds=4, repeats=1, quiet=True)
    found = fitted.labels.sort_values("rank").head(len(wrong))
    assert sorted(found.index) == list(wrong)
    assert found.loc[wrong, "suggested"].tolist() == names[true[wrong]].tolist()
    assert fitted.classes == ("left", "right")
    new, truth = pictures(20, seed=5)
    assert accuracy(fitted.predict(new), torch.from_numpy(truth)) == 1


# --- the choice of sigma


def test_sigma_is_the_best_on_the_noisy_labels_of_one_fold_and_the_smallest_of_equals(monkeypatch):
    share = {0.1: 0.5, 0.2: 0.9, 0.5: 0.9, 1.0: 0.7}
    asked = []

    def pretend(work):
        fold_model, _, labels, C = work
        asked.append(fold_model)
        rows = np.flatnonzero(fold_model.held_out)
        right = np.arange(len(rows)) < round(share[fold_model.config.sigma] * len(rows))
        predicted = np.where(right, labels[rows], 1 - labels[rows])
        state = {"held_out": rows, "probabilities": np.eye(C, dtype=np.float32)[predicted]}
        return state | {"mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32)}

    monkeypatch.setattr(crossfit, "train_fold", pretend)
    monkeypatch.setattr(crossfit, "with_opinions", lambda fitted, _: fitted)
    fitted = fit(*pictures(60), folds=6, repeats=2, quiet=True)
    assert fitted.sigma == 0.2
    assert fitted.validation == pytest.approx(share)
    assert [fold_model.config.sigma for fold_model in asked] == [0.1, 0.2, 0.5, 1.0] + 11 * [0.2]
    first = asked[0].held_out
    assert all(np.array_equal(fold_model.held_out, first) for fold_model in asked[:4])
    assert len({fold_model.held_out.tobytes() for fold_model in asked}) == 12


def test_sigma_is_chosen_on_some_of_many_examples(monkeypatch):
    seen, honest = [], crossfit.train_fold
    monkeypatch.setattr(crossfit, "train_fold", lambda work: seen.append(work) or honest(work))
    monkeypatch.setattr(crossfit, "CHOICE", 24)
    fitted = fit(IMAGES, LABELS, **QUICK | {"sigma": None})
    assert [len(images) for _, images, _, _ in seen] == 4 * [24] + 3 * [30]
    assert list(fitted.validation) == [0.1, 0.2, 0.5, 1.0]
    drawn = crossfit.some(checked(IMAGES, LABELS), seed=0)
    rows = [next(row for row in range(30) if np.array_equal(IMAGES[row], image)) for image in drawn.images]
    assert len(set(rows)) == 24
    assert np.array_equal(drawn.given, LABELS[rows])
    assert crossfit.some(drawn, seed=0) is drawn


# --- the same numbers


def test_the_same_call_gives_the_same_numbers_and_another_seed_others():
    first, again, other = (fit(IMAGES, LABELS, **QUICK, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.probabilities, again.probabilities)
    assert not torch.equal(first.probabilities, other.probabilities)


@pytest.mark.slow
def test_the_number_of_workers_changes_no_result(monkeypatch):
    found = []
    for workers in ("1", "2"):
        monkeypatch.setenv("SLN_WORKERS", workers)
        found.append(fit(IMAGES, LABELS, **QUICK).probabilities)
    assert torch.equal(*found)


def test_finished_networks_are_found_again_and_damaged_ones_trained_again(tmp_path, monkeypatch):
    first = fit(IMAGES, LABELS, **QUICK, cache=tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    files[0].write_bytes(files[0].read_bytes()[:100])
    trained = []
    honest = crossfit.train_fold
    monkeypatch.setattr(crossfit, "train_fold", lambda work: trained.append(work) or honest(work))
    again = fit(IMAGES, LABELS, **QUICK, cache=tmp_path)
    assert len(trained) == 1
    assert torch.equal(again.probabilities, first.probabilities)
    other = IMAGES.copy()
    other[0, 0, 0, 0] ^= 1
    fit(other, LABELS, **QUICK, cache=tmp_path)
    assert len(trained) == 4  # other pixels are other examples


def test_an_interruption_loses_no_finished_network(tmp_path, monkeypatch):
    honest, calls = crossfit.train_fold, []

    def interrupted(work):
        calls.append(work)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return honest(work)

    monkeypatch.setattr(crossfit, "train_fold", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(IMAGES, LABELS, **QUICK, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    fitted = fit(IMAGES, LABELS, **QUICK, cache=tmp_path)
    assert len(calls) == 4
    assert torch.equal(fitted.probabilities, fit(IMAGES, LABELS, **QUICK).probabilities)


# --- labels, and what is refused


def test_labels_of_any_kind_keep_their_names_and_images_of_any_shape_are_taken():
    numbers = fit(torch.from_numpy(IMAGES[:, 0]), torch.from_numpy(LABELS) * 7 - 3, **QUICK)
    assert numbers.classes == (-3, 4)
    assert set(numbers.labels["given"]) == {-3, 4}
    assert numbers.labels["given"].tolist() == (LABELS * 7 - 3).tolist()
    names = fit(IMAGES / 255, [f"class {label}" for label in LABELS], **QUICK)
    assert set(names.labels["suggested"]) <= {"class 0", "class 1"}
    assert sorted(names.labels["rank"]) == list(range(1, 31))


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("folds", 1, ["folds is 1", "[2, 100]"]),
        ("repeats", 0, ["repeats is 0"]),
        ("sigma", -0.1, ["sigma is -0.1"]),
        ("epochs", 0, ["epochs is 0"]),
        ("model", "resnet", ["model", "resnet"]),
        ("seed", -1, ["seed is -1"]),
    ],
)
def test_bad_settings_are_refused_in_one_line(setting, value, words, refused):
    with refused(*words):
        fit(IMAGES, LABELS, **QUICK | {setting: value})


def test_images_to_predict_must_be_of_the_same_kind(refused):
    fitted = fit(IMAGES, LABELS, **QUICK)
    with refused("(1, 8, 8)", "on (3, 8, 8)"):
        fitted.predict(IMAGES[:, :1])
    with refused("(3, 16, 16)", "on (3, 8, 8)"):
        fitted.predict(pictures(4, side=16)[0])
    channels_last = IMAGES.transpose(0, 2, 3, 1)
    large = [Image.fromarray(image).resize((16, 16)) for image in channels_last]
    assert fitted.predict(large).shape == (30, 2)
    assert torch.equal(fitted.predict(channels_last), fitted.predict(IMAGES))


def test_the_table_keeps_the_index_of_a_pandas_object():
    index = pd.Index([f"film{number}.png" for number in range(30)], name="file")
    for images, labels in ((IMAGES, pd.Series(LABELS, index=index)), (FEATURES.set_axis(index), LABELS)):
        assert fit(images, labels, **QUICK).labels.index.equals(index)
    assert fit(IMAGES, LABELS, **QUICK).labels.index.equals(pd.RangeIndex(30))


def test_agreement_by_class_is_that_of_the_predictions():
    fitted = fit(IMAGES, np.array(["left", "right"])[LABELS], **QUICK)
    table, predicted = fitted.agreement_by_class, fitted.probabilities.argmax(dim=1).numpy()
    assert table.index.tolist() == ["left", "right"]
    for label, name in enumerate(table.index):
        agreement = (predicted[label == LABELS] == label).mean()
        assert table.loc[name, "agreement"] == pytest.approx(agreement)
        assert (fitted.labels["class_agreement"][label == LABELS] == agreement).all()


def test_the_name_of_a_networks_file_depends_on_all_that_determines_it():
    examples = checked(IMAGES, LABELS)
    fold_model = FoldModel(crossfit.recipe("cnn", 20, 2, 0), np.arange(30) < 10)
    others = [
        fold_model.with_sigma(0.25),
        dataclasses.replace(fold_model, held_out=np.arange(30) >= 10),
        dataclasses.replace(fold_model, config=fold_model.config.replace(seed=1)),
    ]
    names = {of.key(examples) for of in (fold_model, *others)}
    names |= {fold_model.key(checked(*other)) for other in ((IMAGES, 1 - LABELS), (255 - IMAGES, LABELS))}
    assert len(names) == 6
