"""The reliability drill (`make drill`): things broken on purpose, on toy notebooks and a toy cache; losses counted.

A loss is a finished result that is gone or changed, a wrong result that was accepted, or an error without a clear
message. `python -m tests.drill kills downloads` does those parts alone. Exit code 1 if anything was lost.
"""

import bz2
import contextlib
import errno
import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import nbformat
import numpy as np
from nbformat.v4 import new_code_cell, new_notebook

from companion import __main__ as command_line
from companion import jobs
from mialib import config, runs, work
from mialib.data import datasets, files

KILLS = 20
MODELS = 6  # that a notebook needs
FIRST = {"01_first": 0, "02_second": MODELS // 2}  # the first of them: half are shared
TMPFS = ("100k", "300k", "700k")  # a page of HTML takes about 300k
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
PARAMETERS = new_code_cell('profile = "laptop"\nseed = 0', metadata={"tags": ["parameters"]})
# A notebook that "trains" models, some of which the other one needs too, and leaves a record.
CODE = f"""
import json, time
from mialib import config, runs, work
means = []
for i in range(first, first + {MODELS}):
    key = runs.digest("toy", seed, i)
    with work.held(key):
        if (entry := work.load(key)) is None:
            time.sleep(0.1)
            with open(config.raw_dir() / "trained", "a", encoding="utf-8") as file:
                file.write(str(i) + " ")
            entry = {{"theta": runs.stream(seed, "toy", i).random(5000)}}
            work.store(key, entry)
    means.append(float(entry["theta"].mean()))
record = json.dumps({{"exhibit": "Toy", "cells": [], "means": means}})
work.write_atomic(config.figures_dir(profile) / (name + ".json"), record.encode())
"""
RUNNER = """
import sys
from pathlib import Path
from companion import __main__, jobs
jobs.NOTEBOOKS = Path(sys.argv[1])
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

    def jobs(self, out: Path) -> list[jobs.Job]:
        return jobs.plan([], "demo", 0, out, self.notebooks)

    def done(self, out: Path) -> dict[str, dict[str, bytes]]:
        """The files of each finished result."""
        return {
            job.stem: {path.name: path.read_bytes() for path in (job.executed, job.html, *job.figures())}
            for job in self.jobs(out)
            if jobs.state(job) == "done"
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
        intact = all(after.get(stem) == files for stem, files in before.items()) and not damaged(place.cache)
        right = all(wanted[name] == record for name, record in answers(after).items())
        tally.check(intact and right, f"kill {tally.tried}: {sorted(before)} {sorted(after)}")
    code, printed = place.run(out)
    tally.check(code == 0 and answers(place.done(out)) == wanted, f"the run after the last kill: {printed}")
    return tally


def damaged(cache: Path) -> list[str]:
    """Entries that are not what was stored."""
    found = ((path, path.read_bytes()) for path in cache.rglob("*.npz"))
    return [path.name for path, raw in found if hashlib.sha256(path.stem.encode() + raw[:-32]).digest() != raw[-32:]]


def flips(folder: Path) -> Tally:
    """Damage every cached file and every finished one: one bit, the second half, all of it."""
    tally, rng = Tally(), runs.stream(0, "flips")
    wanted = expected()
    place, _ = undisturbed(folder)
    out, cached = place.folder / "out", [path for path in place.cache.rglob("*") if path.is_file()]
    for path in (path for path in cached if path.suffix == ".npz"):
        whole, stored = path.read_bytes(), work.load(path.stem)["theta"].tobytes()
        for kind, content in spoilt(whole, rng):
            path.write_bytes(content)
            found, told = looked_up(path.stem)
            gone = found is None and not path.exists()
            tally.check(gone and told == 1, f"{path.name}, {kind}: {found!r:.80}, {told} warnings")
            path.write_bytes(whole)
            tally.check(work.load(path.stem)["theta"].tobytes() == stored, f"{path.name} is no longer read")
    for job in place.jobs(out):
        for path in (job.executed, job.html, *job.figures()):
            whole = path.read_bytes()
            for kind, content in spoilt(whole, rng):
                path.write_bytes(content)
                tally.check(jobs.state(job) == "out of date", f"{path.name}, {kind}: called done")
            path.write_bytes(whole)
            tally.check(jobs.state(job) == "done", f"{path.name} is whole again and not called done")
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


def looked_up(key: str) -> tuple[dict[str, np.ndarray] | Exception | None, int]:
    """What the cache has under the key, or the error if it raises one, and the number of warnings."""
    with warnings.catch_warnings(record=True) as told, in_time():
        warnings.simplefilter("always")
        try:
            found = work.load(key)
        except Exception as error:
            found = error
    return found, len(told)


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """TimeoutError after ten seconds: a pipe can be waited for without an end."""

    def stop(*_) -> None:
        raise TimeoutError("it waits without an end")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(10)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def entry(seed: int) -> dict[str, np.ndarray]:
    return {"theta": runs.stream(seed, "cache").random(100)}


def same(found: dict[str, np.ndarray] | Exception | None, seed: int) -> bool:
    theta = entry(seed)["theta"].tobytes()
    return isinstance(found, dict) and list(found) == ["theta"] and found["theta"].tobytes() == theta


def npy(shape: str) -> bytes:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header + bytes(800)


def zipped(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, data)
    return buffer.getvalue()


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, theta=np.array([{}]))
    return buffer.getvalue()


# What stands in place of an entry, with a digest that is right.
PAYLOADS = {
    "nothing": b"",
    "text": b"not an archive of arrays",
    "one bare array": npy("(100,)"),
    "no array in it": zipped("theta.npy", b"text"),
    "pickled": pickled(),
    "a header of petabytes": zipped("theta.npy", npy("(999999999999999,)")),
    "a header longer than all": zipped("theta.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(800)),
    "a long header": zipped("theta.npy", npy("(100,)" + " " * 10**6)),
}


def puts(payload: bytes) -> Callable[[Path, Path], None]:
    """Puts a payload there as `work.store` does its own."""

    def put(path: Path, other: Path) -> None:
        with mock.patch("numpy.savez", lambda file, **_: file.write(payload)):
            work.store(path.stem, entry(0))

    return put


# What else may lie in the place of an entry: (its path, that of a good one of another key) -> puts it there.
INTRUDERS: dict[str, Callable[[Path, Path], object]] = {
    "another's, copied": lambda path, other: shutil.copyfile(other, path),
    "another's, linked": lambda path, other: os.link(other, path),
    "a link to another's": lambda path, other: path.symlink_to(other),
    "a folder": lambda path, other: path.mkdir(),
    "a full folder": lambda path, other: shutil.copytree(other.parent, path),
    "a pipe": lambda path, other: os.mkfifo(path),
    "a link to itself": lambda path, other: path.symlink_to(path.name),
    "a link to nowhere": lambda path, other: path.symlink_to("nowhere"),
    # Root may read any file but this one.
    "unreadable": lambda path, other: path.symlink_to("/proc/self/mem") if not os.geteuid() else path.touch(0),
    **{f"rightly signed, {name}": puts(payload) for name, payload in PAYLOADS.items()},
}


def cache(folder: Path) -> Tally:
    """What is not an entry in the place of one, a cache that cannot be written, and no folder for locks."""
    tally = Tally()
    Place(folder / "intruders")
    intrude()
    check_intruders(tally)
    place = Place(folder / "read-only")
    with unwritable(place.cache):
        check_unwritable(tally)
    place = Place(folder / "no folder")
    place.cache.touch()  # what even root cannot make a folder in
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        error = raised(lambda: work.store("ab" * 32, entry(0)))
    found, _ = looked_up("ab" * 32)
    tally.check(error is None and found is None, f"without a folder: {error!r}, {found!r}")
    code, printed = place.run(place.folder / "out")
    tally.check(code == 0 and answers(place.done(place.folder / "out")) == expected(), f"a run without it: {printed}")
    return tally


def intrude() -> None:
    """A good entry, and every intruder under a key of its own."""
    work.store("ab" * 32, entry(99))
    for i, put in enumerate(INTRUDERS.values()):
        path = work._path(f"{i:02x}" * 32)
        path.parent.mkdir(exist_ok=True)
        put(path, work._path("ab" * 32))


@contextlib.contextmanager
def unwritable(cache: Path) -> Iterator[None]:
    """The cache with a good entry and the intruders, read-only: by its permissions, for root as a mount."""
    cache.mkdir()
    if os.geteuid():
        intrude()
        folders = [path for path in (cache, *cache.rglob("*")) if path.is_dir() and not path.is_symlink()]
        for path in folders:
            path.chmod(0o555)
        yield
        for path in folders:
            path.chmod(0o755)
    elif subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(cache)], capture_output=True).returncode:
        print("  cache: no file system can be mounted here; a read-only one was not tried", flush=True)
        intrude()
        yield
    else:
        try:
            intrude()
            subprocess.run(["mount", "-o", "remount,ro", str(cache)], check=True)
            yield
        finally:
            subprocess.run(["umount", str(cache)], check=True)


def check_intruders(tally: Tally) -> None:
    for i, name in enumerate(INTRUDERS):
        key = f"{i:02x}" * 32
        found, told = looked_up(key)
        tally.check(found is None and told == 1, f"{name}: {found!r:.80}, {told} warnings")
        error = raised(lambda key=key, i=i: work.store(key, entry(i)))
        tally.check(error is None and same(looked_up(key)[0], i), f"{name}, computed again: {error!r}")
    tally.check(same(looked_up("ab" * 32)[0], 99), "the good entry is gone")


def check_unwritable(tally: Tally) -> None:
    tally.check(same(looked_up("ab" * 32)[0], 99), "read-only: the good entry is not taken")
    for i, name in enumerate(INTRUDERS):
        found, told = looked_up(f"{i:02x}" * 32)
        tally.check(found is None and told == 1, f"read-only, {name}: {found!r:.80}, {told} warnings")
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        error = raised(lambda: work.store("cd" * 32, entry(0)))
    tally.check(error is None, f"read-only, store: {error!r}")
    held = []
    with contextlib.suppress(OSError), work.held("drill"):
        held.append(True)
    tally.check(bool(held), "read-only: no lock, and so no work")


def full(folder: Path) -> Tally:
    """No space left: in the writer of the cache after every write, and on small file systems (root alone can)."""
    tally = Tally()
    place = Place(folder / "writer")
    work.store("ab" * 32, {"theta": runs.stream(0, "full").random(100)})
    before = {path: path.read_bytes() for path in place.cache.rglob("*") if path.is_file()}
    for room in (0, 1, 100, 5000):
        with mock.patch("os.fdopen", lambda handle, mode, room=room: Full(handle, room)):
            error = raised(lambda: work.store("ab" * 32, {"theta": runs.stream(1, "full").random(1000)}))
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
        trained = sorted((place.folder / "raw" / "trained").read_text(encoding="utf-8").split(), key=int)
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
    "trickles": (200, {}, lambda body: body, 0.6, False),
    "goes on without an end": (200, {}, lambda body: body * 5000, 0.3, False),
    "goes round in circles": (302, {"Location": "/again"}, lambda body: b"", 0, False),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.release()
        self.server.go_on.wait()
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

    def do_CONNECT(self) -> None:
        self.send_error(407)

    def log_message(self, *_) -> None:
        pass


FETCH = """
import sys
from dataclasses import replace
from mialib.data import files
place, address, digest = sys.argv[1:]
files.REGISTRY[place] = replace(files.REGISTRY[place], address=address, size=None, digest=digest)
files.fetch_file(place)
"""


def downloads(folder: Path) -> Tally:
    """Truncated, slow and wrong downloads; after each, one that is right."""
    tally, place = Tally(), "purchase/dataset_purchase.tgz"
    Place(folder / "downloads")
    path = config.raw_dir() / place
    body = runs.stream(0, "download").bytes(20_000)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.body = True, body
    server.asked, server.go_on = threading.Semaphore(0), threading.Event()
    server.go_on.set()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sha = f"sha256:{hashlib.sha256(body).hexdigest()}"
    address = f"http://127.0.0.1:{server.server_port}/file"
    file = replace(files.REGISTRY[place], address=address, size=len(body), digest=sha)
    os.environ["NO_PROXY"] = "127.0.0.1"
    with (
        mock.patch.dict(files.REGISTRY, {place: file}),
        mock.patch.object(files, "TIMEOUT", 1),
        mock.patch.object(files, "PATIENCE", 2),
        mock.patch.object(files, "tqdm", partial(files.tqdm, disable=True)),
        mock.patch.object(files, "time", mock.Mock(sleep=lambda seconds: None, time=time.time)),
    ):
        for name, answer in ANSWERS.items():
            server.answer = answer
            error = raised(lambda: files.fetch_file(place))
            if answer[-1]:
                tally.check(error is None and path.read_bytes() == body, f"{name}: {error!r}")
            else:
                clear = isinstance(error, ValueError | FileNotFoundError) and "\n" not in str(error)
                tally.check(clear and not path.exists(), f"{name}: {error!r}, accepted: {path.exists()}")
            server.answer = ANSWERS["whole"]
            error = raised(lambda: files.fetch_file(place))
            tally.check(error is None and path.read_bytes() == body, f"after {name}: {error!r}")
            path.unlink(missing_ok=True)
        for name, elsewhere, variables, reason in unreachable(server.server_port):
            with (
                mock.patch.dict(files.REGISTRY, {place: replace(file, address=elsewhere)}),
                mock.patch.dict(os.environ, variables),
            ):
                error = raised(lambda: files.fetch_file(place))
            tally.check(isinstance(error, FileNotFoundError) and reason in str(error), f"{name}: {error!r}")
        server.answer = ANSWERS["whole"]
        kill_a_download(tally, server, [place, address, sha])
        left = [each.name for each in path.parent.iterdir()]
        tally.check(set(left) == {path.name, f"{path.name}.bad"}, f"left behind: {left}")
    server.shutdown()
    return tally


def unreachable(port: int) -> Iterator[tuple[str, str, dict[str, str], str]]:
    """Name, address, environment, and what must be told."""
    proxied = {"HTTPS_PROXY": f"http://127.0.0.1:{port}", "NO_PROXY": ""}
    away, gone = "https://mialib.invalid/file", proxied | {"HTTPS_PROXY": "http://127.0.0.1:1"}
    yield "a proxy that refuses", away, proxied, "proxy refused (Tunnel connection failed: 407"
    yield "no proxy there", away, gone, "proxy refused"
    yield "nobody there", "http://127.0.0.1:1/file", {}, "Connection refused"
    yield "no TLS", f"https://127.0.0.1:{port}/file", {}, "SSL"
    nowhere = {"REQUESTS_CA_BUNDLE": "/nowhere.pem"}
    yield "no certificates", f"https://127.0.0.1:{port}/file", nowhere, "invalid path: /nowhere.pem"


def kill_a_download(tally: Tally, server: ThreadingHTTPServer, arguments: list[str]) -> None:
    """Of two downloads under way one is killed: the next fetch removes what it left, and not what the other has."""
    path = config.raw_dir() / arguments[0]
    parts = lambda: set(path.parent.glob(".download-*"))  # noqa: E731
    while server.asked.acquire(blocking=False):
        pass
    server.go_on.clear()
    children, found = [], []
    command = [sys.executable, "-c", FETCH, *arguments]
    for _ in range(2):
        children.append(subprocess.Popen(command, cwd=config.ROOT, stderr=subprocess.DEVNULL))
        if not server.asked.acquire(timeout=60):
            raise RuntimeError("the drill's own download does not begin")
        found.append(parts())
    killed, alive = children
    killed.kill()
    killed.wait()
    for part in found[0]:
        os.utime(part, (0, time.time() - files.ABANDONED - 60))
    tally.check(len(found[0]) == 1 and len(found[1]) == 2, f"files of downloads under way: {found}")
    other = f"{path.parent.name}/other"
    path.with_name("other").touch()
    file = replace(files.REGISTRY[arguments[0]], size=None, digest=f"sha256:{hashlib.sha256().hexdigest()}")
    with mock.patch.dict(files.REGISTRY, {other: file}):
        files.fetch_file(other).unlink()
    tally.check(parts() == found[1] - found[0], f"after a kill: {parts()} of {found[1]}")
    server.go_on.set()
    code = alive.wait()
    tally.check(code == 0 and path.read_bytes() == server.body and not parts(), f"the one not killed: {code}")


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "gzip": partial(gzip.compress, compresslevel=1),
    "bzip2": bz2.compress,
    "xz": partial(lzma.compress, preset=1),
}


def archives(folder: Path) -> Tally:
    """Cut, damaged, doubled, huge archives with a fitting row of the registry: refused in one line, and set aside."""
    tally, rng = Tally(), runs.stream(0, "archives")
    Place(folder)
    table = "".join(f"1,{','.join(map(str, cells))}\n" for cells in rng.integers(0, 2, (100, 600)).tolist()).encode()
    good, data = (packed([("dataset_purchase", table)], end=end) for end in (True, False))
    for name, compress in COMPRESSIONS.items():
        whole = compress(good)
        answer = read(whole)
        tally.check(isinstance(answer, str), f"{name}: the good one is not read: {answer!r}")
        ends = len(data) + 1024 if name == "tar" else len(whole)  # the rest of a bare tar is padding
        for cut in (*rng.integers(0, ends, 40).tolist(), ends - 1):
            tally.check(*refused_archive(whole[:cut], f"{name} cut at {cut:,}"))
        for at in rng.integers(len(whole) // 4, len(whole) * 3 // 4, 40).tolist() if name != "tar" else ():
            spoilt = whole[:at] + bytes([whole[at] ^ 1 << int(rng.integers(8))]) + whole[at + 1 :]
            # Another way to say the same is no fault: "0,0," is "0," again, from two bytes before or from four.
            tally.check(*refused_archive(spoilt, f"{name} with another bit at {at:,}", answer))
        for what, spoilt in bad_archives(table):
            tally.check(*refused_archive(compress(spoilt), f"{name}, {what}"))
    return tally


def packed(members: list[tuple[str, bytes]], end: bool = True) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        size = archive.offset
    return buffer.getvalue() if end else buffer.getvalue()[:size]


def bad_archives(table: bytes) -> Iterator[tuple[str, bytes]]:
    yield "a member twice", packed([("dataset_purchase", table), ("dataset_purchase", table)])
    yield "a member twice by another name", packed([("dataset_purchase", table), ("./dataset_purchase", table)])
    yield "a way out", packed([("dataset_purchase", table), ("../escaped", b"")])
    yield "a line of 10 MB", packed([("dataset_purchase", b"1" * 10**7)])
    yield "a damaged header", packed([("dataset_purchase", table)], end=False) + b"x" * 512 + bytes(1024)
    for name, kind in (("dataset_purchase", tarfile.REGTYPE), ("else", tarfile.REGTYPE), ("long", tarfile.XHDTYPE)):
        info = tarfile.TarInfo(name)
        info.size, info.type = 6 * 2**30, kind
        yield f"6 GB of {name}", info.tobuf(tarfile.GNU_FORMAT) + bytes(10**6)


def read(data: bytes) -> str | Exception:
    """Digest of what is loaded from this archive, with its own digest in the registry, or the error."""
    place = "purchase/dataset_purchase.tgz"
    path = config.raw_dir() / place
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    file = replace(files.REGISTRY[place], size=None, digest=f"sha256:{hashlib.sha256(data).hexdigest()}", rows=100)
    with mock.patch.dict(files.REGISTRY, {place: file}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return datasets.load("purchase-100", "paper").digest
        except Exception as error:
            return error


def refused_archive(data: bytes, what: str, same: str = "") -> tuple[bool, str]:
    """Whether it is refused as it should be, or is the `same` data, and what became of it."""
    answer, folder = read(data), config.raw_dir() / "purchase"
    aside = [path.name for path in folder.iterdir()] == ["dataset_purchase.tgz.bad"]
    (folder / "dataset_purchase.tgz.bad").unlink(missing_ok=True)
    refused = isinstance(answer, ValueError) and "\n" not in str(answer) and aside
    return refused or answer == same, f"{what}: {answer!r:.200}, set aside: {aside}"


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
        mock.patch.object(jobs, "NOTEBOOKS", place.notebooks),
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


PARTS = {part.__name__: part for part in (kills, flips, cache, full, together, downloads, archives, parameters)}


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
