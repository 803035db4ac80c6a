"""A study: how sigma is chosen, what a claim does, what is saved."""

import numpy as np
import pandas as pd
import pytest
import torch

from sln.plots import style
from sln.study.study import Study
from sln.utils.files import figures_folder


def test_sigma_is_chosen_on_given_validation_labels_and_a_tie_goes_to_the_smaller(smoke_study, monkeypatch):
    scores = smoke_study.validation_scores("sym")
    chosen = smoke_study.runs("sym", 0.5)[: smoke_study.profile.choice_seeds]
    oracle = np.mean([run.final("momentum")["validation_accuracy"] for run in chosen])
    assert scores[0.5] == pytest.approx(oracle)
    assert smoke_study.choose_sigma("sym") == max(scores, key=scores.get)
    monkeypatch.setattr(Study, "scores", lambda self, candidates: dict.fromkeys(candidates, 0.5))
    assert smoke_study.choose_sigma("sym") == 0.5


def test_a_claim_that_does_not_hold_fails_only_in_a_profile_that_asserts(capsys):
    Study("smoke").check("the moon is cheese", False)
    assert "DOES NOT HOLD: the moon is cheese" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="the moon"):
        Study("quick").check("the moon is cheese", False)


def test_saving_writes_the_picture_and_the_numbers():
    ax = style.new_axes()
    table = pd.DataFrame({"x": [0.1, 0.2]})
    assert Study("smoke").save(ax.figure, table, "09_test", shows="It is empty.") is ax.figure
    folder = figures_folder("smoke")
    assert sorted(path.name for path in folder.iterdir()) == ["09_test.csv", "09_test.png"]
    assert (folder / "09_test.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "09_test.csv").read_text() == "x\n0.1\n0.2\n"


def test_a_study_leaves_the_number_of_threads_alone():
    torch.set_num_threads(2)
    Study("smoke")
    assert torch.get_num_threads() == 2


def test_the_same_runs_are_evaluated_with_other_weights(smoke_study):
    network = smoke_study.methods("sym")["SLN"]
    momentum = network.through("momentum")
    assert momentum.runs is network.runs
    expected = [run.final("momentum")["test_accuracy"] for run in network.runs]
    assert momentum.final("test_accuracy").tolist() == expected
    assert network.weights == "network"
