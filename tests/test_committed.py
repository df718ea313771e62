"""A committed notebook or figure that is not what a run left is found out."""

import copy
import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from mialib import batch, committed, config, runs

STEM = "01_toy_table1"


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A project with one published notebook: `main` uses `low` and table_a, nobody uses `other` and table_b."""
    files = {
        "mialib/__init__.py": '__version__ = "1"\n',
        "mialib/main.py": 'from mialib import low\n\n\ndef f():\n    """Why."""\n    return "table_a", low.N  # why\n',
        "mialib/low.py": '"""Words."""\n\nN = 1\n',
        "mialib/other.py": "N = 1\n",
        "data/published/table_a.csv": "value\n1\n",
        "data/published/table_b.csv": "value\n1\n",
        f"figures/{STEM}.csv": "a\n1\n",
        f"figures/{STEM}.json": "{}\n",
        "figures/02_other.csv": "a\n1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(config, "ROOT", tmp_path)
    parameters = new_code_cell('profile = "laptop"\nseed = 0', metadata={"tags": ["parameters"]})
    code = new_code_cell("%matplotlib inline\nfrom mialib import main\nmain.f()", execution_count=1)
    code.outputs = [new_output("execute_result", {"text/plain": "0.513"}, execution_count=1)]
    notebook = new_notebook(cells=[new_markdown_cell("# Toy"), parameters, code])
    ran = copy.deepcopy(notebook)
    ran.cells.insert(2, new_code_cell("seed = 0", metadata={"tags": ["injected-parameters"]}))
    stamp = committed.stamp(ran, runs.files_of(STEM, tmp_path / "figures"))
    notebook.metadata["mialib"] = {"profile": "laptop", "seed": 0} | stamp
    nbformat.write(notebook, tmp_path / f"{STEM}.ipynb")
    return tmp_path


def faults(house):
    return committed.faults(house / f"{STEM}.ipynb", house / "figures")


def beside(house):
    """Another notebook whose name begins alike, and what it saved."""
    for name in (f"{STEM}_more.json", f"{STEM}_more_by_class.csv", f"{STEM}-Copy1.pdf"):
        (house / "figures" / name).touch()


def replaced(name, old, new):
    def change(house):
        text = (house / name).read_text(encoding="utf-8")
        assert old in text
        (house / name).write_text(text.replace(old, new), encoding="utf-8")

    return change


NOTEBOOK = f"{STEM}.ipynb"
HARMLESS = {
    "a comment": replaced("mialib/main.py", "# why", "# because"),
    "a docstring": replaced("mialib/low.py", "Words", "Others\n\nand more"),
    "a module it does not use": replaced("mialib/other.py", "1", "2"),
    "a table it does not use": replaced("data/published/table_b.csv", "1", "2"),
    "a new table": lambda house: (house / "data" / "published" / "table_c.csv").write_text(
        "value\n1\n", encoding="utf-8"
    ),
    "a new module": lambda house: (house / "mialib" / "new.py").write_text("N = 1\n", encoding="utf-8"),
    "the version": replaced("mialib/__init__.py", "1", "2"),
    "a notebook whose name begins alike": beside,
    "another exhibit": replaced("figures/02_other.csv", "1", "2"),
}
PLANTED = {
    "an output": (replaced(NOTEBOOK, "0.513", "0.613"), "an output was edited"),
    "a cell": (replaced(NOTEBOOK, "main.f()", "main.f( )"), "a cell was edited"),
    "a text": (replaced(NOTEBOOK, "# Toy", "# Joy"), "a cell was edited"),
    "the seed": (replaced(NOTEBOOK, '"seed = 0"', '"seed = 1"'), "a cell was edited"),
    "the recorded seed": (replaced(NOTEBOOK, '"seed": 0', '"seed": 1'), "its parameters are not those"),
    "a table": (replaced(f"figures/{STEM}.csv", "1", "2"), f"{STEM}.csv is not what the run wrote"),
    "the record": (replaced(f"figures/{STEM}.json", "{}", "[]"), f"{STEM}.json is not what the run wrote"),
    "a lost file": (lambda house: (house / "figures" / f"{STEM}.csv").unlink(), f"{STEM}.csv is not what"),
    "a file too many": (lambda house: (house / "figures" / f"{STEM}_x.pdf").touch(), f"{STEM}_x.pdf is not what"),
    "code": (replaced("mialib/main.py", "low.N", "low.N + 1"), "mialib, or published numbers"),
    "code further down": (replaced("mialib/low.py", "1", "2"), "mialib, or published numbers"),
    "a published number": (replaced("data/published/table_a.csv", "1", "2"), "mialib, or published numbers"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_no_result_is_no_fault(name, house):
    HARMLESS[name](house)
    assert faults(house) == []


@pytest.mark.parametrize("name", PLANTED)
def test_planted_fault_is_named(name, house):
    change, told = PLANTED[name]
    change(house)
    assert any(told in fault for fault in faults(house)), faults(house)


def test_a_notebook_that_nobody_ran(house):
    notebook = nbformat.read(house / NOTEBOOK, as_version=4)
    del notebook.metadata["mialib"]
    nbformat.write(notebook, house / NOTEBOOK)
    assert faults(house) == ["it holds no record of a run"]


def test_code_of_a_real_notebook_reaches_down_to_the_floor():
    def code(*cells):
        return committed.code(new_notebook(cells=[new_code_cell(cell) for cell in cells]))

    text = "from mialib import published, report"
    assert code(text) == code(f"{text}\n\n# nothing") == code(text, "%matplotlib inline")
    assert code(text) != code(f"{text}\nreport.style()")


# --- changed code, equal numbers ------------------------------------------------------------------------------------


def executed(house, name, value=0.5, high=0.6, versions="1"):
    """The notebook as the present code runs it in `demo`, with its record; the folder of the results."""
    out = house / name
    for folder in ("notebooks", "figures"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    cells = [{"metric": "auc", "value": value, "low": 0.4, "high": high}]
    record = {"profile": "demo", "seed": 0, "cells": cells, "run": {"versions": versions}}
    (out / "figures" / f"{STEM}.json").write_text(json.dumps(record), encoding="utf-8")
    notebook = nbformat.read(house / NOTEBOOK, as_version=4)
    notebook.metadata["mialib"] = committed.stamp(notebook, runs.files_of(STEM, out / "figures"))
    nbformat.write(notebook, out / "notebooks" / NOTEBOOK)
    return out


def refactor(house):
    replaced("mialib/low.py", "N = 1", "N = 2 - 1")(house)
    assert faults(house) == [committed.STALE]


def carry(house, before, now):
    return batch.carry(before, now, house, house / "figures")


def test_changed_code_with_equal_numbers_is_carried(house):
    before = executed(house, "before")
    former = nbformat.read(house / NOTEBOOK, as_version=4)
    refactor(house)
    assert [path.name for path in carry(house, before, executed(house, "now", high=0.55))] == [NOTEBOOK]
    assert faults(house) == []
    notebook = nbformat.read(house / NOTEBOOK, as_version=4)
    assert notebook.cells == former.cells
    proof = {"code": former.metadata.mialib.code, "profile": "demo", "equal": 1, "intervals changed": 1}
    assert notebook.metadata.mialib.carried == [proof]
    assert carry(house, before, before) == []  # nothing is stale any more
    replaced("mialib/low.py", "2 - 1", "3 - 2")(house)
    assert faults(house) == [committed.STALE]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda house: executed(house, "now", value=0.5000001), "its numbers changed"),
        (lambda house: executed(house, "now", versions="2"), "other libraries"),
        (lambda house: replaced("mialib/low.py", "2 - 1", "3 - 2")(house), "not run by the present code"),
        (lambda house: replaced(f"now/figures/{STEM}.json", "0.5,", "0.5 ,")(house), "not what the run wrote"),
        (lambda house: (house / "now" / "notebooks" / NOTEBOOK).unlink(), "no executed notebook"),
        (lambda house: executed(house, "before"), "not run by the code that made the committed"),
        (lambda house: replaced(NOTEBOOK, "0.513", "0.613")(house), "an output was edited"),
    ],
)
def test_what_does_not_show_equal_numbers_is_not_carried(spoil, told, house):
    before = executed(house, "before")
    refactor(house)
    now = executed(house, "now")
    spoil(house)
    text = (house / NOTEBOOK).read_bytes()
    with pytest.raises(ValueError, match=told):
        carry(house, before, now)
    assert (house / NOTEBOOK).read_bytes() == text
