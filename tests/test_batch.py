"""The runner and the command line, on toy notebooks."""

import contextlib
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mialib import __main__ as command_line
from mialib import batch, config, datasets, published

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
VALUES = ("purchase-2", "NN", "all", "precision", 0.5, 0.6, 0.5, 0.7, "M", "differs", "")
CELL = dict(zip(published.CELL, VALUES, strict=True))
GOOD = f"""
from mialib import config
import json, sys
print(sys.executable, config.workers())
record = {{"exhibit": "Toy table", "cells": [{CELL}]}}
(config.figures_dir(profile) / "01_good.json").write_text(json.dumps(record))
"""
SLOW = """
import os, time
from pathlib import Path
Path("begun").write_text(str(os.getpid()))
while Path("hold").exists(): time.sleep(0.05)
"""
RUN = "import sys; from pathlib import Path; from mialib import batch; a = [Path(p) for p in sys.argv[1:]]; "
RUN += "batch.run(batch.plan(['03'], 'laptop', 0, 1, a[1], a[0]))"


def write(folder, stem, *codes, parameters='profile = "laptop"\nseed = 0'):
    cell = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell(f"# Title of {stem}\n$x^2$ [next](02_bad.ipynb)"), cell, *map(new_code_cell, codes)]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), folder / f"{stem}.ipynb")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Notebooks, results, what the command line printed and its exit code, of one run of three toys."""
    notebooks, out = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("out")
    write(notebooks, "00_overview", "print(sorted(p.name for p in __import__('pathlib').Path('figures').iterdir()))")
    write(notebooks, "01_good", GOOD, f"display({{'image/png': '{DOT}'}}, raw=True)")
    write(notebooks, "02_bad", "value = 1 / 0", "value")
    write(notebooks, "03_slow", SLOW)
    arguments = ["run", "00", "01_good", "02", "--profile", "laptop", "--workers", "2", "--out", str(out)]
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "NOTEBOOKS", notebooks)
        exit_code = command_line.main(arguments)
    return notebooks, out, printed.getvalue(), exit_code


@pytest.fixture
def copied(ran, tmp_path):
    """The good notebook and the overview alone, with their results: (notebooks, results), free to be changed."""
    for stem in ("00_overview", "01_good"):
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        shutil.copy(ran[0] / f"{stem}.ipynb", tmp_path / "notebooks")
    shutil.copytree(ran[1], tmp_path / "out")
    return tmp_path / "notebooks", tmp_path / "out"


def jobs(notebooks, out, names=(), seed=0):
    return batch.plan(names, "laptop", seed, 2, out, notebooks)


def states(notebooks, out):
    return {job.stem: batch.state(job) for job in jobs(notebooks, out)}


def edit(path, change):
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    nbformat.write(notebook, path)


def test_failing_notebook_is_named_and_the_others_go_on(ran):
    notebooks, out, printed, exit_code = ran
    assert exit_code == 1
    assert "1 of 3 notebooks failed" in printed
    assert printed.endswith("\n  02_bad: cell [3] `value = 1 / 0`: ZeroDivisionError: division by zero\n")
    ends = [line for line in printed.splitlines() if line.startswith("[") and not line.endswith("running")]
    assert [re.sub(r"\d+s", "Ns", line) for line in ends] == [
        "[1/3] 01_good  Ns  ok",
        "[2/3] 02_bad  Ns  FAILED",
        "[3/3] 00_overview  Ns  ok",
    ]
    assert states(notebooks, out) == {
        "01_good": "done",
        "02_bad": "unfinished",
        "03_slow": "not run",
        "00_overview": "done",
    }


def test_executed_notebook_used_this_interpreter_and_the_given_folders(ran):
    _, out, _, _ = ran
    notebook = nbformat.read(out / "notebooks" / "01_good.ipynb", as_version=4)
    assert batch.fault(notebook) == ""
    assert f"{sys.executable} 2\n" in notebook.cells[3].outputs[0].text
    overview = nbformat.read(out / "notebooks" / "00_overview.ipynb", as_version=4)
    assert "['01_good.json']" in overview.cells[3].outputs[0].text
    assert sys.executable in (out / "logs" / "01_good.log").read_text()


def test_page_needs_no_network_and_holds_its_images(ran):
    page = (ran[1] / "html" / "01_good.html").read_text()
    assert f"data:image/png;base64,{DOT}" in page
    assert "Title of 01_good" in page
    assert '<a href="02_bad.html">' in page
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[^>]*//|\bimport\b[^;]*//|cdnjs|unpkg", page)


def test_second_run_keeps_what_is_done(ran, capsys):
    notebooks, out, _, _ = ran
    before = (out / "notebooks" / "01_good.ipynb").stat().st_mtime_ns
    assert batch.run(jobs(notebooks, out, ["00", "01"])) == {}
    assert capsys.readouterr().out == "[1/2] 01_good  unchanged, kept\n[2/2] 00_overview  unchanged, kept\n"
    assert (out / "notebooks" / "01_good.ipynb").stat().st_mtime_ns == before


def test_what_makes_a_result_out_of_date(copied, monkeypatch):
    notebooks, out = copied
    (good,) = jobs(notebooks, out, ["01"])
    assert batch.state(replace(good, workers=1)) == "done"
    assert batch.state(replace(good, seed=1)) == "out of date"
    edit(good.source, lambda notebook: notebook.cells[2].update(outputs=[], execution_count=7))
    assert batch.state(good) == "done"
    edit(good.source, lambda notebook: notebook.cells[2].update(source="1 + 1"))
    assert batch.state(good) == "out of date"
    shutil.copy(out / "figures" / "01_good.json", out / "figures" / "02_other.json")
    (overview,) = jobs(notebooks, out, ["00"])
    assert batch.state(overview) == "out of date"
    (out / "figures" / "02_other.json").unlink()
    assert batch.state(overview) == "done"
    overview.html.unlink()
    assert batch.state(overview) == "out of date"
    monkeypatch.setattr(config, "ROOT", out)
    assert states(*copied) == {"01_good": "out of date", "00_overview": "out of date"}


def test_lost_figure_counts_and_fresh_runs_again(copied, capsys):
    (good,) = jobs(*copied, ["01"])
    (copied[1] / "figures" / "01_good.json").unlink()
    assert batch.state(good) == "out of date"
    (copied[1] / "figures" / "01_good.json").touch()
    assert batch.state(good) == "out of date"
    assert batch.run([good], fresh=True) == {}
    assert (copied[1] / "figures" / "01_good.json").stat().st_size > 0
    assert "kept" not in capsys.readouterr().out


def test_killed_runner_leaves_nothing_done_and_no_orphan(ran, tmp_path):
    (tmp_path / "hold").touch()
    runner = subprocess.Popen([sys.executable, "-c", RUN, str(ran[0]), str(tmp_path)], stdout=subprocess.DEVNULL)
    wait(lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text())
    kernel = int((tmp_path / "begun").read_text())
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    (job,) = jobs(ran[0], tmp_path, ["03"])
    assert batch.state(job) == "unfinished"
    assert not job.executed.exists()
    wait(lambda: not running(kernel))
    (tmp_path / "hold").unlink()
    assert batch.run([job]) == {}
    assert batch.state(job) == "done"


def wait(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def running(pid):
    """A zombie has ended too, and waits for init to notice."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_unknown_parameter_and_missing_kernel_are_refused(tmp_path):
    write(tmp_path, "01_seedless", "1", parameters="profile = 'demo'\nepochs = 3")
    with pytest.raises(ValueError, match=r"^01_seedless has no parameter seed; its parameters: profile, epochs$"):
        jobs(tmp_path, tmp_path)
    edit(tmp_path / "01_seedless.ipynb", lambda notebook: notebook.metadata.pop("kernelspec"))
    with pytest.raises(ValueError, match="01_seedless names no kernel"):
        jobs(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "--profile", "big"], "demo, laptop, paper"),
        (["list", "--profile", "big"], "demo, laptop, paper"),
        (["run", "04"], "00_overview, 01_good, 02_bad, 03_slow"),
        (["run", "01", "--seed", "x"], "whole number from 0"),
        (["run", "01", "--seed", "1.5"], "whole number from 0"),
        (["run", "01", "--seed", "-1"], "whole number from 0"),
        (["run", "01", "--workers", "0"], "whole number from 1"),
        (["fetch", "purchas"], ", ".join(dict.fromkeys(folder for folder, _ in datasets.SETS.values()))),
        (["walk"], "run"),
        (["run", "01", "-p", "epochs", "3"], "[--profile PROFILE] [--seed SEED]"),
    ],
)
def test_refused_in_one_line_that_lists_what_is_valid(arguments, told, ran, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(batch, "NOTEBOOKS", ran[0])
    monkeypatch.setattr(config, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="2"):
        command_line.main(arguments)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert told in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_command_line_ends_with_scorecard_and_where_to_look(ran, monkeypatch, capsys):
    notebooks, out, _, _ = ran
    monkeypatch.setattr(batch, "NOTEBOOKS", notebooks)
    monkeypatch.chdir(out.parent)
    assert command_line.main(["run", "01", "--profile", "laptop", "--out", out.name]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("[1/1] 01_good  unchanged, kept\n")
    assert "\nToy table " in printed
    assert f"\n  {out.name}/html " in printed


def test_command_line_list(ran, monkeypatch, capsys):
    monkeypatch.setattr(batch, "NOTEBOOKS", ran[0])
    assert command_line.main(["list", "--profile", "laptop", "--out", str(ran[1])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["01_good", "done", "Title", "of", "01_good"]
    assert len(lines) == 4


def test_scorecard_fits_a_screen_and_counts(tmp_path):
    assert batch.scorecard(tmp_path) == ""
    (tmp_path / "figures").mkdir()
    for number in range(19):
        cells = [
            CELL | {"setting": f"{'a long setting ' * 3}{i}", "dataset": "cifar-100-coarse-long"} for i in range(30)
        ]
        cells[7] |= {"tier": "R", "verdict": "reproduced", "dataset": "location-30"}
        cells[9] |= {"value": None, "low": None, "high": None, "verdict": "not comparable"}
        record = {"exhibit": f"Somebody et al. 2017, Table {number} " + "and so on " * 9, "cells": cells}
        (tmp_path / "figures" / f"{number:02}.json").write_text(json.dumps(record))
    lines = batch.scorecard(tmp_path).splitlines()
    assert len(lines) <= batch.HEIGHT
    assert max(map(len, lines)) <= batch.WIDTH
    assert lines[1].split()[-3:] == ["1", "28", "1"]
    for path in sorted((tmp_path / "figures").iterdir())[1:]:
        path.unlink()
    lines = batch.scorecard(tmp_path).splitlines()
    assert len(lines) == 2 + 2 + 20 + 1
    assert lines[-1].startswith("* simulated data")
    assert "cifar-100-coar…* a long" in lines[4]


def test_publish(copied, tmp_path):
    notebooks, out = copied
    written = batch.publish(out, notebooks, tmp_path / "figures")
    assert [path.name for path in written] == ["01_good.ipynb", "00_overview.ipynb", "01_good.json"]
    notebook = nbformat.read(notebooks / "01_good.ipynb", as_version=4)
    assert batch.fault(notebook) == ""
    assert len(notebook.cells) == 4
    assert str(tmp_path) not in (notebooks / "01_good.ipynb").read_text()
    assert not {"papermill", "mialib"} & notebook.metadata.keys()
    assert states(*copied) == {"01_good": "done", "00_overview": "done"}


def unexecuted(notebook):
    notebook.cells[3].execution_count = None


def failed(notebook):
    notebook.cells[3].outputs = [new_output("error", ename="SystemExit", evalue="0")]


def other_seed(notebook):
    notebook.metadata.mialib.seed = 1


def demo(notebook):
    notebook.metadata.mialib.profile = "demo"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (unexecuted, "never executed"),
        (failed, "SystemExit"),
        (other_seed, "'seed': 1"),
        (demo, "'profile': 'demo'"),
    ],
)
def test_publish_refuses_a_bad_run(change, told, copied, tmp_path):
    edit(copied[1] / "notebooks" / "01_good.ipynb", change)
    refused(copied, tmp_path, told)


def test_publish_refuses_what_is_missing_or_edited(copied, tmp_path):
    notebooks, out = copied
    edit(notebooks / "01_good.ipynb", lambda notebook: notebook.cells[2].update(source="1 + 1"))
    refused(copied, tmp_path, "01_good was edited")
    (out / "figures" / "01_good.json").unlink()
    refused(copied, tmp_path, "01_good: some of its figures are missing or changed")
    (out / "notebooks" / "01_good.ipynb").unlink()
    refused(copied, tmp_path, "01_good has no executed notebook")


def refused(copied, tmp_path, told):
    before = {path: path.read_bytes() for path in copied[0].iterdir()}
    with pytest.raises(ValueError, match=told):
        batch.publish(copied[1], copied[0], tmp_path / "figures")
    assert {path: path.read_bytes() for path in copied[0].iterdir()} == before
    assert not (tmp_path / "figures").exists()
