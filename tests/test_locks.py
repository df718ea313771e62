import subprocess
import sys
import time

from mialib import locks

HOLD = "import time; from mialib import locks\nwith locks.held('model', 1): print('held', flush=True); time.sleep(600)"
WAIT = "from mialib import locks\nwith locks.held('model', 1): print('got it')"


def begin(code):
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_one_at_a_time_and_a_killed_holder_frees_it(own_cache):
    holder = begin(HOLD)
    assert holder.stdout.readline() == "held\n"
    waiter = begin(WAIT)
    with locks.held("model", 2):  # another lock is free
        time.sleep(1)
    assert waiter.poll() is None
    holder.kill()
    assert waiter.communicate()[0] == "got it\n"
    assert holder.wait() and len(list((own_cache / "locks").iterdir())) == 2


def test_freed_when_the_work_fails():
    for _ in range(2):
        try:
            with locks.held("model"):
                raise RuntimeError
        except RuntimeError:
            pass
