import dataclasses
import json

import numpy as np
import pytest
import scipy.sparse

from mialib import config, runs


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


def test_streams_are_per_role():
    assert runs.stream(0, "a", 1).random() == runs.stream(0, "a", 1).random()
    draws = {runs.stream(*words).random() for words in ((0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1), (0, "a"))}
    assert len(draws) == 5


def test_cache_gives_back_what_was_stored(own_cache):
    arrays = {"x": np.arange(6).reshape(2, 3), "empty": np.zeros(0, np.float32)}
    runs.store("ab" * 32, arrays)
    back = runs.load("ab" * 32)
    assert back.keys() == arrays.keys() and all((back[k] == arrays[k]).all() for k in arrays)
    assert runs.load("cd" * 32) is None
    assert not list(own_cache.rglob("*.part"))


def test_no_pickle_enters_the_cache():
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        runs.store("ab" * 32, {"x": np.array([object()])})


def test_write_atomic_leaves_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "file"
    runs.write_atomic(path, b"old")
    with pytest.raises(TypeError):
        runs.write_atomic(path, "not bytes")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_start_refuses_what_it_does_not_know(capsys):
    assert runs.start("01_x", "demo", 3).seed == 3
    assert "profile demo · seed 3" in capsys.readouterr().out
    with pytest.raises(ValueError, match="unknown profile 'big'; valid profiles: demo, laptop, paper"):
        runs.start("01_x", "big", 0)
    for seed in (-1, 1.5, "1", True):
        with pytest.raises(ValueError, match="seed must be a whole number from 0 up"):
            runs.start("01_x", "demo", seed)


def test_provenance_is_json_and_complete():
    record = runs.provenance(runs.start("01_x", "demo", 0), {"adult": "ab"})
    assert json.loads(json.dumps(record)) == record
    assert set(record) == {"commit", "versions", "device", "threads", "seconds", "data", "date"}


def test_settings_and_workers(monkeypatch):
    for exhibit in ("table2", "table3"):
        for profile in config.PROFILES:
            assert config.settings(exhibit, profile)
    sizes = [row.size for row in config.settings("table2", "laptop") if row.dataset == "location-30"]
    assert sizes == [1200, 1600]
    with pytest.raises(ValueError, match="valid exhibits: table2, table3"):
        config.settings("table9", "demo")
    monkeypatch.setenv("MIALIB_WORKERS", "none")
    with pytest.raises(ValueError, match="whole number from 1 up, not 'none'"):
        config.workers()
