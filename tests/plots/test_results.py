"""Pictures of results."""

import pandas as pd

from sln import plots
from sln.analysis import results


def test_results_stand_beside_the_papers():
    table = pd.DataFrame(
        {"noise": ["sym", "sym", "asym"], "method": ["CE", "CE-MO", "CE"], "mean": [50.0, 60.0, 70.0]}
    )
    table = table.assign(low=table["mean"] - 1, high=table["mean"] + 1, early=table["mean"] + 2, seeds=5)
    figure = plots.results.one_noise(table, results.of_the_paper(), "sym")
    assert figure.words == (
        "Under symmetric noise, test accuracy (%, 95% interval) is 50.0 ± 1.0 for CE (paper 53.16), "
        "60.0 ± 1.0 for CE-MO."
    )
    assert [patch.get_height() for patch in figure.axes[0].patches] == [50.0, 60.0]
    dots, rings = (
        plots.results.table(table).axes[0].lines[0::2],
        plots.results.table(table).axes[0].lines[1::2],
    )
    assert {x for line in rings for x in line.get_xdata()} >= {52.0, 62.0}
    assert {x for line in dots for x in line.get_xdata()} >= {50.0, 60.0}


def test_differences_state_their_seeds_and_stand_at_their_means():
    table = pd.DataFrame(
        {
            "noise": ["sym", "asym"],
            "step": "CE → SLN",
            "rival": "CE",
            "ours": [3.0, -1.0],
            "paper": [4.0, 5.0],
        }
    ).assign(low=[2.0, -2.0], high=[4.0, 0.0], gain=[3.0, -1.0])
    figure = plots.results.steps(table, "letters", "5 seeds")
    assert "ours (letters), 95% t interval over 5 seeds" in [
        text.get_text() for text in figure.legends[0].get_texts()
    ]
    shown = {x for line in figure.axes[0].lines for x in line.get_xdata()}
    assert {3.0, -1.0, 4.0, 5.0} <= shown
    figure = plots.results.rivals(table, "5 seeds")
    assert "5 seeds" in figure.get_suptitle()
    assert [ax.get_title() for ax in figure.axes] == ["symmetric", "asymmetric"]


def test_the_papers_numbers_have_another_implementations_and_ours_beside_them():
    recipes = results.of_the_recipes().assign(seeds=0, ours=float("nan"))
    recipes.loc[recipes["dataset"] == "cifar10", ["seeds", "ours"]] = [1, 80.5]
    figure = plots.results.beside_published(recipes, results.published())
    assert [ax.get_title() for ax in figure.axes] == ["cifar10", "cifar100"]
    shown = {x for line in figure.axes[0].lines for x in line.get_xdata()}
    assert {53.16, 54.15, 80.5} <= shown
    assert 80.5 not in {x for line in figure.axes[1].lines for x in line.get_xdata()}
    assert figure.legends[0].get_title().get_text() == ""
    none = plots.results.beside_published(recipes.assign(seeds=0), results.published())
    assert "no run of ours" in none.legends[0].get_title().get_text()
    everywhere = plots.results.beside_published(recipes.assign(seeds=3, ours=70.0), results.published())
    assert [ax.get_title() for ax in everywhere.axes] == list(recipes["dataset"].unique())
