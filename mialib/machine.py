"""What this machine does well: the arithmetic that networks train in, and how jobs are spread over processes.

All that depends on the kind of processor is decided here, by what the processor can do and never by a measurement: two
runs on one machine then make the same choice. `make bench` measures the choices, on whatever machine it runs.
"""

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# Flags of processors that multiply bfloat16 numbers in one instruction. All others emulate it: 2 to 50 times slower
# than float32. ARM's "bf16" is left out, as it was not tried.
BFLOAT16 = {"avx512_bf16", "amx_bf16"}
TOLD = ("sse4_2", "avx", "avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")  # in benchmarks
# Variables that hold oneDNN, and PyTorch itself, to older instructions than the processor has.
LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")


def precision(device: str = "cpu") -> str:
    """In what networks multiply while they train on a "cpu" or "cuda" device: "bfloat16" or "float32".

    bfloat16 only where the processor, or the GPU, computes it natively. Weights and sums are float32 either way.
    """
    if device == "cuda":
        return "bfloat16" if sys.modules["torch"].cuda.get_device_capability() >= (8, 0) else "float32"
    return "bfloat16" if native_bfloat16(flags(), os.environ) else "float32"


def native_bfloat16(flags: frozenset[str], environment: Mapping[str, str]) -> bool:
    """Whether a CPU with these flags multiplies bfloat16 natively, and `environment` lets PyTorch do so."""
    *onednn, aten = (environment.get(name, "").upper() for name in LIMITS)
    with_it = ("BF16", "FP16", "AMX", "AVX10", "DEFAULT", "ALL")
    limited = any(limit and not any(word in limit for word in with_it) for limit in onednn)
    return bool(flags & BFLOAT16) and not limited and aten not in ("DEFAULT", "AVX2")


def device() -> str:
    """The GPU's name if this process uses PyTorch and has one, else CPU; and `precision`: "CPU, bfloat16"."""
    torch = sys.modules.get("torch")  # not imported for this alone
    if torch and torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, {precision('cuda')}"
    return f"CPU, {precision()}"


@functools.cache
def flags() -> frozenset[str]:
    """The instruction sets of this processor, by Linux's names; empty where the system does not tell."""
    for line in _cpuinfo():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def processor() -> str:
    """The processor as a measurement should name it: with its instruction sets, and what limits them."""
    named = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    if not named and platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        named = [subprocess.run(command, capture_output=True, encoding="utf-8").stdout.strip()]
    sets = " ".join(name for name in TOLD if name in flags()) or "instruction sets not told"
    limits = "".join(f", {name}={os.environ[name]}" for name in LIMITS if os.environ.get(name))
    return f"{(named or [platform.machine()])[0] or platform.machine()} ({sets}{limits})"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def parallel(tasks: Iterable[tuple], workers: int, unordered: bool = False) -> Iterator[Any]:
    """Results of joblib's delayed `tasks`, on `workers` processes of one thread each; `unordered`: as they finish.

    One after another in this process, on one thread, for a single worker and where the system has no semaphores (some
    containers): joblib could only offer threads there, which would share the libraries' own.
    """
    import joblib  # takes long, and whoever only asks for the precision does without
    from threadpoolctl import threadpool_limits

    if workers < 2 or "loky" not in joblib.parallel.BACKENDS:
        for function, arguments, named in tasks:
            with threadpool_limits(1):
                result = function(*arguments, **named)
            yield result
        return
    kind = "generator_unordered" if unordered else "generator"
    with joblib.parallel_config(backend="loky", n_jobs=workers, inner_max_num_threads=1):
        yield from joblib.Parallel(return_as=kind, pre_dispatch="2*n_jobs")(tasks)


def alone(function: Callable, *arguments: Any) -> Any:
    """What `function` gives where it may start no processes: for a task of `parallel` that is a whole experiment."""
    before = os.environ.get("MIALIB_WORKERS", "")
    os.environ["MIALIB_WORKERS"] = "1"
    try:
        return function(*arguments)
    finally:
        os.environ["MIALIB_WORKERS"] = before
