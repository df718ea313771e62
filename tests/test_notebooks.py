"""Every notebook: run in the `demo` profile as the command line does, and read as committed."""

import ast
import json
import math
import re
import shutil

import nbformat
import pytest

from companion import committed, jobs, runner
from mialib import config
from mialib.results import published

PATHS = sorted(jobs.NOTEBOOKS.glob("*.ipynb"))
CELL_TYPES = dict.fromkeys(("published", "std", "tolerance", "value", "low", "high", "chance"), float)
CELL_TYPES |= dict.fromkeys(("dataset", "model", "setting", "metric", "point_verdict", "cause", "note"), str)
CELL_TYPES["primary"] = bool

each = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


REPEATED = "01_shokri_table2_datasets"


@pytest.fixture(scope="session")
def out(tmp_path_factory):
    """Results of all notebooks in `demo`: those of `make figures` that are up to date, and the rest run here.

    Up to date says that this code, these cells and data made them and that no byte changed since. They are copied, as
    no test writes into a user's results. The cache is the user's, so that a second `make test` trains nothing.
    """
    folder = tmp_path_factory.mktemp("demo")
    for job in jobs.plan([], "demo", 0, config.ROOT / "build" / "demo"):
        if jobs.state(job) == "done":
            for path in (job.executed, job.html, *job.figures()):
                copy = folder / path.relative_to(job.out)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
    assert runner.run(jobs.plan([], "demo", 0, folder)) == {}
    return folder


def code(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert [path.stem for path in PATHS][:1] == ["00_overview"]
    assert len(PATHS) >= 3


@each
def test_runs_in_demo(path, out):
    job = jobs.Job(path, out, "demo", 0)
    assert jobs.state(job) == "done"
    executed = nbformat.read(job.executed, as_version=4)
    assert runner.fault(executed) == ""
    assert job.html.stat().st_size > 10_000


@each
def test_demo_record(path, out):
    if not saves(path):
        assert path.stem.startswith("00"), "an exhibit ends in report.save"
        return
    record = json.loads((out / "figures" / f"{path.stem}.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    check_record(record, path.stem, "demo")
    # Embedded data and small sizes earn no verdict.
    assert {cell["verdict"] for cell in record["cells"]} == {"not comparable"}
    kinds = {file.suffix for file in jobs.Job(path, out, "demo", 0).figures()}
    assert kinds >= {".pdf", ".png", ".svg", ".csv", ".tex", ".json"}


def test_same_seed_gives_the_same_record(out, tmp_path):
    """An empty cache (conftest.py gives each test its own) and other workers against the first run."""
    first = json.loads((out / "figures" / f"{REPEATED}.json").read_text(encoding="utf-8"))
    workers = 1 if first["run"]["threads"]["workers"] > 1 else 2
    assert runner.run(jobs.plan([REPEATED], "demo", 0, tmp_path), workers=workers) == {}
    second = json.loads((tmp_path / "figures" / f"{REPEATED}.json").read_text(encoding="utf-8"))
    assert second["run"]["threads"]["workers"] == workers
    assert first.pop("run") != second.pop("run")
    assert first == second


@each
def test_committed_record_and_figures(path):
    if saves(path):
        folder = config.ROOT / "figures"
        check_record(json.loads((folder / f"{path.stem}.json").read_text(encoding="utf-8")), path.stem, "laptop")
        assert {file.suffix for file in committed.files_of(path.stem, folder)} >= {".pdf", ".png", ".csv", ".tex"}


@each
def test_simulated_data_are_called_simulated(path, out):
    if saves(path):
        record = json.loads((out / "figures" / f"{path.stem}.json").read_text(encoding="utf-8"))
        printed = [output.get("text", "") for cell in code(out / "notebooks" / path.name) for output in cell.outputs]
        simulated = {cell["dataset"] for cell in record["cells"] if cell["tier"] == "M"}
        assert not simulated or "simulated" in " ".join(printed).lower()
        notes = [cell["note"] for cell in record["cells"] if cell["tier"] == "M"]
        assert all("simulated" in note for note in notes)


@each
def test_parameters_cell(path):
    tagged = [cell for cell in code(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert tagged[0].source.split("\n") == ['profile = "laptop"', "seed = 0"]
    assert nbformat.read(path, as_version=4).metadata.kernelspec.name == "python3"


@each
def test_ends_in_a_reading(path):
    *_, heading, last = nbformat.read(path, as_version=4).cells
    if path.stem.startswith("00"):  # no exhibit: it ends in how to read a number
        assert last.cell_type == "markdown" and len(re.findall(r"[.!?](?:\s|$)", last.source)) >= 3
    else:
        assert heading.source == "## Reading" and "hide-input" in last.metadata.tags
        assert all(len(re.findall(r"[.!?](?:\s|$)", text)) >= 2 for text in committed.words(last))


@each
def test_readings_take_their_numbers_from_the_record(path):
    """No typed decimal, none that the record lacks, and what is shown is what the words and the record give."""
    notebook = nbformat.read(path, as_version=4)
    again = committed.reread(notebook, config.ROOT / "figures" / f"{path.stem}.json")
    for cell, made in zip(notebook.cells, again.cells, strict=True):
        if texts := committed.words(cell):
            assert not re.findall(r"(?<![\w,])\d*\.\d+", re.sub(r"\{[^{}]*\}", "", " ".join(texts)))
            assert cell.outputs == made.outputs and "n/a" not in cell.outputs[0].data["text/markdown"]


@each
def test_is_thin(path):
    cells = [cell for cell in code(path) if not committed.words(cell)]
    assert len(cells) <= 15
    assert max(len(cell.source.splitlines()) for cell in cells) <= 15
    banned = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.While, ast.Try)
    libraries = set()
    for cell in cells:
        tree = ast.parse(cell.source)
        assert not [node for node in ast.walk(tree) if isinstance(node, banned)], cell.source
        assert not [node for node in tree.body if isinstance(node, ast.For) and trains(node)], cell.source
        assert not re.search(r"[\"'](\.{0,2}/|data/|build/|figures/)", cell.source), f"a path in: {cell.source}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                libraries |= {node.module} if isinstance(node, ast.ImportFrom) else {n.name for n in node.names}
    assert {name.split(".")[0] for name in libraries} <= {"mialib", "pandas", "numpy", "matplotlib", "IPython"}


def trains(loop):
    return any(isinstance(node, ast.Attribute) and node.attr in ("fit", "fit_many", "step") for node in ast.walk(loop))


@each
def test_committed_with_clean_outputs(path):
    assert path.stat().st_size < 500_000
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert runner.fault(notebook) == ""
    assert "papermill" not in notebook.metadata
    assert all("injected-parameters" not in cell.metadata.get("tags", []) for cell in notebook.cells)
    outputs = [output for cell in code(path) for output in cell.outputs]
    assert any("text/plain" in output.get("data", {}) for output in outputs)
    assert "stderr" not in {output.get("name") for output in outputs}


@each
def test_shows_each_figure_once(path):
    shown = [
        output.data["image/png"]
        for cell in code(path)
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(shown) == len(set(shown))


@each
def test_committed_is_what_a_run_of_this_code_left(path):
    assert committed.faults(path, config.ROOT / "figures") == [], "make figures PROFILE=laptop && make publish"


def test_every_committed_figure_belongs_to_a_notebook():
    folder = config.ROOT / "figures"
    owned = {file.name for path in PATHS for file in committed.files_of(path.stem, folder)}
    assert {path.name for path in folder.iterdir()} - owned == {"README.md"}


def saves(path):
    return any("report.save(" in cell.source for cell in code(path))


def check_record(record, stem, profile):
    """The schema of figures/*.json."""
    assert set(record) == {"exhibit", "notebook", "profile", "seed", "cells", "run"}
    assert (record["notebook"], record["profile"], record["seed"]) == (stem, profile, 0)
    assert set(record["run"]) == {"commit", "versions", "device", "threads", "seconds", "data", "date"}
    assert record["cells"]
    for cell in record["cells"]:
        assert set(cell) == set(published.CELL)
        assert cell["verdict"] in published.VERDICTS
        # A published number that was not computed in this run has no value and no tier.
        assert (cell["tier"] in published.TIERS) == (cell["tier"] is not None)
        assert cell["tier"] is not None or cell["value"] is None
        for key, kind in CELL_TYPES.items():
            assert isinstance(cell[key], kind) or (kind is float and cell[key] is None), (key, cell)
        if cell["verdict"] != "not comparable":
            assert cell["tier"] != "M"
            assert math.isfinite(cell["value"]) and math.isfinite(cell["published"])
        if None not in (cell["low"], cell["high"]):
            assert cell["low"] <= cell["high"]
    # Every number of its own table has one primary reading, or is not computed.
    name = "_".join(stem.split("_")[1:3])
    for row in published.load(name).dropna(subset="published").itertuples() if name in published.tables() else ():
        key = row.dataset, ", ".join(filter(None, (row.setting, row.primary))), row.metric
        met = [cell for cell in record["cells"] if (cell["dataset"], cell["setting"], cell["metric"]) == key]
        assert [cell["primary"] for cell in met] == [True], key
        assert met[0]["value"] is not None or met[0]["cause"], key
