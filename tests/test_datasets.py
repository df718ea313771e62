"""The data layer, on small archives of the real layout, served over loopback HTTP where a download is tested."""

import bz2
import functools
import gzip
import hashlib
import io
import lzma
import os
import socket
import ssl
import stat
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests
import scipy.sparse
import urllib3
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mialib import config, runs
from mialib.data import datasets, files, lfw
from mialib.papers.shokri2017 import exhibits, experiments
from mialib.papers.shokri2017.experiments import Row

LOCATION, PURCHASE, TEXAS = (f"{name}/dataset_{name}.tgz" for name in ("location", "purchase", "texas"))


# --- small files of the real layouts ---------------------------------------------------------------------------------


def tgz(members: dict[str, bytes], extra: tarfile.TarInfo | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if extra is not None:
            archive.addfile(extra)
    return buffer.getvalue()


def text(X: np.ndarray, y: np.ndarray | None = None, quote: str = "") -> bytes:
    rows = [",".join(map(str, row)) for row in X.tolist()]
    if y is not None:
        rows = [f"{quote}{label}{quote},{row}" for label, row in zip(y.tolist(), rows, strict=True)]
    return "".join(row + "\n" for row in rows).encode()


def records(n: int, d: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, (n, d), np.uint8), np.arange(n) % classes + 1


@functools.cache
def purchase(n: int = 120) -> tuple[np.ndarray, np.ndarray, bytes]:
    X, y = records(n, 600, 100)
    return X, y, tgz({"dataset_purchase": text(X, y)})


def texas(X: np.ndarray, y: np.ndarray) -> bytes:
    return tgz({"texas/100/feats": text(X), "texas/100/labels": "".join(f"{k}\n" for k in y).encode()})


# --- a raw folder, a registry and a server of our own ----------------------------------------------------------------


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.setenv("MIALIB_DATA", str(tmp_path / "raw"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    return tmp_path / "raw"


@pytest.fixture
def register(monkeypatch):
    """register(place, data, rows, **changes): the registry then expects exactly this file at `place`."""

    def change(place: str, data: bytes, rows: int, **changes):
        file = replace(files.REGISTRY[place], rows=rows, size=len(data), digest=sha256(data))
        monkeypatch.setitem(files.REGISTRY, place, replace(file, **changes))

    return change


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def put(raw, place: str, data: bytes):
    path = raw / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def server():
    """Serves `server.body`; the first `server.drops` answers break off half-way. `server.answer`: does it in its place.

    As a proxy it refuses everything.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.requests += 1
            if self.server.answer:
                return self.server.answer(self)
            body = self.server.body
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if self.server.requests <= self.server.drops else body)

        def do_CONNECT(self):
            self.send_error(403)

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads, http.body, http.requests, http.drops, http.answer = True, b"", 0, 0, None
    http.ended, http.handle_error = threading.Event(), lambda *_: None  # a client may hang up
    http.address = f"http://127.0.0.1:{http.server_port}/file"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield http
    http.ended.set()
    http.shutdown()
    thread.join()
    http.server_close()


def left(raw) -> list[str]:
    return sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*") if path.is_file())


# --- registry and names ----------------------------------------------------------------------------------------------


def test_registry_is_complete():
    folders = {folder for folder, _ in datasets.SETS.values()} | {"lfw", "weights"}
    assert {place.split("/")[0] for place in files.REGISTRY} == folders
    lengths = {"sha256": 64, "md5": 32, "git": 40}
    for place, file in files.REGISTRY.items():
        kind, _, digest = file.digest.partition(":")
        assert len(digest) == lengths[kind] and int(digest, 16)
        assert file.address.startswith("https://") and file.licence and file.citation
        assert (file.rows > 0) != place.startswith("weights/")
    rows = {folder: sum(f.rows for p, f in files.REGISTRY.items() if p.startswith(folder)) for folder in ("adult",)}
    assert rows == {"adult": 48_842}


def registry_with(monkeypatch, tmp_path, column: str, cell: str | None) -> None:
    """Read a copy of the registry with this cell in its first line of data, or with that line twice."""
    header, first, *rest = (config.ROOT / "data" / "registry.csv").read_text(encoding="utf-8").splitlines()
    cells = dict(zip(header.split(","), first.split(","), strict=True)) | ({} if cell is None else {column: cell})
    lines = [header, ",".join(cells.values()), *([first] if cell is None else []), *rest]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "registry.csv").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(config, "ROOT", tmp_path)
    files.read_registry()


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        *(
            ("file", cell)
            for cell in ("/etc/passwd", "../x", "a/../x", "a/..", "a\\b/c", "C:/x", "c:x/y", "x", "", "a//b")
        ),
        *(("size", cell) for cell in ("big", "-1", "0", "1.5", "1e3", "1_000", " 7", "٣", "9" * 5000)),
        *(("rows", cell) for cell in ("many", "-1", "", "1.5", "٣")),
        *(("digest", cell) for cell in ("crc:00", f"sha1:{'0' * 40}", "0" * 64, "sha256:", "md5:" + "g" * 32)),
        *(("digest", cell) for cell in ("sha256:" + "0" * 63, "md5:" + "A" * 32, "git:" + "0" * 64)),
        *(("address", cell) for cell in ("", "file:///etc/passwd", "ftp://x/y")),
    ],
)
def test_registry_row_that_makes_no_sense_is_refused(monkeypatch, tmp_path, column, cell):
    with pytest.raises(ValueError, match=rf"registry.csv, row 2, column {column}: .* is not a?\w+") as caught:
        registry_with(monkeypatch, tmp_path, column, cell)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("file", None, r"row 3, column file: 'location/dataset_location.tgz' stands in an earlier row too"),
        ("citation", "me,too", r"row 2, column an eighth: \['too'\] is not to be there"),
        ("more", "x", r"row 2, column an eighth"),
    ],
)
def test_registry_with_a_row_twice_or_too_long_is_refused(monkeypatch, tmp_path, column, cell, message):
    with pytest.raises(ValueError, match=message):
        registry_with(monkeypatch, tmp_path, column, cell)


def test_registry_needs_its_columns(monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "registry.csv").write_text("file,address\nmnist/x,https://x\n", encoding="utf-8")
    monkeypatch.setattr(config, "ROOT", tmp_path)
    with pytest.raises(ValueError, match="row 1: the columns must be file,address,size,digest,rows,licence,citation"):
        files.read_registry()


def test_registry_is_read_as_utf8_whatever_the_locale(monkeypatch):
    by_name = Path.open
    monkeypatch.setattr(Path, "open", lambda path, newline, encoding: by_name(path, "r", -1, encoding, None, newline))
    assert files.read_registry() == files.REGISTRY


def test_a_data_set_of_ones_own_goes_by_its_own_name():
    X, y = records(40, 5, 3)
    wine, row = datasets.Dataset("wine", X, y - 1, 3, "R", "our own", runs.digest(X, y)), Row("wine", 10, 1, 1, 8, 1)
    assert exhibits.overview([row], {"wine": wine}).data.tolist() == ["wine"]
    assert experiments._about(wine, row)["dataset"] == "wine"
    assert exhibits.mitigations_of("wine") == exhibits.mitigations_of("purchase-100") != []


def test_digest_file_knows_git_blob_ids(tmp_path):
    path = tmp_path / "hello"
    path.write_bytes(b"hello\n")
    assert files.digest_file(path, "git") == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
    assert files.digest_file(path, "md5") == hashlib.md5(b"hello\n").hexdigest()


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(ValueError, match=r"'cifar'.*location-30.*cifar-100-coarse"):
        datasets.load("cifar", "demo")
    with pytest.raises(ValueError, match=r"demo, laptop, paper"):
        datasets.load("mnist", "desktop")
    with pytest.raises(ValueError, match=r"'purchases'; valid: location, purchase, texas"):
        datasets.fetch("purchases")


# --- download and check ----------------------------------------------------------------------------------------------


def test_download_then_use_without_a_network(raw, register, server):
    X, y, data = purchase()
    server.body = data
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    register(PURCHASE, data, len(y), address=server.address, digest=f"git:{blob}", size=None)
    assert datasets.fetch("purchase") == datasets.fetch("purchase-10") == [raw / PURCHASE]
    assert server.requests == 1 and left(raw) == [PURCHASE]
    assert stat.S_IMODE((raw / PURCHASE).stat().st_mode) == 0o644
    with pytest.warns(UserWarning, match="dataset_purchase has md5"):
        loaded = datasets.load("purchase-100", "paper")
    assert server.requests == 1
    np.testing.assert_array_equal(loaded.X, X)
    np.testing.assert_array_equal(loaded.y, y - 1)
    assert (loaded.classes, loaded.tier, loaded.X.dtype, loaded.y.dtype) == (100, "R", np.uint8, np.int64)
    assert loaded.digest == runs.digest(loaded.X, loaded.y) and "real" in loaded.source


def test_download_is_tried_again_after_a_dropped_connection(raw, register, server):
    *_, data = purchase()
    server.body, server.drops = data, 2
    register(PURCHASE, data, 120, address=server.address)
    assert datasets.fetch("purchase")[0].read_bytes() == data
    assert server.requests == 3


def test_wrong_download_never_gets_the_final_name(raw, register, server):
    *_, data = purchase()
    server.body = data[:-1] + b"?"
    register(PURCHASE, data, 120, address=server.address)
    with pytest.raises(ValueError, match=rf"wrong digest {sha256(server.body)}, expected {sha256(data)}"):
        datasets.fetch("purchase")
    assert left(raw) == [PURCHASE + ".bad"]
    server.body = data  # and the next try is a fresh one
    assert datasets.fetch("purchase")[0].read_bytes() == data


def test_short_download_is_refused(raw, register, server):
    *_, data = purchase()
    server.body = data[:1000]
    register(PURCHASE, data, 120, address=server.address)
    with pytest.raises(ValueError, match=rf"truncated: 1,000 of {len(data):,} bytes"):
        datasets.load("purchase-100", "paper")
    assert left(raw) == [PURCHASE + ".bad"]


def test_offline_and_absent_says_what_to_put_where(raw, register):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/dataset_location.tgz"
    register(LOCATION, b"", 1, address=address)
    with pytest.raises(FileNotFoundError) as caught:
        datasets.load("location-30", "laptop")
    for part in ("dataset_location.tgz", address, sha256(b""), str(raw / LOCATION)):
        assert part in str(caught.value)
    assert left(raw) == []


def https_proxy(server, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", server.address.replace("//", "//me:secret@"))
    monkeypatch.setenv("NO_PROXY", "")
    return "https://mialib.invalid/file"


def bad_proxy(server, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@[/")
    monkeypatch.setenv("NO_PROXY", "")
    return "https://mialib.invalid/file"


def unknown_name(server, monkeypatch):
    def lookup(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return "http://mialib.invalid/file"


def certificate(server, monkeypatch):
    """As requests tells of one that is not trusted; a server with one would need its key here."""

    def get(address, **_):
        inner = ssl.SSLCertVerificationError(1, "certificate verify failed: self-signed certificate (_ssl.c:1006)")
        reason = urllib3.exceptions.SSLError(inner)
        raise requests.exceptions.SSLError(urllib3.exceptions.MaxRetryError(None, address, reason))

    monkeypatch.setattr(requests, "get", get)
    return server.address


def no_bundle(server, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    return server.address.replace("http:", "https:")


def not_found(server, monkeypatch):
    server.answer = lambda request: request.send_error(404)
    return server.address


def silent(server, monkeypatch):
    monkeypatch.setattr(files, "TIMEOUT", 0.05)
    server.answer = lambda request: server.ended.wait()
    return server.address


def breaks_off(server, monkeypatch):
    server.body, server.drops = b"x" * 1000, 99
    return server.address


def not_there(server, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}/file"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (https_proxy, r"proxy refused \(Tunnel connection failed: 403 Forbidden\); check HTTPS_PROXY"),
        (bad_proxy, r"proxy refused \(.*\); check HTTPS_PROXY"),
        (unknown_name, r"name not resolved \(Name or service not known\); check the network"),
        (certificate, r"certificate not trusted \(.*self-signed certificate.*\); set REQUESTS_CA_BUNDLE"),
        (no_bundle, r"invalid path: /nowhere.pem"),
        (not_found, r"HTTP 404; "),
        (silent, r"timeout \(.*timed out.*\); try again later"),
        (breaks_off, r"IncompleteRead\(500 bytes read, 500 more expected\); "),
        (not_there, r"Connection refused; check the network"),
    ],
)
def test_failed_download_says_why_and_what_to_do(raw, register, server, monkeypatch, fault, message):
    register(PURCHASE, b"", 1, address=fault(server, monkeypatch))
    with pytest.raises(FileNotFoundError, match=rf": .*{message}.*, or put the file with digest") as caught:
        datasets.fetch("purchase")
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    assert list((raw / "purchase").iterdir()) == []


def trickle(server, start: bytes):
    """Sends `start`, then a byte every now and then for two seconds."""

    def answer(request):
        request.wfile.write(start)
        for _ in range(40):
            server.ended.wait(0.05)
            request.wfile.write(b"x")

    server.answer = answer


@pytest.mark.parametrize(
    "start", [b"HTTP/1.0 200 OK\r\nContent-Length: 40\r\n\r\n", b"HTTP/1.0 200 OK\r\nX: "], ids=["body", "header"]
)
def test_trickling_download_is_given_up(raw, register, server, monkeypatch, start):
    monkeypatch.setattr(files, "PATIENCE", 1)
    trickle(server, start)
    register(PURCHASE, b"x" * 41, 1, address=server.address)
    with pytest.raises(FileNotFoundError, match=r"timeout \(too slow: \d+ bytes in 1 seconds\); try again later"):
        datasets.fetch("purchase")
    assert server.requests == 1 and list((raw / "purchase").iterdir()) == []


def test_endless_download_is_given_up(raw, register, server):
    def answer(request):
        request.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        for _ in range(200):
            request.wfile.write(b"x" * 2**16)
            server.ended.wait(0.01)

    server.answer = answer
    register(PURCHASE, b"x" * 1000, 1, address=server.address)
    with pytest.raises(FileNotFoundError, match=r"the server sends more than 1,000 bytes"):
        datasets.fetch("purchase")
    assert server.requests == 1 and list((raw / "purchase").iterdir()) == []


def test_what_a_killed_download_left_is_removed_and_a_live_one_is_not_touched(raw, register, server):
    *_, data = purchase()
    dead, live = (put(raw, f"purchase/.download-{name}", b"part") for name in ("dead", "live"))
    os.utime(dead, (0, time.time() - files.ABANDONED - 60))

    def answer(request):
        files._sweep(raw / "purchase")  # as another process would, in the midst of this one's download
        server.found = len(list((raw / "purchase").glob(".download-*")))
        request.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + data)

    server.answer = answer
    register(PURCHASE, data, 120, address=server.address)
    assert datasets.fetch("purchase")[0].read_bytes() == data
    assert server.found == 2  # the live one, and this one
    assert left(raw / "purchase") == [".download-live", "dataset_purchase.tgz"]
    os.utime(live, (0, time.time() - files.ABANDONED - 60))
    datasets.fetch("purchase")
    assert left(raw / "purchase") == ["dataset_purchase.tgz"]


def test_two_downloads_at_once_do_not_meet(raw, register, server):
    *_, data = purchase()
    both = threading.Barrier(2)

    def answer(request):
        both.wait(10)
        request.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + data)

    server.answer = answer
    register(PURCHASE, data, 120, address=server.address)
    with ThreadPoolExecutor(2) as pool:
        paths = [task.result() for task in [pool.submit(files.fetch_file, PURCHASE) for _ in range(2)]]
    assert server.requests == 2 and paths[0].read_bytes() == data and left(raw) == [PURCHASE]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(lambda data: data[:-50], "truncated"), (lambda data: data[:99] + b"#" + data[100:], "wrong digest")],
)
def test_bad_file_already_there_is_set_aside(raw, register, spoil, message):
    *_, data = purchase()
    put(raw, PURCHASE, spoil(data))
    register(PURCHASE, data, 120)
    with pytest.raises(ValueError, match=rf"{message}.*Set aside as dataset_purchase.tgz.bad"):
        datasets.load("purchase-100", "laptop")
    assert left(raw) == [PURCHASE + ".bad"]


# --- content of archives ---------------------------------------------------------------------------------------------


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "evil",
    [
        member("../escaped"),
        member("a/../../escaped"),
        member("/tmp/escaped"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("link", tarfile.LNKTYPE, "../../escaped"),
        member("device", tarfile.CHRTYPE),
        member("pipe", tarfile.FIFOTYPE),
        member("sparse", tarfile.GNUTYPE_SPARSE),
    ],
    ids=lambda info: f"{info.name}-{info.type.decode()}",
)
def test_archive_that_could_write_elsewhere_is_refused(raw, register, evil):
    X, y, _ = purchase()
    data = tgz({"dataset_purchase": text(X, y)}, evil)
    put(raw, PURCHASE, data)
    register(PURCHASE, data, 120)
    with pytest.raises(ValueError, match=r"unsafe archive member"):
        datasets.load("purchase-100", "paper")
    assert left(raw) == [PURCHASE + ".bad"]
    assert [path.name for path in raw.parent.iterdir()] == ["raw"]


def purchase_text(change) -> bytes:
    X, y, _ = purchase()
    return tgz({"dataset_purchase": change(text(X, y))})


BAD_PURCHASES = {
    "rows": (lambda body: body + body.splitlines(keepends=True)[0], r"121 rows, expected 120"),
    "label 0": (lambda body: body.replace(b"1,", b"0,", 1), r"labels from -1 to 99"),
    "label 101": (lambda body: body.replace(b"1,", b"101,", 1), r"labels from 0 to 100"),
    "no label": (lambda body: body.replace(b"1,", b"x,", 1), r"row 1 is not a label and 600 cells"),
    "cell 2": (lambda body: body[:-2] + b"2\n", r"row 120 is not a label and 600 cells"),
    "short row": (lambda body: body[:-2] + b"\n", r"row 120 is not a label and 600 cells"),
    "width": (lambda body: body.replace(b"\n", b",1\n"), r"rows of 601 cells, expected 600"),
    "empty": (lambda body: b"\n", r"no rows"),
}


@pytest.mark.filterwarnings("ignore:dataset_purchase has md5")
@pytest.mark.parametrize("case", BAD_PURCHASES)
def test_bad_rows_and_labels_are_refused(raw, register, case):
    change, message = BAD_PURCHASES[case]
    data = purchase_text(change)
    put(raw, PURCHASE, data)
    register(PURCHASE, data, 120)
    with pytest.raises(ValueError, match=message):
        datasets.load("purchase-100", "paper")
    assert left(raw) == [PURCHASE + ".bad"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tgz({"something_else": b"1"}), "the archive lacks dataset_purchase"),
        (purchase()[2][:-3000], "bad content"),
        (b"not an archive at all", "bad content"),
    ],
    ids=["other member", "cut short", "not an archive"],
)
def test_bad_archive_is_refused_even_with_the_right_digest(raw, register, data, message):
    put(raw, PURCHASE, data)
    register(PURCHASE, data, 120)
    with pytest.raises(ValueError, match=message):
        datasets.load("purchase-100", "paper")
    assert left(raw) == [PURCHASE + ".bad"]


def twice(first: str, second: str) -> bytes:
    X, y, _ = purchase()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, labels in ((first, y), (second, y[::-1])):
            info = tarfile.TarInfo(name)
            info.size = len(text(X, labels))
            archive.addfile(info, io.BytesIO(text(X, labels)))
    return buffer.getvalue()


def end_of(data: bytes) -> tuple[bytes, int]:
    """An unpacked archive of one member, and where its end mark begins."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        [only] = archive
    return data, only.offset_data + -(-only.size // 512) * 512


def spoilt_end(change) -> bytes:
    return gzip.compress(change(*end_of(gzip.decompress(purchase()[2]))))


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = member(name, kind)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def compressed(how, spoil) -> bytes:
    return spoil(how(gzip.decompress(purchase()[2])))


def flip(data: bytes) -> bytes:
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0xFF]) + data[len(data) // 2 + 1 :]


BAD_ARCHIVES = {
    "member twice": (twice("dataset_purchase", "dataset_purchase"), "holds 'dataset_purchase' twice"),
    "member twice by another name": (
        twice("dataset_purchase", "./dataset_purchase"),
        "holds '.*dataset_purchase' twice",
    ),
    "tar without an end": (spoilt_end(lambda data, end: data[:end]), "lacks its end"),
    "tar with half an end": (spoilt_end(lambda data, end: data[: end + 512]), "lacks its end"),
    "garbage for an end": (spoilt_end(lambda data, end: data[:end] + b"x" * 512 + data[end:]), "lacks its end"),
    "gzip without an end": (purchase()[2][:-8], "end-of-stream"),
    "gzip with another checksum": (purchase()[2][:-8] + bytes(8), "CRC"),
    "6 GB member": (
        gzip.compress(header("dataset_purchase", 6 * 2**30)),
        r"with 'dataset_purchase' .* 2,147,483,648 b",
    ),
    "6 GB of another member": (gzip.compress(header("else", 6 * 2**30)), "with 'else' the archive is larger than"),
    "6 GB header": (gzip.compress(header("x", 6 * 2**30, tarfile.XHDTYPE)), "a header in it than 1,048,576"),
    "negative header": (gzip.compress(header("x", -1024, tarfile.XHDTYPE)), "a header in it than"),
    "long line": (tgz({"dataset_purchase": b"1" * 3 * 2**20}), "line 1 is longer than 65,536 bytes"),
    "long line later": (tgz({"dataset_purchase": text(*purchase()[:2]) + b"1" * 2**20}), "line 121 is longer than"),
    "damaged xz": (compressed(lzma.compress, flip), "bad content"),
    "cut xz": (compressed(lzma.compress, lambda data: data[:-20]), "bad content"),
    "damaged bz2": (compressed(bz2.compress, flip), "bad content"),
    "cut bz2": (compressed(bz2.compress, lambda data: data[:-20]), "bad content"),
    "damaged gzip": (flip(purchase()[2]), "bad content"),
}


@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_bad_archive_with_a_fitting_row_of_the_registry_is_set_aside(raw, register, case):
    data, message = BAD_ARCHIVES[case]
    put(raw, PURCHASE, data)
    register(PURCHASE, data, 120)
    with pytest.raises(
        ValueError, match=rf"bad content: .*{message}" if message != "bad content" else message
    ) as caught:
        datasets.load("purchase-100", "paper")
    assert "\n" not in str(caught.value) and left(raw) == [PURCHASE + ".bad"]


@pytest.mark.filterwarnings("ignore:dataset_purchase has md5")
@pytest.mark.parametrize("how", [lzma.compress, bz2.compress, bytes])
def test_whole_archive_of_another_compression_is_read(raw, register, how):
    data = compressed(how, bytes)
    put(raw, PURCHASE, data)
    register(PURCHASE, data, 120)
    np.testing.assert_array_equal(datasets.load("purchase-100", "paper").X, purchase()[0])


@pytest.mark.parametrize(("limit", "value"), [("UNPACKED_LIMIT", 20_000), ("MEMBER_LIMIT", 1)])
def test_archive_beyond_the_declared_limits_is_refused(raw, register, monkeypatch, limit, value):
    X, y, _ = purchase()
    data = tgz({"dataset_purchase": text(X[:2], y[:2]), "else": bytes(40_000)})
    put(raw, PURCHASE, data)
    register(PURCHASE, data, 2)
    monkeypatch.setattr(files, limit, value)
    with pytest.raises(ValueError, match=r"with 'else' the archive is larger than"):
        datasets.load("purchase-100", "paper")


class Endless(io.RawIOBase):
    """A stream of ones that says how much of it was read, and gives out after 64 MB."""

    length = 0

    def readable(self):
        return True

    def readinto(self, buffer):
        assert self.length < 2**26, "far too much was read"
        buffer[:] = b"1" * len(buffer)
        self.length += len(buffer)
        return len(buffer)


@pytest.mark.parametrize(
    "read", [lambda stream: next(files.read_lines(stream)), lambda stream: files.read_all(stream, 100)]
)
def test_line_or_member_without_an_end_is_not_read_to_it(read):
    stream = Endless()
    with pytest.raises(ValueError, match=r"than [\d,]+ bytes"):
        read(io.BufferedReader(stream))
    assert stream.length <= 2**22


def test_archive_that_unpacks_to_gigabytes_after_its_end_is_refused(raw, register, monkeypatch):
    monkeypatch.setattr(files, "UNPACKED_LIMIT", 2**20)
    data = gzip.compress(gzip.decompress(purchase()[2]) + bytes(2**23))
    put(raw, PURCHASE, data)
    register(PURCHASE, data, 120)
    with pytest.raises(ValueError, match=r"the archive is larger than 1,048,576 bytes"):
        datasets.load("purchase-100", "paper")


def test_disk_error_does_not_set_the_file_aside(raw, register, monkeypatch):
    *_, data = purchase()
    put(raw, PURCHASE, data)
    register(PURCHASE, data, 120)

    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files, "read_archive", broken)
    with pytest.raises(OSError, match="Input/output error"):
        datasets.load("purchase-100", "paper")
    assert left(raw) == [PURCHASE]


def test_purchase_md5_warns_only_when_it_differs(raw, register, monkeypatch, recwarn):
    X, y, data = purchase()
    put(raw, PURCHASE, data)
    register(PURCHASE, data, 120)
    monkeypatch.setitem(datasets.MEMBER_MD5, "dataset_purchase", hashlib.md5(text(X, y)).hexdigest())
    datasets.load("purchase-100", "paper")
    assert not [w for w in recwarn if "md5" in str(w.message)]


@pytest.mark.filterwarnings("ignore:dataset_purchase has md5")
def test_purchase_with_fewer_classes_is_clustered(raw, register):
    rng = np.random.default_rng(1)
    group = np.repeat([0, 1], 100)
    X = (rng.random((200, 600)) < np.where(group, 0.8, 0.2)[:, None]).astype(np.uint8)
    data = tgz({"dataset_purchase": text(X, np.arange(200) % 100 + 1)})
    put(raw, PURCHASE, data)
    register(PURCHASE, data, 200)
    loaded = datasets.load("purchase-2", "paper")
    assert (loaded.y == group).all() or (loaded.y == 1 - group).all()
    assert loaded.classes == 2 and "k-means" in loaded.source
    put(raw, PURCHASE, purchase()[2])  # records without groups: only a fixed seed labels them the same way twice
    register(PURCHASE, purchase()[2], 120)
    once, again = datasets.load("purchase-10", "paper"), datasets.load("purchase-10", "laptop")
    assert once.digest == again.digest and once.y.max() < 10


@pytest.mark.parametrize("d", [6169, 6170])
def test_texas(raw, register, d):
    X, y = records(110, d, 100)
    data = texas(X, y)
    put(raw, TEXAS, data)
    register(TEXAS, data, 110)
    loaded = datasets.load("texas-100", "laptop")
    assert isinstance(loaded.X, scipy.sparse.csr_array) and loaded.X.dtype == np.uint8 and loaded.tier == "R"
    np.testing.assert_array_equal(loaded.X.toarray(), X)
    np.testing.assert_array_equal(loaded.y, y - 1)


def test_texas_needs_as_many_labels_as_rows(raw, register):
    X, y = records(110, 6169, 100)
    data = texas(X[:-1], y)
    put(raw, TEXAS, data)
    register(TEXAS, data, 110)
    with pytest.raises(ValueError, match=r"109 rows, expected 110"):
        datasets.load("texas-100", "paper")


def test_location_labels_are_quoted(raw, register):
    X, y = records(60, 446, 30)
    data = tgz({"./bangkok": text(X, y, quote='"')})
    put(raw, LOCATION, data)
    register(LOCATION, data, 60)
    loaded = datasets.load("location-30", "paper")
    np.testing.assert_array_equal(loaded.X, X)
    np.testing.assert_array_equal(loaded.y, y - 1)


def test_location_is_clustered_anew(raw, register):
    X, y = records(60, 446, 30)
    X[:30, :200], X[30:, :200] = 0, 1
    data = tgz({"./bangkok": text(X, y, quote='"')})
    put(raw, LOCATION, data)
    register(LOCATION, data, 60)
    loaded = datasets.load("location-2", "paper")
    np.testing.assert_array_equal(loaded.X, X)
    assert len(set(loaded.y[:30])) == len(set(loaded.y[30:])) == 1 and loaded.y[0] != loaded.y[-1]
    assert loaded.tier == "S" and "re-clustered by us into 2 classes" in loaded.source


# --- Adult, MNIST, CIFAR ---------------------------------------------------------------------------------------------

ADULT = """39, State-gov, 100, Bachelors, 13, Never-married, Sales, Husband, White, Male, 2174, 0, 40, Cuba, <=50K
17, ?, 300, HS-grad, 9, Divorced, ?, Own-child, Black, Female, 0, 0, 20, ?, >50K

"""
ADULT_TEST = "|1x3 Cross validator\n" + ADULT.replace("50K\n", "50K.\n").replace("17, ", "61, ")


def put_adult(raw, register, train: str, test: str):
    for name, body in (("adult.data", train), ("adult.test", test)):
        put(raw, f"adult/{name}", body.encode())
        register(f"adult/{name}", body.encode(), 2)


def test_adult(raw, register):
    put_adult(raw, register, ADULT, ADULT_TEST)
    loaded = datasets.load("adult", "laptop")
    assert loaded.y.tolist() == [0, 1, 0, 1] and loaded.X.dtype == np.float32
    np.testing.assert_allclose(loaded.X[:, 0], [22 / 44, 0, 22 / 44, 1])  # ages 39, 17, 39, 61 over both parts
    assert loaded.X.shape == (4, 6 + 2 * 8)  # two categories in each column, "?" counted as one
    np.testing.assert_array_equal(loaded.X[:, 6:].sum(axis=1), 8)


def test_adult_is_read_as_utf8_whatever_the_locale(raw, register, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: path.read_bytes().decode(encoding))
    put_adult(raw, register, ADULT, ADULT_TEST.replace("Cuba", "Curaçao"))
    assert len(datasets.load("adult", "laptop").y) == 4


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ("Cuba", "Cuba, Cuba", "row 1 is not 14 attributes"),
        (">50K.", "50K", "row 2 is not 14 attributes"),
        ("2174", "many", "many"),
        ("2174", "9" * 30, "too large"),
        ("White", "W" * 200_000, "field larger"),
    ],
)
def test_bad_adult_row_is_refused(raw, register, good, bad, message):
    put_adult(raw, register, ADULT, ADULT_TEST.replace(good, bad))
    with pytest.raises(ValueError, match=rf"adult.test: bad content: .*{message}"):
        datasets.load("adult", "laptop")
    assert left(raw) == ["adult/adult.data", "adult/adult.test.bad"]


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


MNISTS = [("mnist", "mnist"), ("fashion-mnist", "fashionmnist")]


def put_digits(raw, register, folder: str, images: np.ndarray, labels: np.ndarray):
    """The four files of images and labels, the last ten of which are the test part."""
    for part, here in (("train", slice(0, -10)), ("t10k", slice(-10, None))):
        for kind, array in (("images-idx3", images[here]), ("labels-idx1", labels[here])):
            place, data = f"{folder}/{part}-{kind}-ubyte.gz", gzip.compress(idx(array))
            put(raw, place, data)
            register(place, data, len(array))


@pytest.mark.parametrize(("name", "folder"), MNISTS)
def test_mnist(raw, register, name, folder):
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (30, 28, 28), np.uint8)
    labels = rng.integers(0, 10, 30).astype(np.uint8)
    put_digits(raw, register, folder, images, labels)
    loaded = datasets.load(name, "paper")
    np.testing.assert_array_equal(loaded.X, images.reshape(30, 784).astype(np.float32) / 255)
    np.testing.assert_array_equal(loaded.y, labels)
    assert loaded.y.dtype == np.int64 and loaded.tier == "R"
    last = f"{folder}/t10k-labels-idx1-ubyte.gz"
    register(last, (raw / last).read_bytes(), 11)
    with pytest.raises(ValueError, match=r"t10k-labels.*10 rows, expected 11"):
        datasets.load(name, "paper")


@pytest.mark.parametrize(("name", "folder"), MNISTS)
@pytest.mark.parametrize(
    ("side", "classes", "message"),
    [(27, 10, r"train-images.*shape \(27, 27\)"), (28, 11, "train-labels.*from 0 to 10,.*10 classes")],
)
def test_mnist_of_another_shape_or_of_more_classes_is_refused(raw, register, name, folder, side, classes, message):
    labels = np.arange(30, dtype=np.uint8) % classes
    put_digits(raw, register, folder, np.zeros((30, side, side), np.uint8), labels)
    with pytest.raises(ValueError, match=message):
        datasets.load(name, "paper")


@pytest.mark.parametrize(("name", "folder"), MNISTS)
def test_mnist_file_that_unpacks_to_more_than_its_rows_is_refused(raw, register, name, folder):
    for part in ("train", "t10k"):
        for kind, data in (("images-idx3", gzip.compress(bytes(10**7))), ("labels-idx1", gzip.compress(bytes(10)))):
            place = f"{folder}/{part}-{kind}-ubyte.gz"
            put(raw, place, data)
            register(place, data, 10)
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz: bad content: more than 7,856 bytes"):
        datasets.load(name, "paper")


def cifar100(raw, register, n: int = 12) -> tuple[dict[str, bytes], np.ndarray]:
    rng = np.random.default_rng(3)
    table = rng.integers(0, 256, (2 * n, 3074), np.uint8)
    table[:, 0] %= 20
    table[:, 1] %= 100
    members = {"train.bin": table[:n].tobytes(), "test.bin": table[n:].tobytes()}
    for name, data in members.items():
        register(f"cifar100/{name}", data, n)
    return members, table


def test_cifar_from_members_and_from_the_archive_agree(raw, register):
    members, table = cifar100(raw, register)
    archive = tgz({f"cifar-100-binary/{name}": data for name, data in members.items()} | {"other.txt": b"x"})
    register("cifar100/cifar-100-binary.tar.gz", archive, 24)
    put(raw, "cifar100/cifar-100-binary.tar.gz", archive)
    fine, coarse = datasets.load("cifar-100", "laptop"), datasets.load("cifar-100-coarse", "laptop")
    np.testing.assert_array_equal(fine.X, table[:, 2:].reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(fine.y, table[:, 1])
    np.testing.assert_array_equal(coarse.y, table[:, 0])
    assert (fine.tier, coarse.tier) == ("R", "S")  # no paper here used the coarse labels
    (raw / "cifar100/cifar-100-binary.tar.gz").unlink()
    for name, data in members.items():
        put(raw, f"cifar100/{name}", data)
    assert datasets.load("cifar-100", "laptop").digest == fine.digest
    assert datasets.fetch("cifar-100") == [raw / "cifar100/train.bin", raw / "cifar100/test.bin"]


def test_cifar_member_is_checked_inside_the_archive(raw, register):
    members, _ = cifar100(raw, register)
    members["test.bin"] = members["test.bin"][::-1]
    archive = tgz({f"cifar-100-binary/{name}": data for name, data in members.items()})
    register("cifar100/cifar-100-binary.tar.gz", archive, 24)
    put(raw, "cifar100/cifar-100-binary.tar.gz", archive)
    with pytest.raises(ValueError, match=r"member cifar-100-binary/test.bin has the wrong digest"):
        datasets.load("cifar-100", "laptop")
    members["test.bin"] += bytes(5000)
    archive = tgz({f"cifar-100-binary/{name}": data for name, data in members.items()})
    register("cifar100/cifar-100-binary.tar.gz", archive, 24)
    put(raw, "cifar100/cifar-100-binary.tar.gz", archive)
    with pytest.raises(ValueError, match=r"bad content: more than 36,888 bytes"):
        datasets.load("cifar-100", "laptop")


# --- LFW -------------------------------------------------------------------------------------------------------------

FACES = "lfw/lfw-funneled.tgz"


@functools.cache
def photograph(grey: int, side: int = 250, kind: str = "JPEG") -> bytes:
    """Its left half is grey, its right half black."""
    pixels = np.zeros((side, side, 3), np.uint8)
    pixels[:, : side // 2] = grey
    Image.fromarray(pixels).save(buffer := io.BytesIO(), kind)
    return buffer.getvalue()


def put_faces(raw, register, server, **changes: bytes | None) -> None:
    """An archive of LFW's layout for the server, two of each person and of another; `changes`: file -> in its place."""
    members = {"lfw_funneled/pairs_01.txt": b"1"}
    for number, name in enumerate([*lfw.PEOPLE, "Somebody_Else"]):
        members |= {f"lfw_funneled/{name}/{name}_{i:04}.jpg": photograph(40 * (number + 1)) for i in (2, 1)}
    members |= {f"lfw_funneled/{name[:-5]}/{name}.jpg": data for name, data in changes.items()}
    folder = member("lfw_funneled/Nobody", tarfile.DIRTYPE)
    server.body = tgz({name: data for name, data in members.items() if data is not None}, folder)
    register(FACES, server.body, 12, address=server.address)


def test_faces_are_downloaded_and_reduced(raw, register, server, monkeypatch):
    assert sum(lfw.PEOPLE.values()) == 1140 and list(lfw.PEOPLE) == sorted(lfw.PEOPLE)
    assert files.MEMBER_LIMIT > 13_233 + 5_749
    monkeypatch.setattr(lfw, "PEOPLE", dict.fromkeys(lfw.PEOPLE, 2))
    # The second of a person goes second, whatever the order in the archive.
    put_faces(raw, register, server, Tony_Blair_0002=photograph(250))
    data = lfw.load()
    assert lfw.load().digest == data.digest and server.requests == 1 and left(raw) == [FACES]
    assert datasets.fetch("lfw") == [raw / FACES]
    assert data.X.shape == (10, 3, 64, 64) and data.X.dtype == np.uint8 and data.classes == 5
    assert data.y.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] and data.tier == "R"
    greys, dark = data.X[:, :, :, :30].mean((1, 2, 3)), data.X[:, :, :, 34:]
    assert greys == pytest.approx([40, 40, 80, 80, 120, 120, 160, 160, 200, 250], abs=2) and dark.max() < 5


def bomb() -> bytes:
    """A photograph that says it has 65,000 by 65,000 pixels."""
    data = photograph(40)
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + 2 * (65_000).to_bytes(2, "big") + data[at + 4 :]


NO_PHOTOGRAPH = r"Tony_Blair_0002.jpg is no JPEG of 250 by 250 pixels"
BAD_FACES = {
    "missing": (None, r"the archive lacks lfw_funneled/Tony_Blair/Tony_Blair_0002.jpg\. "),
    "no image": (b"what a computer leaves", NO_PHOTOGRAPH),
    "empty": (b"", NO_PHOTOGRAPH),
    "cut": (photograph(40)[:-200], NO_PHOTOGRAPH),
    "PNG": (photograph(40, kind="PNG"), NO_PHOTOGRAPH),
    "small": (photograph(40, side=249), NO_PHOTOGRAPH),
    "bomb": (bomb(), NO_PHOTOGRAPH),
    "long": (photograph(40) + bytes(2**20), "more than 1,048,576 bytes"),
}


@pytest.mark.parametrize("case", BAD_FACES)
def test_bad_faces_are_set_aside(raw, register, server, monkeypatch, case):
    monkeypatch.setattr(lfw, "PEOPLE", dict.fromkeys(lfw.PEOPLE, 2))
    spoilt, message = BAD_FACES[case]
    put_faces(raw, register, server, Tony_Blair_0002=spoilt)
    with pytest.raises(ValueError, match=rf"bad content: .*{message}") as caught:
        lfw.load()
    assert "\n" not in str(caught.value) and left(raw) == [FACES + ".bad"]


def test_faces_that_lack_hundreds_say_so_in_a_line(raw, register, server):
    put_faces(raw, register, server)
    with pytest.raises(
        ValueError, match=r"lacks (lfw_funneled/Colin_Powell/\w+.jpg(, )?){3} and 1,127 more\. Set"
    ) as caught:
        lfw.load()
    assert len(str(caught.value)) < 500 + len(str(raw)) and "\n" not in str(caught.value)


# --- profiles --------------------------------------------------------------------------------------------------------


@pytest.fixture
def simulators(monkeypatch):
    """Quick ones of the agreed shapes; they record how many records were asked for."""
    asked = {}

    def simulator(name: str, n: int, d: int, classes: int):
        asked[name] = n
        X, y = records(min(n, 300), d, classes)
        return (scipy.sparse.csr_array(X) if name == "hospital" else X), y - 1

    def purchases(classes, n=197_324, seed=0):
        return simulator("purchases", n, 600, classes)

    monkeypatch.setattr(datasets.simulate, "purchases", purchases)
    monkeypatch.setattr(datasets.simulate, "hospital", lambda n=67_330, seed=0: simulator("hospital", n, 6169, 100))
    monkeypatch.setattr(datasets.simulate, "locations", lambda n=5_010, seed=0: simulator("locations", n, 446, 30))
    return asked


@pytest.mark.parametrize("name", datasets.SETS)
def test_demo_needs_no_network(raw, simulators, monkeypatch, name):
    monkeypatch.setattr(datasets, "fetch", lambda name: pytest.fail("demo asked for a file"))
    loaded = datasets.load(name, "demo")
    assert loaded.classes == {"cifar-100": 20, "cifar-100-coarse": 10}.get(name, datasets.SETS[name][1])
    np.testing.assert_array_equal(np.unique(loaded.y), np.arange(loaded.classes))
    assert loaded.y.dtype == np.int64 and len(loaded.y) == loaded.X.shape[0] >= 300
    simulated = datasets.SETS[name][0] in datasets.DEMO_ROWS
    assert loaded.tier == ("M" if simulated else "S") and ("simulated" in loaded.source) == simulated
    if name.startswith("cifar"):
        assert loaded.X.dtype == np.uint8 and loaded.X.shape[1:] == (3, 32, 32) and loaded.X.max() == 255
    elif not simulated:
        assert loaded.X.dtype == np.float32 and loaded.X.min() == 0 and loaded.X.max() == 1
    assert not raw.exists()


def test_demo_sizes(simulators):
    for name in ("location-30", "purchase-50", "texas-100"):
        datasets.load(name, "demo")
    assert simulators == {"locations": 1_500, "purchases": 8_000, "hospital": 4_000}


def test_demo_cifar_classes_nest():
    fine, coarse = datasets.load("cifar-100", "demo"), datasets.load("cifar-100-coarse", "demo")
    np.testing.assert_array_equal(fine.y // 2, coarse.y)
    assert np.bincount(fine.y).min() > 80  # halves of a digit's ~180 images


@pytest.mark.parametrize(("name", "folder"), [("purchase-20", "purchase"), ("texas-100", "texas")])
def test_laptop_simulates_what_is_not_there_and_says_so(raw, simulators, capsys, name, folder):
    loaded = datasets.load(name, "laptop")
    assert loaded.tier == "M" and "simulated" in loaded.source
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and "simulated" in printed and f"python -m mialib fetch {folder}" in printed
    assert list(simulators.values()) == [{"purchase": 197_324, "texas": 67_330}[folder]]


def test_paper_never_simulates(raw, register, simulators):
    register(TEXAS, b"", 1, address="http://127.0.0.1:9/dataset_texas.tgz")
    with pytest.raises(FileNotFoundError, match=r"dataset_texas.tgz is missing"):
        datasets.load("texas-100", "paper")
    assert simulators == {}


# --- parsers, by property --------------------------------------------------------------------------------------------

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.integers(1, 40), st.integers(1, 30), st.integers(1, 7), st.booleans(), st.sampled_from(["", '"']))
def test_rows_survive_the_round_trip(seed, n, d, chunk, labelled, quote):
    rng = np.random.default_rng(seed)
    X, y = rng.integers(0, 2, (n, d), np.uint8), rng.integers(0, 1000, n)
    body = text(X, y if labelled else None, quote)
    for ending in (b"\n", b"\r\n", b"\n\n"):
        chunks = list(datasets.parse_rows(io.BytesIO(body.replace(b"\n", ending)), (d,), labelled, chunk))
        np.testing.assert_array_equal(np.concatenate([cells for cells, _ in chunks]), X)
        np.testing.assert_array_equal(np.concatenate([labels for _, labels in chunks]), y if labelled else 0 * y)


@given(SEEDS, st.data())
def test_a_changed_byte_is_refused_or_another_valid_table(seed, data):
    X, y = np.random.default_rng(seed).integers(0, 2, (6, 5), np.uint8), np.arange(6)
    body = bytearray(text(X, y))
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = list(datasets.parse_rows(io.BytesIO(bytes(body)), (5,), labelled=True))
    except ValueError:
        return
    cells, labels = (np.concatenate(arrays) for arrays in zip(*parsed, strict=True))
    changed = (cells != X).sum() + (labels != y).sum() if len(labels) == 6 else 1
    assert cells.shape == (len(labels), 5) and cells.max() <= 1 and changed <= 1


@given(SEEDS, st.lists(st.integers(0, 6), min_size=1, max_size=3), st.integers(1, 5))
def test_idx_survives_the_round_trip_and_a_cut_does_not(seed, shape, cut):
    array = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(datasets.parse_idx(idx(array)), array)
    for broken in (idx(array) + b"x", idx(array)[:-cut], b"\0\0\x0d" + idx(array)[3:]):
        with pytest.raises(ValueError, match=r"idx|bytes of data"):
            datasets.parse_idx(broken)


@given(SEEDS, st.integers(0, 4), st.integers(1, 2))
def test_cifar_survives_the_round_trip(seed, n, labels):
    table = np.random.default_rng(seed).integers(0, 256, (n, labels + 3072), np.uint8)
    X, y = datasets.parse_cifar(table.tobytes(), labels)
    np.testing.assert_array_equal(np.concatenate([y, X.reshape(n, 3072)], axis=1), table)
    with pytest.raises(ValueError, match="not whole records"):
        datasets.parse_cifar(table.tobytes() + b"x", labels)


WORD = st.text("abcXYZ-?", min_size=1, max_size=5)
PERSON = st.tuples(st.tuples(*[st.integers(0, 10**6)] * 6), st.tuples(*[WORD] * 8), st.booleans())


@given(st.lists(PERSON, min_size=1, max_size=8), st.sampled_from(["", "."]))
def test_adult_survives_the_round_trip(people, stop):
    order = [0, 6, 1, 7, 2, 8, 9, 10, 11, 12, 3, 4, 5, 13]  # where numbers 0-5 and words 6-13 stand in a row
    lines = []
    for numbers, words, rich in people:
        cells = [*map(str, numbers), *words]
        lines.append(", ".join(cells[i] for i in order) + (", >50K" if rich else ", <=50K") + stop)
    numbers, kinds, y = datasets.parse_adult("\n".join(lines))
    assert [tuple(row) for row in numbers.tolist()] == [person[0] for person in people]
    assert [tuple(row) for row in kinds.tolist()] == [person[1] for person in people]
    assert y.tolist() == [int(person[2]) for person in people]
    X = datasets.encode_adult(numbers, kinds)
    assert X.min() >= 0 and X.max() <= 1 and (X[:, 6:].sum(axis=1) == 8).all()
