"""The runner and the command line, on toy notebooks."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from companion import __main__ as command_line
from companion import committed, jobs, live, pool, publish, runner
from mialib import config, runs
from mialib.data import datasets
from mialib.results import published

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
GB = jobs.GB
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
VALUES = ("purchase-2", "NN", "all", "precision", 0.5, None, 0.05, 0.6, 0.56, 0.7, "M", "differs", "differs", True)
VALUES += (0.5, "", "")
CELL = dict(zip(published.CELL, VALUES, strict=True))
GOOD = f"""
from mialib import config
import json, sys
import numpy, torch
from threadpoolctl import threadpool_info
print(sys.executable, config.workers())
print("threads", torch.get_num_threads(), *(pool["num_threads"] for pool in threadpool_info()))
record = {{"exhibit": "Toy table", "notebook": "01_good", "profile": profile, "seed": seed, "cells": [{CELL}]}}
record["run"] = {{"commit": "unknown", "versions": {{"mialib": "0"}}, "date": "2031-02-03"}}
(config.figures_dir(profile) / "01_good.json").write_text(json.dumps(record))
"""
SLOW = """
import os, subprocess, time
from functools import partial
from pathlib import Path
worker = subprocess.Popen(["sleep", "600"])
Path("begun").write_text(f"{os.getpid()} {worker.pid}")
while Path("hold").exists(): time.sleep(0.05)
worker.kill()
"""
RUN = "import sys; from pathlib import Path; from companion import jobs, runner; a = [Path(p) for p in sys.argv[1:]]; "
RUN += "runner.run(jobs.plan(['03'], 'laptop', 0, a[1], a[0]))"


def write(folder, stem, *codes, parameters='profile = "laptop"\nseed = 0'):
    cell = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    cells = [new_markdown_cell(f"# Title of {stem}\n$x^2$ [next](02_bad.ipynb)"), cell, *map(new_code_cell, codes)]
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), folder / f"{stem}.ipynb")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Notebooks, results, what the command line printed and its exit code, of one run of three toys."""
    notebooks, out = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("out")
    write(notebooks, "00_overview", "print(sorted(p.name for p in __import__('pathlib').Path('figures').iterdir()))")
    write(notebooks, "01_good", GOOD, f"display({{'image/png': '{DOT}'}}, raw=True)")
    write(notebooks, "02_bad", "value = 1 / 0", "value")
    write(notebooks, "03_slow", SLOW)
    arguments = ["run", "00", "01_good", "02", "--profile", "laptop", "--workers", "2", "--out", str(out)]
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "NOTEBOOKS", notebooks)
        patch.setenv("MIALIB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("OMP_NUM_THREADS", raising=False)
        exit_code = command_line.main(arguments)
        assert [jobs.past(job, 1).seconds is None for job in planned(notebooks, out, ["01", "02"])] == [False, True]
    return notebooks, out, printed.getvalue(), exit_code


@pytest.fixture
def copied(ran, tmp_path):
    """The good notebook and the overview alone, with their results: (notebooks, results), free to be changed."""
    for stem in ("00_overview", "01_good"):
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        shutil.copy(ran[0] / f"{stem}.ipynb", tmp_path / "notebooks")
    shutil.copytree(ran[1], tmp_path / "out")
    return tmp_path / "notebooks", tmp_path / "out"


def planned(notebooks, out, names=(), seed=0):
    return jobs.plan(names, "laptop", seed, out, notebooks)


def states(notebooks, out):
    return {job.stem: jobs.state(job) for job in planned(notebooks, out)}


def edit(path, change):
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    nbformat.write(notebook, path)


def test_failing_notebook_is_named_and_the_others_go_on(ran):
    notebooks, out, printed, exit_code = ran
    assert exit_code == 1
    assert "1 of 3 notebooks failed" in printed
    assert printed.endswith("\n  02_bad: cell [3] `value = 1 / 0`: ZeroDivisionError: division by zero\n")
    lines = [line for line in printed.splitlines() if line.startswith("[")]
    assert [re.sub(r"(\d+m)?\d+s", "Ns", line) for line in lines] == [
        "[0/3] 01_good  running",
        "[1/3] 01_good  Ns  ok, about Ns left",
        "[1/3] 02_bad  running",
        "[2/3] 02_bad  Ns  FAILED, about Ns left",
        "[2/3] 00_overview  running",
        "[3/3] 00_overview  Ns  ok",
    ]
    done = {"01_good": "done", "00_overview": "done"}
    assert states(notebooks, out) == done | {"02_bad": "unfinished", "03_slow": "not run"}


def test_executed_notebook_used_this_interpreter_and_the_given_folders(ran):
    _, out, _, _ = ran
    notebook = nbformat.read(out / "notebooks" / "01_good.ipynb", as_version=4)
    assert runner.fault(notebook) == ""
    printed = notebook.cells[3].outputs[0].text
    assert f"{sys.executable} 2\n" in printed
    assert set(printed.split("threads ")[1].split()) == {"1"}
    overview = nbformat.read(out / "notebooks" / "00_overview.ipynb", as_version=4)
    assert "['01_good.json']" in overview.cells[3].outputs[0].text
    log = (out / "logs" / "01_good.log").read_text(encoding="utf-8")
    assert sys.executable in log and log.startswith("--- 20") and "'profile': 'laptop', 'seed': 0" in log


def test_page_needs_no_network_and_holds_its_images(ran):
    page = (ran[1] / "html" / "01_good.html").read_text(encoding="utf-8")
    assert f"data:image/png;base64,{DOT}" in page
    assert "Title of 01_good" in page
    assert '<a href="02_bad.html">' in page
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[^>]*//|\bimport\b[^;]*//|cdnjs|unpkg", page)


SAVES = """
import json
from pathlib import Path
from mialib import config
stem, figures = {stem!r}, config.figures_dir(profile)
(figures / f"{stem}_by_class.csv").touch()
(figures / f"{stem}.pdf").touch()
record = {"exhibit": stem, "notebook": stem, "profile": profile, "seed": seed, "cells": []}
record["run"] = {"commit": "unknown", "versions": {"mialib": "0"}, "date": "2031-02-03"}
(figures / f"{stem}.json").write_text(json.dumps(record))
"""
ALIKE = ("01_a", "01_a_b", "01_a-Copy1", "02_[a]*{b}")


def test_notebooks_whose_names_begin_alike_leave_each_other_alone(tmp_path):
    notebooks, out, figures = (tmp_path / name for name in ("notebooks", "out", "figures"))
    notebooks.mkdir()
    for stem in ALIKE:
        write(notebooks, stem, SAVES.replace("{stem!r}", repr(stem)))
    for names in ([], ["01_a"]):
        assert runner.run(planned(notebooks, out, names), fresh=True, parallel=2) == {}
        assert {job.stem: jobs.state(job) for job in planned(notebooks, out)} == dict.fromkeys(ALIKE, "done")
    for _ in range(2):
        publish.publish(out, notebooks, figures)
        left = {f"{stem}{end}" for stem in ALIKE for end in ("_by_class.csv", ".pdf", ".json")}
        assert {path.name for path in figures.iterdir()} == left | {"README.md"}
    assert [committed.faults(notebooks / f"{stem}.ipynb", figures) for stem in ALIKE] == [[], [], [], []]


def test_files_of_a_notebook_that_runs_are_its_own_before_it_has_a_record(tmp_path):
    short, long = (jobs.Job(tmp_path / f"{stem}.ipynb", tmp_path, "demo", 0) for stem in ("01_a", "01_a_b"))
    (tmp_path / "figures").mkdir()
    for path in (short.source, long.source, tmp_path / "figures" / "01_a_c.pdf", tmp_path / "figures" / "01_a_b.pdf"):
        path.touch()
    assert [[path.name for path in job.figures()] for job in (short, long)] == [["01_a_c.pdf"], ["01_a_b.pdf"]]


def test_second_run_keeps_what_is_done(ran, capsys):
    notebooks, out, _, _ = ran
    before = (out / "notebooks" / "01_good.ipynb").stat().st_mtime_ns
    assert runner.run(planned(notebooks, out, ["00", "01"])) == {}
    assert capsys.readouterr().out == "[1/2] 01_good  unchanged, kept\n[2/2] 00_overview  unchanged, kept\n"
    assert (out / "notebooks" / "01_good.ipynb").stat().st_mtime_ns == before


def test_what_makes_a_result_out_of_date(copied, monkeypatch):
    notebooks, out = copied
    (good,) = planned(notebooks, out, ["01"])
    assert jobs.state(replace(good, seed=1)) == "out of date"
    edit(good.source, lambda notebook: notebook.cells[2].update(outputs=[], execution_count=7))
    assert jobs.state(good) == "done"
    edit(good.source, lambda notebook: notebook.cells[2].update(source="1 + 1"))
    assert jobs.state(good) == "out of date"
    shutil.copy(out / "figures" / "01_good.json", out / "figures" / "02_other.json")
    (overview,) = planned(notebooks, out, ["00"])
    assert jobs.state(overview) == "out of date"
    (out / "figures" / "02_other.json").unlink()
    assert jobs.state(overview) == "done"
    overview.html.unlink()
    assert jobs.state(overview) == "out of date"
    monkeypatch.setattr(config, "ROOT", out)
    assert states(*copied) == {"01_good": "out of date", "00_overview": "out of date"}


def test_lost_figure_counts_and_fresh_runs_again(copied, capsys):
    (good,) = planned(*copied, ["01"])
    (copied[1] / "figures" / "01_good.json").unlink()
    assert jobs.state(good) == "out of date"
    (copied[1] / "figures" / "01_good.json").touch()
    assert jobs.state(good) == "out of date"
    assert runner.run([good], fresh=True) == {}
    assert (copied[1] / "figures" / "01_good.json").stat().st_size > 0
    assert "kept" not in capsys.readouterr().out
    assert good.log.read_text(encoding="utf-8").count("'profile': 'laptop', 'seed': 0") == 2


@pytest.mark.parametrize("kind", ["executed", "html", "figures"])
def test_damaged_result_counts_as_out_of_date(kind, copied):
    (good,) = planned(*copied, ["01"])
    path = good.figures()[0] if kind == "figures" else getattr(good, kind)
    whole, rng = path.read_bytes(), runs.stream(0, kind)
    places = [0, len(whole) - 2, *(int(at) for at in rng.integers(len(whole), size=20))]
    for damaged in [b"", whole[: len(whole) // 2], *(flipped(whole, at) for at in places)]:
        path.write_bytes(damaged)
        assert jobs.state(good) == "out of date"
    path.write_bytes(whole)
    assert jobs.state(good) == "done"


def flipped(data, at):
    """One bit of `data` is another."""
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


CODE = "def f():\n    return {!r}\n"
SEEN = {
    "mialib/a.py": CODE,
    "mialib/attacks/b.py": CODE,
    "mialib/papers/toy2031/sizes.toml": "[table1]\ndemo = [{!r}]\n",
}
SEEN |= dict.fromkeys(("data/published/toy.csv", "data/registry.csv", "data/targets/net.safetensors"), "{}")
SEEN |= {"raw/purchase/archive.tgz": "{}"}


@pytest.mark.parametrize("digest", [jobs.inputs, jobs.glance])
def test_inputs_see_code_data_and_published_numbers(digest, tmp_path, monkeypatch):
    """And a glance at them, which costs less, sees no less."""
    write(tmp_path, "01_toy", "from mialib import a\nfrom mialib.attacks import b\na.f(), b.f(), 'toy toy2031 table1'")
    monkeypatch.setattr(config, "ROOT", tmp_path)
    monkeypatch.setenv("MIALIB_DATA", str(tmp_path / "raw"))

    def put(name, value):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(SEEN[name].format(value), encoding="utf-8")

    def seen(profile="laptop"):
        return digest(jobs.Job(tmp_path / "01_toy.ipynb", tmp_path, profile, 0))

    for name in SEEN:
        put(name, "one")
    digests = [seen()]
    for name in SEEN:
        put(name, "another")
        digests.append(seen())
    assert len(set(digests)) == 1 + len(SEEN)
    demo = seen("demo")
    (tmp_path / "raw" / "adult").mkdir()
    (tmp_path / "raw" / "adult" / "adult.data").write_text("fetched in a run, as the registry says", encoding="utf-8")
    assert seen() == digests[-1]
    (tmp_path / "raw" / "purchase" / "archive.tgz").unlink()
    assert seen() not in digests and seen("demo") == demo
    monkeypatch.setattr(jobs, "_versions", lambda: ["numpy 0.1"])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "raw"))  # where another numpy may lie
    assert seen("demo") != demo


def test_what_is_kept_is_only_glanced_at(copied, monkeypatch):
    """And where a glance sees a change, such as a comment in the code, the inputs decide."""
    (good,) = planned(*copied, ["01"])
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "inputs", pytest.fail)
        assert jobs.state(good) == "done"
    monkeypatch.setattr(jobs, "glance", lambda job: "another")
    assert jobs.state(good) == "done"


class Clock:
    """In place of `pool`: processes that take the time and memory they say, on a clock that no one waits for.

    `begun` holds the time at which they will have ended.
    """

    def __init__(self, jobs, fails, waits):
        self.jobs, self.fails, self.waits, self.now, self.log = jobs, fails, waits, 0.0, []

    def start(self, target, job, fresh, workers, scheduler):
        seconds, peak = self.jobs[job.stem]
        self.log.append((self.now, job.stem))
        return pool.Running(job, None, None, self.now + seconds, peak)

    def look(self, running):
        self.now = min(each.begun for each in running)
        return [(each, self.sent(each.task.stem)) for each in running if each.begun <= self.now]

    def sent(self, stem):
        if stem in self.fails:
            return "cell [1]: broke", None
        return "", None if stem in self.waits else self.jobs[stem][0]


@pytest.fixture
def simulate(tmp_path, monkeypatch):
    """simulate(jobs, ...): `jobs` (stem -> seconds, peak in GB) on a Clock; when each started, failures, events."""

    def simulated(named, known=(), fails=(), waits=(), **how):
        clock, events = Clock({stem: (s, gb * GB) for stem, (s, gb) in named.items()}, fails, waits), []
        for name in ("start", "look"):
            monkeypatch.setattr(pool, name, getattr(clock, name))
        elapsed = property(lambda each: clock.now - each.begun + clock.jobs[each.task.stem][0])
        monkeypatch.setattr(pool.Running, "seconds", elapsed)
        monkeypatch.setattr(runner, "state", lambda job: "done" if job.stem in known else "not run")
        named = [jobs.Job(tmp_path / f"{stem}.ipynb", tmp_path, "laptop", 0) for stem in named]
        failures = runner.run(named, workers=1, tell=events.append, **how)
        return clock.log, failures, events

    return simulated


FOUR = {"01_a": (10, 1), "02_b": (20, 1), "03_c": (10, 1), "00_all": (1, 1)}


def test_side_by_side_and_the_overview_last(simulate):
    one, _, _ = simulate(FOUR, memory=100 * GB)
    assert one == [(0, "01_a"), (10, "02_b"), (30, "03_c"), (40, "00_all")]
    two, failures, _ = simulate(FOUR, memory=100 * GB, parallel=2, fails=["01_a"])
    assert two == [(0, "01_a"), (0, "02_b"), (10, "03_c"), (20, "00_all")]
    assert failures == {"01_a": "cell [1]: broke"}
    assert simulate(FOUR, known=["02_b", "00_all"], parallel=4)[0] == [(0, "01_a"), (0, "03_c")]
    assert len(simulate(FOUR, known=FOUR, fresh=True)[0]) == 4


def test_memory_holds_a_notebook_back_until_it_fits(simulate):
    large = FOUR | {"02_b": (20, 6)}
    # Nothing is known: each is taken to need 1.5 GB. The clock's processes report their true peak at once.
    assert simulate(large, memory=2 * GB, parallel=4)[0] == [(0, "01_a"), (10, "02_b"), (30, "03_c"), (40, "00_all")]
    # Now the peaks of that run are known: 6 GB fit beside 1, and not into 6; the third overtakes.
    assert simulate(large, memory=8 * GB, parallel=4)[0] == [(0, "01_a"), (0, "02_b"), (0, "03_c"), (20, "00_all")]
    assert simulate(large, memory=6 * GB, parallel=4)[0] == [(0, "01_a"), (0, "03_c"), (10, "02_b"), (30, "00_all")]


def test_time_left_comes_from_the_last_run(simulate):
    _, _, first = simulate(FOUR)
    # What has ended tells of what has not: 10 seconds, then 15 on average, then 13.3.
    assert [event["left"] for event in first if event["event"] == "started"] == [None, 30, 30, 13.3]
    _, _, second = simulate(FOUR)
    assert [event["left"] for event in second if event["event"] in ("started", "done")] == [41, 31, 31, 11, 11, 1, 1, 0]


def test_a_failure_leaves_its_peak_and_a_wait_leaves_nothing(simulate, tmp_path, monkeypatch):
    job = jobs.Job(tmp_path / "01_a.ipynb", tmp_path, "laptop", 0)
    simulate({"01_a": (10, 6)}, fails=["01_a"])
    assert jobs.past(job, 1) == jobs.Past(None, 6 * GB)
    simulate({"01_a": (10, 5)})
    assert jobs.past(job, 1) == jobs.Past(10, 5 * GB)
    simulate({"01_a": (3, 1)}, waits=["01_a"])
    assert jobs.past(job, 1) == jobs.Past(10, 5 * GB)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"seconds": "x"}', '{"seconds": -1, "peak": 1, "workers": 1}'])
def test_damaged_history_is_no_history(content, tmp_path):
    job = jobs.Job(tmp_path / "01_a.ipynb", tmp_path, "demo", 0)
    job.history.parent.mkdir(parents=True)
    job.history.write_text(content, encoding="utf-8")
    assert jobs.past(job, 2) == jobs.Past(None, 2 * GB)


def test_peak_is_a_guess_again_with_more_workers(tmp_path):
    job = jobs.Job(tmp_path / "01_a.ipynb", tmp_path, "demo", 0)
    job.history.parent.mkdir(parents=True)
    job.history.write_text(json.dumps({"seconds": 5, "peak": GB, "workers": 2}), encoding="utf-8")
    assert jobs.past(job, 2) == jobs.Past(5, GB)
    assert jobs.past(job, 8) == jobs.Past(5, 5 * GB)


def end(job, fresh, workers, scheduler, sender):
    """In place of `runner._child`: end as the notebook's name says."""
    if job.stem == "03_killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.stem == "02_crashed":
        signal.signal(signal.SIGABRT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGABRT)
    os._exit(7)


def test_a_process_that_ends_in_silence_is_told_by_how_it_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "_child", end)
    stems = ("01_left", "02_crashed", "03_killed")
    failures = runner.run([jobs.Job(tmp_path / f"{stem}.ipynb", tmp_path, "demo", 0) for stem in stems])
    assert failures["01_left"] == "the process running it ended by itself with exit code 7"
    assert failures["02_crashed"].startswith(f"the process running it was ended by signal {int(signal.SIGABRT)}, Abort")
    assert failures["03_killed"] == "the process running it was killed (out of memory?)"


def test_two_at_once_that_want_the_same_model_train_it_once(tmp_path):
    meet = "from pathlib import Path; import time; Path('{0}').touch()\nwhile not Path('{1}').exists(): time.sleep(.05)"
    train = "from mialib import runs, work; import numpy as np\nwith work.held('model'):\n"
    train += "    if work.load('ab' * 32) is None:\n"
    train += "        with open('trained', 'a') as file: file.write('once ')\n        time.sleep(1)\n"
    train += "        work.store('ab' * 32, {'theta': np.zeros(3)})"
    write(tmp_path, "01_a", meet.format("a", "b"), train)
    write(tmp_path, "02_b", meet.format("b", "a"), train)
    assert runner.run(planned(tmp_path, tmp_path / "out"), parallel=2, memory=100 * GB) == {}
    assert (tmp_path / "out" / "trained").read_text(encoding="utf-8") == "once "


def test_scheduler_reaches_the_notebook(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "NOTEBOOKS", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        write(tmp_path, "01_where", f"from mialib import config\nassert config.scheduler() == {address!r}")
        assert command_line.main(["run", "--out", str(tmp_path / "out"), "--scheduler", address]) == 0
    assert jobs.past(*planned(tmp_path, tmp_path / "out"), 1).seconds is None


def test_lines_and_json(capsys):
    event = {"event": "done", "notebook": "04_sizes", "run": "seed 3", "finished": 2, "of": 5}
    event |= {"seconds": 190.4, "left": 7500}
    tell = live.lines()
    for name in ("started", "running", "done"):
        tell(event | {"event": name, "running": {"04_sizes": 3}})
    assert capsys.readouterr().out == (
        "[2/5] 04_sizes seed 3  3m10s  running\n[2/5] 04_sizes seed 3  3m10s  ok, about 2h05m left\n"
    )
    assert live.status(event | {"event": "running", "running": {"04_sizes": 65}}) == (
        "[2/5] running: 04_sizes 1m05s, about 2h05m left"
    )
    live.json_lines(event)
    live.json_lines(event | {"event": "running"})
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("time") > 1e9 and printed == event


def test_terminal_keeps_one_line_up_to_date(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    event = {"notebook": "04_sizes", "run": "", "finished": 0, "of": 1, "left": None}
    tell = live.lines()
    tell(event | {"event": "started"})
    tell(event | {"event": "running", "running": {"04_sizes": 3, "05_another_long_name": 4}})
    tell(event | {"event": "failed", "seconds": 4, "finished": 1})
    first, second, end = capsys.readouterr().out.split("\r\033[K")[0:3]
    assert (first, second, end) == ("", "[0/1] running: 04_sizes 3s, 05_another_", "[1/1] 04_sizes  4s  FAILED\n")


def test_killed_runner_leaves_nothing_done_and_no_orphan(ran, tmp_path):
    (tmp_path / "hold").touch()
    killed = subprocess.Popen([sys.executable, "-c", RUN, str(ran[0]), str(tmp_path)], stdout=subprocess.DEVNULL)
    wait(lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text(encoding="utf-8"))
    kernel, worker = map(int, (tmp_path / "begun").read_text(encoding="utf-8").split())
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (job,) = planned(ran[0], tmp_path, ["03"])
    assert jobs.state(job) == "unfinished"
    assert not job.executed.exists()
    wait(lambda: not running(kernel) and not running(worker))
    (tmp_path / "hold").unlink()
    assert runner.run([job]) == {}
    assert jobs.state(job) == "done"


def wait(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def running(pid):
    """A zombie has ended too, and waits for init to notice."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_unknown_parameter_and_missing_kernel_are_refused(tmp_path):
    write(tmp_path, "01_seedless", "1", parameters="profile = 'demo'\nepochs = 3")
    with pytest.raises(ValueError, match=r"^01_seedless has no parameter seed; its parameters: profile, epochs$"):
        planned(tmp_path, tmp_path)
    edit(tmp_path / "01_seedless.ipynb", lambda notebook: notebook.metadata.pop("kernelspec"))
    with pytest.raises(ValueError, match="01_seedless names no kernel"):
        planned(tmp_path, tmp_path)


CARRIED = [None, True, 3, -0.5, 'two\nlines, "{quotes}" \\ ü', [1, [None]], {"a": {"b": [True, "x"]}}, {}]
NOT_CARRIED = [(1, 2), {1}, b"x", 1j, ..., float("nan"), float("inf"), {1: 2}, [(1,)], {"a": {"b": {None: 1}}}]


def test_settings_arrive_as_they_are(tmp_path):
    """Where the default is None, a value of any type is taken."""
    names = [f"p{number}" for number in range(len(CARRIED))]
    parameters = "\n".join(['profile = "laptop"', "seed = 0", *(f"{name} = None" for name in names)])
    write(tmp_path, "01_set", f"assert [{', '.join(names)}] == {CARRIED!r}", parameters=parameters)
    settings = dict(zip(names, CARRIED, strict=True))
    (job,) = jobs.plan([], "laptop", 0, tmp_path / "out", tmp_path, settings)
    assert runner.run([job]) == {}
    assert jobs.state(job) == "done"


@pytest.mark.parametrize("value", NOT_CARRIED)
def test_settings_that_would_not_arrive_are_refused(value, tmp_path):
    for default in (None, value):
        write(tmp_path, "01_set", "1", parameters=f'profile = "laptop"\nseed = 0\nk = {default!r}')
        with pytest.raises(ValueError, match=r"^k cannot be .*: a notebook takes None, .*$"):
            jobs.plan([], "laptop", 0, tmp_path / "out", tmp_path, {"k": value})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "--profile", "big"], "'demo', 'laptop', 'paper'"),
        (["list", "--profile", "big"], "'demo', 'laptop', 'paper'"),
        (["run", "04"], "00_overview, 01_good, 02_bad, 03_slow"),
        (["run", "01", "--seed", "x"], "whole number from 0"),
        (["run", "01", "--seed", "1.5"], "whole number from 0"),
        (["run", "01", "--seed", "-1"], "whole number from 0"),
        (["run", "01", "--workers", "0"], "whole number from 1"),
        (["run", "01", "--parallel", "0"], "whole number from 1"),
        (["run", "01", "--parallel", "3", "--workers", "2"], "3 at once need as many --workers, not 2"),
        (["run", "01", "--memory", "lots"], "gigabytes"),
        (["run", "01", "--memory", "0"], "gigabytes"),
        (["run", "01", "--out", __file__], "must be a folder"),
        (["run", "01", "--scheduler", "host:8786"], "tcp://host:8786"),
        (["run", "01", "--scheduler", "tcp://127.0.0.1:1"], "no scheduler answers"),
        (["fetch", "purchas"], ", ".join(dict.fromkeys(folder for folder, _ in datasets.SETS.values()))),
        (["walk"], "valid: run, list, fetch, targets, publish, carry, cite, site, score"),
        (["run", "01", "-p", "epochs", "3"], "valid: --profile, --seed, --seeds, --out, --set"),
    ],
)
def test_refused_in_one_line_that_lists_what_is_valid(arguments, told, ran, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "NOTEBOOKS", ran[0])
    monkeypatch.setattr(config, "ROOT", tmp_path)
    with pytest.raises(SystemExit, match="2"):
        command_line.main(arguments)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert told in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_command_line_ends_with_scorecard_and_where_to_look(ran, monkeypatch, capsys):
    notebooks, out, _, _ = ran
    monkeypatch.setattr(jobs, "NOTEBOOKS", notebooks)
    monkeypatch.chdir(out.parent)
    assert command_line.main(["run", "01", "--profile", "laptop", "--out", out.name]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("[1/1] 01_good  unchanged, kept\n")
    assert "\nToy table " in printed
    assert f"\n  {out.name}/html " in printed


def test_json_is_all_that_is_printed(ran, monkeypatch, capsys):
    notebooks, out, _, _ = ran
    monkeypatch.setattr(jobs, "NOTEBOOKS", notebooks)
    assert command_line.main(["run", "01", "00", "--profile", "laptop", "--out", str(out), "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    told = [(event["event"], event.get("notebook")) for event in events]
    assert told == [("kept", "01_good"), ("kept", "00_overview"), ("end", None)]
    assert events[-1]["failed"] == {} and events[-1]["out"] == str(out)


def test_workers_variable_is_checked(ran, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "NOTEBOOKS", ran[0])
    monkeypatch.setenv("MIALIB_WORKERS", "none")
    with pytest.raises(SystemExit, match="2"):
        command_line.main(["run", "01"])
    told = capsys.readouterr().err
    assert "MIALIB_WORKERS must be a whole number" in told and told.count("\n") == 1


def test_command_line_list(ran, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "NOTEBOOKS", ran[0])
    assert command_line.main(["list", "--profile", "laptop", "--out", str(ran[1])]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["01_good", "done", "Title", "of", "01_good"]
    assert len(lines) == 4


def test_scorecard_fits_a_screen_and_counts(tmp_path):
    assert live.scorecard(tmp_path) == ""
    (tmp_path / "figures").mkdir()
    for number in range(19):
        long = {"dataset": "cifar-100-coarse-long", "setting": "a long setting " * 3}
        cells = [CELL | long | {"setting": f"{long['setting']}{i}"} for i in range(30)]
        cells[7] |= {"tier": "R", "verdict": "reproduced", "dataset": "location-30"}
        cells[8] |= {"primary": False}
        cells[9] |= {"value": None, "low": None, "high": None, "verdict": "not comparable"}
        record = {"exhibit": f"Somebody et al. 2017, Table {number} " + "and so on " * 9, "cells": cells}
        (tmp_path / "figures" / f"{number:02}.json").write_text(json.dumps(record), encoding="utf-8")
    assert live.VERDICTS == published.VERDICTS
    lines = live.scorecard(tmp_path).splitlines()
    assert len(lines) <= live.HEIGHT
    assert max(map(len, lines)) <= 100
    assert lines[1].split()[-4:] == ["1", "27", "0", "1"]  # one is no primary reading
    for path in sorted((tmp_path / "figures").iterdir())[1:]:
        path.unlink()
    lines = live.scorecard(tmp_path).splitlines()
    assert len(lines) == 2 + 2 + 20 + 1
    assert lines[-1].startswith("* simulated data")
    assert "cifar-100-coar…* a long" in lines[4]


def test_publish(copied, tmp_path):
    notebooks, out = copied
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "01_good_old.csv").touch()  # a table that the notebook no longer saves
    written = publish.publish(out, notebooks, tmp_path / "figures")
    assert [path.name for path in written] == ["01_good.ipynb", "00_overview.ipynb", "01_good.json", "README.md"]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["01_good.json", "README.md"]
    assert committed.faults(notebooks / "01_good.ipynb", tmp_path / "figures") == []
    notebook = nbformat.read(notebooks / "01_good.ipynb", as_version=4)
    assert runner.fault(notebook) == ""
    assert len(notebook.cells) == 4
    assert str(tmp_path) not in (notebooks / "01_good.ipynb").read_text(encoding="utf-8")
    assert "papermill" not in notebook.metadata
    assert set(notebook.metadata.mialib) == {"profile", "seed", "source", "code", "numbers", "outputs", "figures"}
    assert states(*copied) == {"01_good": "done", "00_overview": "done"}


def test_publish_one_of_several(copied, tmp_path):
    notebooks, out = copied
    (out / "notebooks" / "00_overview.ipynb").unlink()
    written = publish.publish(out, notebooks, tmp_path / "figures", ["01"])
    assert [path.name for path in written] == ["01_good.ipynb", "01_good.json", "README.md"]


BAD = {
    "never executed": lambda notebook: notebook.cells[3].update(execution_count=None),
    "failed": lambda notebook: notebook.cells[3].update(outputs=[new_output("error", ename="SystemExit", evalue="0")]),
    "retouched": lambda notebook: notebook.cells[4].update(outputs=[]),
    "of another seed": lambda notebook: notebook.metadata.mialib.update(seed=1),
    "of another profile": lambda notebook: notebook.metadata.mialib.update(profile="demo"),
}


@pytest.mark.parametrize("name", BAD)
def test_publish_refuses_a_bad_run(name, copied, tmp_path):
    edit(copied[1] / "notebooks" / "01_good.ipynb", BAD[name])
    refused(
        copied, tmp_path, "01_good is out of date: a cell, .* or a result changed after it was run; run `make figures"
    )


def test_publish_refuses_what_is_missing_or_edited(copied, tmp_path):
    notebooks, out = copied
    former = (notebooks / "01_good.ipynb").read_bytes()
    edit(notebooks / "01_good.ipynb", lambda notebook: notebook.cells[2].update(source="1 + 1"))
    refused(copied, tmp_path, "01_good is out of date: a cell")
    (notebooks / "01_good.ipynb").write_bytes(former)
    (out / "figures" / "01_good.json").unlink()
    refused(copied, tmp_path, "01_good is out of date: .* a result changed")
    (out / "notebooks" / "01_good.ipynb").unlink()
    refused(copied, tmp_path, "01_good has no executed notebook")


def test_publish_refuses_other_parameters_than_those_that_the_notebook_shows(tmp_path):
    write(tmp_path, "01_seven", "1", parameters='profile = "laptop"\nseed = 7')
    assert runner.run(planned(tmp_path, tmp_path / "out")) == {}
    with pytest.raises(ValueError, match=r"01_seven was run with .*'seed': 0}, its defaults are .*'seed': 7}"):
        publish.publish(tmp_path / "out", tmp_path, tmp_path / "figures")


def refused(copied, tmp_path, told):
    before = {path: path.read_bytes() for path in copied[0].iterdir()}
    with pytest.raises(ValueError, match=told):
        publish.publish(copied[1], copied[0], tmp_path / "figures")
    assert {path: path.read_bytes() for path in copied[0].iterdir()} == before
    assert not (tmp_path / "figures").exists()


# Where Ctrl-C comes early: in what a runner imports, and in what comes first in every process, a notebook's too.
INTERRUPTED = {
    "nbformat": "os.kill(os.getpid(), signal.SIGINT); time.sleep(600)",
    "psutil": "os.kill(os.getpid(), signal.SIGINT); time.sleep(600)",
    "sitecustomize": """
if "--multiprocessing-fork" in sys.orig_argv:
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(600)
""",
}


@pytest.mark.parametrize("module", INTERRUPTED)
def test_interrupted_while_it_imports(module, tmp_path):
    code = f"import os, signal, sys, time\n{INTERRUPTED[module]}\n"
    (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "mialib", "run", "01", "--out", str(tmp_path / "out")]
    python_path = os.pathsep.join([str(tmp_path), str(config.ROOT)])
    env = os.environ | {"PYTHONPATH": python_path}
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # which a shell's background jobs do not
    done = subprocess.run(command, env=env, capture_output=True, text=True, preexec_fn=heed)
    said = "\nInterrupted. What is done is kept; without --fresh, the same command goes on.\n"
    assert (done.returncode, done.stderr) == (130, said)


LOADED = """
import sys
from pathlib import Path
from companion import __main__ as command_line
if sys.argv[1:2] == ["run"]:
    from companion import jobs
    jobs.NOTEBOOKS = Path(sys.argv.pop())
try:
    command_line.main(sys.argv[1:])
except SystemExit:
    pass
print(*sys.modules, file=sys.stderr)
"""
NEVER = {"rfc3987_syntax", "nbconvert", "torch", "xgboost", "sklearn"}
SPARED = {"numpy", "joblib", "nbformat", "papermill", "pandas", "matplotlib", "IPython", "psutil", "multiprocessing"}


@pytest.mark.parametrize(
    ("arguments", "spared"),
    [
        (["--help"], SPARED | {"json"}),
        (["cite", "04"], {"papermill"}),
        (["list"], {"pandas", "matplotlib", "papermill"}),
        (["run", "01", "--profile", "laptop"], SPARED | {"importlib.metadata"}),  # all is up to date
    ],
)
def test_what_a_command_does_not_need_is_not_imported(arguments, spared, ran):
    more = ["--out", str(ran[1]), str(ran[0])] if arguments[0] == "run" else []
    command = [sys.executable, "-c", LOADED, *arguments, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout and ("unchanged, kept" in done.stdout) == bool(more)
    assert set(done.stderr.split()) & (NEVER | spared) == set()


def test_addresses_are_checked_all_the_same():
    code = "import sys; from companion import light; from jsonschema import FormatChecker as F; "
    code += "print('lark' in sys.modules, "
    code += "*(F().conforms(text, 'iri') for text in ('https://example.org/ü', 'no address')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False True False\n"


def test_a_terminal_without_our_characters_is_no_failure(tmp_path):
    write(tmp_path, "01_ü…")
    code = "import runpy, sys; from pathlib import Path; from companion import jobs; "
    code += "jobs.NOTEBOOKS = Path(sys.argv.pop()); runpy.run_module('mialib', run_name='__main__')"
    command, env = [sys.executable, "-c", code, "list", str(tmp_path)], os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Title of 01_??" in done.stdout
