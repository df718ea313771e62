"""One process a task, watched while it runs: how long it takes, how much memory, how it ends."""

import multiprocessing
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import psutil

LINGER = 10  # seconds that a process may take to end, once it has closed what it holds
CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


@dataclass(eq=False)
class Running:
    """A task in a process of its own."""

    task: Any
    process: SpawnProcess
    receiver: Connection
    begun: float  # time.monotonic()
    peak: int = 0  # bytes: the most seen so far, see `memory`
    closed: float | None = None  # time.monotonic() when it was seen to have closed its end without a word

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun


def start(target: Callable, task: Any, *more: Any) -> Running:
    """Call target(task, *more, sender) in a new process; it sends one object when it is done.

    SIGINT is blocked there until the target unblocks it: Ctrl-C reaches all processes of a terminal, and one that still
    imports would print a traceback beside what its runner says.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(task, *more, sender), daemon=True)
    resource_tracker.ensure_running()  # here, as it would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    sender.close()
    return Running(task, process, receiver, time.monotonic())


def look(running: list[Running], seconds: float = 1.0) -> list[tuple[Running, Any]]:
    """Wait until one has ended, at most `seconds`: those that have, each with what it sent.

    None: it sent nothing before it ended or was ended; `Running.process.exitcode` tells how.
    """
    ready = wait([each.process.sentinel if each.closed else each.receiver for each in running], seconds)
    ended = []
    for each in running:
        each.peak = max(each.peak, memory(each.process.pid))
        sent = None
        if each.receiver in ready:
            try:
                sent = each.receiver.recv()
            except EOFError:  # it ends: to be stopped now would change its exit code, and the others are watched on
                each.closed = time.monotonic()
        over = each.closed and (not each.process.is_alive() or time.monotonic() > each.closed + LINGER)
        if over or (each.receiver in ready and not each.closed):
            stop(each)
            ended.append((each, sent))
    return ended


def stop(each: Running) -> None:
    """End its process and all that it started, if they have not ended, and wait until it has."""
    end_children(each.process.pid)
    each.process.terminate()
    each.process.join()
    each.receiver.close()


def end_children(pid: int) -> None:
    """End all that a process started, and all that those started, such as a kernel's worker processes."""
    with suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                process.kill()


def memory(pid: int) -> int:
    """Resident bytes of a process and of all it started; pages that they share count once for each."""
    total = 0
    with suppress(psutil.Error):
        first = psutil.Process(pid)
        for process in (first, *first.children(recursive=True)):
            with suppress(psutil.Error):
                total += process.memory_info().rss
    return total


def free() -> float:
    """Bytes that can be used now: what the machine has available, or its container (cgroup) where that is less."""
    return min([psutil.virtual_memory().available, *_rooms()])


def _rooms() -> Iterator[float]:
    """Bytes left in each cgroup around this process that has a limit, v2 or v1; what it caches of files makes way."""
    own = OWN_CGROUPS.read_text(encoding="utf-8") if OWN_CGROUPS.exists() else ""  # there on Linux only
    for controllers, path in re.findall(r"^\d+:(.*?):/(.*)$", own, re.MULTILINE):
        if controllers == "":
            root, limit, used, cached = CGROUPS, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, used = CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cached = "total_inactive_file"
        else:
            continue
        # In a container the path may be the host's: then the container's own group lies at the root.
        for folder in (root / path, *(root / parent for parent in Path(path).parents)):
            with suppress(OSError, ValueError, KeyError):  # no such group, or "max": no limit
                stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines())
                taken = int((folder / used).read_text(encoding="utf-8")) - int(stat[cached])
                yield int((folder / limit).read_text(encoding="utf-8")) - taken
