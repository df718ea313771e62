"""Processes that are watched: what they send, what they use, how they end."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from companion import pool

MEGABYTE = 2**20


def use(megabytes, sender):
    """Half of the memory in this process, half in one that it starts."""
    code = f"x = bytearray(b'x') * {megabytes * MEGABYTE // 2}; print('ready', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    held = bytearray(b"x") * (megabytes * MEGABYTE // 2)
    child.stdout.readline()
    time.sleep(0.5)
    child.communicate(b"\n")
    sender.send(len(held))


def die(code, sender):
    os._exit(code)


def kill(number, sender):
    os.kill(os.getpid(), number)


def close_and_die(code, sender):
    """As an interpreter does that exits: it closes what it holds some time before it ends."""
    sender.close()
    time.sleep(0.5)
    os._exit(code)


def close_and_hang(seconds, sender):
    sender.close()
    time.sleep(seconds)


def hang(seconds, sender):
    time.sleep(seconds)


def finish(running):
    ended = []
    while len(ended) < len(running):
        ended += pool.look([each for each in running if each not in [done for done, _ in ended]], 0.05)
    return dict(ended)


def test_what_it_sends_and_what_it_and_its_children_used():
    large, none, late, killed = running = [
        pool.start(use, 300),
        pool.start(die, 3),
        pool.start(close_and_die, 4),
        pool.start(kill, signal.SIGKILL),
    ]
    sent = finish(running)
    assert sent == {large: 150 * MEGABYTE, none: None, late: None, killed: None}
    assert [each.process.exitcode for each in (none, late, killed)] == [3, 4, -signal.SIGKILL]
    assert 300 * MEGABYTE < large.peak < 500 * MEGABYTE
    assert not large.process.is_alive() and large.seconds > 0.5


def test_others_are_watched_while_one_ends(monkeypatch):
    """To wait for the end of one hid what the others used meanwhile."""
    silent, other = running = [pool.start(close_and_hang, 60), pool.start(hang, 60)]
    while silent.closed is None:
        assert pool.look(running, 0.05) == []
    other.peak = 0
    assert pool.look(running, 0.05) == [] and other.peak > 0
    monkeypatch.setattr(pool, "LINGER", 0)
    assert pool.look(running, 0.05) == [(silent, None)]
    pool.stop(other)
    assert not psutil.pid_exists(silent.process.pid)


def test_looking_takes_no_longer_than_asked_and_stopping_ends_it():
    slow = pool.start(hang, 600)
    assert pool.look([slow], 0.1) == []
    pool.stop(slow)
    assert not psutil.pid_exists(slow.process.pid)
    assert pool.memory(slow.process.pid) == 0


GB = 2**30
V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@pytest.mark.parametrize(
    ("own", "folder", "names", "limit", "left"),
    [
        ("0::/a/b", "a/b", V2, 4 * GB, 3),
        ("0::/a/b", "a", V2, 4 * GB, 3),  # a group around it
        ("0::/a/b", "", V2, 4 * GB, 3),  # a container that sees the host's path
        ("0::/", "", V2, 4 * GB, 3),
        ("0::/", "", V2, "max", 50),
        ("0::/", "", V2, 400 * GB, 50),
        ("0::/", "b", V2, 4 * GB, 50),  # another group
        ("5:cpu:/b\n4:memory:/a/b\n0::/", "memory/a/b", V1, 4 * GB, 3),
        ("4:memory:/a/b", "memory", V1, 4 * GB, 3),
        ("4:memory:/a/b", "memory", V1, 2**63 - 4096, 50),
        (None, "", V2, 4 * GB, 50),  # no Linux
    ],
)
def test_free_memory_is_the_containers_where_that_is_less(own, folder, names, limit, left, tmp_path, monkeypatch):
    """A group that uses 2 GB, 1 GB of it files, on a machine with 50 GB."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=50 * GB))
    monkeypatch.setattr(pool, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(pool, "OWN_CGROUPS", tmp_path / "own")
    if own:
        (tmp_path / "own").write_text(f"{own}\n", encoding="utf-8")
    (tmp_path / "cgroup" / folder).mkdir(parents=True)
    for name, value in {names[0]: limit, names[1]: 2 * GB, "memory.stat": f"anon 5\n{names[2]} {GB}"}.items():
        (tmp_path / "cgroup" / folder / name).write_text(f"{value}\n", encoding="utf-8")
    assert pool.free() == left * GB
