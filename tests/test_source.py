"""A digest of what code does: it changes with the work of a function that is reached, and with nothing else."""

import subprocess
import sys

import pytest

from mialib import config, source

FILES = {
    "mialib/__init__.py": "",
    "mialib/ground.py": """
import numpy as np
SCALE = 2.0
SCALE += 1

def double(x):
    return SCALE * np.exp(x)

def other(x):
    return x
""",
    "mialib/top.py": """
from mialib import ground
from mialib.ground import other as renamed

class Model:
    def fit(self, x: float) -> float:
        return ground.double(x)

def work(x, other=1):
    return Model().fit(x) + other

def unused(x):
    return renamed(x)
""",
}
SAME = {
    "a comment": ("mialib/ground.py", "    return SCALE", "    # why\n    return SCALE"),
    "a docstring": ("mialib/ground.py", "    return SCALE", '    """What for."""\n    return SCALE'),
    "a docstring of the class": ("mialib/top.py", "class Model:", 'class Model:\n    """A model."""'),
    "a type hint": ("mialib/ground.py", "double(x)", "double(x: float) -> float"),
    "layout": ("mialib/ground.py", "SCALE * np.exp(x)", "(SCALE *\n        np.exp( x ))"),
    "an alias": ("mialib/ground.py", "import numpy as np", "import numpy"),
    "a function that is not reached": ("mialib/ground.py", "    return x", "    return x + 1"),
    "one whose name is a parameter here": ("mialib/top.py", "renamed(x)", "renamed(2 * x)"),
}
OTHER = {
    "a number": ("mialib/ground.py", "SCALE = 2.0", "SCALE = 2.5"),
    "a later statement": ("mialib/ground.py", "SCALE += 1", "SCALE += 2"),
    "a function that a method reaches": ("mialib/ground.py", "np.exp", "np.log"),
    "a method": ("mialib/top.py", "ground.double(x)", "ground.double(-x)"),
    "a default": ("mialib/top.py", "other=1", "other=2"),
    "what a name stands for": ("mialib/ground.py", "import numpy as np", "import scipy as np"),
}


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """The digest of `work` in a project of the files given."""
    projects = iter(range(100))

    def made(files, text="from mialib import top\ntop.work(1)"):
        root = tmp_path / str(next(projects))
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content, encoding="utf-8")
        monkeypatch.setattr(config, "ROOT", root)
        return source.of_text(text)

    return made


def edited(change):
    file, old, new = change
    text = FILES[file].replace("np.exp", "numpy.exp") if new == "import numpy" else FILES[file]
    assert old in text
    return FILES | {file: text.replace(old, new, 1)}


@pytest.mark.parametrize("name", SAME)
def test_what_changes_no_result_changes_no_digest(digest, name):
    assert digest(FILES)[0] == digest(edited(SAME[name]))[0]


@pytest.mark.parametrize("name", OTHER)
def test_what_may_change_a_result_changes_the_digest(digest, name):
    assert digest(FILES)[0] != digest(edited(OTHER[name]))[0]


def test_a_move_to_another_module_changes_no_digest(digest):
    moved = {name: text for name, text in FILES.items() if name != "mialib/ground.py"}
    moved |= {"mialib/wing/__init__.py": "", "mialib/wing/deep.py": FILES["mialib/ground.py"]}
    moved["mialib/top.py"] = FILES["mialib/top.py"].replace("from mialib import ground", "from mialib.wing import deep")
    moved["mialib/top.py"] = (
        moved["mialib/top.py"]
        .replace("ground.double", "deep.double")
        .replace("from mialib.ground", "from mialib.wing.deep")
    )
    assert digest(FILES)[0] == digest(moved)[0]
    function = "from mialib.top import work\nwork(1)"
    assert digest(FILES, function)[0] == digest(moved, function)[0]


def test_a_module_that_is_handed_on_counts_whole(digest):
    text = "from mialib import ground\nvars(ground)"
    assert digest(FILES, text)[0] != digest(edited(SAME["a function that is not reached"]), text)[0]


def test_words_of_what_is_reached(digest):
    _, words = digest(FILES | {"mialib/published.py": "def load(name):\n    return 'toy_table9'"})
    assert {"top", "work", "double", "SCALE"} <= words and "unused" not in words
    text = "from mialib import published\npublished.load('toy_table1')"
    _, words = digest(FILES | {"mialib/published.py": "def load(name):\n    return 'toy_table9'"}, text)
    assert "toy_table1" in words and "toy_table9" not in words


def test_an_edit_is_seen_by_a_process_that_lives_on(digest):
    before = digest(FILES)[0]
    path = config.ROOT / "mialib" / "ground.py"
    path.write_text(FILES["mialib/ground.py"].replace("2.0", "22.0"), encoding="utf-8")
    assert source.of_text("from mialib import top\ntop.work(1)")[0] != before


def test_real_functions_in_every_process():
    code = "from mialib import source; from mialib.models import fit; print(source.digest(fit._fit_job))"
    found = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(found) == 1 and len(found.pop().strip()) == 64


def test_two_of_one_name_in_two_modules_are_told_apart(digest):
    one, two = "def run():\n    return 1\n", "def run():\n    return 2\n"
    top = FILES | {"mialib/top.py": "from mialib import a, b\n\ndef work(x):\n    return a.run() - b.run()\n"}
    first = digest(top | {"mialib/a.py": one, "mialib/b.py": two})[0]
    assert first != digest(top | {"mialib/a.py": two, "mialib/b.py": one})[0]


@pytest.mark.parametrize(
    "function",
    [
        "def work(x, SCALE=SCALE):\n    return x * SCALE",  # a default is computed outside
        "def work(x):\n    return [SCALE for SCALE in SCALE]",  # and so is what is iterated over first
        "def work(x):\n    return [SCALE for SCALE in x] + [SCALE]",  # a comprehension's names end with it
        "def work(x):\n    global SCALE\n    SCALE = SCALE + x\n    return SCALE",
    ],
)
def test_names_inside_and_outside_a_function(digest, function):
    changed = [FILES | {"mialib/top.py": f"SCALE = {number}\n\n{function}\n"} for number in (1, 2)]
    assert digest(changed[0])[0] != digest(changed[1])[0]


def test_a_function_of_nowhere_is_refused():
    with pytest.raises(ValueError, match="is no function at the top of a module of mialib"):
        source.digest(lambda: 0)
