"""Holds committed notebooks and figures to what made them: digests taken when a notebook runs, checked ever after."""

import ast
import copy
import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mialib import config, source

Notebook = dict[str, Any]  # nbformat's, or the JSON itself with each cell's source as one text
EDITED = "a cell was edited after the run"
STALE = "mialib, or published numbers that it uses, changed after the run"
REWORDED = "a reading does not show its words with the numbers of the record"
TEXTS = ["comes_out", "differs", "take_away"]  # the arguments of `report.reading`


def files_of(stem: str, folder: Path, others: Iterable[str] = ()) -> list[Path]:
    """Sorted files in `folder` that the notebook `stem` has saved: named stem.* or stem_*.*.

    Names may begin alike ("01_a" and "01_a_b"): a file is of the longest stem that fits, among this one, `others` and
    those that have a record (<stem>.json) there.
    """
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    stems = {stem, *others, *(name.removesuffix(".json") for name in names if name.endswith(".json"))}
    longer = tuple(f"{other}{end}" for other in stems if other.startswith(f"{stem}_") for end in "._")
    own = [name for name in names if name.startswith((f"{stem}.", f"{stem}_")) and not name.startswith(longer)]
    return [folder / name for name in own]


def stamp(notebook: Notebook, figures: Iterable[Path]) -> dict[str, Any]:
    """What an executed notebook is made from and has made, as digests: source, code, outputs, figures (by name).

    The cell that papermill injects does not count: it is not committed. Nor do the words of a reading and what it
    shows, which follows from them and from the record: see `reread`.
    """
    cells = own(notebook)
    written = [(cell["cell_type"], _bare(cell), cell["metadata"].get("tags", [])) for cell in cells]
    printed = [cell["outputs"] for cell in cells if cell["cell_type"] == "code" and not words(cell)]
    return {
        "source": _digest(written),
        "code": code(notebook),
        "numbers": numbers(notebook),
        "outputs": _digest(json.dumps(printed, sort_keys=True)),
        "figures": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(figures)},
    }


def _digest(*parts: Any) -> str:
    from mialib import runs  # with NumPy, which to keep what is done does without

    return runs.digest(*parts)


def code(notebook: Notebook) -> str:
    """Digest of what a notebook uses: the code of mialib that it reaches (see `source`), and `numbers`.

    The notebook's own cells do not count.
    """
    return _digest(_reached(notebook)[0], numbers(notebook))


def numbers(notebook: Notebook) -> str:
    """Digest of the published tables and the sizes that a notebook uses: those whose names stand in what it reaches."""
    met = set(_reached(notebook)[1])
    folder = config.ROOT / "data" / "published"
    if "ledger" in met:  # it names the tables that it looks into
        met |= _words((folder / "ledger.csv").read_text(encoding="utf-8"))
    tables = [path for path in sorted(folder.glob("*.csv")) if path.stem in met]
    published = [(path.name, path.read_text(encoding="utf-8")) for path in tables]
    if (facts := folder / "tables.toml").exists():  # how they are read
        read = tomllib.loads(facts.read_text(encoding="utf-8"))
        published += [(kind, path.stem, found.get(path.stem)) for kind, found in read.items() for path in tables]
    papers = [path for path in sorted(config.ROOT.glob("mialib/papers/*/sizes.toml")) if path.parent.name in met]
    known = [tomllib.loads(path.read_text(encoding="utf-8")) for path in papers]
    return _digest(published, [{name: rows for name, rows in each.items() if _words(name) <= met} for each in known])


def _reached(notebook: Notebook) -> tuple[str, set[str]]:
    return source.of_text("\n".join(_python(_bare(cell)) for cell in own(notebook) if cell["cell_type"] == "code"))


def _bare(cell: Mapping[str, Any]) -> str:
    return "report.reading(run)" if words(cell) else cell["source"]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def _python(text: str) -> str:
    """A cell as Python reads it: IPython's %magic and !shell lines become calls."""
    try:
        ast.parse(text)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager  # takes long to import, and is seldom needed

        return TransformerManager().transform_cell(text)
    return text


def own(notebook: Notebook) -> list[dict[str, Any]]:
    """The cells of a notebook without the one that papermill injects."""
    return [cell for cell in notebook["cells"] if "injected-parameters" not in cell["metadata"].get("tags", [])]


def faults(path: Path, figures: Path) -> list[str]:
    """Why the committed notebook `path` and its files in `figures` are not what a run left; empty if they are."""
    from companion.light import nbformat

    notebook = nbformat.read(path, as_version=4)
    made = notebook.metadata.get("mialib")
    if made is None:
        return ["it holds no record of a run"]
    now = stamp(notebook, files_of(path.stem, figures))
    told = {"source": EDITED, "outputs": "an output was edited after the run", "code": STALE}
    wrong = [text for key, text in told.items() if made[key] != now[key]]
    names = sorted({*made["figures"], *now["figures"]})
    changed = [name for name in names if made["figures"].get(name) != now["figures"].get(name)]
    wrong += [f"{name} is not what the run wrote" for name in changed]
    declared = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if declared != [f'profile = "{made["profile"]}"\nseed = {made["seed"]}']:
        wrong.append("its parameters are not those of the run")
    record = figures / f"{path.stem}.json"
    try:
        if not changed and record.exists() and _read_out(notebook) != _read_out(reread(notebook, record)):
            wrong.append(REWORDED)
    except ValueError as error:
        wrong.append(f"a reading cannot be shown: {error}")
    return wrong


# --- readings -------------------------------------------------------------------------------------------------------


def words(cell: Mapping[str, Any]) -> list[str] | None:
    """The three texts of a cell that is one call of `report.reading` with literal texts; None of any other cell."""
    if cell["cell_type"] != "code" or not cell["source"].lstrip().startswith("report.reading("):
        return None
    match ast.parse(cell["source"]).body:
        case [ast.Expr(ast.Call(ast.Attribute(ast.Name("report"), "reading"), [ast.Name("run")], named))]:
            texts = {each.arg: each.value.value for each in named if isinstance(each.value, ast.Constant)}
            return [texts[name] for name in TEXTS] if sorted(texts) == TEXTS else None
    return None


def _read_out(notebook: Notebook) -> list[Any]:
    return [cell["outputs"] for cell in notebook["cells"] if words(cell)]


def reread(notebook: Notebook, record: Path) -> Notebook:
    """The notebook with what each reading (see `words`) shows made anew from the record in that file.

    It is what `report.reading` shows in a run of the record's profile and seed. Cells are counted as such a run counts
    them, the one that papermill injects included. ValueError for a number that `report.filled` cannot give.
    """
    if not any(map(words, notebook["cells"])):
        return notebook
    from companion.light import nbformat
    from mialib.results import report  # takes long, as it draws

    notebook, found = copy.deepcopy(notebook), json.loads(record.read_text(encoding="utf-8"))
    count = 0
    for cell in (each for each in own(notebook) if each["cell_type"] == "code"):
        cell["execution_count"] = count = count + 1
        if texts := words(cell):
            shown = report.said(report.filled(texts, found["cells"]), found["profile"], found["seed"])
            data = {"text/markdown": shown, "text/plain": "<IPython.core.display.Markdown object>"}
            cell["outputs"] = [nbformat.v4.new_output("execute_result", data, execution_count=count)]
        for output in cell["outputs"]:
            if output["output_type"] == "execute_result":
                output["execution_count"] = count
        count += "parameters" in cell["metadata"].get("tags", [])
    return notebook
