import os
import subprocess
import sys

import joblib
import pytest
import torch

from mialib import config, machine

AMX = frozenset({"avx2", "avx512f", "avx512_bf16", "amx_bf16"})


@pytest.mark.parametrize(
    ("flags", "environment", "native"),
    [
        (AMX, {}, True),
        ({"avx2", "avx512f", "avx512_bf16"}, {}, True),
        ({"avx2", "avx512f", "avx512_vnni"}, {}, False),
        ({"avx2"}, {}, False),
        ({"asimd", "bf16"}, {}, False),
        (set(), {}, False),
        (AMX, {"ONEDNN_MAX_CPU_ISA": "AVX2"}, False),
        (AMX, {"DNNL_MAX_CPU_ISA": "avx512_core"}, False),
        (AMX, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, True),
        (AMX, {"ONEDNN_MAX_CPU_ISA": "default"}, True),
        (AMX, {"ATEN_CPU_CAPABILITY": "avx2"}, False),
        (AMX, {"ATEN_CPU_CAPABILITY": "default"}, False),
        (AMX, {"ATEN_CPU_CAPABILITY": "avx512"}, True),
        ({"avx2"}, {"ONEDNN_MAX_CPU_ISA": "ALL"}, False),
    ],
)
def test_bfloat16_only_where_it_is_native(flags, environment, native):
    assert machine.native_bfloat16(frozenset(flags), environment) is native


def test_precision_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for flags, told in ((AMX, "CPU, bfloat16"), (frozenset({"avx2"}), "CPU, float32")):
        monkeypatch.setattr(machine, "flags", lambda flags=flags: flags)
        for name in machine.LIMITS:
            monkeypatch.delenv(name, raising=False)
        assert machine.device() == told
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert "avx2, ONEDNN_MAX_CPU_ISA=AVX2" in machine.processor()


@pytest.mark.parametrize(("capability", "told"), [((9, 0), "H, bfloat16"), ((7, 5), "H, float32")])
def test_an_older_gpu_trains_in_float32(capability, told, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H")
    assert machine.device() == told


@pytest.mark.skipif(not os.path.exists("/proc/cpuinfo"), reason="only Linux lists a processor's instruction sets")
def test_flags_of_this_processor():
    assert machine.flags() & {"avx2", "sse4_2", "asimd", "fp"}


def squares(workers, unordered=False):
    return list(machine.parallel((joblib.delayed(pow)(i, 2) for i in range(5)), workers, unordered))


def test_parallel_keeps_the_order_unless_told_otherwise():
    assert squares(1) == squares(2) == [0, 1, 4, 9, 16]
    assert sorted(squares(2, unordered=True)) == [0, 1, 4, 9, 16]


def test_without_semaphores_jobs_run_one_after_another():
    """As in a container with a read-only /dev/shm: joblib has no processes there, and refused every call."""
    code = "from tests.test_machine import squares; print(squares(2))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"JOBLIB_MULTIPROCESSING": "0"},
        capture_output=True,
        text=True,
        cwd=config.ROOT,
    )
    assert result.stdout == "[0, 1, 4, 9, 16]\n", result.stderr


@pytest.mark.parametrize("before", ["2", None])
def test_a_task_alone_starts_no_processes_and_leaves_the_setting(before, monkeypatch):
    monkeypatch.setenv("MIALIB_WORKERS", before) if before else monkeypatch.delenv("MIALIB_WORKERS", raising=False)
    usual = config.workers()
    assert machine.alone(lambda least: (config.workers(), least), 3) == (1, 3)
    with pytest.raises(ZeroDivisionError):
        machine.alone(divmod, 1, 0)
    assert config.workers() == usual
