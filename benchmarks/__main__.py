"""Run the benchmarks named on the command line, or all: `python -m benchmarks [training] [images] …`.

Two run only when they are named: "calibration", how well the simulators fit what is published, which takes minutes, and
"conformance", which wants other packages (docs/conformance.md).
"""

import json
import sys

from benchmarks import (
    boundary,
    busy,
    calibration,
    choices,
    conformance,
    federated,
    gradients,
    images,
    location,
    private,
    proxies,
    references,
    synthesis,
    training,
    transfer,
)
from mialib import config, machine, work

BENCHMARKS = {
    "training": training.main,
    "images": images.main,
    "location": location.main,
    "synthesis": synthesis.main,
    "boundary": boundary.main,
    "gradients": gradients.main,
    "references": references.main,
    "transfer": transfer.main,
    "federated": federated.main,
    "private": private.main,
    "proxies": proxies.main,
    "choices": choices.main,
    "busy": busy.main,
    "calibration": calibration.main,
    "conformance": conformance.main,
}
NAMED = ("calibration", "conformance")

if __name__ == "__main__":
    names = sys.argv[1:] or [name for name in BENCHMARKS if name not in NAMED]
    if unknown := [name for name in names if name not in BENCHMARKS]:
        sys.exit(f"unknown benchmark {unknown[0]!r}; valid: {', '.join(BENCHMARKS)}")
    print(f"{machine.processor()}, {config.workers()} cores; {machine.device()}")
    for name in names:
        path = config.ROOT / "build" / "bench" / f"{name}.json"
        about = {"processor": machine.processor(), "cores": config.workers(), "device": machine.device()}
        work.write_atomic(path, f"{json.dumps(about | BENCHMARKS[name](), indent=1)}\n".encode())
        print(f"written: {path.relative_to(config.ROOT)}\n")
