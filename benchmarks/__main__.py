"""Run the benchmarks named on the command line, or all: `python -m benchmarks [training] [images] …`."""

import json
import sys

from benchmarks import boundary, gradients, images, location, synthesis, training
from mialib import config, runs

BENCHMARKS = {
    "training": training.main,
    "images": images.main,
    "location": location.main,
    "synthesis": synthesis.main,
    "boundary": boundary.main,
    "gradients": gradients.main,
}

if __name__ == "__main__":
    names = sys.argv[1:] or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        sys.exit(f"unknown benchmark {unknown[0]!r}; valid: {', '.join(BENCHMARKS)}")
    for name in names:
        path = config.ROOT / "build" / "bench" / f"{name}.json"
        runs.write_atomic(path, f"{json.dumps(BENCHMARKS[name](), indent=1)}\n".encode())
        print(f"written: {path.relative_to(config.ROOT)}\n")
