"""What is saved is complete, strict and the same for the same seed; plots show what they claim."""

import itertools
import json
import math
import os
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pypdf
import pytest
from matplotlib.image import imread
from matplotlib.text import Text

import mialib
from mialib import config, runs
from mialib.results import plots, published, report

RUN = runs.Run("01_table2", "demo", 0, 0.0, "unknown")
SUFFIXES = ("pdf", "png", "svg", "csv", "tex")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def rows():
    return pd.DataFrame(
        {
            "label": ["Adult", "MNIST", "Purchase-2"],
            "tier": ["R", "S", "M"],
            "value": [0.51, 0.53, math.nan],
            "low": [0.50, 0.52, math.nan],
            "high": [0.52, 0.54, math.nan],
            "published": [0.503, 0.517, 0.505],
            "gap": [0.502, math.nan, 0.504],
        }
    )


def cells():
    ours = {"dataset": "Adult", "setting": "all", "metric": "attack_precision", "tier": "R"}
    return published.compare([ours | {"value": 0.5123456789, "low": 0.5, "high": math.nan}], "shokri_table2")


def saved(tmp_path, monkeypatch, name="a", run=RUN):
    monkeypatch.setenv("MIALIB_FIGURES", str(tmp_path / name))
    figure = plots.dots(rows(), "Attack precision")
    table = published.scorecard(cells())
    return report.save(run, "Table II", {"Adult": "M"}, cells(), {"": figure}, {"": table}, {"adult": "ab12"})


def texts(figure):
    found = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    for ax in figure.axes:
        found += [ax.get_title(), *(label.get_text() for label in ax.get_yticklabels())]
    return found


def test_save_writes_every_form_and_nothing_else(tmp_path, monkeypatch):
    paths = saved(tmp_path, monkeypatch)
    assert set(paths) == {*(f"01_table2.{suffix}" for suffix in SUFFIXES), "01_table2.json"}
    assert {path.name for path in (tmp_path / "a").iterdir()} == set(paths)
    assert paths["01_table2.pdf"].read_bytes().startswith(b"%PDF")
    assert imread(paths["01_table2.png"]).shape[1] == 5.4 * 150
    assert paths["01_table2.svg"].read_text().startswith("<?xml")
    assert b"CreationDate" not in paths["01_table2.pdf"].read_bytes()
    assert "<dc:date>" not in paths["01_table2.svg"].read_text()


def test_two_runs_give_the_same_bytes_apart_from_run(tmp_path, monkeypatch):
    first = saved(tmp_path, monkeypatch, "a")
    second = saved(tmp_path, monkeypatch, "b", runs.Run("01_table2", "demo", 0, 99.0, "another"))
    records = [json.loads(paths.pop("01_table2.json").read_text()) for paths in (first, second)]
    assert records[0].pop("run") != records[1].pop("run")
    assert records[0] == records[1]
    for name, path in first.items():
        same = path.read_bytes() == second[name].read_bytes()
        assert same != name.endswith(".pdf"), name  # a PDF names its commit


def test_pdf_says_what_it_is_and_holds_its_fonts(tmp_path, monkeypatch):
    run = runs.Run("01_toy_table2_x", "demo", 0, 0.0, "abc123")
    pdf = pypdf.PdfReader(saved(tmp_path, monkeypatch, run=run)["01_toy_table2_x.pdf"])
    assert pdf.metadata.title == "Table II"
    assert pdf.metadata.subject.startswith("Table II. SIMULATED data")
    assert pdf.metadata["/Keywords"] == f"exhibit toy-table2, mialib {mialib.__version__}, commit abc123"
    assert pdf.metadata.creator == f"mialib {mialib.__version__}"
    fonts = [font.get_object() for font in pdf.pages[0]["/Resources"]["/Font"].values()]
    assert fonts
    for font in fonts:
        (descendant,) = font["/DescendantFonts"]
        descendant = descendant.get_object()
        assert descendant["/Subtype"] == "/CIDFontType2"  # TrueType, which journals ask for
        assert "/FontFile2" in descendant["/FontDescriptor"]
    assert "Adult" in pdf.pages[0].extract_text()


def test_long_axis_label_stays_in_the_figure():
    with plt.rc_context(), pd.option_context("display.precision", 6):
        report.style()
        figure = plots.dots(rows(), "attack precision (share of called members that are)")
        figure.draw_without_rendering()
        label = figure.axes[0].xaxis.label.get_window_extent()
        assert label.x0 >= 0 and label.x1 <= figure.bbox.x1


def test_axis_labels_of_panels_keep_apart_and_the_legend_explains_the_star():
    here = rows().assign(label=["MNIST LeNet, weights", "CIFAR-10 AlexNet, weights", "CIFAR-100 DenseNet*, weights"])
    table = pd.concat([here.assign(panel=panel, tier="R") for panel in ("all", "correct", "misclassified")])
    with plt.rc_context(), pd.option_context("display.precision", 6):
        report.style()
        figure = plots.dots(table, "AUC, or share of members found at 1 % FPR")
        figure.draw_without_rendering()
        extents = [ax.xaxis.label.get_window_extent() for ax in figure.axes]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(extents))
    assert extents[0].x0 >= 0 and extents[-1].x1 <= figure.bbox.x1
    assert "off printed accuracies" in texts(figure)
    assert "off printed accuracies" not in texts(plots.dots(rows(), "Attack precision"))


def test_text_can_be_read_in_a_column():
    with plt.rc_context(), pd.option_context("display.precision", 6):
        report.style()
        for panels, paper in ((1, 3.25), (2, 6.8), (5, 6.8)):
            table = pd.concat([rows().assign(panel=f"{i}" if panels > 1 else "", tier="R") for i in range(panels)])
            figure = plots.dots(table, "Attack precision")
            figure.draw_without_rendering()
            smallest = min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text())
            assert smallest * paper / figure.get_figwidth() >= 6


def test_saving_a_figure_twice_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("MIALIB_FIGURES", str(tmp_path))
    figure = plots.dots(rows(), "Attack precision")
    contents = []
    for _ in range(2):
        paths = report.save(RUN, "Table II", {"Adult": "M"}, [], {"": figure}, {}, {})
        contents.append([paths[f"01_table2.{kind}"].read_bytes() for kind in ("pdf", "png", "svg")])
    assert contents[0] == contents[1]


# What a user may have set for other work; with text.usetex nothing can be drawn where there is no LaTeX.
MATPLOTLIBRC = """figure.dpi: 300
savefig.bbox: tight
savefig.transparent: True
font.family: serif
text.usetex: True
axes.grid: True
lines.linewidth: 5
svg.fonttype: none
pdf.compression: 0
path.simplify: False
"""
DRAWING = """
import matplotlib.pyplot as plt, pandas as pd
from mialib import runs
from mialib.results import plots, report

report.style()
points = {"panel": "Adult", "label": "ours", "tier": "M", "x": [0.4, 0.5, 0.7]}
own, ax = plt.subplots()
ax.plot([0, 1], [0, 1], label="own axes")
ax.legend()
plt.rcParams["savefig.bbox"] = "tight"  # as Jupyter may, after `style`
figures = {"": plots.pipeline(), "cdf": plots.cdf(pd.DataFrame(points), "precision"), "own": own}
report.save(runs.Run("01_toy", "demo", 0, 0.0, "unknown"), "Toy", {"Adult": "M"}, [], figures, {}, {})
"""


def test_figures_are_the_same_whatever_the_user_has_set(tmp_path, monkeypatch):
    (tmp_path / "matplotlibrc").write_text(MATPLOTLIBRC)
    places = {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "MIALIB_FIGURES": str(tmp_path / "theirs")}
    environment = os.environ | places | {"PYTHONPATH": str(config.ROOT), "MPLBACKEND": "agg"}
    subprocess.run([sys.executable, "-c", DRAWING], env=environment, check=True, cwd=tmp_path)
    monkeypatch.setenv("MIALIB_FIGURES", str(tmp_path / "clean"))
    with plt.rc_context(), pd.option_context("display.precision", 6):
        exec(DRAWING, {})
    names = sorted(path.name for path in (tmp_path / "clean").iterdir() if path.suffix != ".json")
    assert len(names) == 9
    clean, theirs = ([(tmp_path / side / name).read_bytes() for name in names] for side in ("clean", "theirs"))
    assert [name for name, a, b in zip(names, clean, theirs, strict=True) if a != b] == []
    assert imread(tmp_path / "clean" / "01_toy_own.png").shape[:2] == (720, 960)  # 6.4 by 4.8 inches, 150 dpi


def test_spreadsheets_run_no_cell(tmp_path, monkeypatch):
    monkeypatch.setenv("MIALIB_FIGURES", str(tmp_path))
    words = ["=1+1", "+cmd", "-2+3", '@SUM(A1),"x"', "\t=1", "\r=1", "-1.5", "-", "a=b"]
    index = pd.MultiIndex.from_product([["=row"], range(9)], names=["=index", "n"])
    table = pd.DataFrame({"=head": words, "number": [-1.5, 1e-9, math.nan, 2, 3, 4, -math.inf, 7, 8]}, index=index)
    (path,) = [p for p in report.save(RUN, "x", {}, [], {}, {"": table}, {}).values() if p.suffix == ".csv"]
    back = pd.read_csv(path, keep_default_na=False)
    assert [*back] == ["'=index", "n", "'=head", "number"]
    assert set(back["'=index"]) == {"'=row"}
    assert [*back["'=head"]] == [*(f"'{word}" for word in words[:5]), "'\n=1", "-1.5", "'-", "a=b"]
    assert [*back["number"]] == ["-1.5", "1e-09", "", "2", "3", "4", "-inf", "7", "8"]


def test_tables_without_such_text_are_as_pandas_writes_them():
    table = pd.DataFrame({"text": ['a "b", c', "", None, "é\nx", " =1"], "x": [-0.1, math.nan, 1 / 3, 2, 3]})
    for index in (True, False):
        plain = table.to_csv(index=index, float_format="%.6g", lineterminator="\n")
        assert report.csv_bytes(table, index) == plain.encode()


def test_a_long_text_passes_into_a_csv_file():
    table = pd.DataFrame({"text": ["=" + "a" * 200_000]})
    assert report.csv_bytes(table, False) == ("text\n'=" + "a" * 200_000 + "\n").encode()


def test_record_is_strict_json_with_the_schema(tmp_path, monkeypatch):
    text = saved(tmp_path, monkeypatch)["01_table2.json"].read_text()
    record = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert list(record) == ["cells", "exhibit", "notebook", "profile", "run", "seed"]
    assert (record["exhibit"], record["notebook"], record["profile"], record["seed"]) == (
        "Table II",
        "01_table2",
        "demo",
        0,
    )
    assert len(record["cells"]) == 27
    assert {tuple(cell) for cell in record["cells"]} == {tuple(sorted(published.CELL))}
    mine = next(cell for cell in record["cells"] if cell["value"] is not None)
    assert (mine["value"], mine["high"], mine["verdict"], mine["primary"]) == (0.512346, None, "undecided", True)
    assert record["run"]["data"] == {"adult": "ab12"}


def test_numbers_become_plain_json():
    plain = report._plain({"a": np.float32(0.1), "b": [np.int64(3), np.bool_(True)], "c": (math.inf, 1234567.8, None)})
    assert plain == {"a": 0.1, "b": [3, True], "c": [None, 1234570.0, None]}
    assert type(plain["b"][0]) is int


def test_suffixes_and_escaped_latex(tmp_path, monkeypatch):
    monkeypatch.setenv("MIALIB_FIGURES", str(tmp_path))
    table = pd.DataFrame(
        {"top_k": [0.5, math.nan], "note": ["50 %", "a&b"]}, index=pd.Index(["r_1", "r_2"], name="row")
    )
    paths = report.save(RUN, "50 % of C:\\x_1", {"Adult": "M"}, [], {}, {"": table, "texas-100": table}, {})
    assert set(paths) == {
        "01_table2.csv",
        "01_table2.tex",
        "01_table2_texas-100.csv",
        "01_table2_texas-100.tex",
        "01_table2.json",
    }
    latex = paths["01_table2_texas-100.tex"].read_text()
    assert "SIMULATED data" in latex
    for piece in (
        r"\toprule",
        r"top\_k",
        r"r\_1",
        r"50 \%",
        r"a\&b",
        r"C:\textbackslash{}x\_1",
        "0.500",
        "--",
        "tab:01_table2_texas-100",
    ):
        assert piece in latex, piece
    back = pd.read_csv(paths["01_table2.csv"], index_col="row")
    pd.testing.assert_frame_equal(back, table)
    plain = report.save(RUN, "x", {"Adult": "M"}, [], {}, {"": table.reset_index(drop=True)}, {})
    assert plain["01_table2.csv"].read_text().splitlines()[0] == "top_k,note"


def test_nothing_is_written_when_something_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setenv("MIALIB_FIGURES", str(tmp_path))
    table = pd.DataFrame({"a": [1.0]})
    with pytest.raises(ValueError, match=r"bad suffix '\.\./x'"):
        report.save(RUN, "x", {"Adult": "M"}, [], {}, {"": table, "../x": table}, {})
    with pytest.raises(ValueError, match="it must have dataset"):
        report.save(RUN, "x", {"Adult": "M"}, [{"dataset": "Adult"}], {}, {"": table}, {})
    assert list(tmp_path.iterdir()) == []


def test_dots_marks_tiers_and_only_what_is_there():
    found = texts(plots.dots(rows(), "Attack precision", labels={"published": "Google"}))
    assert {"Adult  [R]", "MNIST  [S, substitute]", "Purchase-2  [M, simulated]"} <= set(found)
    assert {"Google", "ours, 95 % interval", "gap attack, ours", "ZeroR (0.5)", "ours simulated"} <= set(found)
    assert "published re-run" not in found
    real = texts(plots.dots(rows().head(2), "Attack precision", chance=None))
    assert not any("simulated" in text or "ZeroR" in text for text in real)


def test_dots_draws_the_values_in_their_rows():
    ax = plots.dots(rows(), "Attack precision").axes[0]
    drawn = {line.get_marker(): line for line in ax.get_lines()}
    assert drawn["D"].get_xdata().tolist() == [0.503, 0.517, 0.505]
    assert drawn["o"].get_xdata()[:2].tolist() == [0.51, 0.53]
    for marker in "Dox":
        assert np.round(drawn[marker].get_ydata()).tolist() == [0, 1, 2]
    ends = [path.vertices[:, 0].tolist() for path in ax.collections[0].get_paths()]
    assert ends[:2] == [[0.50, 0.52], [0.52, 0.54]]
    assert [patch.get_hatch() for patch in ax.patches] == ["///"]


def test_panels_carry_the_tier_when_it_is_theirs():
    table = pd.concat([rows().assign(panel="Location", tier="R"), rows().assign(panel="Texas", tier="M")])
    figure = plots.dots(table, "Precision")
    assert [ax.get_title() for ax in figure.axes] == ["Location\n[R]", "Texas\n[M, simulated]"]
    assert [len(ax.patches) for ax in figure.axes] == [0, 3]
    assert "Adult" in texts(figure)
    by_row = pd.concat([rows().assign(panel="Precision"), rows().assign(panel="Recall")])
    figure = plots.dots(by_row, "rate")
    assert [ax.get_title() for ax in figure.axes] == ["Precision", "Recall"]
    assert "Purchase-2  [M, simulated]" in texts(figure)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (rows().drop(columns=["low", "tier"]), "dots needs the columns tier, low"),
        (rows().head(0), "at least one row"),
        (rows().assign(tier="X"), "unknown tier 'X'; valid tiers: R, S, M"),
        (rows().assign(label="Adult"), "'Adult' appears twice"),
        (
            pd.concat([rows().assign(panel="a"), rows().assign(panel="b", tier=["M", "S", "M"])]),
            "belong to a row or to a panel",
        ),
    ],
)
def test_dots_refuses_what_it_cannot_draw_honestly(table, message):
    with pytest.raises(ValueError, match=message):
        plots.dots(table, "x")
    with pytest.raises(ValueError, match="labels are for"):
        plots.dots(rows(), "x", labels={"publishd": "Google"})


def test_caption_says_what_is_simulated():
    text = report.caption({"Adult": "R", "Purchase-2": "M", "MNIST": "S", "Texas-100": "M"}, RUN)
    assert "Real data: Adult." in text
    assert "not the paper's own data: MNIST." in text
    assert "SIMULATED" in text
    assert "Purchase-2, Texas-100." in text
    assert text.endswith("Profile demo, seed 0, notebook 01_table2.")
    assert "SIMULATED" not in report.caption({"Adult": "R"}, RUN)
    with pytest.raises(ValueError, match="unknown tier"):
        report.caption({"Adult": "real"}, RUN)


def test_style_is_colour_blind_safe_and_shows_three_decimals():
    with plt.rc_context(), pd.option_context("display.precision", 6):
        report.style()
        colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
        assert [round(channel, 2) for channel in colours[0]] == [0.0, 0.45, 0.7]  # the palette's blue
        assert "0.123\n" in repr(pd.DataFrame({"a": [0.123456]})) + "\n"


def test_a_compact_table_holds_every_row_on_a_line():
    index = pd.MultiIndex.from_product([["Table 1"], range(600)], names=["exhibit", "n"])
    table = pd.DataFrame({"ours": np.linspace(0, 1, 600), "note": "a < b, " + "long " * 60}, index=index)
    table.iloc[0, 0] = np.nan
    report.style()  # cuts texts in the usual display
    html = report.compact(table)
    assert html.count("\n<tr") == 602 == html.count("\n")  # two lines of headings
    assert "<td>0.501</td>" in html and "nan" not in html.lower()
    assert html.count("a &lt; b, " + "long " * 59) == 600


def counted_cells():
    """Cells of one record: two primary readings with a verdict, another reading, and three without a verdict."""
    base = {"dataset": "A", "model": "NN", "published": 0.5, "primary": True, "chance": None, "tolerance": 0.05}
    base |= dict.fromkeys(("std", "value", "low", "high"), 0.5) | {"setting": "s", "metric": "m", "tier": "R"}
    base |= {"point_verdict": "differs", "note": "", "cause": ""}
    verdicts = [
        {"verdict": "reproduced", "chance": 0.5},
        {"verdict": "differs"},
        {"verdict": "differs", "primary": False},
        {"verdict": "undecided", "cause": "no interval"},
        {"verdict": "not comparable", "cause": "simulated data; few shadows"},
        {"verdict": "not comparable", "cause": "few shadows"},
        {"verdict": "not comparable", "cause": "no published number", "published": None},
    ]
    return [base | more for more in verdicts]


def test_a_record_is_counted_by_distinct_numbers():
    assert report.counted(counted_cells()) == {
        "published numbers": 5,
        "reproduced": 1,
        "of them by guessing too": 1,
        "differs": 1,
        "undecided": 1,
        "not comparable": 2,
    }
    said = "{count: reproduced} of {count: published numbers}, {count: of them by guessing too} by chance"
    assert report.filled([said], counted_cells()) == ["1 of 5, 1 by chance"]
    with pytest.raises(ValueError, match=r"\{count: same\} is none of published numbers, reproduced, of them by"):
        report.filled(["{count: same}"], counted_cells())


def test_overview_counts_what_remains_by_cause(tmp_path, monkeypatch):
    monkeypatch.setenv("MIALIB_FIGURES", str(tmp_path))
    assert report.scorecard("demo").empty and report.remaining("demo").empty
    for number, cells in enumerate((counted_cells(), counted_cells()[4:5])):
        record = {"exhibit": f"Table {number}", "profile": "demo", "cells": cells}
        (tmp_path / f"{number}.json").write_text(json.dumps(record))
    assert report.scores("demo")["published numbers"].to_dict() == {"Table 0": 5, "Table 1": 1}
    assert report.scorecard("demo").index.get_level_values("exhibit").value_counts().to_dict() == {
        "Table 0": 5,
        "Table 1": 1,
    }
    assert report.remaining("demo").values.tolist() == [
        ["differs", "A, NN", 1, 1, "Table 0"],
        ["undecided", "no interval", 1, 1, "Table 0"],
        ["not comparable", "few shadows", 3, 1, "Table 0; Table 1"],
        ["not comparable", "simulated data", 2, 0, "Table 0; Table 1"],
    ]
