"""Turns at dear work: two notebooks, or two runners, that want the same models do not both train them."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from mialib import config, runs


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, after waiting for whoever holds it; the operating system frees it when a holder dies.

    A lock spares work and nothing else depends on it, as results are written whole or not at all: where there can be
    no lock file, or the file system has no locks, the work is done without.
    """
    lock = FileLock(path, poll_interval=0.2, fallback_to_soft=False)
    with suppress(OSError, NotImplementedError):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def held(*parts: Any) -> Iterator[None]:
    """Hold the lock that `parts` name (see `runs.digest`): who comes second finds the first's result in the cache."""
    folder = config.cache_dir() / "locks"
    with suppress(OSError):  # the cache is read-only or someone else's
        folder.mkdir(parents=True, exist_ok=True)
    with turn(folder / f"{runs.digest(*parts)[:16]}.lock"):
        yield
