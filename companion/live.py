"""How a run tells what happens: the events of `runner.run` as lines or as JSON, and at its end a scorecard."""

import json
import math
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

Event = dict[str, Any]
HEIGHT = 40  # lines of the screen that the scorecard fits on; it is 100 columns wide
VERDICTS = ("reproduced", "differs", "undecided", "not comparable")  # of `published`, which takes long to import
MARKS = {"M": "*", "S": "+", "R": ""}  # of simulated and substitute data in the scorecard
FOLDERS = {
    "html": "the notebooks as pages",
    "notebooks": "the executed notebooks",
    "figures": "figures, tables and records",
    "logs": "what they printed",
}
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


def results(out: Path) -> str:
    """The scorecard and where to look."""
    places = [f"  {os.path.relpath(out / folder):<28} {what}" for folder, what in FOLDERS.items()]
    card = scorecard(out)
    return "\n".join([*(["", card] if card else []), "", "Look into:", *places])


def scorecard(out: Path) -> str:
    """The records in `out`/figures on one screen: verdicts per exhibit, then rows of ours beside published."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("figures/*.json"))]
    records = [record for record in records if record["cells"]]
    if not records:
        return ""
    widths = {verdict: len(verdict) + 2 for verdict in VERDICTS}
    lines = [f"{'exhibit':<48}" + "".join(f"{verdict:>{width}}" for verdict, width in widths.items())]
    for record in records[: HEIGHT // 2]:
        # As `published.counts` does.
        numbers = [cell for cell in record["cells"] if cell["published"] is not None and cell["primary"]]
        counted = Counter(cell["verdict"] for cell in numbers)
        name = f"{_cut(record['exhibit'], 47):<48}"
        lines.append(name + "".join(f"{counted[verdict]:>{width}}" for verdict, width in widths.items()))
    room = HEIGHT - len(lines) - 3
    share = max(1, min(20, room) // len(records))
    rows = [cell for record in records for cell in _telling(record["cells"])[:share]][:room]
    layout = "{:<16} {:<20} {:<18} {:>5} {:>6} {:<14} {:<14}"
    if rows:
        lines += ["", layout.format("data", "setting", "metric", "paper", "ours", "95 % interval", "verdict").rstrip()]
    for cell in rows:
        published, value, low, high = (_number(cell[key]) for key in ("published", "value", "low", "high"))
        texts = (_cut(cell["dataset"], 15) + MARKS[cell["tier"]], _cut(cell["setting"], 20), _cut(cell["metric"], 18))
        interval = f"{low} to {high}" if low and high else ""
        lines.append(layout.format(*texts, published, value, interval, cell["verdict"]).rstrip())
    if {cell["tier"] for cell in rows} - {"R"}:
        lines.append("* simulated data, + a substitute for the paper's data")
    return "\n".join(lines)


def _telling(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cells with a number on both sides: what differs, what is reproduced, the rest; attacks before targets."""
    both = [cell for cell in cells if cell["published"] is not None and cell["value"] is not None]
    order = ("differs", "undecided", "reproduced", "not comparable")
    return sorted(both, key=lambda cell: (order.index(cell["verdict"]), cell["metric"].startswith("target")))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _number(value: float | None) -> str:
    return f"{value:.3f}" if value is not None and math.isfinite(value) else ""
