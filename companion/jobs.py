"""Notebooks to run: where the results of each go, what they depend on, and whether they are there.

To keep what is done should cost next to nothing, so that nothing slow to import is imported here.
"""

import ast
import functools
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from companion import committed
from mialib import config, machine

NOTEBOOKS = config.ROOT / "notebooks"
GB = 2**30
# What a notebook is taken to need until it has run once: itself, and each worker process.
PEAK, PEAK_WORKER = 1.0 * GB, 0.5 * GB
LIBRARIES = ("matplotlib", "numpy", "pandas", "scikit-learn", "scipy", "seaborn", "torch", "xgboost")
UNSEALED = "0" * 64


@dataclass(frozen=True)
class Job:
    """One notebook to run and the folder its results go to."""

    source: Path
    out: Path
    profile: str
    seed: int
    settings: tuple[tuple[str, Any], ...] = ()  # parameters other than profile and seed
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
        beside = (path.stem for path in self.source.parent.glob("*.ipynb"))
        return committed.files_of(self.stem, self.out / "figures", beside)


# --- what is asked for ----------------------------------------------------------------------------------------------


def plan(
    names: Iterable[str],
    profile: str,
    seed: int,
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
    jobs = [Job(known[stem], out.resolve(), profile, seed, fixed) for stem in sorted(chosen or known)]
    for job in jobs:
        _check_parameters(job)
    return sorted(jobs, key=lambda job: job.reads_the_others)


def _check_parameters(job: Job) -> None:
    if "kernelspec" not in read(job.source)["metadata"]:
        raise ValueError(f"{job.stem} names no kernel; open it in Jupyter, choose Python 3, and save it")
    declared = defaults(job.source)
    if unknown := [name for name in job.parameters if name not in declared]:
        valid = ", ".join(declared) or "none (no cell tagged `parameters`)"
        raise ValueError(f"{job.stem} has no parameter {', '.join(unknown)}; its parameters: {valid}")
    for name, value in job.settings:
        if not _passes(value):
            kinds = "None, True, False, finite numbers, texts, lists and dicts of these, with texts as keys"
            raise ValueError(f"{name} cannot be {value!r}: a notebook takes {kinds}")
        default = plain(declared[name])
        if type(default) not in (type(value), type(None)):
            raise ValueError(f"{job.stem}: {name} must be of the type of its default, {default!r}, not {value!r}")


def defaults(path: Path) -> dict[str, ast.expr]:
    """The parameters that a notebook declares, each with its default; ValueError if that cell is no Python."""
    tagged = [cell["source"] for cell in read(path)["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    try:
        statements = ast.parse(tagged[0] if tagged else "").body
    except SyntaxError as error:
        raise ValueError(f"{path.stem}: its parameters cell is not Python ({error})") from error
    given = [each for each in statements if isinstance(each, ast.Assign | ast.AnnAssign) and each.value]
    pairs = [(each.targets[0] if isinstance(each, ast.Assign) else each.target, each.value) for each in given]
    return {target.id: value for target, value in pairs if isinstance(target, ast.Name)}


def plain(default: ast.expr) -> Any:
    """The value of a default; ValueError if it has to be computed."""
    try:
        return ast.literal_eval(default)
    except ValueError as error:
        text = ast.unparse(default)
        raise ValueError(f"only parameters with a plain default can be set, and this one's is {text}") from error


def _passes(value: Any) -> bool:
    """Whether papermill writes the value into the notebook as it is, as it does what JSON knows."""
    try:
        return json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError):
        return False


def _while_unchanged(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """What `make` makes of a file, made once until the file changes."""
    made = functools.cache(lambda path, *stamp: make(path))
    return lambda path: made(path, *_stamp(path))


@_while_unchanged
def read(path: Path) -> committed.Notebook:
    """A notebook's metadata and cells without their outputs; ValueError if it is broken."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        parts = [(cell["cell_type"], "".join(cell["source"]), cell["metadata"]) for cell in notebook["cells"]]
        found = [{"cell_type": kind, "source": text, "metadata": about} for kind, text, about in parts]
        return {"metadata": notebook["metadata"], "cells": found}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is no notebook of format 4 ({type(error).__name__}: {error})") from error


def cells(notebook: committed.Notebook) -> list[tuple[str, str, list[str]]]:
    """What makes a notebook's cells what they are: kind, text, tags."""
    return [(cell["cell_type"], cell["source"], cell["metadata"].get("tags", [])) for cell in notebook["cells"]]


def title(path: Path) -> str:
    """The notebook's first heading."""
    texts = (cell["source"] for cell in read(path)["cells"] if cell["cell_type"] == "markdown")
    lines = (line for text in texts for line in text.splitlines())
    return next((line.lstrip("# ") for line in lines if line.startswith("#")), "")


# --- what the results depend on -------------------------------------------------------------------------------------


def inputs(job: Job) -> str:
    """Digest of all the results depend on: cells, the code they reach, libraries, published numbers, parameters, data.

    Data: the digests in data/registry.csv, which are checked when a file is loaded (whether it is downloaded yet
    changes nothing); name, size and time of the files in `config.BROUGHT`; the weights in data/targets. The overview
    depends on the other notebooks' records too.
    """
    return _digest(_about(job, _kept_digest), committed.code(read(job.source)), _versions())


def glance(job: Job) -> str:
    """A digest that changes whenever `inputs` does, and costs little: of code as it is written, not what it does.

    Instead of versions of libraries: when the folders that Python imports from were changed last. Weights count by
    size and time.
    """
    written = [*(config.ROOT / "mialib").rglob("*.py"), *config.ROOT.glob("mialib/papers/*/sizes.toml")]
    written += [path for path in config.ROOT.glob("data/published/*.*") if path.suffix in (".csv", ".toml")]
    places = {name for name in sys.path if name.endswith("-packages")}  # Python's own, and where it is told to look
    places |= {*os.environ.get("PYTHONPATH", "").split(os.pathsep)} - {"", str(config.ROOT)}
    folders = [(name, _stamp(Path(name)), _packages(name)) for name in sorted(places) if os.path.isdir(name)]
    return _digest(_about(job, _stamp), sorted((str(path), _kept_digest(path)) for path in written), folders)


@functools.cache
def _packages(folder: str) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.endswith(("-info", ".pth")))


def _about(job: Job, weigh: Callable[[Path], Any]) -> list[Any]:
    """What both digests are of; `weigh` is what counts of trained weights."""
    files = [config.ROOT / "data" / "registry.csv"]
    if job.reads_the_others:
        files += sorted(path for path in job.out.glob("figures/*.json") if path.stem != job.stem)
    weights = [(path.name, weigh(path)) for path in sorted(config.ROOT.glob("data/targets/*.safe*"))]
    raw = config.raw_dir()
    found = sorted(p for name in config.BROUGHT[job.profile] for p in (raw / name).rglob("*") if p.is_file())
    brought = [(p.relative_to(raw).as_posix(), *_stamp(p)) for p in found]
    listed = [(path.name, _kept_digest(path)) for path in files]
    return [cells(read(job.source)), listed, job.parameters, weights, brought, machine.precision()]


@functools.cache
def _versions() -> list[str]:
    """Versions of what the notebooks compute and draw with."""
    from importlib.metadata import version  # takes as long as all of this file

    return [f"{name} {version(name)}" for name in LIBRARIES]


def _stamp(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_size, about.st_mtime_ns


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def digest(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


_kept_digest = _while_unchanged(digest)


# --- whether they are there -----------------------------------------------------------------------------------------


def state(job: Job) -> str:
    """One of "done", "out of date" (an input changed or a result is gone), "unfinished" and "not run"."""
    if not job.executed.exists():
        return "unfinished" if job.unfinished.exists() else "not run"
    try:
        made = about(job.executed)
        whole = made["html"] == digest(job.html) and made["figures"] == figures(job)
        done = whole and (made["glance"] == glance(job) or made["inputs"] == inputs(job))
    except Exception:  # a damaged file may raise anything, and another runner may be at it
        return "out of date"
    return "done" if done else "out of date"


def about(executed: Path) -> dict[str, Any]:
    """What an executed notebook says of its run; ValueError for one that is not as the run left it."""
    content = executed.read_bytes()
    made = json.loads(content)["metadata"]["mialib"]
    if sealed(content.replace(_seal(made["itself"]), _seal(UNSEALED))) != content:
        raise ValueError(f"{executed.name} was edited after the run")
    return made


def sealed(notebook: bytes) -> bytes:
    """An executed notebook in whose metadata "itself" is UNSEALED, with the digest of all its bytes in that place."""
    return notebook.replace(_seal(UNSEALED), _seal(hashlib.sha256(notebook).hexdigest()))


def _seal(itself: str) -> bytes:
    return f'"itself": "{itself}"'.encode()


def figures(job: Job) -> dict[str, str]:
    """The digest of each file that the notebook has saved under figures/."""
    return {path.name: digest(path) for path in job.figures()}


def keep(jobs: list[Job], tell: Callable[[dict[str, Any]], None]) -> list[Job]:
    """Those that must run. `tell` gets an event "kept" for each that is done, see `live`."""
    left: list[Job] = []
    for seen, job in enumerate(jobs):  # the overview comes last, and follows from what the others leave
        if not (job.reads_the_others and any(other.out == job.out for other in left)) and state(job) == "done":
            count = {"finished": seen + 1 - len(left), "of": len(jobs)}
            tell({"event": "kept", "notebook": job.stem, "run": job.label, **count, "left": None})
        else:
            left.append(job)
    return left


# --- what is known of it before it runs -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Past:
    """What a notebook took when it last ran."""

    seconds: float | None  # None: it has not come to its end yet
    peak: float  # bytes


def past(job: Job, workers: int) -> Past:
    """How long the notebook took, and the memory it used, when it last ran; a guess of the memory if it has not."""
    guess = PEAK + workers * PEAK_WORKER
    try:
        seen = json.loads(job.history.read_text(encoding="utf-8"))
        seconds = None if seen["seconds"] is None else float(seen["seconds"])
        peak, then = float(seen["peak"]), float(seen["workers"])
    except (OSError, ValueError, TypeError, KeyError):
        return Past(None, guess)
    if not (0 < peak < math.inf and (seconds is None or 0 < seconds < math.inf)):
        return Past(None, guess)
    return Past(seconds, max(peak, guess) if seconds is None or workers > then else peak)
