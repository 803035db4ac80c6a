"""The settings of a run: ranges, types, names, and the name that they make."""

import dataclasses
import json

import numpy as np
import pytest

from sln.config import DATASETS, NOISE_MODES, SETTINGS, Config

NAN, INF = float("nan"), float("inf")

CHANGED = {
    "noise_mode": "asym",
    "noise_rate": 0.3,
    "noise_seed": 1,
    "fold": 1,
    "epochs": 99,
    "batch_size": 63,
    "lr": 0.03,
    "momentum": 0.8,
    "weight_decay": 0.0,
    "noise_on": "logits",
    "sigma": 0.9,
    "strength": "matched",
    "sigma_schedule": "rising",
    "noise_for": "wrong",
    "alpha": 0.9,
    "extra_alphas": [0.5],
    "correction": 50,
    "correction_losses": "as-released",
    "correction_weight": "reversed",
    "soft_correction": True,
    "measure_test_every": 2,
    "keep_weights_every": 3,
    "seed": 1,
    "threads": 2,
}
# these do not go with the others
CHANGED_ALONE = {
    "classes": 4,
    "baseline": "gce",
    "baseline_parameter": 0.5,
}
CHANGED_CIFAR = {
    "labels": "generated",
    "subset": 100,
    "test_subset": 100,
    "downsample": 2,
    "held_out": 0.1,
    "model": "wrn-10-1",
    "augment": False,
    "lr_drop": 5,
    "measure_train_every": 2,
    "precision": "bfloat16",
}
CHANGED_CLOTHING = {
    "num_per_class": 10,
    "skip_bad_images": True,
    "pretrained": False,
    "sync_batchnorm": True,
}


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("sigma", -1.0, "from 0 up"),
        ("sigma", NAN, "from 0 up"),
        ("sigma", INF, "from 0 up"),
        ("noise_rate", 1.2, "from 0 to 1"),
        ("noise_rate", -0.1, "from 0 to 1"),
        ("noise_rate", NAN, "from 0 to 1"),
        ("noise_seed", -1, "from 0 to "),
        ("noise_seed", 2**40, str(2**32)),
        ("seed", -1, "from 0 to "),
        ("epochs", 0, "from 1 to "),
        ("batch_size", 1, "from 2 to "),
        ("lr", -0.1, "from 0 up"),
        ("lr", INF, "from 0 up"),
        ("weight_decay", -1e-4, "from 0 up"),
        ("weight_decay", NAN, "from 0 up"),
        ("momentum", 1.0, "from 0 to below 1"),
        ("momentum", -0.1, "from 0 to below 1"),
        ("alpha", 1.0, "from 0 to below 1"),
        ("alpha", NAN, "from 0 to below 1"),
        ("threads", 0, "from 1 to "),
        ("measure_test_every", 0, "from 1 to "),
        ("classes", 27, "from 0 to 26"),
        ("classes", -1, "from 0 to 26"),
        ("baseline_parameter", -0.1, "from 0 up"),
        ("baseline_parameter", NAN, "from 0 up"),
    ],
)
def test_a_value_outside_its_range_is_refused_with_the_range(name, value, allowed, refused):
    with refused(f"{name} is {value}", allowed):
        Config(**{name: value})


def test_extra_alphas_are_in_the_range_of_alpha_each(refused):
    with refused("extra_alphas is 1.0", "from 0 to below 1"):
        Config(extra_alphas=(0.9, 1.0))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("sigma", 0.0, 1e6), ("noise_rate", 0.0, 1.0), ("alpha", 0.0, 0.99999), ("epochs", 1, 100_000)],
)
def test_the_ends_of_a_range_are_allowed(name, low, high):
    assert getattr(Config(**{name: low}), name) == low
    assert getattr(Config(**{name: high}), name) == high


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("sigma", "1", "float"),
        ("sigma", True, "float"),
        ("seed", True, "int"),
        ("seed", 1.0, "int"),
        ("seed", "1", "int"),
        ("epochs", np.int64(3), "int"),
        ("soft_correction", 1, "bool"),
        ("soft_correction", "no", "bool"),
        ("noise_mode", 5, "str"),
        ("extra_alphas", "0.9", "tuple or list"),
        ("extra_alphas", ("0.9",), "float"),
        ("extra_alphas", (True,), "float"),
        ("extra_alphas", 0.9, "tuple or list"),
        ("extra_alphas", 1, "tuple or list"),
    ],
)
def test_a_value_of_another_type_is_refused(name, value, expected, refused):
    with refused(name, expected):
        Config(**{name: value})


def test_a_whole_number_is_taken_where_a_float_is_asked_for():
    assert Config(sigma=1) == Config(sigma=1.0)
    assert isinstance(Config(sigma=1).sigma, float)
    assert Config(sigma=1).run_id == Config(sigma=1.0).run_id


@pytest.mark.parametrize(
    ("name", "value", "near"),
    [
        ("precision", "bfloat", "bfloat16"),
        ("noise_on", "label", "labels"),
        ("model", "cn", "cnn"),
        ("dataset", "digit", "digits"),
        ("correction_losses", "as_released", "as-released"),
        ("strength", "match", "matched"),
        ("sigma_schedule", "raising", "rising"),
        ("noise_for", "wrongs", "wrong"),
        ("baseline", "mix-up", "mixup"),
    ],
)
def test_an_unknown_choice_is_refused_and_the_nearest_named(name, value, near, refused):
    with refused(f"unknown {name} {value!r}", f"did you mean {near!r}?"):
        Config(**{name: value})


@pytest.mark.parametrize("make", [Config.from_dict, lambda settings: Config().replace(**settings)])
def test_an_unknown_setting_is_refused_and_the_nearest_named(make, refused):
    with refused("unknown setting 'sigmma'", "did you mean 'sigma'?"):
        make({"sigmma": 1.0})
    with refused("unknown setting 'qqq'", "noise_rate"):
        make({"qqq": 1.0})


# --- names --------------------------------------------------------------------------------------------------


def test_every_setting_is_covered_by_these_tests():
    tested = set(CHANGED) | set(CHANGED_ALONE) | set(CHANGED_CIFAR) | set(CHANGED_CLOTHING)
    assert {setting.name for setting in dataclasses.fields(Config)} == tested | {"dataset"}


NO_CORRECTION = ("correction", "baseline", "baseline_parameter")
NEEDED = {"strength": {"noise_on": "logits"}, "baseline_parameter": {"baseline": "gce"}}


@pytest.mark.parametrize(
    ("dataset", "name", "value"),
    [
        (dataset, name, value)
        for dataset, changed in (
            ("digits", CHANGED | CHANGED_ALONE),
            ("cifar10", CHANGED_CIFAR),
            ("clothing1m", CHANGED_CLOTHING),
        )
        for name, value in changed.items()
        if name != "measure_test_every"
    ],
)
def test_the_run_id_changes_with_every_setting_that_can_change_a_number(dataset, name, value):
    # what belongs to label correction counts only where there is any, and so do other settings
    usual = Config(dataset=dataset, correction=-1 if name in NO_CORRECTION else 1, epochs=60)
    usual = usual.replace(**NEEDED.get(name, {}))
    changed = usual.replace(**{name: value})
    assert usual.run_id.rsplit("-", 1)[1] != changed.run_id.rsplit("-", 1)[1]


def test_a_setting_at_its_default_renames_no_run():
    plain = Config()
    said = {"precision": plain.precision, "measure_train_every": 5, "labels": "generated", "baseline": "none"}
    assert plain.digest() == Config(**said, baseline_parameter=0.0, noise_for="all", classes=0).digest()
    assert plain.digest() != Config(precision="bfloat16").digest()


@pytest.mark.parametrize("dataset", DATASETS)
def test_what_is_not_said_is_the_data_sets_own(dataset):
    config = Config(dataset=dataset)
    resets = {"dataset": dataset} | ({} if config.corrects else {"correction": -1})
    assert {name: config.default(name) for name in SETTINGS} | resets == vars(config)
    assert config.noise_mode in NOISE_MODES[dataset]
    assert Config(dataset=dataset, lr=0.5).lr == 0.5
    assert Config.from_dict({"dataset": dataset, "sigma": None}) == config


def test_the_defaults_are_those_of_the_released_scripts():
    cifar, clothing = Config(dataset="cifar10"), Config(dataset="clothing1m")
    released = {"epochs": 300, "batch_size": 128, "lr": 0.001, "noise_mode": "dependent", "noise_rate": 0.4}
    released |= {"sigma": 0.5, "correction": 250, "seed": 0}
    assert {name: getattr(cifar, name) for name in released} == released
    released = {"num_per_class": 18976, "epochs": 10, "batch_size": 32, "lr": 0.001, "sigma": 0.2}
    released |= {"correction": 1, "seed": 0}
    assert {name: getattr(clothing, name) for name in released} == released


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dataset": "cifar100", "noise_mode": "openset"}, ("noise_mode of cifar100", "'openset'", "sym")),
        ({"noise_mode": "human-worst"}, ("noise_mode of digits", "human-worst")),
        ({"dataset": "cifar10", "noise_mode": "own"}, ("noise_mode of cifar10", "own")),
        ({"subset": 100}, ("subset", "belongs to cifar10, cifar100", "digits")),
        ({"held_out": 0.1}, ("held_out", "belongs to cifar10, cifar100")),
        ({"downsample": 2}, ("downsample", "belongs to cifar10, cifar100")),
        ({"dataset": "cifar10", "downsample": 3}, ("downsample is 3", "1, 2 and 4")),
        ({"dataset": "cifar10", "model": "resnet50"}, ("resnet50", "cifar10")),
        ({"dataset": "clothing1m", "model": "cnn"}, ("cnn", "clothing1m")),
        ({"dataset": "cifar10", "model": "frozen"}, ("frozen", "cifar10")),
        ({"dataset": "letters", "model": "frozen"}, ("frozen", "letters")),
        ({"dataset": "clothing1m", "keep_weights_every": 2}, ("keep_weights_every", "clothing1m")),
        ({"augment": True}, ("digits", "augmentation")),
        ({"num_per_class": 5}, ("num_per_class", "clothing1m")),
        ({"pretrained": False}, ("pretrained", "clothing1m")),
        ({"labels": "a.csv", "noise_mode": "none"}, ("CSV", "not none")),
        ({"dataset": "cifar10", "labels": "a.csv", "noise_mode": "human-worst"}, ("CSV", "human-worst")),
        ({"dataset": "clothing1m", "labels": "generated"}, ("clothing1m", "its own labels")),
        ({"labels": "released"}, ("no released labels of the digits",)),
        ({"labels": "relesed"}, ("unknown labels", "did you mean 'released'?")),
        ({"sync_batchnorm": True}, ("sync_batchnorm", "clothing1m")),
        ({"skip_bad_images": True}, ("skip_bad_images", "clothing1m")),
        ({"dataset": "clothing1m", "num_per_class": 0}, ("num_per_class is 0", "-1 (all)")),
        ({"dataset": "clothing1m", "noise_on": "logits"}, ("noise_on",)),
        ({"dataset": "clothing1m", "extra_alphas": [0.9]}, ("extra_alphas",)),
        ({"dataset": "cifar10", "classes": 4}, ("classes", "belongs to digits", "cifar10")),
        ({"classes": 1}, ("classes is 1", "2 to 10")),
        ({"classes": 11}, ("classes is 11", "2 to 10")),
        ({"dataset": "letters", "classes": 1}, ("classes is 1", "2 to 26")),
        ({"dataset": "letters", "augment": True}, ("letters", "augmentation")),
        ({"dataset": "letters", "labels": "released"}, ("no released labels of the letters",)),
        ({"classes": 4, "noise_mode": "asym"}, ("noise_mode asym", "all ten classes")),
        ({"classes": 9, "noise_mode": "dependent"}, ("noise_mode dependent", "all ten classes")),
        ({"dataset": "clothing1m", "baseline": "gce"}, ("baseline", "clothing1m")),
        ({"dataset": "clothing1m", "noise_for": "right"}, ("noise_for", "clothing1m")),
        ({"dataset": "clothing1m", "sigma_schedule": "rising"}, ("sigma_schedule", "clothing1m")),
        ({"strength": "matched"}, ("strength matched", "noise_on logits or gradient")),
        ({"noise_on": "gradient", "noise_for": "right"}, ("noise_for right", "labels or logits")),
        ({"baseline_parameter": 0.7}, ("baseline_parameter", "no baseline")),
        ({"baseline": "gce", "noise_on": "logits"}, ("baseline gce", "noise_on labels only")),
        ({"baseline": "sam", "noise_on": "gradient"}, ("baseline sam", "noise_on labels only")),
        ({"baseline": "elr", "correction": 50}, ("baseline elr", "label correction")),
        ({"baseline": "sce"}, ("baseline sce", "sigma 0")),
        ({"baseline": "forward"}, ("baseline forward", "sigma 0")),
        ({"baseline": "co-teaching", "lr_drop": 5}, ("baseline co-teaching", "constant lr", "lr_drop")),
        ({"baseline": "gce", "baseline_parameter": 1.5}, ("baseline_parameter of gce", "to 1")),
        ({"baseline": "label-smoothing", "baseline_parameter": 1.5}, ("label-smoothing", "to 1")),
        ({"baseline": "co-teaching", "baseline_parameter": 1.5}, ("co-teaching", "to 1")),
        ({"baseline": "gce", "baseline_parameter": 0.0}, ("baseline_parameter of gce", "above 0")),
        ({"baseline": "mixup", "baseline_parameter": 0.0}, ("baseline_parameter of mixup", "above 0")),
    ],
)
def test_what_would_be_ignored_or_cannot_work_is_refused(settings, words, refused):
    with refused(*words):
        Config(**settings)


def test_a_robust_method_has_its_published_setting_where_nothing_is_said():
    published = {"label-smoothing": 0.1, "mixup": 32.0, "gce": 0.7, "sce": 0.01, "elr": 3.0, "sam": 0.1}
    for name, setting in published.items():
        assert Config(baseline=name, sigma=0.0).baseline_parameter == setting
        said = Config(baseline=name, sigma=0.0, baseline_parameter=setting)
        assert said.run_id == Config(baseline=name, sigma=0.0).run_id
    assert Config(baseline="co-teaching", noise_rate=0.2).baseline_parameter == 0.2
    assert Config().baseline_parameter == 0.0


def test_replacing_the_method_replaces_a_setting_that_was_not_said_and_keeps_one_that_was():
    plain = Config(sigma=0.0)
    for name in ("gce", "elr", "co-teaching"):
        assert plain.replace(baseline=name) == Config(sigma=0.0, baseline=name)
        assert plain.replace(baseline=name).replace(baseline="none") == plain
    assert Config(baseline="mixup").replace(baseline="elr").baseline_parameter == 3.0
    assert Config(baseline="mixup", baseline_parameter=0.2).replace(seed=1).baseline_parameter == 0.2
    assert Config(baseline="co-teaching").replace(noise_rate=0.2).baseline_parameter == 0.2
    for config in (Config(baseline="elr"), Config(baseline="gce", baseline_parameter=0.5)):
        assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_number_of_classes_is_the_data_sets_or_what_is_kept_of_it():
    assert [Config(dataset=dataset).num_classes for dataset in DATASETS] == [10, 10, 10, 100, 14]
    assert Config(classes=4).num_classes == 4
    assert Config(dataset="letters", classes=26).num_classes == 26
    assert Config(dataset="letters", classes=10) == Config(dataset="letters")


def test_the_run_id_does_not_change_with_how_often_test_images_are_measured():
    assert Config(measure_test_every=5).run_id == Config().run_id


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "digits-sym0.4-sln1-seed0-"),
        ({"sigma": 0.0, "noise_mode": "none", "seed": 3}, "digits-clean-ce-seed3-"),
        ({"noise_on": "logits", "sigma": 0.5, "noise_rate": 0.2}, "digits-sym0.2-logits0.5-seed0-"),
        ({"noise_on": "gradient", "sigma": 0.01}, "digits-sym0.4-gradient0.01-seed0-"),
        ({"correction": 60, "noise_mode": "openset"}, "digits-openset0.4-sln1-lc60-seed0-"),
        ({"correction": 100}, "digits-sym0.4-sln1-seed0-"),  # after the last epoch: never
        ({"baseline": "gce", "sigma": 0.0}, "digits-sym0.4-gce0.7-seed0-"),
        ({"baseline": "gce", "sigma": 0.5, "baseline_parameter": 0.2}, "digits-sym0.4-gce0.2-sln0.5-seed0-"),
        ({"baseline": "co-teaching", "sigma": 0.0, "noise_rate": 0.3}, "digits-sym0.3-co-teaching0.3-seed0-"),
        ({"noise_on": "logits", "strength": "matched"}, "digits-sym0.4-logits1-matched-seed0-"),
        ({"noise_for": "wrong"}, "digits-sym0.4-sln1-seed0-"),
        ({"classes": 4}, "digits-sym0.4-sln1-seed0-"),
    ],
)
def test_the_run_id_can_be_read(settings, name):
    run_id = Config(**settings).run_id
    assert run_id.startswith(name)
    assert len(run_id) == len(name) + 8


def test_the_default_run_keeps_its_name():
    # a change here orphans every run that anybody has on disk
    assert Config().run_id == "digits-sym0.4-sln1-seed0-44136fa3"


# --- as values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, CHANGED])
def test_a_config_survives_json(settings):
    config = Config(**settings)
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)
    assert again.run_id == config.run_id


def test_replace_changes_what_is_named_and_nothing_else():
    changed = Config(**CHANGED).replace(sigma=0.1)
    assert changed.to_dict() == Config(**CHANGED).to_dict() | {"sigma": 0.1}


def test_a_config_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().sigma = 2.0


@pytest.mark.parametrize(
    ("correction", "corrects"), [(-1, False), (0, False), (1, True), (9, True), (10, False), (11, False)]
)
def test_correction_happens_strictly_between_the_first_and_last_epoch(correction, corrects):
    assert Config(epochs=10, correction=correction).corrects is corrects


@pytest.mark.parametrize("correction", [-1, 0, 300, 1000])
def test_all_spellings_of_never_are_one_run(correction):
    said = Config(
        dataset="cifar10", correction=correction, correction_losses="as-released", soft_correction=True
    )
    assert said == Config(dataset="cifar10", correction=-1)
    assert said.run_id == Config(dataset="cifar10", correction=-1).run_id


def test_the_uncorrected_run_is_the_one_that_never_asked_for_correction():
    released = {"correction_losses": "as-released", "correction_weight": "none", "soft_correction": True}
    asked = Config(epochs=10, correction=5, **released)
    assert asked.uncorrected == Config(epochs=10)
    assert Config(epochs=10).uncorrected == Config(epochs=10)
