"""Runs notebooks with papermill: each in a process of its own, side by side, resumable and checked."""

import json
import multiprocessing
import os
import re
import signal
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from companion import committed, live, pool
from companion.jobs import UNSEALED, Job, Past, digest, glance, inputs, past, read, sealed, state
from companion.light import nbformat, papermill
from mialib import config, work

# nbconvert's page without the three scripts it would fetch from the network: require.js, MathJax and Mermaid.
_PAGE = "{% extends 'lab/index.html.j2' %}" + "".join(
    f"{{% block {name} %}}{{% endblock %}}"
    for name in ("html_head_js", "html_head_js_mathjax", "html_head_js_mermaidjs")
)


def run(
    jobs: list[Job],
    fresh: bool = False,
    workers: int | None = None,
    parallel: int | None = None,
    memory: float | None = None,
    scheduler: str = "",
    tell: Callable[[live.Event], None] | None = None,
    of: int | None = None,
) -> dict[str, str]:
    """Run the jobs, at most `parallel` at once; what is done and unchanged is kept unless `fresh`.

    Each has its share of the `workers` (None: every core). `parallel` None: as many as workers in demo, else one. A job
    waits until the memory it used last time (see `past`) fits into `memory` bytes (None: what is free now) beside the
    others; one that never fits runs alone. A failing notebook does not stop the others. `scheduler`: address of a Dask
    scheduler that training runs on. `tell` gets an event ("kept", "started", "running", "done", "failed") when it
    happens, in which the jobs count as the last of `of`; by default they are printed. Returns what went wrong, by
    `Job.name`.
    """
    tell, of, memory = tell or live.lines(), of or len(jobs), memory or pool.free()
    workers = workers or config.workers()
    parallel = min(parallel or (workers if jobs[0].profile == "demo" else 1), len(jobs))
    share = max(1, workers // parallel)
    known = {job.name: past(job, share) for job in jobs}
    waiting, running, failures = list(jobs), [], {}

    def say(event: str, job: Job, **more: Any) -> None:
        about = {"event": event, "notebook": job.stem, "run": job.label}
        about |= {"finished": of - len(waiting) - len(running), "of": of}
        tell(about | more | {"left": _left(waiting, running, parallel, known)})

    try:
        while waiting or running:
            while job := _next(waiting, running, parallel, memory, known):
                waiting.remove(job)
                if not fresh and state(job) == "done":
                    say("kept", job)
                    continue
                running.append(pool.start(_child, job, fresh, share, scheduler))
                say("started", job)
            for each, sent in pool.look(running) if running else ():
                running.remove(each)
                error, seconds = sent or (f"the process running it {_how(each.process.exitcode)}", None)
                if error:
                    failures[each.task.name] = error
                # One that only waited for another runner, or trained on a cluster, says nothing of what it takes here.
                if (error or seconds) and not scheduler:
                    _note(each, seconds or known[each.task.name].seconds, share)
                    known |= {job.name: past(job, share) for job in jobs if job.stem == each.task.stem}
                used = {"seconds": round(each.seconds, 1), "peak_mb": round(each.peak / 2**20)}
                say("failed" if error else "done", each.task, **used, **({"error": error} if error else {}))
            if running:
                say("running", running[0].task, running={each.task.name: each.seconds for each in running})
    finally:
        for each in running:
            pool.stop(each)
    return failures


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


def _how(exitcode: int) -> str:
    """How a process ended that sent nothing, from its exit code: below 0, the signal that ended it."""
    if exitcode == -signal.SIGKILL:
        return "was killed (out of memory?)"
    if exitcode < 0:
        return f"was ended by signal {-exitcode}, {signal.strsignal(-exitcode)}"
    return f"ended by itself with exit code {exitcode}"


def _note(each: pool.Running, seconds: float | None, workers: int) -> None:
    seen = {"seconds": seconds, "peak": each.peak, "workers": workers}
    with suppress(OSError):  # without it the next run only guesses
        work.write_atomic(each.task.history, json.dumps(seen).encode())


# --- what the process of one notebook does --------------------------------------------------------------------------


def _child(job: Job, fresh: bool, workers: int, scheduler: str, sender: Connection) -> None:
    """Set the new process up, execute, send back what `_in_turn` returns."""
    parent = multiprocessing.parent_process()
    # A killed runner leaves no orphan: this process ends with it, and so do the kernel and its workers.
    threading.Thread(target=lambda: (parent.join(), _end()), daemon=True).start()
    signal.signal(signal.SIGINT, lambda *_: _end())  # the runner says that it was interrupted
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see `pool.start`
    try:
        _set_environment(job, workers, scheduler)
        sender.send(_in_turn(job, fresh))
    except Exception as error:  # such as a full disk
        traceback.print_exc()
        sender.send((f"{type(error).__name__}: {error}", None))


def _end() -> None:
    pool.end_children(os.getpid())
    os._exit(1)


def _set_environment(job: Job, workers: int, scheduler: str) -> None:
    before = os.environ.get
    os.environ |= {
        "MIALIB_FIGURES": str(job.out / "figures"),
        "MIALIB_WORKERS": str(workers),
        # Cores go to the workers. More threads in the kernel would spin beside them, and change sums with their number;
        # OpenBLAS, MKL, PyTorch and XGBoost all read this one.
        "OMP_NUM_THREADS": before("OMP_NUM_THREADS", "1"),
        # The kernel is this interpreter's, whatever kernels the user has, and imports the mialib whose digest we take.
        "JUPYTER_PATH": os.pathsep.join(filter(None, (f"{sys.prefix}/share/jupyter", before("JUPYTER_PATH")))),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(config.ROOT), before("PYTHONPATH")))),
    }
    if scheduler:
        os.environ["MIALIB_SCHEDULER"] = scheduler


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
        with job.log.open("a", encoding="utf-8") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}, {job.parameters}", file=log, flush=True)
            error = _execute(job, log)
            return error, None if error else round(time.monotonic() - begun, 1)


def _execute(job: Job, log: Any) -> str:
    """Run the notebook in this process and put its results in place; what went wrong, "" when nothing did."""
    made, code = job.parameters | {"glance": glance(job), "inputs": inputs(job)}, committed.code(read(job.source))
    begun = time.monotonic()
    # papermill would fill in {braces}.
    source, unfinished = (str(path).replace("{", "{{").replace("}", "}}") for path in (job.source, job.unfinished))
    how = {"kernel_name": "python3", "progress_bar": False, "stdout_file": log, "stderr_file": log, "cwd": job.out}
    try:
        papermill.execute_notebook(source, unfinished, job.parameters, **how)
    except papermill.exceptions.PapermillExecutionError as error:
        return f"{name(error.exec_count, error.source)}: {error.ename}: {error.evalue}".rstrip(": ")
    except Exception as error:  # such as a kernel that died: reported with the cell it died in
        return f"{_reached(job.unfinished)}: {type(error).__name__}: {error}"
    notebook = nbformat.read(job.unfinished, as_version=4)
    if wrong := fault(notebook):
        return wrong
    work.write_atomic(job.html, _page(notebook, job.stem).encode())
    made |= {"seconds": round(time.monotonic() - begun, 1), "html": digest(job.html), "itself": UNSEALED}
    # The code as it was when the run began: mialib may have been edited since.
    notebook.metadata["mialib"] = made | committed.stamp(notebook, job.figures()) | {"code": code}
    work.write_atomic(job.executed, sealed(nbformat.writes(notebook).encode()))  # last: its presence says "complete"
    job.unfinished.unlink()
    return ""


def _page(notebook: nbformat.NotebookNode, name: str) -> str:
    """The notebook as one HTML file that needs no network; its links to other notebooks lead to their pages."""
    from companion import pages

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
                return f"{name(cell.execution_count, cell.source)}: {output.ename}: {output.evalue}".rstrip(": ")
        if cell.execution_count is None:
            return f"{name(None, cell.source)} was never executed"
    return ""


def name(count: int | None, source: str) -> str:
    """A cell as messages name it."""
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
    return name(begun[-1].execution_count, begun[-1].source) if begun else "before the first cell"
