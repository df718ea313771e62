"""How a run tells what happens: lines for people, JSON for machines. Both take the events of `batch.run`."""

import json
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any

Event = dict[str, Any]
_CLEAR = "\r\033[K"


def lines() -> Callable[[Event], None]:
    """A line when a notebook begins and ends; on a terminal, one line kept up to date in place of the beginnings."""
    terminal = sys.stdout.isatty()

    def tell(event: Event) -> None:
        if event["event"] == "running":
            if terminal:
                width = shutil.get_terminal_size().columns - 1
                print(f"{_CLEAR}{status(event)[:width]}", end="", flush=True)
        elif event["event"] != "started" or not terminal:
            print(f"{_CLEAR if terminal else ''}{line(event)}", flush=True)

    return tell


def json_lines(event: Event) -> None:
    """One JSON object a line, with the time (seconds since the epoch); not the state of every second."""
    if event["event"] != "running":
        print(json.dumps({"time": round(time.time(), 3)} | event), flush=True)


def line(event: Event) -> str:
    """What one event says: "[2/5] 04_shokri_fig4_sizes  3m10s  ok, about 12m left"."""
    head = f"[{event['finished']}/{event['of']}] {event['notebook']} {event['run']}".rstrip()
    ends = {"started": "running", "kept": "unchanged, kept", "done": "ok", "failed": "FAILED"}
    took = f"{duration(event['seconds'])}  " if "seconds" in event else ""
    return f"{head}  {took}{ends[event['event']]}{_left(event)}"


def status(event: Event) -> str:
    """What is going on, for a terminal's last line."""
    running = ", ".join(f"{name} {duration(seconds)}" for name, seconds in event["running"].items())
    return f"[{event['finished']}/{event['of']}] running: {running}{_left(event)}"


def _left(event: Event) -> str:
    wanted = event["left"] and event["event"] in ("done", "failed", "running")
    return f", about {duration(event['left'])} left" if wanted else ""


def duration(seconds: float) -> str:
    """ "45s", "3m10s", "2h05m"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"
