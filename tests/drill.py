"""The reliability drill (`make drill`): things broken on purpose, on toy notebooks and a toy cache; losses counted.

A loss is a finished result that is gone or changed, a wrong result that was accepted, or an error without a clear
message. `python -m tests.drill kills downloads` does those parts alone. Exit code 1 if anything was lost.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import nbformat
import pooch
from nbformat.v4 import new_code_cell, new_notebook

from mialib import __main__ as command_line
from mialib import batch, config, datasets, runs

KILLS = 20
MODELS = 6  # that a notebook needs
FIRST = {"01_first": 0, "02_second": MODELS // 2}  # the first of them: half are shared
TMPFS = ("100k", "300k", "700k")  # a page of HTML takes about 300k
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
PARAMETERS = new_code_cell('profile = "laptop"\nseed = 0', metadata={"tags": ["parameters"]})
# A notebook that "trains" models, some of which the other one needs too, and leaves a record.
CODE = f"""
import json, time
from mialib import config, locks, runs
means = []
for i in range(first, first + {MODELS}):
    key = runs.digest("toy", seed, i)
    with locks.held(key):
        if (entry := runs.load(key)) is None:
            time.sleep(0.1)
            with open(config.raw_dir() / "trained", "a") as file:
                file.write(str(i) + " ")
            entry = {{"theta": runs.stream(seed, "toy", i).random(5000)}}
            runs.store(key, entry)
    means.append(float(entry["theta"].mean()))
record = json.dumps({{"exhibit": "Toy", "cells": [], "means": means}})
runs.write_atomic(config.figures_dir(profile) / (name + ".json"), record.encode())
"""
RUNNER = """
import sys
from pathlib import Path
from mialib import __main__, batch
batch.NOTEBOOKS = Path(sys.argv[1])
sys.exit(__main__.main(["run", "--out", sys.argv[2], "--workers", "2", "--memory", "100"]))
"""


@dataclass
class Tally:
    """What a part tried, and what it lost."""

    tried: int = 0
    losses: list[str] = field(default_factory=list)

    def check(self, good: bool, what: str) -> None:
        """One more try; `what` to say if it was no good."""
        self.tried += 1
        if not good:
            self.losses.append(what)


@dataclass
class Place:
    """A folder of toy notebooks, and where one run of them keeps its things."""

    folder: Path

    def __post_init__(self) -> None:
        for path in (self.notebooks, self.folder / "raw"):
            path.mkdir(parents=True, exist_ok=True)
        for name, first in FIRST.items():
            cells = [PARAMETERS, new_code_cell(f"name, first = {name!r}, {first}\n{CODE}")]
            notebook = new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
            nbformat.write(notebook, self.notebooks / f"{name}.ipynb")
        self.use()

    @property
    def notebooks(self) -> Path:
        return self.folder / "notebooks"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def use(self) -> None:
        """This process, and those it starts, have their cache and data here."""
        os.environ |= {"MIALIB_CACHE": str(self.cache), "MIALIB_DATA": str(self.folder / "raw")}

    def start(self, out: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", RUNNER, str(self.notebooks), str(out)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=config.ROOT)

    def run(self, out: Path) -> tuple[int, str]:
        """Exit code of a whole run, and what it printed."""
        runner = self.start(out)
        printed, _ = runner.communicate()
        return runner.returncode, printed

    def jobs(self, out: Path) -> list[batch.Job]:
        return batch.plan([], "demo", 0, 1, out, self.notebooks)

    def done(self, out: Path) -> dict[str, dict[str, bytes]]:
        """The files of each finished result."""
        return {
            job.stem: {path.name: path.read_bytes() for path in (job.executed, job.html, *job.figures())}
            for job in self.jobs(out)
            if batch.state(job) == "done"
        }


def answers(files: dict[str, dict[str, bytes]]) -> dict[str, bytes]:
    """The records among them: what must be the same in every run."""
    return {name: data for found in files.values() for name, data in found.items() if name.endswith(".json")}


def expected() -> dict[str, bytes]:
    """The records that the notebooks must leave, computed here."""
    means = [float(runs.stream(0, "toy", i).random(5000).mean()) for i in range(MODELS + MODELS // 2)]
    return {
        f"{name}.json": json.dumps({"exhibit": "Toy", "cells": [], "means": means[first : first + MODELS]}).encode()
        for name, first in FIRST.items()
    }


def undisturbed(folder: Path) -> tuple[Place, float]:
    """A run that nothing disturbs, in folder/out: where, and the seconds it took."""
    place, begun = Place(folder), time.monotonic()
    code, printed = place.run(place.folder / "out")
    if code or answers(place.done(place.folder / "out")) != expected():
        raise RuntimeError(f"the drill's own notebooks do not run:\n{printed}")
    return place, time.monotonic() - begun


def kills(folder: Path) -> Tally:
    """Kill the runner at random moments; the next one resumes."""
    tally, rng = Tally(), runs.stream(0, "kills")
    wanted = expected()
    _, seconds = undisturbed(folder / "undisturbed")
    place, number = Place(folder / "killed"), 0
    while tally.tried < KILLS:
        out = place.folder / f"out{number}"
        before = place.done(out)
        runner = place.start(out)
        with contextlib.suppress(subprocess.TimeoutExpired):
            runner.communicate(timeout=float(rng.uniform(0.05, 1) * seconds))
            number += 1  # all done before the moment came: begin again, in another folder and without the models
            shutil.rmtree(place.cache)
            continue
        runner.send_signal(signal.SIGKILL)
        runner.communicate()
        after = place.done(out)
        intact = all(after.get(stem) == files for stem, files in before.items())
        right = all(wanted[name] == record for name, record in answers(after).items())
        tally.check(
            intact and right and not damaged(place.cache), f"kill {tally.tried}: {sorted(before)} {sorted(after)}"
        )
    code, printed = place.run(out)
    tally.check(code == 0 and answers(place.done(out)) == wanted, f"the run after the last kill: {printed}")
    return tally


def damaged(cache: Path) -> list[str]:
    """Entries that are not what was stored."""
    wrong = []
    for path in cache.rglob("*.npz"):
        raw = path.read_bytes()
        if hashlib.sha256(raw[:-32]).digest() != raw[-32:]:
            wrong.append(path.name)
    return wrong


def flips(folder: Path) -> Tally:
    """Damage every cached file and every finished one: one bit, the second half, all of it."""
    tally, rng = Tally(), runs.stream(0, "flips")
    wanted = expected()
    place, _ = undisturbed(folder)
    out, cached = place.folder / "out", [path for path in place.cache.rglob("*") if path.is_file()]
    for path in (path for path in cached if path.suffix == ".npz"):
        whole, stored = path.read_bytes(), runs.load(path.stem)["theta"].tobytes()
        for kind, content in spoilt(whole, rng):
            path.write_bytes(content)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                found = runs.load(path.stem)
            tally.check(
                found is None and len(told) == 1 and not path.exists(),
                f"{path.name}, {kind}: {'accepted' if found else 'not reported'}",
            )
            path.write_bytes(whole)
            tally.check(runs.load(path.stem)["theta"].tobytes() == stored, f"{path.name} is no longer read")
    for job in place.jobs(out):
        for path in (job.executed, job.html, *job.figures()):
            whole = path.read_bytes()
            for kind, content in spoilt(whole, rng):
                path.write_bytes(content)
                tally.check(batch.state(job) == "out of date", f"{path.name}, {kind}: called done")
            path.write_bytes(whole)
            tally.check(batch.state(job) == "done", f"{path.name} is whole again and not called done")
    for path in (*cached, *(path for job in place.jobs(out) for path in (job.executed, *job.figures()))):
        if path.stat().st_size:
            path.write_bytes(dict(spoilt(path.read_bytes(), rng))["a bit"])
    code, printed = place.run(out)
    tally.check(code == 0 and answers(place.done(out)) == wanted, f"the run with everything damaged: {printed}")
    return tally


def spoilt(whole: bytes, rng) -> Iterator[tuple[str, bytes]]:
    at = int(rng.integers(len(whole)))
    yield "a bit", whole[:at] + bytes([whole[at] ^ 1 << int(rng.integers(8))]) + whole[at + 1 :]
    yield "cut", whole[: len(whole) // 2]
    yield "empty", b""


def full(folder: Path) -> Tally:
    """No space left: in the writer of the cache after every write, and on small file systems (root alone can)."""
    tally = Tally()
    place = Place(folder / "writer")
    runs.store("ab" * 32, {"theta": runs.stream(0, "full").random(100)})
    before = {path: path.read_bytes() for path in place.cache.rglob("*") if path.is_file()}
    for room in (0, 1, 100, 5000):
        with mock.patch("os.fdopen", lambda handle, mode, room=room: Full(handle, room)):
            error = raised(lambda: runs.store("ab" * 32, {"theta": runs.stream(1, "full").random(1000)}))
        after = {path: path.read_bytes() for path in place.cache.rglob("*") if path.is_file()}
        tally.check(isinstance(error, OSError) and after == before, f"room for {room} bytes: {error!r}")
    wanted = expected()
    for size in TMPFS:
        place, disk = Place(folder / f"disk{size}"), folder / f"disk{size}" / "out"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
        if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
            print("  full: no small file system without root; the writer alone was tried", flush=True)
            return tally
        try:
            code, printed = place.run(disk)
            right = all(wanted[name] == record for name, record in answers(place.done(disk)).items())
            clear = code == 0 or (code == 1 and "notebooks failed" in printed and "No space left" in printed)
            tally.check(right and clear and "Traceback" not in printed, f"{size}: {printed}")
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            code, printed = place.run(disk)
            tally.check(code == 0 and answers(place.done(disk)) == wanted, f"{size}, then room again: {printed}")
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    return tally


class Full(io.FileIO):
    """A file on a disk with room for so many bytes more."""

    def __init__(self, handle: int, room: int) -> None:
        super().__init__(handle, "w")
        self.room = room

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            super().write(data[: self.room])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def raised(call: Callable) -> Exception | None:
    """What it raises, None if nothing."""
    try:
        call()
    except Exception as error:
        return error
    return None


def together(folder: Path) -> Tally:
    """Two runners at once on one cache: with a folder each, then with one folder for both."""
    tally = Tally()
    wanted = expected()
    for name, outs in {"a folder each": ("one", "two"), "one folder": ("same", "same")}.items():
        place = Place(folder / f"together {name}")
        runners = [place.start(place.folder / out) for out in outs]
        for out, runner in zip(outs, runners, strict=True):
            printed, _ = runner.communicate()
            right = runner.returncode == 0 and answers(place.done(place.folder / out)) == wanted
            tally.check(right, f"{name}: {printed}")
        trained = sorted((place.folder / "raw" / "trained").read_text().split(), key=int)
        once = [str(i) for i in range(MODELS + MODELS // 2)]
        tally.check(trained == once and not damaged(place.cache), f"{name}: trained {' '.join(trained)}")
    return tally


# How the server answers: (status, headers beside the true length, what it sends of `body`, seconds before each of ten
# parts); and whether the download may succeed.
ANSWERS: dict[str, tuple[int, dict[str, str], Callable[[bytes], bytes], float, bool]] = {
    "whole": (200, {}, lambda body: body, 0, True),
    "slow": (200, {}, lambda body: body, 0.1, True),
    "too slow": (200, {}, lambda body: body, 3, False),
    "breaks off": (200, {"Content-Length": "{size}"}, lambda body: body[: len(body) // 2], 0, False),
    "breaks off at the last byte": (200, {"Content-Length": "{size}"}, lambda body: body[:-1], 0, False),
    "never begins": (200, {"Content-Length": "{size}"}, lambda body: b"", 0, False),
    "cut short": (200, {}, lambda body: body[:-1], 0, False),
    "empty": (200, {}, lambda body: b"", 0, False),
    "too long": (200, {}, lambda body: body + b"x", 0, False),
    "a wrong byte": (200, {}, lambda body: body[:99] + b"#" + body[100:], 0, False),
    "other content": (200, {}, lambda body: b"x" * len(body), 0, False),
    "a page in its place": (200, {}, lambda body: b"<html>sign in first</html>", 0, False),
    "no gzip though it says so": (200, {"Content-Encoding": "gzip"}, lambda body: body, 0, False),
    "not found": (404, {}, lambda body: body, 0, False),
    "server error": (500, {}, lambda body: body, 0, False),
    "goes round in circles": (302, {"Location": "/again"}, lambda body: b"", 0, False),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, headers, spoil, pause, _ = self.server.answer
        body = spoil(self.server.body)
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value.format(size=len(self.server.body)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            for part in range(0, len(body), len(body) // 10 + 1):
                time.sleep(pause)
                self.wfile.write(body[part : part + len(body) // 10 + 1])

    def log_message(self, *_) -> None:
        pass


def downloads(folder: Path) -> Tally:
    """Truncated, slow and wrong downloads; after each, one that is right."""
    tally, place = Tally(), "purchase/dataset_purchase.tgz"
    Place(folder / "downloads")
    path = config.raw_dir() / place
    body = runs.stream(0, "download").bytes(20_000)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.body = True, body
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sha = f"sha256:{hashlib.sha256(body).hexdigest()}"
    address = f"http://127.0.0.1:{server.server_port}/file"
    file = replace(datasets.REGISTRY[place], address=address, size=len(body), digest=sha)
    impatient = lambda **how: pooch_downloader(**how | {"timeout": 1, "progressbar": False})  # noqa: E731
    pooch_downloader, os.environ["NO_PROXY"] = pooch.HTTPDownloader, "127.0.0.1"
    with (
        mock.patch.dict(datasets.REGISTRY, {place: file}),
        mock.patch("pooch.HTTPDownloader", impatient),
        mock.patch("pooch.core.time", mock.Mock(sleep=lambda seconds: None)),
    ):
        pooch.get_logger().setLevel("CRITICAL")
        for name, answer in ANSWERS.items():
            server.answer = answer
            error = raised(lambda: datasets.fetch_file(place))
            if answer[-1]:
                tally.check(error is None and path.read_bytes() == body, f"{name}: {error!r}")
            else:
                clear = isinstance(error, ValueError | FileNotFoundError)
                tally.check(clear and not path.exists(), f"{name}: {error!r}, accepted: {path.exists()}")
            server.answer = ANSWERS["whole"]
            error = raised(lambda: datasets.fetch_file(place))
            tally.check(error is None and path.read_bytes() == body, f"after {name}: {error!r}")
            path.unlink(missing_ok=True)
    server.shutdown()
    return tally


LINES = """
--profile big|--profile Demo|--profile=|--seed x|--seed -1|--seed 1.5|--seed 1e3|--seed ٣|--seed=|--workers 0
--workers two|--workers -1|--workers 1.5|--parallel 0|--parallel x|--memory 0|--memory -1|--memory lots|--memory nan
--memory 1e9|--seeds 9..0|--seeds ..|--seeds 0...3|--seeds 1..|--seeds 0,,1|--seeds a..b|--seeds 0..99999999
--seeds 0..2 --seed 1|--set k|--set =3|--set k=|--set 3=k|--set seed=3|--set profile=demo|--set epochs=3
--set seed=1 --set seed=2|--scheduler host:8786|--scheduler tcp://host|--scheduler tcp://127.0.0.1:1|--scheduler=
99|01_|first|../01_first|01_first.ipynb|--fresh=yes|--json=2|-p seed 3|--nothing
"""
BAD_COMMANDS = ["", "walk", "fetch", "fetch purchas", "list 01", "list --seeds 0..2", "list --profile big"]
BAD_PARAMETERS = [
    ("big", 0), ("", 0), (None, 0), ("Demo", 0), (0, 0), ("demo", -1), ("demo", 1.5), ("demo", "0"), ("demo", True),
    ("demo", None), ("demo", [0]),
]  # fmt: skip


def parameters(folder: Path) -> Tally:
    """Bad parameters, of the command line and of notebooks: refused in one line, with nothing done."""
    tally, place = Tally(), Place(folder / "parameters")
    (place.folder / "a file").touch()
    lines = [part.strip() for line in LINES.strip().splitlines() for part in line.split("|")]
    commands = [["run", *line.split(), "--out", str(place.folder / "out")] for line in lines]
    commands += [line.split() for line in BAD_COMMANDS]
    commands += [["run", "--out", str(place.folder / "a file")], ["run", "--out", ""]]
    for command in commands:
        tally.check(*refused(command, place))
    for profile, seed in BAD_PARAMETERS:
        error = raised(lambda profile=profile, seed=seed: runs.start("01_first", profile, seed))
        tally.check(isinstance(error, ValueError) and "\n" not in str(error), f"start{profile, seed}: {error!r}")
    return tally


def refused(command: list[str], place: Place) -> tuple[bool, str]:
    """Whether the command line refuses it as it should, and what it does."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as printed,
        contextlib.redirect_stderr(io.StringIO()) as told,
        mock.patch.object(batch, "NOTEBOOKS", place.notebooks),
    ):
        try:
            end = f"exit code {command_line.main(command)}"
        except SystemExit as error:
            end = error.code
        except Exception as error:
            end = f"{type(error).__name__}: {error}"
    one_line = told.getvalue().count("\n") == 1 and not printed.getvalue()
    good = end == 2 and one_line and not (place.folder / "out").exists()
    return good, f"{' '.join(command)}: {end}, {told.getvalue()}{printed.getvalue()}"


PARTS = {
    "kills": kills,
    "flips": flips,
    "full": full,
    "together": together,
    "downloads": downloads,
    "parameters": parameters,
}


def main(names: list[str]) -> int:
    """Do the parts named, all by default, and print the table; 1 if anything was lost."""
    if unknown := [name for name in names if name not in PARTS]:
        print(f"unknown part {unknown[0]!r}; valid: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    rows = []
    for name in names or PARTS:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="drill-", ignore_cleanup_errors=True) as folder:
            tally = PARTS[name](Path(folder))
        for loss in tally.losses:
            print(f"  {name}, LOST: {loss.strip()}")
        print(f"{name}: {time.monotonic() - begun:.0f}s", flush=True)
        rows.append((name, tally.tried, tally.tried - len(tally.losses), len(tally.losses)))
    rows.append(("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])))
    print(f"\n{'drill':<12}{'tried':>8}{'survived':>10}{'lost':>6}")
    for name, *numbers in rows:
        print(f"{name:<12}{numbers[0]:>8}{numbers[1]:>10}{numbers[2]:>6}")
    return 1 if rows[-1][-1] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
