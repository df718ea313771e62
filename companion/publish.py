"""How notebooks come to be committed: copied from a run, or kept where changed code is shown to change no number."""

import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from companion import citing, committed, jobs, runner
from companion.light import nbformat
from mialib import config, work

FIGURES = config.ROOT / "figures"
SOLVED = {committed.EDITED, committed.STALE, committed.REWORDED}  # faults that `carry` is for


def publish(
    out: Path, notebooks: Path = jobs.NOTEBOOKS, figures: Path = FIGURES, names: Iterable[str] = ()
) -> list[Path]:
    """Copy executed laptop notebooks in `out` (`names`: as in `jobs.plan`) to `notebooks`, their figures to `figures`.

    Returns the files written. The gallery, figures/README.md, is written anew, and figures that a notebook no longer
    saves are removed. The cell papermill injected is dropped, as its values equal those of the parameters cell.
    ValueError, and nothing is written, if a notebook is missing, failed, was run with other parameters, or if anything
    was edited since.
    """
    planned = jobs.plan(names, "laptop", 0, out, notebooks)
    clean = {job.source: _clean(job) for job in planned}
    for path, notebook in clean.items():
        work.write_atomic(path, nbformat.writes(notebook).encode())
    figures.mkdir(parents=True, exist_ok=True)
    for job in planned:
        for path in committed.files_of(job.stem, figures):
            path.unlink()
    copies = [Path(shutil.copy(path, figures / path.name)) for job in planned for path in job.figures()]
    gallery = citing.gallery(figures, {path.stem: jobs.title(path) for path in notebooks.glob("*.ipynb")})
    work.write_atomic(figures / "README.md", gallery.encode())
    return [*clean, *copies, figures / "README.md"]


def _clean(job: jobs.Job) -> nbformat.NotebookNode:
    """The executed notebook as committed: no injected cell and no paths or timings; of its metadata, what
    `committed.faults` asks for."""
    again = "run `make figures PROFILE=laptop` first"
    if not job.executed.exists():
        raise ValueError(f"{job.stem} has no executed notebook in {os.path.relpath(job.out)}; {again}")
    if jobs.state(job) != "done":
        changed = "a cell, mialib, a library, the data or a result changed after it was run"
        raise ValueError(f"{job.stem} is out of date: {changed}; {again}")
    defaults = jobs.defaults(job.source)
    declared = {name: jobs.plain(defaults[name]) for name in job.parameters}
    if declared != job.parameters:
        raise ValueError(f"{job.stem} was run with {job.parameters}, its defaults are {declared}; make them the same")
    notebook = nbformat.read(job.executed, as_version=4)
    notebook.cells = committed.own(notebook)
    del notebook.metadata["papermill"]
    notebook.metadata["mialib"] = job.parameters | committed.stamp(notebook, job.figures())
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
    return notebook


# --- changed code or cells, equal numbers ---------------------------------------------------------------------------


def carry(before: Path, now: Path, notebooks: Path = jobs.NOTEBOOKS, figures: Path = FIGURES) -> list[Path]:
    """Hold committed notebooks to be made by the present code and cells where those compute the same: see `_carried`.

    `before`, `now`: results of the same profile by the code and the cells that made them, and by the present ones. What
    a committed notebook shows stays under its cells; readings alone are made anew, from the committed record, so one
    that is edited in words needs no run at all. Returns the notebooks written. ValueError, and nothing is written, for
    one with another fault than changed code, cells or words, or whose numbers changed. The overview, which has no
    numbers of its own, is left as it is: it runs in seconds.
    """
    written = {}
    for path in sorted(notebooks.glob("*.ipynb")):
        wrong = committed.faults(path, figures)
        if not wrong or path.stem.startswith("00"):
            continue
        if others := [fault for fault in wrong if fault not in SOLVED]:
            raise ValueError(f"{path.stem}: {others[0]}")
        notebook = committed.reread(nbformat.read(path, as_version=4), figures / f"{path.stem}.json")
        if wrong != [committed.REWORDED]:
            places = (folder / "notebooks" / path.name for folder in (before, now))
            notebook.metadata["mialib"] = _carried(notebook, *places)
        notebook.metadata.mialib["outputs"] = committed.stamp(notebook, [])["outputs"]  # cells may be counted anew
        written[path] = nbformat.writes(notebook).encode()
    for path, content in written.items():
        work.write_atomic(path, content)
    return list(written)


def _carried(notebook: nbformat.NotebookNode, before: Path, now: Path) -> dict[str, Any]:
    """The metadata of a committed notebook whose code or cells changed, once two runs show that no number did.

    Both are the same notebook executed in one profile on one machine, each with its record in ../figures: `before` by
    the code and with the cells of the committed one, `now` by the present code with the present cells. Every value of
    the record must be equal, digit for digit, and so must the saved tables and all that cells show, one by one: see
    `_shown`. Of an interval the ends may differ, as they may be computed anew from the same values; they are counted,
    and tables and cells are then left to who carries. ValueError otherwise. What was compared is kept under "carried",
    with the former digests.

    A run in `demo` shows nothing of what only `laptop` does: its sizes, the readers of real files, and verdicts, of
    which demo has none. Published numbers and sizes must be those of the committed run: see `committed.numbers`. That
    a cell shows the same in `demo` does not show that what a run in `laptop` left under it is what it would show
    there. And images are not looked at: that a figure is drawn from equal numbers is all that is known of it.
    """
    old, new = (_executed(path) for path in (before, now))
    made, present = notebook.metadata.mialib, committed.stamp(notebook, [])
    if any(old["made"][key] != made[key] for key in ("code", "source")):
        raise ValueError(f"{before.stem}: {before} was not run by the code that made the committed notebook")
    if any(new["made"][key] != present[key] for key in ("code", "source")):
        raise ValueError(f"{now.stem}: {now} was not run by the present code")
    if any(old[key] != new[key] for key in ("versions", "seed", "profile")):
        raise ValueError(f"{now.stem}: the two runs had other libraries, seeds or profiles")
    if made.get("numbers", present["numbers"]) != present["numbers"]:
        raise ValueError(f"{now.stem}: published numbers or sizes changed, which demo does not show: run it in laptop")
    moved = [cell for cell, other in zip(old["values"], new["values"], strict=False) if cell != other]
    if moved or len(old["values"]) != len(new["values"]):
        first = [*moved, "a new one"][0]
        raise ValueError(f"{now.stem}: its numbers changed, so it must run again; the first: {first}")
    ends = sum(a != b for a, b in zip(old["ends"], new["ends"], strict=True))
    if not ends and old["tables"] != new["tables"]:
        raise ValueError(f"{now.stem}: its saved tables changed, so it must run again")
    proof = {"code": made.code, "profile": new["profile"], "equal": len(new["values"]), "intervals changed": ends}
    if not ends:  # else they show in what is printed
        proof["cells"] = _same_shown(now.stem, old["notebook"], new["notebook"])
    if made.source != present["source"]:
        proof["source"] = made.source
    anew = {key: present[key] for key in ("code", "source", "numbers")} | {"carried": [*made.get("carried", []), proof]}
    return {**made, **anew}


def _executed(path: Path) -> dict[str, Any]:
    """What an executed notebook and its record say. ValueError where there is none, or it is not what a run left."""
    record = path.parent.parent / "figures" / f"{path.stem}.json"
    if not (path.exists() and record.exists()):
        raise ValueError(f"{path.stem}: no executed notebook with a record at {path}")
    try:
        notebook, made = nbformat.read(path, as_version=4), jobs.about(path)
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(f"{path.stem}: {path} is damaged, or no run of ours left it ({error})") from error
    if made.get("figures", {}).get(record.name) != jobs.digest(record):
        raise ValueError(f"{path.stem}: {record} is not what the run wrote")
    found = json.loads(record.read_text(encoding="utf-8"))
    ends = [(cell.pop("low"), cell.pop("high")) for cell in found["cells"]]
    about = {"versions": found["run"]["versions"], "profile": found["profile"], "seed": found["seed"]}
    about["tables"] = {name: digest for name, digest in made["figures"].items() if name.endswith((".csv", ".tex"))}
    return about | {"notebook": notebook, "made": made, "values": found["cells"], "ends": ends}


def _same_shown(stem: str, old: nbformat.NotebookNode, new: nbformat.NotebookNode) -> int:
    """How many code cells show the same in both, readings left out; ValueError if one does not."""
    before, now = (
        [cell for cell in committed.own(each) if cell.cell_type == "code" and not committed.words(cell)]
        for each in (old, new)
    )
    if len(before) != len(now):
        raise ValueError(f"{stem} had {len(before)} code cells and has {len(now)}, so it must run again")
    for former, cell in zip(before, now, strict=True):
        if _shown(former) != _shown(cell):
            told = runner.name(cell.execution_count, cell.source)
            raise ValueError(f"{stem}: {told} shows something else than before, so it must run again")
    return len(now)


def _shown(cell: nbformat.NotebookNode) -> tuple[dict[str, str], list[Any]]:
    """What a cell shows, to be compared: its text, without the line that `runs.start` prints, and all else in order.

    An image stands there as one, whatever its bytes; cells may be counted otherwise.
    """
    texts, others = defaultdict(str), []
    for output in cell.outputs:
        if output.output_type == "stream":
            texts[output.name] += output.text
        else:
            data = {kind: "image" if kind == "image/png" else shown for kind, shown in output.get("data", {}).items()}
            others.append((output.output_type, data))
    told = {name: re.sub(r"^mialib \S+ · profile .*\n?", "", text, flags=re.MULTILINE) for name, text in texts.items()}
    return {name: text for name, text in told.items() if text}, others
