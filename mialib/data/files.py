"""The files of the data sets: what brings, checks, sets aside and unpacks them. data/registry.csv lists them.

`fetch_file(place)` gives the checked path of one. What is in the files is the matter of `datasets`.
"""

import bz2
import csv
import gzip
import hashlib
import itertools
import lzma
import re
import ssl
import tarfile
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import requests
import urllib3
from requests.exceptions import InvalidProxyURL, ProxyError
from tqdm import tqdm
from urllib3.exceptions import LocationParseError, NameResolutionError, ReadTimeoutError

from mialib import config

# What is longer than this is refused before it is read, in bytes. Texas-100 is the largest: 0.83e9, in rows of 12,340.
UNPACKED_LIMIT = 2**31  # an archive, unpacked
LINE_LIMIT = 2**16
PORTION = 2**20  # what is read of a stream at once, the long name of an archive's member included
MEMBER_LIMIT = 50_000  # members of an archive; the most are in LFW, 13,233 photographs in 5,749 folders and maybe lists
# A server that is silent for TIMEOUT seconds, or brings fewer than SLOWEST bytes a second for PATIENCE seconds, is
# given up.
TIMEOUT, SLOWEST, PATIENCE = 30, 5_000, 60
ABANDONED = 3600  # seconds after which a download that has not grown is nobody's


@dataclass(frozen=True)
class File:
    """One row of data/registry.csv. `digest` is "<kind>:<hex>"; kind "git" is a git blob id; size in bytes or None."""

    address: str
    size: int | None
    digest: str
    rows: int
    licence: str
    citation: str


_COLUMNS = {  # of data/registry.csv: what every cell of it matches, and that in words
    "file": (r"\w[\w.-]*(/\w[\w.-]*)+", "a place inside data/raw, such as mnist/labels.gz"),
    "address": (r"https?://\S+", "an http or https address"),
    "size": (r"([1-9]\d{0,14})?", "a whole number of bytes, or nothing"),
    "digest": (r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}|git:[0-9a-f]{40}", "sha256:, md5: or git: with its hex digits"),
    "rows": (r"0|[1-9]\d{0,14}", "a whole number"),
    "licence": (r".+", "a text"),
    "citation": (r".+", "a text"),
}


def read_registry() -> dict[str, File]:
    """Place under config.raw_dir() -> File, in the order of data/registry.csv.

    Raises ValueError naming the row (the header is row 1) and the column of a cell that is not what it must be.
    """
    with (config.ROOT / "data" / "registry.csv").open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file, restkey="an eighth")
        rows = list(table)
    if table.fieldnames != list(_COLUMNS):
        raise ValueError(f"data/registry.csv, row 1: the columns must be {','.join(_COLUMNS)}")
    registry = {}
    for number, row in enumerate(rows, 2):
        for column, cell in row.items():
            pattern, words = _COLUMNS.get(column, ("", "to be there"))
            if not re.fullmatch(pattern, str(cell or ""), re.ASCII):
                raise ValueError(f"data/registry.csv, row {number}, column {column}: {cell!r} is not {words}")
        place, size = row.pop("file"), row.pop("size")
        if place in registry:
            raise ValueError(f"data/registry.csv, row {number}, column file: {place!r} stands in an earlier row too")
        registry[place] = File(**row | {"size": int(size) if size else None, "rows": int(row["rows"])})
    return registry


REGISTRY = read_registry()


# --- download ---------------------------------------------------------------------------------------------------------


def fetch_file(place: str) -> Path:
    """Path of one file of the registry, downloaded if missing; nothing with a wrong size or digest gets its name.

    Raises ValueError (wrong size or digest, the file is then set aside) and FileNotFoundError (it is missing and cannot
    be downloaded, and why).
    """
    path, file = config.raw_dir() / place, REGISTRY[place]
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    if path.exists():
        _check(path, path, file)
        return path
    with _part(path.parent) as part:
        try:
            _download(file.address, part, file.size or UNPACKED_LIMIT)
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            raise FileNotFoundError(
                f"{path.name} is missing and could not be downloaded from {file.address}: {_reason(error)}, "
                f"or put the file with digest {file.digest} at {path}"
            ) from error
        _check(part, path, file)
        part.replace(path)
    return path


@contextmanager
def _part(folder: Path) -> Iterator[Path]:
    """Where one download goes, removed at the end if it is still there."""
    part = folder / f".download-{uuid.uuid4().hex}"
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove what killed downloads left. One that is alive grows, or is given up long before it counts as abandoned."""
    for part in folder.glob(".download-*"):
        with suppress(OSError):  # another process was faster
            if time.time() - part.stat().st_mtime > ABANDONED:
                part.unlink()


def _download(address: str, part: Path, most: int) -> None:
    """Up to four tries; raises what the last one does. Who is too slow or sends too much is not asked again."""
    for pause in (1, 2, 3, 0):
        try:
            return _try(address, part, most)
        except requests.RequestException:
            if not pause:
                raise
            time.sleep(pause)


def _try(address: str, part: Path, most: int) -> None:
    """OSError if the server sends more than `most` bytes, TimeoutError if it is slower than SLOWEST, or requests' own.

    A thread brings the bytes and this one watches: a server that trickles keeps every single read within its timeout.
    """
    ended, before = Future(), 0

    def bring() -> None:
        try:
            with requests.get(address, stream=True, timeout=TIMEOUT) as answer:
                answer.raise_for_status()
                for data in answer.iter_content(2**12):
                    bar.update(file.write(data))
                    if file.tell() > most:
                        raise OSError(f"the server sends more than {most:,} bytes")
            ended.set_result(None)
        except Exception as error:
            ended.set_exception(error)

    with part.open("wb") as file, tqdm(unit="B", unit_scale=True, leave=False) as bar:
        threading.Thread(target=bring, daemon=True).start()  # left behind, it ends at its next write
        while not wait([ended], PATIENCE).done:
            size = file.tell()
            if size - before < SLOWEST * PATIENCE:
                raise TimeoutError(f"too slow: {size - before:,} bytes in {PATIENCE} seconds")
            before = size
        ended.result()


_ADVICE = {  # what a download fails for: its kinds of error, what to do
    "proxy refused": ((ProxyError, InvalidProxyURL, LocationParseError), "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"),
    "certificate not trusted": (
        ssl.SSLCertVerificationError,
        "set REQUESTS_CA_BUNDLE to your network's certificates",
    ),
    "name not resolved": (NameResolutionError, "check the network"),
    "timeout": ((requests.Timeout, ReadTimeoutError, TimeoutError), "try again later"),
}


def _reason(error: Exception) -> str:
    """Why a download failed and what to do, in one line."""
    causes = [error]
    for cause in causes:  # and those inside it: requests and urllib3 put one into another in several ways
        inner = (*cause.args, getattr(cause, "reason", None), cause.__cause__)
        causes += [each for each in inner if isinstance(each, BaseException)][:1]
    last = causes[-1]
    what = getattr(last, "strerror", None) or str(last) or type(last).__name__
    if isinstance(error, requests.HTTPError):
        what = f"HTTP {error.response.status_code}"
    what = re.sub(r"//[^/\s]*@", "//", " ".join(what.split()))  # a proxy's address may hold a password
    for name, (kinds, advice) in _ADVICE.items():
        if any(isinstance(cause, kinds) for cause in causes):
            return f"{name} ({what}); {advice}"
    return f"{what}; check the network or try again later"


# --- check ------------------------------------------------------------------------------------------------------------


def digest_file(path: Path, kind: str) -> str:
    """Hex digest of a file: a hashlib name ("sha256", "md5"), or "git" for the blob id git would give it."""
    start = hashlib.sha1(b"blob %d\0" % path.stat().st_size) if kind == "git" else hashlib.new(kind)
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: start).hexdigest()


def _check(found: Path, path: Path, file: File) -> None:
    """Raise ValueError, and set `found` aside beside `path`, unless its size and digest are the registered ones."""
    size, kind = found.stat().st_size, file.digest.partition(":")[0]
    if file.size is not None and size != file.size:
        what = "truncated" if size < file.size else "too long"
        raise _set_aside(found, path, f"{what}: {size:,} of {file.size:,} bytes")
    digest = f"{kind}:{digest_file(found, kind)}"
    if digest != file.digest:
        raise _set_aside(found, path, f"wrong digest {digest}, expected {file.digest}")


def _set_aside(found: Path, path: Path, why: str) -> ValueError:
    """Rename a bad file to <name>.bad, and return the error to raise."""
    bad = path.with_name(path.name + ".bad")
    found.replace(bad)
    again = f"run again to download {registered(path).address} anew"
    return ValueError(f"{path}: {why}. Set aside as {bad.name}; {again}")


def registered(path: Path) -> File:
    return REGISTRY[path.relative_to(config.raw_dir()).as_posix()]


def parsed(path: Path, parse: Callable[[Path], Any]) -> Any:
    """parse(path); whatever is wrong with the content becomes one ValueError, and the file is set aside."""
    try:
        return parse(path)
    except (
        OSError, ValueError, OverflowError, EOFError, csv.Error, tarfile.TarError, zlib.error, lzma.LZMAError
    ) as error:  # fmt: skip
        if getattr(error, "errno", None) is not None:  # the disk's; those of gzip and bz2 have no number
            raise
        raise _set_aside(path, path, f"bad content: {error}") from error


# --- unpack -----------------------------------------------------------------------------------------------------------


_OPENERS = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}  # by the first two bytes of the file


def read_archive(path: Path, parsers: dict[str, Callable[[IO[bytes]], Any]]) -> dict[str, Any]:
    """Parse members of a tar archive straight from it, writing nothing to disk. `parsers`: member -> function.

    Raises ValueError if a member is missing or there twice, is a link or device or has a name that leaves the folder;
    if the archive is larger than the limits above, before it is read that far; and if it does not end as it should
    (EOFError where the compressed stream is cut).
    """
    with path.open("rb") as file:
        opener = _OPENERS.get(file.read(2), open)
    found, met = {}, set()
    with opener(path, "rb") as file, tarfile.open(fileobj=(stream := _Bounded(file)), mode="r:") as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            if not (member.isreg() or member.isdir()) or member.issparse() or name.is_absolute() or ".." in name.parts:
                raise ValueError(f"unsafe archive member {member.name!r}")
            if name in met:
                raise ValueError(f"the archive holds {member.name!r} twice")
            if member.offset_data + member.size > UNPACKED_LIMIT or len(met) == MEMBER_LIMIT:
                limits = f"{UNPACKED_LIMIT:,} bytes and {MEMBER_LIMIT:,} members"
                raise ValueError(f"with {member.name!r} the archive is larger than {limits}")
            met.add(name)
            if member.isreg() and str(name) in parsers:
                found[str(name)] = parsers[str(name)](archive.extractfile(member))
        # Two empty blocks end an archive. tarfile looks at one, and takes a damaged header or the end of data for it.
        if stream.last + stream.read(tarfile.BLOCKSIZE) != bytes(2 * tarfile.BLOCKSIZE):
            raise ValueError("the archive is cut or damaged: it lacks its end")
        while stream.read(PORTION):  # the end and the checksum of the compressed stream come last
            pass
    if missing := sorted(parsers.keys() - found.keys()):
        more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        raise ValueError(f"the archive lacks {', '.join(missing[:3])}{more}")
    return found


class _Bounded:
    """An unpacked archive as tarfile reads it: ValueError where it goes beyond UNPACKED_LIMIT or asks for too much."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.seek, self.tell = stream, stream.seek, stream.tell
        self.last = b""  # what was read last

    def read(self, size: int) -> bytes:
        if not 0 <= size <= PORTION or self.tell() + size > UNPACKED_LIMIT + PORTION:
            raise ValueError(f"the archive is larger than {UNPACKED_LIMIT:,} bytes, or a header in it than {PORTION:,}")
        self.last = self.stream.read(size)
        return self.last


def read_all(stream: IO[bytes], most: int) -> bytes:
    """What is left of a stream. ValueError if that is more than `most` bytes, which is not read to its end."""
    data = b"".join(itertools.islice(iter(partial(stream.read, PORTION), b""), most // PORTION + 2))
    if len(data) > most:
        raise ValueError(f"more than {most:,} bytes")
    return data


def read_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """The lines of a stream. ValueError at one longer than LINE_LIMIT, which is not read to its end."""
    for number, line in enumerate(iter(partial(stream.readline, LINE_LIMIT + 1), b""), 1):
        if len(line) > LINE_LIMIT:
            raise ValueError(f"line {number:,} is longer than {LINE_LIMIT:,} bytes")
        yield line
