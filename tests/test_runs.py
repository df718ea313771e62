import dataclasses
import errno
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import scipy.sparse

from mialib import config, machine, runs, work
from mialib.papers.shokri2017 import experiments


@dataclasses.dataclass(frozen=True)
class Pair:
    a: int
    b: tuple


DIFFERENT = [
    1, 1.0, "1", True, None, (1,), ((1,),), (1, 2), ("1", "2"), ("12",), ("1", "", "2"), {"a": 1}, {"a": 2},
    Pair(1, ()), Pair(1, (2,)), np.zeros(3), np.zeros(3, np.float32), np.zeros((3, 1)), np.ones(3),
    scipy.sparse.csr_array(np.eye(3)), scipy.sparse.csr_array(np.eye(3)[::-1]),
]  # fmt: skip


def test_digest_tells_everything_apart_and_repeats():
    assert len({runs.digest(part) for part in DIFFERENT}) == len(DIFFERENT)
    assert [runs.digest(part) for part in DIFFERENT] == [runs.digest(part) for part in DIFFERENT]
    assert runs.digest({"a": 1, "b": 2}) == runs.digest({"b": 2, "a": 1})
    assert runs.digest(np.eye(3)[:, ::-1]) == runs.digest(np.eye(3)[:, ::-1].copy())
    with pytest.raises(TypeError, match="cannot digest a set"):
        runs.digest({1})


def test_object_arrays_are_digested_by_their_values():
    """Never by the addresses of what they hold, which would give every run another key, or another's."""
    names = ["Ada", "Grace", None]
    assert runs.digest(np.array(names, object)) == runs.digest(np.array([str(n) if n else n for n in names], object))
    assert runs.digest(np.array(names, object)) != runs.digest(np.array(["Ada", "Ada", None], object))
    with pytest.raises(TypeError, match="cannot digest a object"):
        runs.digest(np.array([object()]))


def test_streams_are_per_role():
    assert runs.stream(0, "a", 1).random() == runs.stream(0, "a", 1).random()
    draws = {runs.stream(*words).random() for words in ((0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1), (0, "a"))}
    assert len(draws) == 5


def test_cache_gives_back_what_was_stored(own_cache):
    arrays = {"x": np.arange(6).reshape(2, 3), "empty": np.zeros(0, np.float32)}
    work.store("ab" * 32, arrays)
    back = work.load("ab" * 32)
    assert back.keys() == arrays.keys() and all((back[k] == arrays[k]).all() for k in arrays)
    assert work.load("cd" * 32) is None
    assert not list(own_cache.rglob("*.part"))


KEY, OTHER = "ab" * 32, "cd" * 32


def entry(key=KEY):
    work.store(key, {"x": np.arange(3)})
    return work._path(key)


def hashed(path, payload, key=KEY):
    path.write_bytes(payload + work._check(key, payload))


def compressed(path):
    np.savez_compressed(path.with_suffix(".tmp.npz"), x=np.zeros(1000))
    hashed(path, path.with_suffix(".tmp.npz").read_bytes())


def too_large(path):
    """A header that claims more than any memory holds."""
    payload = path.read_bytes()[:-32]
    assert payload.count(b"'shape': (3,), }           ") == 1
    hashed(path, payload.replace(b"'shape': (3,), }           ", b"'shape': (3000000000000,), }"[:27]))


def replaced(make):
    def damage(path):
        path.unlink()
        make(path)

    return damage


DAMAGE = {
    "a flipped byte": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"),
    "nothing in it": lambda path: path.write_bytes(b""),
    "an empty payload": lambda path: hashed(path, b""),
    "a payload that is no archive": lambda path: hashed(path, b"text"),
    "an archive that could grow": compressed,
    "a header too large": too_large,
    "an archive without arrays": lambda path: hashed(path, b"PK\5\6" + bytes(18)),
    "the entry of another key": lambda path: shutil.copy(entry(OTHER), path),
    "a link to another's entry": replaced(lambda path: path.symlink_to(entry(OTHER))),
    "a link to itself": replaced(lambda path: path.symlink_to(path)),
    "a link to nothing": replaced(lambda path: path.symlink_to(path.with_name("gone"))),
    "a folder": replaced(lambda path: path.mkdir()),
    "a pipe": replaced(os.mkfifo),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_whatever_is_no_entry_is_computed_again(name, own_cache):
    path = entry()
    DAMAGE[name](path)
    with pytest.warns(UserWarning, match="cache entry abababababab is damaged"):
        assert work.load(KEY) is None
    entry()
    assert work.load(KEY)["x"].tolist() == [0, 1, 2]


def test_what_is_not_finite_is_not_kept(own_cache):
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="theta: not all finite"):
            work.store(KEY, {"theta": np.array([1.0, value])})
    assert not list(own_cache.rglob("*.npz"))
    work.store(KEY, {"skew": np.array([1.0, np.nan])}, undefined=True)
    assert np.isnan(work.load(KEY)["skew"][1])


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MIALIB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="the cache cannot be written"):
        work.store(KEY, {"x": np.zeros(1)})
    assert work.load(KEY) is None


def test_a_full_disk_is_an_error(monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(work, "write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        work.store(KEY, {"x": np.zeros(1)})


def test_no_pickle_enters_the_cache():
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        work.store("ab" * 32, {"x": np.array([object()])})


def test_write_atomic_leaves_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "file"
    work.write_atomic(path, b"old")
    with pytest.raises(TypeError):
        work.write_atomic(path, "not bytes")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_start_refuses_what_it_does_not_know(capsys):
    assert runs.start("01_x", "demo", 3).seed == 3
    printed = capsys.readouterr().out
    assert "profile demo · seed 3" in printed and printed.endswith(f"{machine.device()}\n")
    with pytest.raises(ValueError, match="unknown profile 'big'; valid profiles: demo, laptop, paper"):
        runs.start("01_x", "big", 0)
    for seed in (-1, 1.5, "1", True):
        with pytest.raises(ValueError, match="seed must be a whole number from 0 up"):
            runs.start("01_x", "demo", seed)


def test_provenance_is_json_and_complete():
    record = runs.provenance(runs.start("01_x", "demo", 0), {"adult": "ab"})
    assert json.loads(json.dumps(record)) == record
    assert set(record) == {"commit", "versions", "device", "threads", "seconds", "data", "date"}


def git(folder, *arguments):
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository that stands for this project."""
    root = tmp_path / "project"
    (root / "mialib").mkdir(parents=True)
    (root / "mialib" / "runs.py").write_text("N = 1\n")
    (root / ".gitignore").write_text("build/\n")
    git(tmp_path, "init", "--quiet", str(root))
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "First")
    monkeypatch.setattr(config, "ROOT", root)
    return root


def test_commit_says_whether_the_code_is_quite_that(checkout):
    head = git(checkout, "rev-parse", "HEAD")
    (checkout / "build").mkdir()
    for name in ("build/figure.png", "notes.txt"):  # no part of the code
        (checkout / name).touch()
    assert runs._commit() == head
    (checkout / "mialib" / "new.py").touch()
    assert runs._commit() == f"{head}+changes"
    (checkout / "mialib" / "new.py").unlink()
    (checkout / "mialib" / "runs.py").write_text("N = 2\n")
    assert runs._commit() == f"{head}+changes"


def test_commit_is_no_other_repositorys(checkout, tmp_path, monkeypatch):
    head = git(checkout, "rev-parse", "HEAD")
    git(tmp_path, "init", "--quiet", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert runs._commit() == head
    monkeypatch.delenv("GIT_DIR")
    unpacked = checkout / "downloads" / "mialib-0.1"
    unpacked.mkdir(parents=True)
    monkeypatch.setattr(config, "ROOT", unpacked)
    assert runs._commit() == "unknown"


def test_commit_without_git(checkout, monkeypatch):
    monkeypatch.setenv("PATH", str(checkout))
    assert runs._commit() == "unknown"


@pytest.mark.parametrize("name", ["DATA", "CACHE", "FIGURES"])
def test_folders_are_the_same_from_everywhere(name, monkeypatch, tmp_path):
    """A relative one once meant another folder inside each notebook, and "~" a folder of that name."""
    asked = {"DATA": config.raw_dir, "CACHE": config.cache_dir, "FIGURES": lambda: config.figures_dir("demo")}[name]
    monkeypatch.delenv(f"MIALIB_{name}", raising=False)
    usual = asked()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for text, meant in (
        ("", usual),
        ("some/where", config.ROOT / "some" / "where"),
        ("~/data", tmp_path / "data"),
        (str(tmp_path), tmp_path),
    ):
        monkeypatch.setenv(f"MIALIB_{name}", text)
        assert asked() == meant
    monkeypatch.setenv(f"MIALIB_{name}", "~nobody-of-this-name/data")
    with pytest.raises(ValueError, match=f"MIALIB_{name}=~nobody"):
        asked()


def test_settings_and_workers(monkeypatch):
    for exhibit in ("table2", "table3"):
        for profile in config.PROFILES:
            assert experiments.settings(exhibit, profile)
    sizes = [row.size for row in experiments.settings("table2", "laptop") if row.dataset == "location-30"]
    assert sizes == [1200, 1600]
    with pytest.raises(ValueError, match="valid exhibits: table2, table2 google, table3"):
        experiments.settings("table9", "demo")
    monkeypatch.setenv("MIALIB_WORKERS", "none")
    with pytest.raises(ValueError, match="whole number from 1 up, not 'none'"):
        config.workers()
