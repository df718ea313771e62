"""Runs notebooks with papermill: each in a process of its own, resumable, checked, and summed up in a scorecard."""

import ast
import hashlib
import json
import math
import multiprocessing
import os
import re
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from mialib import config, published, runs

NOTEBOOKS = config.ROOT / "notebooks"
WIDTH, HEIGHT = 100, 40  # the screen that the scorecard fits on
MARKS = {"M": "*", "S": "+", "R": ""}  # of simulated and substitute data in the scorecard

# nbconvert's page without the three scripts it would fetch from the network: require.js, MathJax and Mermaid.
_PAGE = "{% extends 'lab/index.html.j2' %}" + "".join(
    f"{{% block {name} %}}{{% endblock %}}"
    for name in ("html_head_js", "html_head_js_mathjax", "html_head_js_mermaidjs")
)


@dataclass(frozen=True)
class Job:
    """One notebook to run and the folder its results go to."""

    source: Path
    out: Path
    profile: str
    seed: int
    workers: int

    @property
    def stem(self) -> str:
        return self.source.stem

    @property
    def parameters(self) -> dict[str, Any]:
        return {"profile": self.profile, "seed": self.seed}

    @property
    def executed(self) -> Path:
        """Where the executed notebook appears, and only once it is complete."""
        return self.out / "notebooks" / f"{self.stem}.ipynb"

    @property
    def html(self) -> Path:
        return self.out / "html" / f"{self.stem}.html"

    @property
    def unfinished(self) -> Path:
        """The notebook while it runs; it stays here when a cell fails."""
        return self.out / "logs" / f"{self.stem}.ipynb"

    @property
    def log(self) -> Path:
        return self.out / "logs" / f"{self.stem}.log"

    def figures(self) -> list[Path]:
        """The files this notebook has saved under figures/, sorted."""
        return sorted((self.out / "figures").glob(f"{self.stem}*"))


def plan(
    names: Iterable[str], profile: str, seed: int, workers: int, out: Path, notebooks: Path = NOTEBOOKS
) -> list[Job]:
    """The jobs for `names` (number "01" or file stem; none means all), in the order they run.

    ValueError, in one line with what is valid, for an unknown profile or notebook, or a notebook whose parameters
    cell lacks a parameter we set (papermill itself only warns).
    """
    config.check_profile(profile)
    known = {path.stem: path for path in sorted(notebooks.glob("*.ipynb"))}
    if not known:
        raise ValueError(f"no notebooks in {notebooks}")
    chosen = set()
    for name in names:
        matches = [stem for stem in known if name in (stem, stem.split("_")[0])]
        if not matches:
            raise ValueError(f"unknown notebook {name!r}; valid notebooks: {', '.join(known)}")
        chosen.update(matches)
    # The overview (00) reads the records of the others, so it runs last.
    order = sorted(chosen or known, key=lambda stem: (stem.startswith("00"), stem))
    jobs = [Job(known[stem], out.resolve(), profile, seed, workers) for stem in order]
    for job in jobs:
        _check_parameters(job)
    return jobs


def _check_parameters(job: Job) -> None:
    """papermill only warns of a parameter that the notebook does not declare; here it is a ValueError."""
    if "kernelspec" not in nbformat.read(job.source, as_version=4).metadata:
        raise ValueError(f"{job.stem} names no kernel; open it in Jupyter, choose Python 3, and save it")
    declared = papermill.inspect_notebook(job.source)
    unknown = [name for name in job.parameters if name not in declared]
    if unknown:
        valid = ", ".join(declared) or "none (no cell tagged `parameters`)"
        raise ValueError(f"{job.stem} has no parameter {', '.join(unknown)}; its parameters: {valid}")


def inputs(job: Job) -> str:
    """Digest of all the job's results depend on: its cells, mialib's source, the published numbers, parameters.

    Outside `demo` they depend on the data files that are there (names and sizes; contents are checked when loaded),
    and the overview's on the other notebooks' records.
    """
    files = [*config.ROOT.glob("mialib/**/*.py"), *config.ROOT.glob("data/published/*.csv")]
    if job.stem.startswith("00"):
        files += [path for path in job.out.glob("figures/*.json") if path.stem != job.stem]
    texts = [(path.name, path.read_text()) for path in sorted(files)]
    raw = config.raw_dir()
    data = sorted((str(p.relative_to(raw)), p.stat().st_size) for p in raw.rglob("*") if p.is_file())
    return runs.digest(_cells(job.source), texts, job.parameters, [] if job.profile == "demo" else data)


def _cells(path: Path) -> list[tuple[str, str, list[str]]]:
    cells = nbformat.read(path, as_version=4).cells
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in cells]


def state(job: Job) -> str:
    """One of "done", "out of date" (an input changed or a result is gone), "unfinished" and "not run"."""
    if not job.executed.exists():
        return "unfinished" if job.unfinished.exists() else "not run"
    made = nbformat.read(job.executed, as_version=4).metadata.mialib
    whole = job.html.exists() and made.figures == _digests(job)
    return "done" if whole and made.inputs == inputs(job) else "out of date"


def _digests(job: Job) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in job.figures()}


def title(path: Path) -> str:
    """The notebook's first heading."""
    for cell in nbformat.read(path, as_version=4).cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            if line.startswith("#"):
                return line.lstrip("# ")
    return ""


def run(jobs: list[Job], fresh: bool = False) -> dict[str, str]:
    """Run the jobs one after another, a line each; what is done and unchanged is kept unless `fresh`.

    A failing notebook does not stop the others. Returns what went wrong, by notebook stem.
    """
    failures = {}
    end = "\033[K\n" if sys.stdout.isatty() else "\n"
    for number, job in enumerate(jobs, 1):
        head = f"[{number}/{len(jobs)}] {job.stem}"
        if not fresh and state(job) == "done":
            print(f"{head}  unchanged, kept", flush=True)
            continue
        if sys.stdout.isatty():
            print(f"{head}  running", end="\r", flush=True)
        begun = time.monotonic()
        error = _in_process(job)
        minutes, seconds = divmod(round(time.monotonic() - begun), 60)
        print(
            f"{head}  {f'{minutes}m' if minutes else ''}{seconds}s  {'FAILED' if error else 'ok'}", end=end, flush=True
        )
        if error:
            failures[job.stem] = error
    return failures


def _in_process(job: Job) -> str:
    """Run the job in a new process; what went wrong, "" when nothing did."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(job, sender), daemon=True)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return "the process running it was killed (out of memory?)"
    finally:
        process.terminate()
        process.join()


def _child(job: Job, sender: Connection) -> None:
    """What the new process does: set itself up, execute, send back what went wrong."""
    parent = multiprocessing.parent_process()
    # A killed runner leaves no orphan: this process ends with it, and the kernel ends with this process.
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    for path in (job.executed, *job.figures()):
        path.unlink(missing_ok=True)
    for folder in (job.executed.parent, job.html.parent, job.log.parent, job.out / "figures"):
        folder.mkdir(parents=True, exist_ok=True)
    python_path = os.environ.get("PYTHONPATH", "")
    jupyter_path = os.environ.get("JUPYTER_PATH", "")
    os.environ |= {
        "MIALIB_FIGURES": str(job.out / "figures"),
        "MIALIB_WORKERS": str(job.workers),
        # The kernel is this interpreter's, whatever kernels the user has, and imports the mialib whose digest we take.
        "JUPYTER_PATH": os.pathsep.join(filter(None, (f"{sys.prefix}/share/jupyter", jupyter_path))),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(config.ROOT), python_path))),
    }
    with job.log.open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        sender.send(_execute(job, log))


def _execute(job: Job, log: Any) -> str:
    """Run the notebook in this process and put its results in place; what went wrong, "" when nothing did."""
    made_from = inputs(job)
    begun = time.monotonic()
    try:
        papermill.execute_notebook(
            job.source,
            job.unfinished,
            job.parameters,
            kernel_name="python3",
            progress_bar=False,
            stdout_file=log,
            stderr_file=log,
            cwd=job.out,
        )
    except PapermillExecutionError as error:
        return f"{_name(error.exec_count, error.source)}: {error.ename}: {error.evalue}".rstrip(": ")
    except Exception as error:  # such as a kernel that died: reported with the cell it died in
        return f"{_reached(job.unfinished)}: {type(error).__name__}: {error}"
    notebook = nbformat.read(job.unfinished, as_version=4)
    if wrong := fault(notebook):
        return wrong
    runs.write_atomic(job.html, _page(notebook, job.stem).encode())
    notebook.metadata["mialib"] = job.parameters | {
        "inputs": made_from,
        "seconds": round(time.monotonic() - begun, 1),
        "figures": _digests(job),
    }
    runs.write_atomic(job.executed, nbformat.writes(notebook).encode())  # last: its presence says "complete"
    job.unfinished.unlink()
    return ""


def _page(notebook: nbformat.NotebookNode, name: str) -> str:
    """The notebook as one HTML file that needs no network; its links to other notebooks lead to their pages."""
    exporter = HTMLExporter(raw_template=_PAGE, embed_images=True)
    page, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": name}})
    return re.sub(r'href="([\w-]+)\.ipynb"', r'href="\1.html"', page)


def fault(notebook: nbformat.NotebookNode) -> str:
    """What is wrong with an executed notebook: an error in its outputs or a cell that never ran; "" if nothing.

    papermill's own status is not asked: it passes `sys.exit(0)` and is wrong after a time-out.
    """
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            if output.output_type == "error":
                return f"{_name(cell.execution_count, cell.source)}: {output.ename}: {output.evalue}".rstrip(": ")
        if cell.execution_count is None:
            return f"{_name(None, cell.source)} was never executed"
    return ""


def _name(count: int | None, source: str) -> str:
    first_line = source.strip().split("\n")[0]
    return f"cell [{count or ' '}] `{textwrap.shorten(first_line, 60, placeholder=' …')}`"


def _reached(path: Path) -> str:
    """The last cell that a notebook with a dead kernel had begun."""
    if not path.exists():
        return "before the first cell"
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    begun = [cell for cell in cells if cell.metadata.get("papermill", {}).get("start_time")]
    return _name(begun[-1].execution_count, begun[-1].source) if begun else "before the first cell"


def scorecard(out: Path) -> str:
    """The records in `out`/figures on one screen: verdicts counted per exhibit, then rows of ours beside published."""
    records = [json.loads(path.read_text()) for path in sorted(out.glob("figures/*.json"))]
    records = [record for record in records if record["cells"]]
    if not records:
        return ""
    lines = [f"{'exhibit':<48}" + "".join(f"{verdict:>16}" for verdict in published.VERDICTS)]
    for record in records[: HEIGHT // 2]:
        counted = published.counts(record["cells"])
        lines.append(f"{_cut(record['exhibit'], 47):<48}" + "".join(f"{counted[v]:>16}" for v in published.VERDICTS))
    room = HEIGHT - len(lines) - 3
    share = max(1, min(20, room) // len(records))
    rows = [cell for record in records for cell in _telling(record["cells"])[:share]][:room]
    layout = "{:<16} {:<20} {:<18} {:>5} {:>6} {:<14} {:<14}"
    if rows:
        lines += ["", layout.format("data", "setting", "metric", "paper", "ours", "95 % interval", "verdict").rstrip()]
    for cell in rows:
        low, high = _number(cell["low"]), _number(cell["high"])
        texts = (
            _cut(cell["dataset"], 15) + MARKS[cell["tier"]],
            _cut(cell["setting"], 20),
            _cut(cell["metric"], 18),
            _number(cell["published"]),
            _number(cell["value"]),
            f"{low} to {high}" if low and high else "",
            cell["verdict"],
        )
        lines.append(layout.format(*texts).rstrip())
    if {cell["tier"] for cell in rows} - {"R"}:
        lines.append("* simulated data, + a substitute for the paper's data")
    return "\n".join(lines)


def _telling(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cells with a number on both sides: what differs, what is reproduced, the rest; attacks before targets."""
    both = [cell for cell in cells if cell["published"] is not None and cell["value"] is not None]
    order = ("differs", "reproduced", "not comparable")
    return sorted(both, key=lambda cell: (order.index(cell["verdict"]), cell["metric"].startswith("target")))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _number(value: float | None) -> str:
    return f"{value:.3f}" if value is not None and math.isfinite(value) else ""


def publish(out: Path, notebooks: Path = NOTEBOOKS, figures: Path = config.ROOT / "figures") -> list[Path]:
    """Copy the executed laptop notebooks in `out` to `notebooks`, and their figures to `figures`; the files written.

    The cell papermill injected is dropped, as its values equal those of the parameters cell. ValueError, and
    nothing is written, if a notebook is missing, failed, was run with other parameters, or was edited since.
    """
    jobs = plan([], "laptop", 0, 1, out, notebooks)
    clean = {job.source: _clean(job) for job in jobs}
    for path, notebook in clean.items():
        runs.write_atomic(path, nbformat.writes(notebook).encode())
    figures.mkdir(parents=True, exist_ok=True)
    copies = [Path(shutil.copy(path, figures / path.name)) for job in jobs for path in job.figures()]
    return [*clean, *copies]


def _clean(job: Job) -> nbformat.NotebookNode:
    """The executed notebook as committed: no injected cell and no paths or timings in its metadata."""
    again = "run `make figures PROFILE=laptop` first"
    if not job.executed.exists():
        raise ValueError(f"{job.stem} has no executed notebook in {os.path.relpath(job.out)}; {again}")
    notebook = nbformat.read(job.executed, as_version=4)
    if wrong := fault(notebook):
        raise ValueError(f"{job.stem}: {wrong}; {again}")
    declared = papermill.inspect_notebook(job.executed)
    defaults = {name: ast.literal_eval(parameter["default"]) for name, parameter in declared.items()}
    used = {name: notebook.metadata.mialib[name] for name in job.parameters}
    if used != defaults or used != job.parameters:
        raise ValueError(f"{job.stem} was run with {used}, its defaults are {defaults}; {again}")
    if notebook.metadata.mialib.figures != _digests(job):
        raise ValueError(f"{job.stem}: some of its figures are missing or changed; {again}")
    notebook.cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    cells = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]
    if cells != _cells(job.source):
        raise ValueError(f"{job.stem} was edited after it was run; {again}")
    if state(job) != "done":
        raise ValueError(f"{job.stem} is out of date: mialib or the data changed after it was run; {again}")
    del notebook.metadata["papermill"], notebook.metadata["mialib"]
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
    return notebook
