"""Sweeps over seeds, on a toy notebook."""

import json
import statistics

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from companion import __main__ as command_line
from companion import jobs, options, sweep
from mialib.results.published import CELL

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
T_TWO, T_NINE = 4.30265, 2.26216  # Student's t, 97.5 %, with 2 and 9 degrees of freedom (printed tables)
CODE = f"""
import json
from mialib import config
if seed == 3: raise OSError("no seed 3")
cell = dict.fromkeys({CELL}) | {{"dataset": "toy", "setting": "", "metric": "accuracy", "published": 0.5, "tier": "R"}}
cells = [cell | {{"value": (seed * seed + k) / 10}}, cell | {{"metric": "missing", "published": None}}]
record = json.dumps({{"exhibit": "Toy table", "cells": cells}})
(config.figures_dir(profile) / "01_toy.json").write_text(record)
"""


def write(folder, code=CODE, parameters='profile = "laptop"\nseed = 0\nk = 1\nrate = 0.5'):
    cells = [new_code_cell(parameters, metadata={"tags": ["parameters"]}), new_code_cell(code)]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), folder / "01_toy.ipynb")


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write(folder)
    monkeypatch.setattr(jobs, "NOTEBOOKS", folder)
    return folder


def job(out, seed, **changes):
    return jobs.Job(out / "01_toy.ipynb", out / f"seed-{seed}", "demo", seed, **changes)


def left(out, seed, *cells):
    """A finished job with a record of these cells."""
    done = job(out, seed)
    (done.out / "figures").mkdir(parents=True)
    record = {"exhibit": "Toy table", "cells": [dict.fromkeys(CELL) | cell for cell in cells]}
    (done.out / "figures" / "01_toy.json").write_text(json.dumps(record), encoding="utf-8")
    return done


def test_sweep_from_the_command_line(notebooks, tmp_path, capsys):
    command = ["run", "01", "--set", "k=2", "--out", str(tmp_path / "out"), "--workers", "2", "--parallel", "2"]
    assert command_line.main([*command, "--seeds", "0..1"]) == 0
    capsys.readouterr()
    assert command_line.main([*command, "--seeds", "2..3"]) == 1  # the table holds the runs of both
    printed = capsys.readouterr().out
    assert "1 of 2 notebooks failed" in printed and "  01_toy seed 3: cell [3] `" in printed and "no seed 3" in printed
    folder = tmp_path / "out" / "sweep" / "k=2"
    assert sorted(path.name for path in folder.iterdir()) == [*(f"seed-{i}" for i in range(4)), "table.csv"]
    values = [0.2, 0.3, 0.6]
    half = T_TWO * statistics.stdev(values) / 3**0.5
    assert half > statistics.mean(values)
    cells = pd.read_csv(folder / "table.csv").set_index("metric")
    assert list(cells.loc["accuracy", ["published", "seeds"]]) == [0.5, 3]
    found = list(cells.loc["accuracy", ["mean", "low", "high"]].astype(float))
    assert found == pytest.approx(
        [statistics.mean(values), 0, sum(values) / 3 + half],
        1e-5,  # an accuracy is not below 0
    )
    assert cells.loc["missing", "seeds"] == 0 and cells.loc["missing", ["mean", "low", "high"]].isna().all()
    [line] = [line for line in printed.splitlines() if " accuracy " in line]
    assert line.split()[-5:] == ["0.500", "0.367", "0.000", "0.884", "3"] and "missing" not in printed


def test_table_over_seeds(tmp_path):
    one, two = ({"dataset": "toy", "setting": s, "metric": "auc", "tier": "S", "published": 0.9} for s in ("x", "y"))
    done = [left(tmp_path, seed, one | {"value": seed / 10}, two) for seed in range(9)]
    done.append(left(tmp_path, 9, two | {"value": 0.7}, one | {"value": 0.9}))
    done.append(job(tmp_path, 10))  # such as the overview, which leaves no record
    table = sweep.table(done)
    assert list(table["setting"]) == ["x", "y"] and list(table["seeds"]) == [10, 1]
    half = T_NINE * statistics.stdev(range(10)) / 10 / 10**0.5
    assert list(table.loc[0, ["mean", "low", "high"]]) == pytest.approx([0.45, 0.45 - half, 0.45 + half], 1e-5)
    assert table.loc[1, "mean"] == 0.7 and table.loc[1, ["low", "high"]].isna().all()
    path = sweep.write(done, tmp_path)
    assert sweep.shown(path).splitlines()[2].split() == ["01", "toy", "S", "y", "auc", "0.900", "0.700", "1"]
    assert sweep.shown(sweep.write([], tmp_path)) == "no run left a record with numbers"


def test_a_spreadsheet_runs_no_cell_of_the_table(tmp_path):
    cells = [{"dataset": "=1+1", "setting": "@x", "metric": "auc", "tier": "R", "value": -0.5}]
    written = sweep.write([left(tmp_path, 0, *cells)], tmp_path).read_text(encoding="utf-8")
    row = written.splitlines()[1].split(",")
    assert "'=1+1" in row and "'@x" in row and "-0.5" in row


def test_a_folder_each(tmp_path):
    def folders(**settings):
        planned = [job(tmp_path, 0, settings=tuple(sorted(settings.items())))]
        return [each.out.relative_to(tmp_path / "seed-0").as_posix() for each in sweep.spread(planned, [0, 7])]

    assert folders() == ["sweep/default/seed-0", "sweep/default/seed-7"]
    assert folders(k=3, a="x y")[0] == "sweep/a=x%20y,k=3/seed-0"
    assert folders(a="../x")[0].count("/") == 2
    assert folders(a="A")[0].lower() != folders(a="a")[0]
    long = [folders(a="x" * 300 + end)[0] for end in "ab"]
    assert long[0] != long[1] and max(map(len, long)) < 130


def test_seeds_as_written():
    assert options.seeds("0..9") == list(range(10))
    assert options.seeds("7") == [7]
    assert options.seeds("5..7,0,6") == [0, 5, 6, 7]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seeds", "9..0"], 'such as "0..9"'),
        (["--seeds", "0...3"], 'such as "0..9"'),
        (["--seeds", ""], 'such as "0..9"'),
        (["--seeds", "0..1000"], "at most 1000"),
        (["--seeds", "0..999,1000"], "at most 1000"),
        (["--seeds", "0..3", "--seed", "1"], "not allowed together"),
        (["--set", "epochs=3"], "01_toy has no parameter epochs; its parameters: profile, seed, k, rate"),
        (["--set", "k=x"], "k must be of the type of its default, 1, not 'x'"),
        (["--set", "k=1.5"], "k must be of the type of its default, 1, not 1.5"),
        (["--set", "k=True"], "not True"),
        (["--set", "k"], "must be NAME=VALUE"),
        (["--set", "k="], "must be NAME=VALUE"),
        (["--set", "seed=1"], "seed has an option of its own: --seed"),
        (["--set", "k=1", "--set", "k=2"], "set twice"),
    ],
)
def test_refused_in_one_line(arguments, told, notebooks, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        command_line.main(["run", "01", "--out", str(tmp_path / "out"), *arguments])
    captured = capsys.readouterr()
    assert told in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    assert not (tmp_path / "out").exists()
