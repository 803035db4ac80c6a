"""figures/README.md is made of the CSV files and manifests, and of nothing else."""

import pandas as pd
import pytest

from sln.reproduce.summary import Numbers, summary, write_summary
from sln.utils.files import write_json


@pytest.fixture
def figures(tmp_path):
    """Figures of the profile `quick`, with two of its tables."""
    folder = tmp_path / "figures"
    versions = {"torch": "2.6.0", "started": "2026-01-02T03:04:05Z"}
    write_json(
        folder / "quick" / "manifest.json", {"seconds": {"01": 70.2, "02": 10.0}, "versions": versions}
    )
    methods = [("openset", "CE-MO", 96.44, 0.56), ("openset", "SLN-MO", 97.0, 0.5)]
    results = pd.DataFrame(methods, columns=["noise", "method", "mean", "std"])
    results = results.assign(low=[96.0, 96.5], high=[96.9, 97.5], early=[95.0, 96.0])
    results.to_csv(folder / "quick" / "06_results.csv", index=False)
    curves = {
        "epoch": [1, 2, 1, 2],
        "reading": "as released",
        "label_accuracy": [0.1, 0.9, 0.2, 0.8],
        "seed": [0, 0, 1, 1],
    }
    pd.DataFrame(curves).to_csv(folder / "quick" / "03_label_correction.csv", index=False)
    return folder


def test_numbers_come_from_the_tables_and_missing_ones_are_dashes(figures):
    text = summary(figures)
    assert "| 0:01:20 | 2026-01-02 | 2.6.0 |" in text
    assert (
        "| digits | open-set | – [–] | 96.4 (96.0 to 96.9) [95.0] | – [–] | 97.0 (96.5 to 97.5) [96.0] |"
        in text
    )
    assert "85% after\nit as released, and – by the clean rule" in text
    assert "profile `mini`" not in text
    assert "nan" not in text


def test_a_value_is_of_the_last_epoch_and_the_mean_of_its_rows(figures):
    numbers = Numbers(figures / "quick")
    assert numbers.value("03_label_correction", "label_accuracy") == pytest.approx(0.85)
    assert numbers.value("03_label_correction", "label_accuracy", seed=1) == pytest.approx(0.8)
    of = {"noise": "openset", "method": "SLN-MO"}
    assert numbers.mean("06_results", **of) == "97.0 ± 0.5"
    assert numbers.estimate("06_results", form=".2f", **of) == "97.00 (96.50 to 97.50)"


@pytest.mark.parametrize("damage", ["empty", "missing", "another column"])
def test_tables_of_failed_notebooks_do_not_stop_it(damage, figures):
    path = figures / "quick" / "06_results.csv"
    if damage == "missing":
        path.unlink()
    else:
        path.write_text("" if damage == "empty" else "x\n1\n")
    assert "## Accuracy" in summary(figures)
    assert "96.4" not in summary(figures)


def test_the_same_tables_give_the_same_bytes(figures, tmp_path):
    write_summary(figures)
    first = (figures / "README.md").read_bytes()
    assert first == summary(figures).encode()
    write_summary(figures)
    assert (figures / "README.md").read_bytes() == first


def test_without_results_it_is_a_page_without_numbers(tmp_path):
    assert summary(tmp_path).startswith("# What the study finds\n")
    assert "##" not in summary(tmp_path)
