import subprocess
import sys
import time

import pytest

from mialib import runs, work

HOLD = "import time; from mialib import work\nwith work.held('model', 1): print('held', flush=True); time.sleep(600)"
WAIT = "from mialib import work\nwith work.held('model', 1): print('got it')"


def begin(code):
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_one_at_a_time_and_a_killed_holder_frees_it(own_cache):
    holder = begin(HOLD)
    assert holder.stdout.readline() == "held\n"
    waiter = begin(WAIT)
    with work.held("model", 2):  # another lock is free
        time.sleep(1)
    assert waiter.poll() is None
    holder.kill()
    assert waiter.communicate()[0] == "got it\n"
    assert holder.wait() and len(list((own_cache / "locks").iterdir())) == 2


def test_freed_when_the_work_fails():
    for _ in range(2):
        try:
            with work.held("model"):
                raise RuntimeError
        except RuntimeError:
            pass


def no_folder(cache):
    cache.write_text("a file where the cache should be", encoding="utf-8")


def no_locks_folder(cache):
    cache.mkdir()
    (cache / "locks").write_text("a file where the folder should be", encoding="utf-8")


def folder_for_a_lock(cache):
    (cache / "locks" / f"{runs.digest('model')[:16]}.lock").mkdir(parents=True)


def link_to_itself(cache):
    (cache / "locks").mkdir(parents=True)
    lock = cache / "locks" / f"{runs.digest('model')[:16]}.lock"
    lock.symlink_to(lock)


@pytest.mark.parametrize("spoil", [no_folder, no_locks_folder, folder_for_a_lock, link_to_itself])
def test_where_no_lock_can_be_the_work_is_done_without(spoil, own_cache):
    spoil(own_cache)
    for _ in range(2):
        with work.held("model"):
            done = True
    assert done
