"""Run one contender alone, in a fresh process, and take its wall time and the peak memory of its process tree."""

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import psutil

from mialib import machine


def contender(module: str, function: str, *arguments: Any, threads: int | None = None) -> dict[str, Any]:
    """Call `module.function(*arguments)` in a process of its own, with an empty cache.

    Returns what the function returned (a dict) plus `peak_mib`, the largest sum of resident memory over the
    process and its children. `threads` sets OMP_NUM_THREADS; None leaves the library's default.
    """
    code = f"import json, {module}; print('\\n' + json.dumps({module}.{function}(*{arguments!r})))"
    with tempfile.TemporaryDirectory() as cache:
        env = os.environ | {"MIALIB_CACHE": cache} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", code], env=env, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, _tree_bytes(process.pid))
            time.sleep(0.5)  # looking closer would slow down what is measured
        output = process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"{module}.{function} ended with exit code {process.returncode}; its error is above")
    return json.loads(output.splitlines()[-1]) | {"peak_mib": round(peak / 2**20)}


def _tree_bytes(pid: int) -> int:
    """Proportional set size, where the system gives it: memory that processes share counts once."""
    total = 0
    try:
        for process in [parent := psutil.Process(pid), *parent.children(recursive=True)]:
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
    except psutil.NoSuchProcess:
        pass  # it ended while we looked
    return total


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows as an aligned table under a title."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    cells = [heads] + [[_text(row.get(key, "")) for key in heads] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    print(f"\n{title}\n  on {machine.processor()}")
    for line in cells:
        print(
            "  "
            + "  ".join(
                text.ljust(w) if i == 0 else text.rjust(w) for i, (text, w) in enumerate(zip(line, widths, strict=True))
            )
        )


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
