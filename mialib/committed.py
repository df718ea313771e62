"""Holds committed notebooks and figures to what made them: digests taken when a notebook runs, checked ever after."""

import ast
import functools
import hashlib
import io
import json
import re
import tokenize
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mialib import config, runs
from mialib.light import nbformat


def stamp(notebook: nbformat.NotebookNode, figures: Iterable[Path]) -> dict[str, Any]:
    """What an executed notebook is made from and has made, as digests: source, code, outputs, figures (by name).

    The cell that papermill injects does not count: it is not committed.
    """
    from IPython.core.inputtransformer2 import TransformerManager  # which reading the command line does without

    python = TransformerManager().transform_cell  # from what IPython reads, such as %magic lines
    cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    written = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in cells]
    printed = [cell.get("outputs", []) for cell in cells]
    return {
        "source": runs.digest(written),
        "code": code("".join(python(cell.source) for cell in cells if cell.cell_type == "code")),
        "outputs": runs.digest(json.dumps(printed, sort_keys=True)),
        "figures": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(figures)},
    }


def code(source: str) -> str:
    """Digest of what a notebook of this source uses: mialib's modules it reaches, and published numbers by name.

    Comments, docstrings and blank lines of mialib do not count.
    """
    modules = {_name(path): path for path in sorted(config.ROOT.glob("mialib/**/*.py"))}
    reached, todo = {}, [source]
    while todo:
        for name in _imports(todo.pop()):
            if name in modules and name not in reached:
                reached[name] = modules[name].read_text(encoding="utf-8")
                todo.append(reached[name])
    texts = {name: _bare(text) for name, text in reached.items()}
    # published.py names every table, whether a notebook uses it or not.
    named = {word for name in texts if name != "mialib.published" for word in _words(texts[name])} | _words(source)
    tables = [path for path in sorted(config.ROOT.glob("data/published/*.csv")) if path.stem in named]
    return runs.digest(texts, [(path.name, path.read_text(encoding="utf-8")) for path in tables])


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


def _name(path):
    parts = path.relative_to(config.ROOT).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


@functools.cache
def _imports(text: str) -> list[str]:
    """Every name that may be a module of ours: for `from mialib.attacks import known` mialib.attacks and …known."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
    # "mialib" itself holds the version, which changes no result.
    return [name for name in names if name.startswith("mialib.")]


@functools.cache
def _bare(text: str) -> str:
    """Source without comments, docstrings and blank lines, the same on every version of Python."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            lines[token.start[0] - 1] = lines[token.start[0] - 1][: token.start[1]]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node) is not None
        ):
            text = node.body[0]
            lines[text.lineno - 1 : text.end_lineno] = [""] * (text.end_lineno - text.lineno + 1)
            if len(node.body) == 1 and not isinstance(node, ast.Module):
                lines[text.lineno - 1] = " " * text.col_offset + "pass"
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))
