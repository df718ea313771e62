"""One notebook (11, `demo`, empty cache) alone, and beside a busy process on every core: processor time of both.

Claim: beside them it takes at most a quarter more processor time, that is, no thread spins while it waits for another.
On the wall it takes its share longer.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks.measure import show
from mialib import config

NOTEBOOK = "11"


def notebook() -> dict[str, float]:
    """Seconds of the processor and of the wall for the runner and all that it starts."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "mialib", "run", NOTEBOOK, "--out", f"{folder}/out"]
        env = os.environ | {"MIALIB_CACHE": f"{folder}/cache"}
        subprocess.run(command, env=env, cwd=config.ROOT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"processor s": spent, "wall s": time.perf_counter() - start}


def main() -> dict[str, Any]:
    """Print both; returns everything that was measured."""
    results = {"alone": notebook()}
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(config.workers())]
    try:
        results["beside busy processes"] = notebook()
    finally:
        for process in busy:
            process.kill()
            process.wait()
    show(f"notebook {NOTEBOOK}", [{"run": name} | result for name, result in results.items()])
    ratio = results["beside busy processes"]["processor s"] / results["alone"]["processor s"]
    claims = {"a busy machine costs at most a quarter more": ratio <= 1.25}
    print(f"  {ratio:.2f} times the processor time; claims: {claims}")
    return {"claims": claims, "ratio": ratio, "results": results}
