"""A committed notebook or figure that is not what a run left is found out."""

import copy
import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from companion import committed, jobs, publish
from mialib import config

STEM = "01_toy_table1"
CELL = {"dataset": "Toy", "setting": "all", "metric": "auc", "published": 0.7, "verdict": "differs", "primary": True}


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
        f"figures/{STEM}.json": json.dumps({"profile": "laptop", "seed": 0, "cells": [CELL | {"value": 0.51}]}),
        "figures/02_other.csv": "a\n1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(config, "ROOT", tmp_path)
    parameters = new_code_cell('profile = "laptop"\nseed = 0', metadata={"tags": ["parameters"]}, execution_count=1)
    code = new_code_cell("%matplotlib inline\nfrom mialib import main\nmain.f()", execution_count=3)
    line = "mialib 1 · profile laptop · seed 0\n"
    code.outputs = [
        new_output("stream", text=line),
        new_output("execute_result", {"text/plain": "0.513"}, execution_count=3),
    ]
    notebook = new_notebook(cells=[new_markdown_cell("# Toy"), parameters, code])
    ran = copy.deepcopy(notebook)
    ran.cells.insert(2, new_code_cell("seed = 0", metadata={"tags": ["injected-parameters"]}))
    stamp = committed.stamp(ran, committed.files_of(STEM, tmp_path / "figures"))
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
    "the record": (replaced(f"figures/{STEM}.json", "0.51", "[]"), f"{STEM}.json is not what the run wrote"),
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

    text = "from mialib.results import published, report"
    assert code(text) == code(f"{text}\n\n# nothing") == code(text, "%matplotlib inline")
    assert code(text) != code(f"{text}\nreport.style()")


def test_files_of_notebooks_whose_names_begin_alike(tmp_path):
    names = ["01_a.json", "01_a.png", "01_a_x.csv", "01_a_b.json", "01_a_b.png", "01_a_b_x.csv", "01_a-Copy1.json",
             "01_[a].json", "01_[a].png", "01_a_c.png", "01_ab.png"]  # fmt: skip
    for name in names:
        (tmp_path / name).touch()

    def found(stem):
        return [path.name for path in committed.files_of(stem, tmp_path)]

    assert found("01_a") == ["01_a.json", "01_a.png", "01_a_c.png", "01_a_x.csv"]
    assert found("01_a_b") == ["01_a_b.json", "01_a_b.png", "01_a_b_x.csv"]
    assert found("01_[a]") == ["01_[a].json", "01_[a].png"]
    assert found("01_a-Copy1") == ["01_a-Copy1.json"]
    assert found("01_a_c") == ["01_a_c.png"]
    assert found("01_*") == []
    assert committed.files_of("01_a", tmp_path / "gone") == []


# --- changed code or cells, equal numbers ---------------------------------------------------------------------------

READING = """report.reading(
    run,
    comes_out="We have {value: Toy | all | auc}, the paper {published: Toy | all | auc}.",
    differs="It {verdict: Toy | all | auc}.",
    take_away="Toys.",
)"""
DOT = {"image/png": "iVBO", "text/plain": "<Figure>"}


def executed(house, name, value=0.5, high=0.6, versions="1", shown=()):
    """The notebook as the present code runs it in `demo`, with its record; the folder of the results.

    `shown`: what its last cell but a reading puts out beside the rest.
    """
    out = house / name
    for folder in ("notebooks", "figures"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    cells = [{"metric": "auc", "value": value, "low": 0.4, "high": high}]
    record = {"profile": "demo", "seed": 0, "cells": cells, "run": {"versions": versions}}
    (out / "figures" / f"{STEM}.json").write_text(json.dumps(record), encoding="utf-8")
    notebook = read(house)
    [*_, last] = [cell for cell in notebook.cells if cell.cell_type == "code" and not committed.words(cell)]
    last.outputs += shown
    made = committed.stamp(notebook, committed.files_of(STEM, out / "figures"))
    notebook.metadata["mialib"] = made | {"itself": jobs.UNSEALED}
    (out / "notebooks" / NOTEBOOK).write_bytes(jobs.sealed(nbformat.writes(notebook).encode()))
    return out


def read(house):
    return nbformat.read(house / NOTEBOOK, as_version=4)


def edit(house, change):
    notebook = read(house)
    change(notebook)
    nbformat.write(notebook, house / NOTEBOOK)


def refactor(house):
    replaced("mialib/low.py", "N = 1", "N = 2 - 1")(house)
    assert faults(house) == [committed.STALE]


def rename(house):
    replaced(NOTEBOOK, "import main", "import main as m")(house)
    replaced(NOTEBOOK, "main.f()", "m.f()")(house)
    assert faults(house) == [committed.EDITED]


def add_reading(house, text=READING):
    edit(house, lambda notebook: notebook.cells.extend([new_markdown_cell("## Reading"), new_code_cell(text)]))


def carry(house, before, now):
    return publish.carry(before, now, house, house / "figures")


def test_changed_code_with_equal_numbers_is_carried(house):
    before, former = executed(house, "before"), read(house)
    refactor(house)
    assert [path.name for path in carry(house, before, executed(house, "now", high=0.55))] == [NOTEBOOK]
    assert faults(house) == [] and read(house).cells == former.cells
    proof = {"code": former.metadata.mialib.code, "profile": "demo", "equal": 1, "intervals changed": 1}
    assert read(house).metadata.mialib.carried == [proof]
    assert carry(house, before, before) == []  # nothing is stale any more
    replaced("mialib/low.py", "2 - 1", "3 - 2")(house)
    assert faults(house) == [committed.STALE]


def test_changed_cells_that_show_the_same_are_carried(house):
    """With a reading more, another line of `runs.start` and another picture of the same numbers."""
    shown = [new_output("stream", text=text) for text in ("one\n", "mialib 2 · profile demo\n", "two\n")]
    before, former = executed(house, "before", shown=[*shown, new_output("display_data", DOT)]), read(house)
    rename(house)
    add_reading(house)
    shown = [new_output("stream", text="one\ntwo\n"), new_output("display_data", DOT | {"image/png": "iVBOR"})]
    assert [path.name for path in carry(house, before, executed(house, "now", shown=shown))] == [NOTEBOOK]
    assert faults(house) == []
    notebook, made = read(house), former.metadata.mialib
    assert [proof["source"] for proof in notebook.metadata.mialib.carried] == [made.source]
    assert notebook.metadata.mialib.carried[0].cells == 2 and notebook.metadata.mialib.outputs == made.outputs
    assert notebook.cells[2].outputs == former.cells[2].outputs and "m.f()" in notebook.cells[2].source
    assert notebook.cells[-1].execution_count == 4


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda house: executed(house, "now", value=0.5000001), "its numbers changed"),
        (lambda house: executed(house, "now", versions="2"), "other libraries"),
        (lambda house: executed(house, "now", shown=[new_output("stream", text="new")]), "shows something else"),
        (lambda house: replaced(f"now/notebooks/{NOTEBOOK}", "0.513", "0.613")(house), "was edited after the run"),
        (lambda house: replaced("data/published/table_a.csv", "1", "2")(house), "not run by the present code"),
        (lambda house: retold(house), "published numbers or sizes changed"),
        (lambda house: replaced("mialib/low.py", "2 - 1", "3 - 2")(house), "not run by the present code"),
        (lambda house: replaced(f"now/figures/{STEM}.json", "0.5,", "0.5 ,")(house), "not what the run wrote"),
        (lambda house: (house / "now" / "notebooks" / NOTEBOOK).unlink(), "no executed notebook"),
        (lambda house: executed(house, "before"), "not run by the code that made the committed"),
        (lambda house: replaced(NOTEBOOK, "0.513", "0.613")(house), "an output was edited"),
        (lambda house: rename_after(house), "not run by the present code"),
        (lambda house: rename_after(house, new_output("stream", text="new")), "`%matplotlib inline` shows something"),
        (lambda house: rename_after(house, new_output("display_data", DOT)), "shows something else than before"),
        (lambda house: more_code(house), "an output was edited"),
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


def retold(house):
    """A published number changes, and the notebook is run again: demo has no verdicts that would show it."""
    replaced("data/published/table_a.csv", "1", "2")(house)
    executed(house, "now")


def rename_after(house, *shown):
    replaced(NOTEBOOK, "main.f()", "main.f( )")(house)
    if shown:
        executed(house, "now", shown=shown)


def more_code(house):
    edit(house, lambda notebook: notebook.cells.append(new_code_cell("1")))
    executed(house, "now")


# --- readings -------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_reading(house):
    before = executed(house, "before")
    add_reading(house)
    assert faults(house) == [committed.EDITED, committed.REWORDED]
    carry(house, before, executed(house, "now"))
    assert faults(house) == []
    return house


def test_a_reading_that_is_edited_in_words_needs_no_run(with_reading):
    [shown] = read(with_reading).cells[-1].outputs
    assert shown.data["text/markdown"].startswith("**What comes out.** We have .510, the paper .700.\n\n**What differs")
    assert shown.data["text/markdown"].endswith("\n\n*Profile laptop, seed 0; the numbers are this run's.*")
    replaced(NOTEBOOK, '\\"Toys.\\"', '\\"Only {count: differs} toy. Not of table_b.\\"')(with_reading)
    assert faults(with_reading) == [committed.REWORDED]
    assert [path.name for path in carry(with_reading, with_reading / "none", with_reading / "none")] == [NOTEBOOK]
    assert faults(with_reading) == []
    assert "**What to take away.** Only 1 toy." in read(with_reading).cells[-1].outputs[0].data["text/markdown"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda house: replaced(NOTEBOOK, "We have .510", "We have .610")(house), committed.REWORDED),
        (lambda house: edit(house, lambda notebook: notebook.cells[-1].outputs.clear()), committed.REWORDED),
        (
            lambda house: replaced(NOTEBOOK, "Toys.", "Toys {ours: Toy | all | auc}.")(house),
            "{ours: …} is none of value",
        ),
    ],
)
def test_a_reading_that_says_something_else_is_found_out(change, told, with_reading):
    change(with_reading)
    assert any(told in fault for fault in faults(with_reading))


@pytest.mark.parametrize(
    "text", [READING.replace('"Toys."', 'f"Toys."'), f"run = 1\n{READING}", READING.replace("differs=", "why=")]
)
def test_only_a_call_with_three_literal_texts_is_a_reading(text):
    assert committed.words(new_code_cell(READING)) and not committed.words(new_code_cell(text))
