"""Pictures of comparisons."""

from sln import plots
from sln.study import comparisons


def test_every_picture_shows_its_table(smoke_study):
    table = comparisons.table(smoke_study)
    strengths = comparisons.strengths(smoke_study)
    figures = [
        plots.comparisons.methods(table),
        plots.comparisons.choices(comparisons.choices(smoke_study)),
        plots.comparisons.gains(comparisons.gains(smoke_study)),
        plots.comparisons.strengths(strengths),
        plots.comparisons.one_strength(strengths, "SLN"),
    ]
    for figure in figures:
        assert isinstance(figure, plots.Figure)
        assert len(figure._repr_png_()) > 5000
    # every method's mean is a dot at its place
    means = {round(x, 6) for c in figures[0].axes[0].collections for x, _ in c.get_offsets().tolist()}
    read = table[(table["weights"] == "network") & (table["noise"] == "sym")]
    assert {round(mean, 6) for mean in read["mean"]} <= means
