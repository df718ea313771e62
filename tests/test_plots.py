"""The figures draw the numbers they are given, published ones too, and say what is simulated."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection

from mialib import metrics
from mialib.results import plots, tables


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def curves():
    table = pd.DataFrame({"x": [0.9, 0.5, math.nan, 0.7, 0.6, 0.8], "label": ["a", "a", "a", "b", "a", "b"]})
    table = table.assign(panel=["P", "P", "P", "P", "Q", "Q"], tier=["M"] * 4 + ["R"] * 2)
    published = pd.DataFrame({"panel": "P", "label": ["a", "a", "c"], "x": [0.4, 0.6, 0.5], "fraction": [0.5, 1, 1]})
    return table, published


def by_size():
    table = pd.DataFrame({"size": [20, 20, 20, 10, 10, 10], "precision": [0.6, 0.72, 0.65, 0.9, 0.8, math.nan]})
    table = table.assign(panel="D", tier="R", **{"class": [1, 2, 3, 1, 2, 3]})
    return table, table[["panel", "size", "class", "precision"]].fillna(1.0)


def shadows():
    rows = [("D", "M", size, k, 0.7 - size / 1e3) for size in (10, 20) for k in (4, 1, 2)]
    table = pd.DataFrame(rows, columns=["panel", "tier", "size", "shadows", "value"])
    return table.assign(low=table["value"] - 0.1, high=table["value"] + 0.1)


def families():
    rng = np.random.default_rng(0)
    drawn = [(panel, tier, k, p) for panel, tier in (("P", "M"), ("L", "S")) for k in (2, 20) for p in rng.random(k)]
    table = pd.DataFrame(drawn, columns=["panel", "tier", "n_classes", "precision"])
    five = {"whisker_low": [0.51, 0.5], "q1": [math.nan, 0.6], "median": [math.nan, 0.7], "q3": [math.nan, 0.8]}
    return table, pd.DataFrame({"panel": "P", "n_classes": [2, 20], "whisker_high": [0.52, 0.9]} | five)


def classes():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.random((12, 3)), columns=["share", "gap", "precision"])
    table = table.assign(n_classes=[10] * 4 + [100] * 8, tier="M")
    table.loc[0, "precision"] = math.nan
    published = pd.DataFrame({"panel": ["left", "middle", "right"] * 2, "n_classes": [10] * 3 + [100] * 3})
    published = published.assign(x=rng.random(6), y=rng.random(6))
    sides = [(side, panel) for side in ("ours", "published") for panel in ("left", "middle", "right")]
    correlations = pd.DataFrame(sides, columns=["side", "panel"]).assign(r=0.5, low=[0.1, 0.2, 0.3] * 2, high=0.9)
    return table, published, correlations


def seen():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"uncertainty": rng.random(80), "accuracy": rng.random(80), "member": [True, False] * 40})
    table = table.assign(n_classes=[10] * 40 + [100] * 40, tier=["R"] * 40 + ["M"] * 40)
    groups = {"members": [0.6, 0.4, *[0] * 8], "non-members": [0.3, 0.2, 0.5, *[0] * 7]}
    rows = [("uncertainty", 10, group, i / 10, share) for group in groups for i, share in enumerate(groups[group])]
    return table, pd.DataFrame(rows, columns=["panel", "n_classes", "group", "bin_lo", "fraction"])


def vectors():
    rows = [("correct", "R", side, k, 0.5**k) for side in (True, False) for k in range(20)]
    rows += [("misclassified", "M", True, k, 0.1) for k in range(20)]
    table = pd.DataFrame(rows, columns=["panel", "tier", "member", "class", "confidence"])
    return pd.concat([table, table.tail(20).assign(member=False, confidence=math.nan)], ignore_index=True)


def answers():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"confidence": rng.random(60), "member": [True, False] * 30, "tier": "R"})
    return table.assign(panel=["all"] * 40 + ["correct"] * 20)


def errors():
    """A ranking of 8 members and 20 non-members, and one that finds half of the members before any non-member."""
    member = np.arange(28) < 8
    early = np.where(np.arange(28) < 4, 100, np.arange(28) % 7)
    parts = [
        tables.roc({"panel": "P", "tier": "R", "label": "random"}, member, np.arange(28) * 5 % 28),
        tables.roc({"panel": "P", "tier": "R", "label": "early"}, member, early),
    ]
    simulated = parts[0].assign(panel="Q", tier="M")
    return (pd.concat([*parts, simulated], ignore_index=True),)


# name -> (tables it takes, what it is called with them)
def courses():
    values = {
        ("all", "balanced_accuracy"): (0.5, 0.6, 0.7),
        ("all", "fpr"): (0.4, 0.3, 0.2),
        ("all", "train_acc"): (0.7, 0.8, 0.9),
        ("all", "test_acc"): (0.6, 0.7, 0.6),
        ("correct", "balanced_accuracy"): (0.51, 0.52, 0.53),
        ("correct", "fpr"): (0.9, 0.8, 0.7),
    }
    rows = [
        (target, "S", epoch, subset, metric, value, value - 0.1, value + 0.1)
        for target in "AB"
        for (subset, metric), course in values.items()
        for epoch, value in zip((2, 4, 6), course, strict=True)
    ]
    columns = ["target", "tier", "epoch", "subset", "metric", "value", "low", "high"]
    return (pd.DataFrame(rows, columns=columns),)


CALLS = {
    "roc": (errors, plots.roc),
    "cdf": (curves, lambda table, published: plots.cdf(table, "precision", published)),
    "by_class_lines": (by_size, plots.by_class_lines),
    "sizes": (by_size, plots.sizes),
    "settling": (lambda: (shadows(),), plots.settling),
    "boxes": (families, plots.boxes),
    "scatters": (classes, plots.scatters),
    "histograms": (seen, plots.histograms),
    "confidence_vectors": (lambda: (vectors(),), plots.confidence_vectors),
    "confidence_histograms": (lambda: (answers(),), plots.confidence_histograms),
    "training": (courses, plots.training),
}


def drawn(name):
    tables, call = CALLS[name]
    return call(*tables())


def points(ax):
    """Every (x, y) a line or marker of the panel stands at, one array a line."""
    return [np.column_stack(line.get_data()).astype(float) for line in ax.lines]


def texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("name", CALLS)
def test_panels_say_whether_they_are_simulated(name):
    figure = drawn(name)
    figure.canvas.draw()
    for ax in figure.axes:
        hatched = ax.patch.get_hatch() is not None
        assert ("[M, simulated]" in ax.get_title()) == hatched
        assert ax.get_title()
    simulated = {"cdf": 1, "roc": 1, "settling": 1, "boxes": 1, "scatters": 3, "histograms": 2}
    simulated = (simulated | {"confidence_vectors": 1}).get(name, 0)
    assert sum(ax.patch.get_hatch() is not None for ax in figure.axes) == simulated
    if figure.legends:
        assert ("ours simulated" in texts(figure)) == (simulated > 0)


@pytest.mark.parametrize("name", CALLS)
def test_every_axis_is_named_and_the_legend_covers_no_panel(name):
    figure = drawn(name)
    figure.canvas.draw()
    assert all(ax.get_xlabel() for ax in figure.axes if ax.get_subplotspec().is_last_row())
    assert all(ax.get_ylabel() for ax in figure.axes if ax.get_subplotspec().is_first_col())
    legends = figure.legends or [ax.get_legend() for ax in figure.axes]
    for legend in legends:
        box = legend.get_window_extent()
        assert not any(box.overlaps(ax.get_window_extent()) for ax in figure.axes)
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width


def test_cdf_draws_the_shares_of_classes_and_the_published_curve():
    figure = plots.cdf(curves()[0], "precision", curves()[1])
    first, second = figure.axes
    assert first.get_title() == "P\n[M, simulated], 1 undefined left out"
    ours, theirs, other, unmatched = points(first)
    assert ours[1:].tolist() == [[0.5, 0.5], [0.9, 1]]  # after the step up from 0
    assert theirs.tolist() == [[0.4, 0.5], [0.6, 1]]
    assert other[1:].tolist() == [[0.7, 1]]
    assert unmatched.tolist() == [[0.5, 1]]
    assert [len(line) for line in points(second)] == [2, 2]
    looks = [(line.get_color(), line.get_marker()) for line in first.lines]
    assert looks[0] == looks[1] != looks[2] != looks[3]
    assert first.lines[0].get_linestyle() == "-" != first.lines[1].get_linestyle()
    assert texts(figure) == ["a", "b", "c", "ours", "published", "ours simulated"]


def test_cdf_alone_has_no_word_of_published_curves():
    assert texts(plots.cdf(curves()[0], "precision")) == ["a", "b", "ours simulated"]


@pytest.mark.parametrize(("panels", "shape"), [(1, (1, 1)), (3, (1, 3)), (4, (2, 2)), (5, (2, 3))])
def test_panels_wrap(panels, shape):
    table = pd.DataFrame({"panel": range(panels), "label": "a", "tier": "R", "x": 0.5})
    figure = plots.cdf(table, "precision")
    assert len(figure.axes) == panels
    assert figure.axes[0].get_gridspec().get_geometry() == shape


def test_by_class_lines_share_axes_and_keep_the_class_order():
    table, published = by_size()
    figure = plots.by_class_lines(table.sample(frac=1, random_state=0), published)
    ours, theirs = figure.axes
    assert points(ours)[1].tolist() == [[1, 0.6], [2, 0.72], [3, 0.65]]
    assert points(theirs)[0].tolist() == [[1, 0.9], [2, 0.8], [3, 1.0]]
    assert ours.get_ylim() == theirs.get_ylim()
    assert texts(figure) == ["10 records", "20 records"]


def test_sizes_draw_every_class_and_the_medians():
    table, published = by_size()
    (ax,) = plots.sizes(table, published).axes
    small, large, mine, other_small, _, printed = points(ax)
    assert mine[:, 1] == pytest.approx([0.85, 0.65])
    assert printed[:, 1] == pytest.approx([0.9, 0.65])
    assert sorted(large[:, 1]) == [0.6, 0.65, 0.72]
    assert (len(small), len(other_small)) == (2, 3)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["10", "20"]
    assert (np.abs(large[:, 0] - mine[1, 0]) < 0.2).all()
    assert len(np.unique(large[:, 0])) == 3


def test_settling_draws_a_line_and_its_intervals_for_each_size():
    (ax,) = plots.settling(shadows()).axes
    assert [line.get_label() for line in ax.lines] == ["10 records", "20 records"]
    assert points(ax)[0][:, 1] == pytest.approx([0.69] * 3)
    assert points(ax)[0][:, 0] == pytest.approx([1, 2, 4], rel=0.03)
    bars = [bars for bars in ax.collections if isinstance(bars, LineCollection)]
    assert [len(each.get_segments()) for each in bars] == [3, 3]
    assert bars[0].get_segments()[0][:, 1] == pytest.approx([0.59, 0.79])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "2", "4"]


def test_boxes_are_the_quartiles_and_few_classes_are_points():
    table, published = families()
    first, second = plots.boxes(table, published).axes
    assert (len(first.patches), len(second.patches)) == (2, 1)
    many = table[(table["panel"] == "P") & (table["n_classes"] == 20)]["precision"]
    ours, theirs = (patch.get_path().get_extents() for patch in first.patches)
    assert (ours.y0, ours.y1) == pytest.approx((many.quantile(0.25), many.quantile(0.75)))
    assert (theirs.y0, theirs.y1) == pytest.approx((0.6, 0.8))
    heights = [line[:, 1].tolist() for line in points(first)]
    few = table[(table["panel"] == "P") & (table["n_classes"] == 2)]["precision"].tolist()
    assert few in heights
    assert [0.51, 0.52] in heights
    assert [0.7, 0.7] in heights
    assert [0.5, 0.5] in heights
    assert [0.9, 0.9] in heights


def test_scatters_draw_all_classes_on_shared_axes_with_the_correlation():
    table, published, correlations = classes()
    figure = plots.scatters(table, published, correlations)
    assert len(figure.axes) == 6
    assert [sum(map(len, points(ax))) for ax in figure.axes] == [11, 11, 12, 2, 2, 2]
    for i, (x, y) in enumerate([("share", "precision"), ("gap", "precision"), ("share", "gap")]):
        top, bottom = figure.axes[i], figure.axes[i + 3]
        assert np.array_equal(np.concatenate(points(top)), table[[x, y]].dropna())
        assert (top.get_xlim(), top.get_ylim()) == (bottom.get_xlim(), bottom.get_ylim())
        rows = table[[x, y]].dropna().assign(n=table["n_classes"]).groupby("n")
        within = ", ".join(f"{count}:\xa0{np.corrcoef(part[x], part[y])[0, 1]:.2f}" for count, part in rows)
        assert top.get_title().endswith(f"r = 0.50 (0.{i + 1}0 to 0.90)\nwithin {within}")
        assert bottom.get_title() == f"published\nr = 0.50 (0.{i + 1}0 to 0.90)"
    assert len(plots.scatters(table, None, correlations[:3]).axes) == 3
    with pytest.raises(ValueError, match="no row for published, right"):
        plots.scatters(table, published, correlations[:5])


def test_titles_of_scatters_with_four_class_counts_lie_within_the_figure_and_apart():
    table, _, correlations = classes()
    parts = [table.iloc[:10].assign(n_classes=count, tier="S") for count in (10, 20, 50, 100)]
    figure = plots.scatters(pd.concat(parts), None, correlations)
    figure.canvas.draw()
    titles = [ax.title.get_window_extent() for ax in figure.axes]
    assert all(figure.axes[i].get_title().count(":\xa0") == 4 for i in range(3))
    assert (
        titles[0].x0 >= 0 and titles[2].x1 <= figure.bbox.width and max(box.y1 for box in titles) <= figure.bbox.height
    )
    assert not titles[0].overlaps(titles[1]) and not titles[1].overlaps(titles[2])


def test_histograms_draw_the_shares_and_say_how_far_they_overlap():
    table, published = seen()
    figure = plots.histograms(table, published)
    assert len(figure.axes) == 4
    here = table[table["n_classes"] == 10]
    inside, outside = (here.loc[here["member"] == side, "uncertainty"] for side in (True, False))
    first = figure.axes[0]
    heights = [[bar.get_height() for bar in bars] for bars in first.containers]
    assert heights[0] == pytest.approx(metrics.histogram(inside))
    assert heights[1] == pytest.approx(metrics.histogram(outside))
    assert heights[2:] == [[0.6, 0.4, *[0] * 8], [0.3, 0.2, 0.5, *[0] * 7]]
    places = [[bar.get_x() for bar in bars] for bars in first.containers]
    assert places[0] == pytest.approx(places[2])
    assert places[1] == pytest.approx(places[3])
    overlap = metrics.overlap(inside, outside)
    assert first.get_title() == f"10 classes\n[R]\noverlap {overlap:.2f}, published 0.50"
    assert [len(ax.containers) for ax in figure.axes] == [4, 2, 2, 2]
    assert texts(plots.histograms(table, None)) == ["members", "non-members", "ours simulated"]


def test_histograms_of_members_alone_have_no_overlap():
    table, _ = seen()
    figure = plots.histograms(table[table["member"]], None)
    assert "overlap undefined" in figure.axes[0].get_title()


def test_confidence_vectors_draw_members_and_non_members_on_a_log_scale():
    figure = plots.confidence_vectors(vectors())
    correct, wrong = figure.axes
    np.testing.assert_array_equal(points(correct)[0], points(correct)[1])
    np.testing.assert_allclose(points(correct)[0], [(k, 0.5**k) for k in range(20)])
    assert [len(part) for part in points(wrong)] == [20, 0] and "20 undefined left out" in wrong.get_title()
    assert correct.get_yscale() == "log" and {line.get_marker() for line in correct.lines} == {"x", "o"}
    assert texts(figure) == ["members", "non-members", "ours simulated"]


def test_confidence_histograms_draw_shares_and_leave_out_an_empty_side():
    table = answers()
    figure = plots.confidence_histograms(table[table["member"] | (table["panel"] == "all")])
    both, alone = ([patch.get_data() for patch in ax.patches] for ax in figure.axes)
    assert (len(both), len(alone)) == (2, 1)
    for data, side in zip(both, (True, False), strict=True):
        here = table[(table["panel"] == "all") & (table["member"] == side)]
        np.testing.assert_allclose(data.values, metrics.histogram(here["confidence"], 100))
        assert len(data.edges) == 101


def test_training_draws_the_attack_on_each_subset_and_the_target_everywhere():
    figure = plots.training(*courses())
    assert len(figure.axes) == 4
    first, second = figure.axes[:2]
    assert first.get_title().startswith("all\n") and second.get_title().startswith("correct\n")
    assert first.get_ylabel() == "A\nrate" and figure.axes[2].get_ylabel() == "B\nrate"
    drawn = [[line.get_ydata().tolist() for line in ax.lines if len(line.get_ydata()) == 3] for ax in (first, second)]
    assert drawn[0][:2] == [[0.5, 0.6, 0.7], [0.4, 0.3, 0.2]]
    assert drawn[1][:2] == [[0.51, 0.52, 0.53], [0.9, 0.8, 0.7]]
    assert drawn[0][2:] == drawn[1][2:] == [[0.7, 0.8, 0.9], [0.6, 0.7, 0.6]]
    assert texts(figure)[:2] == ["attack, balanced accuracy, with its interval", "attack, FAR (FPR)"]


def test_training_marks_where_the_learning_rate_falls():
    figure = plots.training(*courses(), drops={"A": (3, 5)})
    upright = [[line.get_xdata()[0] for line in ax.lines if len(set(line.get_xdata())) == 1] for ax in figure.axes]
    assert upright == [[3, 5], [3, 5], [], []] and "learning rate falls" in texts(figure)
    assert "learning rate falls" not in texts(plots.training(*courses()))


def test_roc_draws_what_is_known_on_logarithmic_axes():
    figure = plots.roc(*errors())
    first, second = figure.axes
    assert (first.get_xscale(), first.get_yscale()) == ("log", "log")
    assert first.get_title() == "P\n[R]\n20 non-members" and second.get_title().startswith("Q\n[M, simulated]")
    random, early, chance = points(first)
    assert min(random[:, 0]) == min(early[:, 0]) == 1 / 20 == first.get_xlim()[0]  # below it nothing is known
    assert chance.tolist() == [[1 / 20, 1 / 20], [1, 1]]
    at_one = early[early[:, 0] == 1 / 20, 1].max()
    assert at_one >= 0.5 and early[-1].tolist() == random[-1].tolist() == [1, 1]  # found before any false alarm
    member, score = np.arange(28) < 8, np.arange(28) * 5 % 28
    for fpr, tpr in random:
        reached = [(score[member] >= s).mean() for s in score if (score[~member] >= s).mean() <= fpr + 1e-9]
        assert tpr <= max(reached) + 1e-9 and tpr in [(score[member] >= s).mean() for s in score]
    assert {line.get_drawstyle() for line in first.lines[:2]} == {"steps-post"}
    assert texts(figure) == ["random", "early", "chance", "ours simulated"]
    table = errors()[0]
    table.loc[0, "non_members"] = 21
    with pytest.raises(ValueError, match="'P' has several numbers of non-members"):
        plots.roc(table)


@pytest.mark.parametrize("name", CALLS)
def test_a_line_under_a_figure_lets_it_stand_alone(name):
    figure, said = (
        drawn(name),
        "Location [R], 1,200 records; 5 targets, 60 shadows; interval: Student's t over targets. ",
    )
    before = texts(figure) if figure.legends else []
    assert plots.about(figure, said * 2) is figure
    figure.canvas.draw()
    (legend,) = figure.legends
    title = legend.get_title()
    assert " ".join(title.get_text().split()).endswith((said * 2).strip()) and texts(figure) == before
    box = title.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0
    own = [ax.get_legend() for ax in figure.axes if ax.get_legend()]
    for part in (*figure.axes, *own):
        assert not box.overlaps(part.get_window_extent())


def test_dots_draw_the_published_spread_thin_beside_its_value():
    table = pd.DataFrame({"label": ["a", "b"], "tier": "R", "value": [0.6, 0.7], "low": [0.5, 0.6], "high": [0.7, 0.8]})
    figure = plots.dots(table.assign(published=[0.55, 0.65], std=[0.02, math.nan]), "x")
    thin, thick = sorted(figure.axes[0].collections[:2], key=lambda each: each.get_linewidth()[0])
    assert thin.get_segments()[0][:, 0] == pytest.approx([0.53, 0.57])
    assert thick.get_segments()[0][:, 0] == pytest.approx([0.5, 0.7])
    assert "published SD" in texts(figure)
    assert "published SD" not in texts(plots.dots(table.assign(published=0.5), "x"))


@pytest.mark.parametrize("name", ["cdf", "training", "roc", "confidence_histograms"])
def test_a_star_is_explained_in_every_figure(name):
    star = "off printed accuracies"
    given, call = CALLS[name]
    table, *others = given()
    column = "target" if name == "training" else "panel"
    assert star not in texts(call(table, *others))
    others = [other.assign(panel=other["panel"] + "*") for other in others]
    assert star in texts(call(table.assign(**{column: table[column] + "*"}), *others))


@pytest.mark.parametrize("name", CALLS)
def test_missing_columns_and_empty_tables_are_refused(name):
    tables, call = CALLS[name]
    given = tables()
    for i, table in enumerate(given):
        others = list(given)
        others[i] = table.iloc[:0]
        with pytest.raises(ValueError, match="at least one row"):
            call(*others)
        others[i] = table[[]]
        with pytest.raises(ValueError, match="needs the columns"):
            call(*others)


@pytest.mark.parametrize("name", CALLS)
def test_unknown_and_mixed_tiers_are_refused(name):
    tables, call = CALLS[name]
    table, *others = tables()
    with pytest.raises(ValueError, match="unknown tier 'X'; valid tiers: R, S, M"):
        call(table.assign(tier="X"), *others)
    mixed = ["R", *["M"] * (len(table) - 1)]
    with pytest.raises(ValueError, match="several tiers"):
        call(table.assign(tier=mixed), *others)


def test_nothing_published_goes_undrawn():
    table, published = curves()
    with pytest.raises(ValueError, match="ours has no panel Z"):
        plots.cdf(table, "precision", published.assign(panel="Z"))
    with pytest.raises(ValueError, match="ours has no n_classes 100"):
        plots.histograms(seen()[0].query("n_classes == 10"), seen()[1].assign(n_classes=100))
    with pytest.raises(ValueError, match="ours has no panel top"):
        plots.scatters(classes()[0], classes()[1].assign(panel="top"), classes()[2])


def test_more_series_than_styles_are_refused():
    table = pd.DataFrame({"panel": "P", "label": list("abcdefghi"), "tier": "R", "x": 0.5})
    assert plots.cdf(table[:8], "precision").axes
    with pytest.raises(ValueError, match="9 series in one plot; at most 8"):
        plots.cdf(table, "precision")
