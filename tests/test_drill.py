"""The drill's cheap part, and that it would notice."""

import drill
import numpy as np
import pytest

from companion import __main__ as command_line
from mialib import runs, work
from mialib.data import files


@pytest.fixture(autouse=True)
def own_data(monkeypatch, tmp_path):
    monkeypatch.setenv("MIALIB_DATA", str(tmp_path / "raw"))  # the drill sets it again; this puts it back


def test_bad_parameters_are_refused_and_a_lenient_program_is_noticed(tmp_path, monkeypatch):
    tally = drill.parameters(tmp_path)
    assert tally.losses == [] and tally.tried >= 50
    monkeypatch.setattr(command_line, "main", lambda command: 0)
    monkeypatch.setattr(runs, "start", lambda *parameters: None)
    assert len(drill.parameters(tmp_path).losses) == tally.tried


def test_full_disk_in_the_writer(tmp_path, monkeypatch):
    monkeypatch.setattr(drill, "TMPFS", ())
    assert drill.full(tmp_path).losses == []
    monkeypatch.setattr(work, "write_atomic", careless)
    assert len(drill.full(tmp_path / "again").losses) == 4


def careless(path, data):
    """A writer that leaves half a file when the disk is full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = drill.os.open(path, drill.os.O_WRONLY | drill.os.O_CREAT | drill.os.O_TRUNC)
    with drill.os.fdopen(handle, "wb") as file:
        file.write(data)


def test_intruders_in_the_cache(tmp_path, monkeypatch):
    drill.Place(tmp_path / "once")
    drill.intrude()
    drill.check_intruders(tally := drill.Tally())
    assert tally.losses == [] and tally.tried == 2 * len(drill.INTRUDERS) + 1
    drill.Place(tmp_path / "again")
    drill.intrude()
    monkeypatch.setattr(work, "load", lambda key: drill.entry(99))
    drill.check_intruders(tally := drill.Tally())
    assert len(tally.losses) == 2 * len(drill.INTRUDERS)


def test_bad_archives(tmp_path, monkeypatch):
    monkeypatch.setattr(drill, "COMPRESSIONS", {"gzip": drill.COMPRESSIONS["gzip"]})
    tally = drill.archives(tmp_path / "once")
    assert tally.losses == [] and tally.tried == 1 + 41 + 40 + len(list(drill.bad_archives(b"")))
    monkeypatch.setattr(files, "read_archive", trusting)
    assert len(drill.archives(tmp_path / "again").losses) == tally.tried - 1


def trusting(path, parsers):
    """A reader that takes anything, and reads something else from each."""
    X = np.full((100, 600), hash(path.read_bytes()))
    return {name: (X, np.ones(100, np.int64)) for name in parsers}


def test_table_and_exit_code(monkeypatch, capsys):
    part = lambda folder: drill.Tally(3, ["a result is gone"])  # noqa: E731
    monkeypatch.setattr(drill, "PARTS", {"good": lambda folder: drill.Tally(2), "bad": part})
    assert drill.main(["good"]) == 0
    assert drill.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "  bad, LOST: a result is gone" in lines
    assert [line.split() for line in lines[-3:]] == [
        ["good", "2", "2", "0"],
        ["bad", "3", "2", "1"],
        ["all", "5", "4", "1"],
    ]
    assert drill.main(["nothing"]) == 2
