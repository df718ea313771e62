"""Install requirements.lock into the environment whose Python runs this: `python install.py [cpu|cuda]`; `make` does.

On Linux PyTorch has two builds of one version: the default one brings 5 GB of CUDA, the CPU build does not. Nothing is
installed yet when this runs, so it uses the standard library alone.
"""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CPU_BUILD = ("--no-deps", "--retries", "1", "--index-url", CPU_INDEX)  # one more try: a firewall is silent for long
DRIVER = ("/proc/driver/nvidia", "/dev/nvidia0")
CUDA = ("nvidia-", "cuda-", "triton==")  # pins that only the default build needs
TOLD = {
    "cpu": "2 GB of disk, with PyTorch's CPU build: {}",
    "cuda": "7 GB of disk, with PyTorch for CUDA: {}",
    "only": "2 GB of disk",
}


def main(wanted: str = "") -> None:
    """Install the build that is `wanted`, cpu or cuda, or with "" the one that suits this machine.

    Ends the process with one line where pip fails; pip's own words stand above it.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C: pip says that it was cancelled, and no traceback follows
    pins = [line for line in Path("requirements.lock").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    build, why = choice(wanted)
    tell(build, why)
    if build == "cpu" and not pip(*CPU_BUILD, *from_cpu_index(pins)):
        if wanted:
            sys.exit(f"{CPU_INDEX} gave no CPU build: try again, or TORCH=cuda for the default build")
        build = "cuda"
        tell(build, f"{CPU_INDEX} gave no CPU build")
    # XGBoost asks for a CUDA library that it runs without, so the CPU build's pins are installed as they stand.
    rest = ["--no-deps", *without_cuda(pins)] if build == "cpu" else ["-r", "requirements.lock"]
    if not pip(*rest):
        sys.exit("the installation failed, pip says why above; the same command tries again")


def choice(wanted: str) -> tuple[str, str]:
    """The build, a key of TOLD, and the reason that the reader is told."""
    if sys.platform != "linux":
        return "only", ""
    if wanted:
        return wanted, "as chosen"
    if shutil.which("nvidia-smi") or any(Path(path).exists() for path in DRIVER):
        return "cuda", "an NVIDIA driver is here; TORCH=cpu for the small build"
    if reached(f"{CPU_INDEX}/torch/"):
        return "cpu", "no NVIDIA driver is here; TORCH=cuda for the other"
    return "cuda", f"{CPU_INDEX} with the small build does not answer"


def reached(url: str, seconds: float = 5) -> bool:
    """Whether `url` answers within `seconds`. A process of its own asks: a silent name server heeds no time-out."""
    ask = [sys.executable, "-c", "import sys, urllib.request; urllib.request.urlopen(sys.argv[1])", url]
    try:
        return subprocess.run(ask, stderr=subprocess.DEVNULL, timeout=seconds).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def from_cpu_index(pins: list[str]) -> list[str]:
    """PyTorch's pins as its own index has them; to pip, 2.0+cpu, once installed, is as good as the lock's 2.0."""
    return [pin + "+cpu" * pin.startswith("torch==") for pin in pins if pin.startswith(("torch==", "torchvision=="))]


def without_cuda(pins: list[str]) -> list[str]:
    """The pins that the CPU build needs."""
    return [pin for pin in pins if not pin.startswith(CUDA)]


def tell(build: str, why: str) -> None:
    print(f"Installing into .venv, once: some minutes and {TOLD[build].format(why)} ...", flush=True)


def pip(*what: str) -> bool:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
    return subprocess.run(command).returncode == 0


if __name__ == "__main__":
    main(*sys.argv[1:])
