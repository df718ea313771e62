"""One process a task, watched while it runs: how long it takes, how much memory, how it ends."""

import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import psutil


@dataclass(eq=False)
class Running:
    """A task in a process of its own."""

    task: Any
    process: SpawnProcess
    receiver: Connection
    begun: float  # time.monotonic()
    peak: int = 0  # bytes: the most seen so far, see `memory`

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun


def start(target: Callable, task: Any, *more: Any) -> Running:
    """Call target(task, *more, sender) in a new process; it sends one object when it is done."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(task, *more, sender), daemon=True)
    process.start()
    sender.close()
    return Running(task, process, receiver, time.monotonic())


def look(running: list[Running], seconds: float = 1.0) -> list[tuple[Running, Any]]:
    """Wait until one has ended, at most `seconds`: those that have, each with what it sent (None: it was killed)."""
    ready, ended = wait([each.receiver for each in running], seconds), []
    for each in running:
        each.peak = max(each.peak, memory(each.process.pid))
        if each.receiver in ready:
            try:
                sent = each.receiver.recv()
            except EOFError:
                sent = None
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
