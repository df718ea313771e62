"""Own classifiers: a cached answer is found again for the same code and values only."""

import functools
import importlib
import os
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from mialib import config
from mialib.models import identity, platforms

CASE = np.eye(4), np.arange(4) % 2, np.eye(4), 2, (0, "test")

# A user's code: a package, and a module beside it that is imported in a function.
THEIRS = {
    "theirs/__init__.py": "",
    "theirs/base.py": """
from sklearn.tree import DecisionTreeClassifier
class Base(DecisionTreeClassifier):
    def fit(self, X, y):
        return super().fit(X + 1, y)
""",
    "theirs/tools.py": """
SHIFT = 3
def shifted(X):
    from theirs_beside import NOTHING
    return X - SHIFT + NOTHING
""",
    "theirs/classifiers.py": """
from sklearn.base import BaseEstimator, TransformerMixin
from .base import Base
from . import tools
try:
    import theirs_absent
except ImportError:
    pass
class Tree(Base):
    def predict_proba(self, X):
        return super().predict_proba(tools.shifted(X))
""",
    "theirs/steps.py": """
from sklearn.base import BaseEstimator, TransformerMixin
class Step(TransformerMixin, BaseEstimator):
    def __init__(self, by=2):
        self.by = by
    def fit(self, X, y=None):
        return self
    def transform(self, X):
        return self.by * X
""",
    "theirs_beside.py": "NOTHING = 0",
}
WRAPPED = {
    "alone": lambda tree, step, shifted: tree(),
    "calibrated": lambda tree, step, shifted: CalibratedClassifierCV(tree()),
    "one against the rest": lambda tree, step, shifted: OneVsRestClassifier(make_pipeline(StandardScaler(), tree())),
    "function": lambda tree, step, shifted: make_pipeline(FunctionTransformer(shifted), GaussianNB()),
    "step": lambda tree, step, shifted: make_pipeline(step(), GaussianNB()),
}


def theirs(name):
    return importlib.import_module(f"theirs.{name}")


@pytest.fixture
def keys_of(tmp_path, monkeypatch):
    """Keys of the estimators in WRAPPED, as a new process has them where the user's files are `files`."""
    folders = map(str, range(9))

    def keys(files):
        folder = tmp_path / next(folders)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(folder)
        for name in [name for name in sys.modules if name.startswith("theirs")]:
            del sys.modules[name]
        parts = theirs("classifiers").Tree, theirs("steps").Step, theirs("tools").shifted
        return {name: platforms._key(make(*parts), *CASE) for name, make in WRAPPED.items()}

    return keys


TREES = {"alone", "calibrated", "one against the rest"}


@pytest.mark.parametrize(
    "file, old, new, changed",
    [
        ("theirs/classifiers.py", "tools.shifted(X)", "-tools.shifted(X)", TREES),
        ("theirs/base.py", "X + 1", "X + 2", TREES),
        ("theirs/tools.py", "SHIFT = 3", "SHIFT = 4", {*TREES, "function"}),
        ("theirs_beside.py", "0", "1", {*TREES, "function"}),
        ("theirs/steps.py", "self.by * X", "self.by + X", {"step"}),
    ],
)
def test_a_changed_line_of_the_users_code_is_another_key(keys_of, file, old, new, changed):
    before, again = keys_of(THEIRS), keys_of(THEIRS | {"theirs/other.py": "nobody imports it"})
    assert before == again and len(set(before.values())) == len(WRAPPED) and None not in before.values()
    after = keys_of(THEIRS | {file: THEIRS[file].replace(old, new)})
    assert {name for name in WRAPPED if after[name] != before[name]} == changed


def test_values_count_at_any_depth(keys_of):
    keys_of(THEIRS)
    step, rng = theirs("steps").Step, np.random.RandomState
    shared = rng(0)
    estimators = [
        *(OneVsRestClassifier(make_pipeline(step(by), GaussianNB())) for by in (2, 3, 2.0, "2", None, (2,), [2], {2})),
        *(step({"a": [np.r_[np.ones(5000), by]]}) for by in (1, 2)),
        *(step(np.array([{"a": by}, None])) for by in (1, 2)),
        *(step(np.ma.array([1, 2], mask=[by, not by])) for by in (True, False)),
        *(step(functools.partial(np.clip, a_min=by)) for by in (1, 2)),
        *(step(getattr(theirs("base"), name)) for name in ("Base", "DecisionTreeClassifier")),
        *(step(rng(by)) for by in (1, 2)),
        step([shared, shared]),  # the second draws on where the first stopped
        step([rng(0), rng(0)]),
    ]
    keys = [platforms._key(estimator, *CASE) for estimator in estimators]
    assert None not in keys and len(set(keys)) == len(keys)
    assert [platforms._key(clone(estimator), *CASE) for estimator in estimators[:-2]] == keys[:-2]


def test_what_an_object_refers_to_may_lead_back_to_it(keys_of):
    keys_of(THEIRS)
    step = theirs("steps").Step()
    step.by = [step]
    assert platforms._key(step, *CASE) != platforms._key(theirs("steps").Step([None]), *CASE)


KEYS = """
import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC
from xgboost import XGBClassifier
from mialib.models import platforms
case = np.eye(4), np.arange(4) % 2, np.eye(4), 2, (0, "test")
makes = [*platforms.PLATFORMS.values(),
    lambda seed: XGBClassifier(monotone_constraints={"a": 1, "b": 0}),
    lambda seed: CalibratedClassifierCV(SVC()),
    lambda seed: KNeighborsClassifier(metric_params={"w": np.ones(3), "names": {"a", "b", "c", "d"}}),
    lambda seed: make_pipeline(FunctionTransformer(np.log1p), SVC(probability=True)),
    lambda seed: XGBClassifier(n_estimators=2).fit(np.eye(4), [0, 1, 0, 1])]
print(*(platforms._key(make(0), *case) for make in makes))
"""


def test_ordinary_classifiers_have_one_key_in_every_process():
    found = []
    for seed in "12":
        environment = os.environ | {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", KEYS]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=config.ROOT, check=True)
        found.append(done.stdout.split())
    assert found[0] == found[1] and len(set(found[0])) == len(platforms.PLATFORMS) + 5 and "None" not in found[0]


class Locked(GaussianNB):
    def fit(self, X, y):
        self.lock_ = threading.Lock()
        return super().fit(X, y)


def cell(source, name):
    """What a notebook's cell defines under a name."""
    defined = {"__name__": "__main__"}
    exec(source, defined)
    return defined[name]


def strangers(factor):
    """name -> (step or classifier, why it is not known); those of one name differ in `factor`, and in nothing else."""
    source = f"from sklearn.naive_bayes import GaussianNB\nclass Mine(GaussianNB):\n    factor = {factor}"
    mine = cell(source, "Mine")
    scaled = cell(f"def scaled(X):\n    return {factor} * X", "scaled")
    compiled = types.ModuleType("theirs_compiled")
    compiled.__spec__ = importlib.machinery.ModuleSpec("theirs_compiled", None, origin="theirs_compiled.so")
    compiled.Fast = type("Fast", (GaussianNB,), {"__module__": "theirs_compiled", "factor": factor})
    changed = type("Locked", (GaussianNB,), {"__module__": __name__, "factor": factor})
    for module, defined in (("__main__", mine), ("__main__", scaled)):
        setattr(sys.modules[module], defined.__name__, defined)
    sys.modules["theirs_compiled"] = compiled
    return {
        "class of a cell": (mine(), "Mine is written in a notebook"),
        "wrapped class of a cell": (CalibratedClassifierCV(mine(), cv=2), "Mine is written in a notebook"),
        "function of a cell": (FunctionTransformer(scaled), "scaled is written in a notebook"),
        "lambda": (FunctionTransformer(lambda X: factor * X), "<lambda> is not what test_identity has"),
        "partial": (FunctionTransformer(functools.partial(lambda f, X: f * X, factor)), "<lambda> is not what"),
        "class made by a function": (changed(), "Locked is not what test_identity has under that name"),
        "compiled": (compiled.Fast(), "theirs_compiled is compiled and of no installed package"),
        "uncopyable": (Locked().fit(np.eye(2), [0, 1]), "cannot be taken apart"),
    }


@pytest.fixture
def swept(monkeypatch):
    """Names that `strangers` sets are gone afterwards."""
    for name in ("Mine", "scaled"):
        monkeypatch.setattr(sys.modules["__main__"], name, None, raising=False)
    monkeypatch.setitem(sys.modules, "theirs_compiled", None)


@pytest.mark.parametrize("kind", [
    "class of a cell", "wrapped class of a cell", "function of a cell", "lambda", "partial",
    "class made by a function", "compiled", "uncopyable",
])  # fmt: skip
def test_what_cannot_be_known_is_computed_each_time_and_said(kind, swept, monkeypatch, own_cache):
    monkeypatch.setenv("MIALIB_WORKERS", "1")
    X, y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 2
    case = X, y, 2, [np.arange(20)], [np.arange(40)], [(0, "test")]
    for factor in (1, -1):
        part, why = strangers(factor)[kind]
        classifier = part if hasattr(part, "predict_proba") else make_pipeline(part, LogisticRegression())
        with pytest.warns(UserWarning) as said:
            platforms.answers(lambda seed, classifier=classifier: classifier, *case)
        [line] = [str(warning.message) for warning in said if "computed each time" in str(warning.message)]
        assert why in line and "\n" not in line
    assert not own_cache.exists()


def test_code_that_was_edited_before_it_was_first_asked_about_is_not_known(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = tmp_path / "ours_edited.py"
    path.write_text("class One:\n    shift = 1\n", encoding="utf-8")
    one = importlib.import_module(path.stem).One()
    assert identity.of(one)
    path.write_text("class One:\n    shift = 1000\n", encoding="utf-8")
    monkeypatch.setattr(identity, "_first_read", {})
    with pytest.raises(identity.Unknown, match="edited while in use"):
        identity.of(one)


def test_code_that_was_edited_but_not_imported_again_is_not_known(keys_of, tmp_path):
    keys_of(THEIRS)
    (tmp_path / "0" / "theirs" / "tools.py").write_text("SHIFT = 4", encoding="utf-8")
    with pytest.raises(Exception, match=r"tools.py was edited while in use; restart the kernel"):
        platforms._key(theirs("classifiers").Tree(), *CASE)


def test_a_module_of_the_users_may_be_named_as_one_of_ours(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    model = "from sklearn.naive_bayes import GaussianNB\nfrom mialib import metrics as ours\nimport metrics\n"
    (tmp_path / "theirs_named.py").write_text(f"{model}class One(GaussianNB):\n    pass\n", encoding="utf-8")
    found = set()
    for number in (1, 2):
        (tmp_path / "metrics.py").write_text(f"N = {number}\n", encoding="utf-8")
        monkeypatch.setattr(identity, "_first_read", {})  # as a new process
        for name in ("theirs_named", "metrics"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        importlib.invalidate_caches()
        found.add(identity.of(importlib.import_module("theirs_named").One()))
    assert len(found) == 2
