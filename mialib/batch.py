"""Runs notebooks with papermill: each in a process of its own, side by side, resumable, checked, and summed up."""

import ast
import functools
import hashlib
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mialib import committed, config, live, machine, pool, runs, work
from mialib.light import nbformat, papermill

NOTEBOOKS = config.ROOT / "notebooks"
WIDTH, HEIGHT = 100, 40  # the screen that the scorecard fits on
GB = 2**30
# What a notebook is taken to need until it has run once: itself, and each worker process.
PEAK, PEAK_WORKER = 1.0 * GB, 0.5 * GB
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
    settings: tuple[tuple[str, Any], ...] = ()  # parameters other than profile and seed
    scheduler: str = ""  # address of a Dask scheduler that training runs on
    label: str = ""  # tells the runs of a sweep apart

    @property
    def stem(self) -> str:
        return self.source.stem

    @property
    def name(self) -> str:
        """The stem, and in a sweep which run: what messages say."""
        return f"{self.stem} {self.label}".rstrip()

    @property
    def parameters(self) -> dict[str, Any]:
        return {"profile": self.profile, "seed": self.seed} | dict(self.settings)

    @property
    def reads_the_others(self) -> bool:
        """The overview (00) reads the records of the others in its folder, so it runs after them."""
        return self.stem.startswith("00")

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
        """What the notebook printed, run after run."""
        return self.out / "logs" / f"{self.stem}.log"

    @property
    def history(self) -> Path:
        """How long the notebook took in this profile when it last ran, and its peak memory."""
        return config.cache_dir() / "runs" / self.profile / f"{self.stem}.json"

    def figures(self) -> list[Path]:
        """The files this notebook has saved under figures/, sorted."""
        # While a notebook runs it has no record yet, and its files are its own all the same.
        others = (path.stem for path in self.source.parent.glob("*.ipynb"))
        longer = tuple(f"{stem}{end}" for stem in others if stem.startswith(f"{self.stem}_") for end in "._")
        return [path for path in runs.files_of(self.stem, self.out / "figures") if not path.name.startswith(longer)]


def plan(
    names: Iterable[str],
    profile: str,
    seed: int,
    workers: int,
    out: Path,
    notebooks: Path = NOTEBOOKS,
    settings: Mapping[str, Any] | None = None,
) -> list[Job]:
    """The jobs for `names` (number "01" or file stem; none means all), in the order they run.

    `settings`: values of parameters other than profile and seed. ValueError, in one line with what is valid, for an
    unknown profile or notebook, or a notebook whose parameters cell lacks a parameter we set (papermill itself only
    warns) or holds a value of another type.
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
    fixed = tuple(sorted((settings or {}).items()))
    jobs = [Job(known[stem], out.resolve(), profile, seed, workers, fixed) for stem in sorted(chosen or known)]
    for job in jobs:
        _check_parameters(job)
    return sorted(jobs, key=lambda job: job.reads_the_others)


def _check_parameters(job: Job) -> None:
    """papermill only warns of a parameter that the notebook does not declare; here it is a ValueError."""
    if "kernelspec" not in nbformat.read(job.source, as_version=4).metadata:
        raise ValueError(f"{job.stem} names no kernel; open it in Jupyter, choose Python 3, and save it")
    declared = papermill.inspect_notebook(_literal(job.source))
    unknown = [name for name in job.parameters if name not in declared]
    if unknown:
        valid = ", ".join(declared) or "none (no cell tagged `parameters`)"
        raise ValueError(f"{job.stem} has no parameter {', '.join(unknown)}; its parameters: {valid}")
    for name, value in job.settings:
        default = declared[name]["default"]
        if not _carried(value):
            raise ValueError(
                f"{name} cannot be {value!r}: a notebook takes None, True, False, finite numbers, texts, lists and "
                "dicts of these, with texts as keys"
            )
        if _type(default) not in (type(value), type(None)):
            raise ValueError(f"{job.stem}: {name} must be of the type of its default, {default}, not {value!r}")


def _type(default: str) -> type:
    try:
        return type(ast.literal_eval(default))
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"only parameters with a plain default can be set, and this one's is {default}") from error


def _carried(value: Any) -> bool:
    """Whether papermill writes the value into the notebook as it is; of all else it writes the text."""
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and all(map(_carried, value.values()))
    if isinstance(value, list):
        return all(map(_carried, value))
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _literal(path: Path) -> str:
    """The path for papermill, which would fill in {braces}."""
    return str(path).replace("{", "{{").replace("}", "}}")


def inputs(job: Job) -> str:
    """Digest of all the results depend on: cells, the code they reach, libraries, published numbers, parameters, data.

    Data: the digests in data/registry.csv, which are checked when a file is loaded (whether it is downloaded yet
    changes nothing); name, size and time of the files in `config.BROUGHT`; the weights in data/targets. The overview
    depends on the other notebooks' records too.
    """
    files = [config.ROOT / "data" / "registry.csv"]
    if job.reads_the_others:
        files += [path for path in job.out.glob("figures/*.json") if path.stem != job.stem]
    texts = [(path.name, path.read_text(encoding="utf-8")) for path in sorted(files)]
    weights = [(path.name, _weights(path, *_stamp(path))) for path in sorted(config.ROOT.glob("data/targets/*.safe*"))]
    raw = config.raw_dir()
    found = sorted(p for name in config.BROUGHT[job.profile] for p in (raw / name).rglob("*") if p.is_file())
    brought = [(p.relative_to(raw).as_posix(), *_stamp(p)) for p in found]
    code = committed.code(nbformat.read(job.source, as_version=4))
    return runs.digest(_cells(job.source), code, texts, job.parameters, weights, brought, _libraries())


@functools.cache
def _libraries() -> str:
    """Versions of what the notebooks compute and draw with, and the precision that networks train in here."""
    return f"{machine.precision()}, " + runs.versions(
        "matplotlib", "numpy", "pandas", "scikit-learn", "scipy", "seaborn", "torch", "xgboost"
    )


def _stamp(path: Path) -> tuple[int, int]:
    return path.stat().st_size, path.stat().st_mtime_ns


@functools.cache
def _weights(path: Path, size: int, time_ns: int) -> str:
    """The file's digest, computed once for all notebooks of a run."""
    return _file_digest(path)


def _cells(path: Path) -> list[tuple[str, str, list[str]]]:
    cells = nbformat.read(path, as_version=4).cells
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in cells]


def state(job: Job) -> str:
    """One of "done", "out of date" (an input changed or a result is gone), "unfinished" and "not run"."""
    if not job.executed.exists():
        return "unfinished" if job.unfinished.exists() else "not run"
    try:
        notebook = nbformat.read(job.executed, as_version=4)
        made = notebook.metadata.mialib
        whole = made.itself == _itself(notebook) and made.html == _file_digest(job.html)
        done = whole and made.figures == _digests(job) and made.inputs == inputs(job)
    except Exception:  # a damaged file may raise anything, and another runner may be at it
        return "out of date"
    return "done" if done else "out of date"


def _digests(job: Job) -> dict[str, str]:
    return {path.name: _file_digest(path) for path in job.figures()}


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _itself(notebook: nbformat.NotebookNode) -> str:
    """Digest of all that the notebook holds, but for this digest."""
    about = {key: value for key, value in notebook.metadata.mialib.items() if key != "itself"}
    return runs.digest(json.dumps({**notebook, "metadata": {**notebook.metadata, "mialib": about}}, sort_keys=True))


def title(path: Path) -> str:
    """The notebook's first heading."""
    for cell in nbformat.read(path, as_version=4).cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            if line.startswith("#"):
                return line.lstrip("# ")
    return ""


@dataclass(frozen=True)
class Past:
    """What is known of a notebook before it runs."""

    seconds: float | None  # None: it has not come to its end yet
    peak: float  # bytes


def past(job: Job) -> Past:
    """How long the notebook took, and the memory it used, when it last ran; a guess of the memory if it has not."""
    guess = PEAK + job.workers * PEAK_WORKER
    try:
        seen = json.loads(job.history.read_text(encoding="utf-8"))
        seconds = None if seen["seconds"] is None else float(seen["seconds"])
        peak, workers = float(seen["peak"]), float(seen["workers"])
    except (OSError, ValueError, TypeError, KeyError):
        return Past(None, guess)
    if not (0 < peak < math.inf and (seconds is None or 0 < seconds < math.inf)):
        return Past(None, guess)
    return Past(seconds, max(peak, guess) if seconds is None or job.workers > workers else peak)


def _note(job: Job, seconds: float | None, peak: float) -> None:
    seen = {"seconds": seconds, "peak": peak, "workers": job.workers}
    with suppress(OSError):  # without it the next run only guesses
        work.write_atomic(job.history, json.dumps(seen).encode())


def run(
    jobs: list[Job],
    fresh: bool = False,
    parallel: int = 1,
    memory: float | None = None,
    tell: Callable[[live.Event], None] | None = None,
) -> dict[str, str]:
    """Run the jobs, at most `parallel` at once; what is done and unchanged is kept unless `fresh`.

    A job waits until the memory it used last time (see `past`) fits into `memory` bytes (None: what is free now)
    beside the others; one that never fits runs alone. A failing notebook does not stop the others. `tell` gets an
    event ("kept", "started", "running", "done", "failed") when it happens; by default they are printed. Returns what
    went wrong, by `Job.name`.
    """
    tell = tell or live.lines()
    memory = memory or pool.free()
    known = {job.name: past(job) for job in jobs}
    waiting, running, failures = list(jobs), [], {}

    def say(event: str, job: Job, **more: Any) -> None:
        about = {"event": event, "notebook": job.stem, "run": job.label}
        about |= {"finished": len(jobs) - len(waiting) - len(running), "of": len(jobs)}
        tell(about | more | {"left": _left(waiting, running, parallel, known)})

    for job in [] if fresh else jobs:
        if not job.reads_the_others and state(job) == "done":
            waiting.remove(job)
            say("kept", job)
    try:
        while waiting or running:
            while job := _next(waiting, running, parallel, memory, known):
                waiting.remove(job)
                if not fresh and state(job) == "done":
                    say("kept", job)
                    continue
                running.append(pool.start(_child, job, fresh))
                say("started", job)
            for each, sent in pool.look(running) if running else ():
                running.remove(each)
                error, seconds = sent or (f"the process running it {_how(each.process.exitcode)}", None)
                if error:
                    failures[each.task.name] = error
                # One that only waited for another runner, or trained on a cluster, says nothing of what it takes here.
                if (error or seconds) and not each.task.scheduler:
                    _note(each.task, seconds or known[each.task.name].seconds, each.peak)
                    known |= {job.name: past(job) for job in jobs if job.stem == each.task.stem}
                used = {"seconds": round(each.seconds, 1), "peak_mb": round(each.peak / 2**20)}
                say("failed" if error else "done", each.task, **used, **({"error": error} if error else {}))
            if running:
                say("running", running[0].task, running={each.task.name: each.seconds for each in running})
    finally:
        for each in running:
            pool.stop(each)
    return failures


def _how(exitcode: int) -> str:
    """How a process ended that sent nothing, from its exit code: below 0, the signal that ended it."""
    if exitcode == -signal.SIGKILL:
        return "was killed (out of memory?)"
    if exitcode < 0:
        return f"was ended by signal {-exitcode}, {signal.strsignal(-exitcode)}"
    return f"ended by itself with exit code {exitcode}"


def _next(
    waiting: list[Job], running: list[pool.Running], parallel: int, memory: float, known: Mapping[str, Past]
) -> Job | None:
    """The first job that may start now, None while none may."""
    if len(running) >= parallel:
        return None
    used = sum(max(each.peak, known[each.task.name].peak) for each in running)
    unfinished = [job for job in (*waiting, *(each.task for each in running)) if not job.reads_the_others]
    for job in waiting:
        if job.reads_the_others and any(other.out == job.out for other in unfinished):
            continue
        if not running or used + known[job.name].peak <= memory:
            return job
    return None


def _left(waiting: list[Job], running: list[pool.Running], parallel: int, known: Mapping[str, Past]) -> float | None:
    """Seconds until all have ended, from how long they took last time; None when nothing is known of any."""
    seen = [each.seconds for each in known.values() if each.seconds]
    if not seen:
        return None
    usual = sum(seen) / len(seen)
    going = [max(0.0, (known[each.task.name].seconds or usual) - each.seconds) for each in running]
    coming = [known[job.name].seconds or usual for job in waiting]
    return round(max([sum(going + coming) / parallel, *going, *coming]), 1)


def _child(job: Job, fresh: bool, sender: Connection) -> None:
    """What the new process does: set itself up, execute, send back what `_in_turn` returns."""
    parent = multiprocessing.parent_process()
    # A killed runner leaves no orphan: this process ends with it, and so do the kernel and its workers.
    threading.Thread(target=lambda: (parent.join(), _end()), daemon=True).start()
    signal.signal(signal.SIGINT, lambda *_: _end())  # the runner says that it was interrupted
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see `pool.start`
    try:
        sender.send(_in_turn(job, fresh))
    except Exception as error:  # such as a full disk
        traceback.print_exc()
        sender.send((f"{type(error).__name__}: {error}", None))


def _end() -> None:
    pool.end_children(os.getpid())
    os._exit(1)


def _in_turn(job: Job, fresh: bool) -> tuple[str, float | None]:
    """Execute the job, unless another runner that was at it has just done so; what went wrong, and the seconds it took.

    No seconds where it failed or was not executed.
    """
    for folder in (job.executed.parent, job.html.parent, job.log.parent, job.out / "figures"):
        folder.mkdir(parents=True, exist_ok=True)
    with work.turn(job.log.with_suffix(".lock")):
        if not fresh and state(job) == "done":
            return "", None
        begun = time.monotonic()
        for path in (job.executed, *job.figures()):
            path.unlink(missing_ok=True)
        _set_environment(job)
        with job.log.open("a", encoding="utf-8") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}, {job.parameters}", file=log, flush=True)
            error = _execute(job, log)
            return error, None if error else round(time.monotonic() - begun, 1)


def _set_environment(job: Job) -> None:
    python_path = os.environ.get("PYTHONPATH", "")
    jupyter_path = os.environ.get("JUPYTER_PATH", "")
    os.environ |= {
        "MIALIB_FIGURES": str(job.out / "figures"),
        "MIALIB_WORKERS": str(job.workers),
        # Cores go to the workers. More threads in the kernel would spin beside them, and change sums with their number;
        # OpenBLAS, MKL, PyTorch and XGBoost all read this one.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        # The kernel is this interpreter's, whatever kernels the user has, and imports the mialib whose digest we take.
        "JUPYTER_PATH": os.pathsep.join(filter(None, (f"{sys.prefix}/share/jupyter", jupyter_path))),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(config.ROOT), python_path))),
    }
    if job.scheduler:
        os.environ["MIALIB_SCHEDULER"] = job.scheduler


def _execute(job: Job, log: Any) -> str:
    """Run the notebook in this process and put its results in place; what went wrong, "" when nothing did."""
    made_from = inputs(job)
    begun = time.monotonic()
    try:
        papermill.execute_notebook(
            _literal(job.source),
            _literal(job.unfinished),
            job.parameters,
            kernel_name="python3",
            progress_bar=False,
            stdout_file=log,
            stderr_file=log,
            cwd=job.out,
        )
    except papermill.exceptions.PapermillExecutionError as error:
        return f"{_name(error.exec_count, error.source)}: {error.ename}: {error.evalue}".rstrip(": ")
    except Exception as error:  # such as a kernel that died: reported with the cell it died in
        return f"{_reached(job.unfinished)}: {type(error).__name__}: {error}"
    notebook = nbformat.read(job.unfinished, as_version=4)
    if wrong := fault(notebook):
        return wrong
    work.write_atomic(job.html, _page(notebook, job.stem).encode())
    notebook.metadata["mialib"] = job.parameters | {
        "inputs": made_from,
        "seconds": round(time.monotonic() - begun, 1),
        "html": _file_digest(job.html),
        **committed.stamp(notebook, job.figures()),
    }
    notebook.metadata.mialib["itself"] = _itself(nbformat.reads(nbformat.writes(notebook), as_version=4))
    work.write_atomic(job.executed, nbformat.writes(notebook).encode())  # last: its presence says "complete"
    job.unfinished.unlink()
    return ""


def _page(notebook: nbformat.NotebookNode, name: str) -> str:
    """The notebook as one HTML file that needs no network; its links to other notebooks lead to their pages."""
    from mialib import pages  # imports nbconvert, which keeping what is done does without

    exporter = pages.exporter(_PAGE, embed_images=True)
    page, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": name}})
    return re.sub(r'href="([^"/:?#]+)\.ipynb(?=["#])', r'href="\1.html', page)


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
    try:
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    except ValueError:  # half-written: the disk was full
        return "in a cell that was not saved"
    begun = [cell for cell in cells if cell.metadata.get("papermill", {}).get("start_time")]
    return _name(begun[-1].execution_count, begun[-1].source) if begun else "before the first cell"


def scorecard(out: Path) -> str:
    """The records in `out`/figures on one screen: verdicts counted per exhibit, then rows of ours beside published."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("figures/*.json"))]
    records = [record for record in records if record["cells"]]
    if not records:
        return ""
    from mialib import published  # imports pandas, which running does without

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


def carry(before: Path, now: Path, notebooks: Path = NOTEBOOKS, figures: Path = config.ROOT / "figures") -> list[Path]:
    """Hold committed notebooks to be made by the present code where it computes the same: see `committed.carried`.

    `before`, `now`: results of the same profile by the code that made them, and by the present one. Returns the
    notebooks written. ValueError, and nothing is written, for one whose fault is another than changed code, or whose
    numbers changed. The overview, which has no numbers of its own, is left as it is: it runs in seconds.
    """
    written = {}
    for path in sorted(notebooks.glob("*.ipynb")):
        wrong = committed.faults(path, figures)
        if not wrong or path.stem.startswith("00"):
            continue
        if wrong != [committed.STALE]:
            raise ValueError(f"{path.stem}: {wrong[0]}")
        notebook = nbformat.read(path, as_version=4)
        places = (folder / "notebooks" / path.name for folder in (before, now))
        notebook.metadata["mialib"] = committed.carried(notebook, *places)
        written[path] = nbformat.writes(notebook).encode()
    for path, content in written.items():
        work.write_atomic(path, content)
    return list(written)


def publish(
    out: Path, notebooks: Path = NOTEBOOKS, figures: Path = config.ROOT / "figures", names: Iterable[str] = ()
) -> list[Path]:
    """Copy executed laptop notebooks in `out` (`names`: as in `plan`) to `notebooks`, and their figures to `figures`.

    Returns the files written.

    The gallery, figures/README.md, is written anew, and figures that a notebook no longer saves are removed. The cell
    papermill injected is dropped, as its values equal those of the parameters cell. ValueError, and nothing is
    written, if a notebook is missing, failed, was run with other parameters, or was edited since.
    """
    from mialib import citing  # imports matplotlib, which running does without

    jobs = plan(names, "laptop", 0, 1, out, notebooks)
    clean = {job.source: _clean(job) for job in jobs}
    for path, notebook in clean.items():
        work.write_atomic(path, nbformat.writes(notebook).encode())
    figures.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        for path in runs.files_of(job.stem, figures):
            path.unlink()
    copies = [Path(shutil.copy(path, figures / path.name)) for job in jobs for path in job.figures()]
    gallery = citing.gallery(figures, {path.stem: title(path) for path in notebooks.glob("*.ipynb")})
    work.write_atomic(figures / "README.md", gallery.encode())
    return [*clean, *copies, figures / "README.md"]


def _clean(job: Job) -> nbformat.NotebookNode:
    """The executed notebook as committed: no injected cell and no paths or timings; of its metadata, what
    `committed.faults` asks for."""
    again = "run `make figures PROFILE=laptop` first"
    if not job.executed.exists():
        raise ValueError(f"{job.stem} has no executed notebook in {os.path.relpath(job.out)}; {again}")
    notebook = nbformat.read(job.executed, as_version=4)
    if wrong := fault(notebook):
        raise ValueError(f"{job.stem}: {wrong}; {again}")
    if "outputs" not in notebook.metadata.get("mialib", {}):
        raise ValueError(f"{job.stem} was run by an older mialib; {again}")
    declared = papermill.inspect_notebook(_literal(job.executed))
    defaults = {name: ast.literal_eval(declared[name]["default"]) for name in job.parameters}
    used = {name: notebook.metadata.mialib[name] for name in job.parameters}
    if used != defaults or used != job.parameters:
        raise ValueError(f"{job.stem} was run with {used}, its defaults are {defaults}; {again}")
    if notebook.metadata.mialib.figures != _digests(job):
        raise ValueError(f"{job.stem}: some of its figures are missing or changed; {again}")
    notebook.cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    cells = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]
    if cells != _cells(job.source):
        raise ValueError(f"{job.stem} was edited after it was run; {again}")
    stamp = committed.stamp(notebook, job.figures())
    if stamp["outputs"] != notebook.metadata.mialib.outputs:
        raise ValueError(f"{job.stem}: its outputs were edited after it was run; {again}")
    if state(job) != "done":
        raise ValueError(f"{job.stem} is out of date: mialib, a library or the data changed after it was run; {again}")
    del notebook.metadata["papermill"]
    notebook.metadata["mialib"] = used | stamp
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
    return notebook
