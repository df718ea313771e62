"""Processes that are watched: what they send, what they use, how they end."""

import os
import subprocess
import sys
import time

import psutil

from mialib import pool

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


def hang(seconds, sender):
    time.sleep(seconds)


def finish(running):
    ended = []
    while len(ended) < len(running):
        ended += pool.look([each for each in running if each not in [done for done, _ in ended]], 0.05)
    return dict(ended)


def test_what_it_sends_and_what_it_and_its_children_used():
    large, none = running = [pool.start(use, 300), pool.start(die, 3)]
    sent = finish(running)
    assert sent == {large: 150 * MEGABYTE, none: None}
    assert 300 * MEGABYTE < large.peak < 500 * MEGABYTE
    assert not large.process.is_alive() and large.seconds > 0.5


def test_looking_takes_no_longer_than_asked_and_stopping_ends_it():
    slow = pool.start(hang, 600)
    assert pool.look([slow], 0.1) == []
    pool.stop(slow)
    assert not psutil.pid_exists(slow.process.pid)
    assert pool.memory(slow.process.pid) == 0
