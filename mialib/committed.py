"""Holds committed notebooks and figures to what made them: digests taken when a notebook runs, checked ever after."""

import ast
import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mialib import config, runs, source
from mialib.light import nbformat


def stamp(notebook: nbformat.NotebookNode, figures: Iterable[Path]) -> dict[str, Any]:
    """What an executed notebook is made from and has made, as digests: source, code, outputs, figures (by name).

    The cell that papermill injects does not count: it is not committed.
    """
    cells = _own(notebook)
    written = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in cells]
    printed = [cell.get("outputs", []) for cell in cells]
    return {
        "source": runs.digest(written),
        "code": code(notebook),
        "outputs": runs.digest(json.dumps(printed, sort_keys=True)),
        "figures": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(figures)},
    }


def code(notebook: nbformat.NotebookNode) -> str:
    """Digest of what a notebook uses: the code of mialib that it reaches (see `source`), and published numbers by name.

    Its own cells do not count, nor does the cell that papermill injects.
    """
    digest, words = source.of_text(
        "\n".join(_python(cell.source) for cell in _own(notebook) if cell.cell_type == "code")
    )
    if "ledger" in words:  # it names the tables that it looks into
        words |= set(
            re.findall(r"\w+", (config.ROOT / "data" / "published" / "ledger.csv").read_text(encoding="utf-8"))
        )
    tables = [path for path in sorted(config.ROOT.glob("data/published/*.csv")) if path.stem in words]
    return runs.digest(digest, [(path.name, path.read_text(encoding="utf-8")) for path in tables])


def _python(text: str) -> str:
    """A cell as Python reads it: IPython's %magic and !shell lines become calls."""
    try:
        ast.parse(text)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager  # takes long to import, and is seldom needed

        return TransformerManager().transform_cell(text)
    return text


def _own(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]


STALE = "mialib, or published numbers that it uses, changed after the run"


def faults(path: Path, figures: Path) -> list[str]:
    """Why the committed notebook `path` and its files in `figures` are not what a run left; empty if they are."""
    notebook = nbformat.read(path, as_version=4)
    made = notebook.metadata.get("mialib")
    if made is None:
        return ["it holds no record of a run"]
    now = stamp(notebook, runs.files_of(path.stem, figures))
    told = {
        "source": "a cell was edited after the run",
        "outputs": "an output was edited after the run",
        "code": STALE,
    }
    wrong = [text for key, text in told.items() if made[key] != now[key]]
    names = sorted({*made["figures"], *now["figures"]})
    wrong += [
        f"{name} is not what the run wrote" for name in names if made["figures"].get(name) != now["figures"].get(name)
    ]
    declared = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if declared != [f'profile = "{made["profile"]}"\nseed = {made["seed"]}']:
        wrong.append("its parameters are not those of the run")
    return wrong


def carried(notebook: nbformat.NotebookNode, before: Path, now: Path) -> dict[str, Any]:
    """The metadata of a committed notebook whose code changed, once `before` and `now` show that no number did.

    Both are the same notebook executed in one profile on one machine, each with its record in ../figures: `before` by
    the code that made the committed one, `now` by the present code. Every value must be equal, digit for digit; of an
    interval the ends may differ, as they may be computed anew from the same values, and are counted. ValueError
    otherwise. What was compared is kept under "carried", with the former digest. A run in `demo` shows nothing of what
    only `laptop` does: its sizes, and the readers of real files.
    """
    old, new = (_executed(path) for path in (before, now))
    made, present = notebook.metadata.mialib, stamp(notebook, [])["code"]
    if old["made"].code != made.code or old["made"].source != made.source:
        raise ValueError(f"{before.stem}: {before} was not run by the code that made the committed notebook")
    if new["made"].code != present or new["made"].source != made.source:
        raise ValueError(f"{now.stem}: {now} was not run by the present code")
    if old["versions"] != new["versions"] or old["seed"] != new["seed"]:
        raise ValueError(f"{now.stem}: the two runs had other libraries or seeds")
    moved = [cell for cell, other in zip(old["values"], new["values"], strict=False) if cell != other]
    if moved or len(old["values"]) != len(new["values"]):
        raise ValueError(
            f"{now.stem}: its numbers changed, so it must run again; the first: {[*moved, 'a new one'][0]}"
        )
    ends = sum(a != b for a, b in zip(old["ends"], new["ends"], strict=True))
    proof = {"code": made.code, "profile": new["profile"], "equal": len(new["values"]), "intervals changed": ends}
    return {**made, "code": present, "carried": [*made.get("carried", []), proof]}


def _executed(path: Path) -> dict[str, Any]:
    """What an executed notebook and its record say. ValueError where there is none, or it is not what a run left."""
    record = path.parent.parent / "figures" / f"{path.stem}.json"
    if not (path.exists() and record.exists()):
        raise ValueError(f"{path.stem}: no executed notebook with a record at {path}")
    try:
        made, text = nbformat.read(path, as_version=4).metadata.mialib, record.read_bytes()
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(f"{path.stem}: {path} is damaged, or no run of ours left it ({error})") from error
    if made.get("figures", {}).get(record.name) != hashlib.sha256(text).hexdigest():
        raise ValueError(f"{path.stem}: {record} is not what the run wrote")
    found = json.loads(text)
    ends = [(cell.pop("low"), cell.pop("high")) for cell in found["cells"]]
    about = {"made": made, "versions": found["run"]["versions"], "profile": found["profile"], "seed": found["seed"]}
    return about | {"values": found["cells"], "ends": ends}
