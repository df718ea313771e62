"""What makes a run repeatable: random streams, content digests, and provenance."""

import dataclasses
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from mialib import __version__, config, machine

_PACKAGES = ("numpy", "torch", "torchvision", "scikit-learn", "xgboost", "matplotlib", "papermill")


def stream(seed: int, *words: str | int) -> np.random.Generator:
    """Random generator of one role, e.g. `stream(0, "shadow", 3)`: adding a shadow changes no other stream."""
    return np.random.default_rng(int(digest(seed, *words)[:32], 16))


def digest(*parts: Any) -> str:
    """SHA-256 (hex) of arrays (dense or sparse), dataclasses, dicts, tuples, lists and plain values, types included.

    TypeError for anything else, also inside an array: what is digested by its address tells nothing.
    """
    sha = hashlib.sha256()
    for part in parts:
        _feed(sha, part)
    return sha.hexdigest()


def _feed(sha: "hashlib._Hash", part: Any) -> None:
    if isinstance(part, np.ndarray) and part.dtype.hasobject:
        _feed(sha, ("objects", part.shape, part.ravel().tolist()))
    elif isinstance(part, np.ndarray):
        sha.update(f"array {part.dtype.str} {part.shape};".encode())
        sha.update(np.ascontiguousarray(part).data)
    elif scipy.sparse.issparse(part):
        csr = part.tocsr()
        _feed(sha, ("csr", csr.shape, csr.indptr.astype(np.int64), csr.indices.astype(np.int64), csr.data))
    elif dataclasses.is_dataclass(part):
        _feed(sha, (type(part).__name__, {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}))
    elif isinstance(part, dict):
        _feed(sha, ("dict", *((key, part[key]) for key in sorted(part))))
    elif isinstance(part, tuple | list):
        sha.update(f"sequence {len(part)};".encode())
        for item in part:
            _feed(sha, item)
    elif part is None or isinstance(part, bool | int | float | str | np.generic):
        value = part.item() if isinstance(part, np.generic) else part
        text = f"{type(value).__name__} {value!r}"
        sha.update(f"{len(text)}:{text};".encode())
    else:
        raise TypeError(f"cannot digest a {type(part).__name__}; pass arrays, plain values or dataclasses of them")


def versions(*packages: str) -> str:
    """Installed versions, e.g. "numpy 2.4.6, torch 2.15.0": a cached result is rebuilt when a library changes."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


@dataclasses.dataclass(frozen=True)
class Run:
    """One execution of one notebook."""

    notebook: str  # file stem, e.g. "01_shokri_table2_datasets"
    profile: str
    seed: int
    started: float  # seconds since the epoch
    commit: str  # of the code that runs, see `provenance`


def start(notebook: str, profile: str, seed: int) -> Run:
    """Check the parameters, print one line of versions, and note the time. ValueError on a bad profile or seed."""
    config.check_profile(profile)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed must be a whole number from 0 up, not {seed!r}")
    libraries = versions("numpy", "torch", "scikit-learn")
    run = f"mialib {__version__} · profile {profile} · seed {seed} · Python {platform.python_version()}"
    print(f"{run}, {libraries} · {machine.device()}")
    return Run(notebook, profile, seed, time.time(), _commit())


def provenance(run: Run, data: dict[str, str]) -> dict[str, Any]:
    """Where a record comes from: commit, versions, device, threads, seconds so far, data digests, date (UTC).

    Seconds count from `start` and so are short where models came from the cache.
    """
    return {
        "commit": run.commit,
        "versions": {"python": platform.python_version(), "mialib": __version__}
        | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "device": f"{platform.system()} {platform.machine()}, {machine.device()}",
        "threads": {"workers": config.workers(), "each": 1},
        "seconds": round(time.time() - run.started, 1),
        "data": dict(sorted(data.items())),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _commit() -> str:
    """HEAD's hash, with "+changes" when what git keeps, or a new file of the package, differs from it.

    "unknown" outside a checkout of this project (unpacked inside another repository, it is not that one's), or
    without git.
    """
    try:
        top, head = _git("rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() != config.ROOT.resolve():
            return "unknown"
        changed = _git("status", "--porcelain", "--untracked-files=all").splitlines()
    except (OSError, ValueError, subprocess.CalledProcessError):
        return "unknown"
    ours = [
        line for line in changed if not line.startswith("??") or line[3:].strip('"').startswith(("mialib/", "data/"))
    ]
    return head + ("+changes" if ours else "")


def _git(*arguments: str) -> str:
    """What git says of this folder, whatever GIT_DIR and the like point at."""
    elsewhere = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(config.ROOT), *arguments]
    return subprocess.run(command, capture_output=True, check=True, encoding="utf-8", env=elsewhere).stdout
