"""The house rules that no other test would notice being broken."""

import ast
import graphlib
import re
import subprocess
import sys

import pytest
import yaml

from mialib import config

# The wings of the house, from the ground up: a wing imports only those before it, and a file only what is not above it.
GROUND = ("machine", "config", "runs", "source", "work", "arrays", "metrics")
WINGS = ("ground", "data", "models", "attacks", "results", "papers", "companion")
LIBRARIES = {  # the lowest wing that may use a library
    "torch": "models",
    "torchvision": "models",
    "xgboost": "models",
    "matplotlib": "results",
    "seaborn": "results",
    "click": "companion",
    "papermill": "companion",
    "nbconvert": "companion",
}
SOURCES = {
    ".".join(path.relative_to(config.ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("mialib", "companion")
    for path in sorted((config.ROOT / package).rglob("*.py"))
    # The package itself holds the version, and `python -m mialib` is the door to companion.
    if path.relative_to(config.ROOT).as_posix() not in ("mialib/__init__.py", "mialib/__main__.py")
}


def wing(name):
    """The wing that a module lies in: mialib.attacks.shadow -> attacks; None outside the project."""
    package, *rest = name.split(".")
    if package == "companion":
        return "companion"
    if package != "mialib" or not rest or rest[0] == "__version__":
        return None
    return "ground" if rest[0] in GROUND else rest[0]


BANNED = {
    r"\b(import|from) (pickle|cPickle|dill|cloudpickle|shelve|marshal)\b": "pickle",
    r"\bjoblib\.(load|dump|Memory)\b": "pickle by way of joblib",
    r"allow_pickle\s*=\s*True": "pickle by way of numpy",
    r"weights_only\s*=\s*False": "pickle by way of torch",
    r"\b(np|numpy)\.random\.(seed|set_state)\b": "global seeding",
    r"\btorch\.(random\.|cuda\.)?(manual_seed|seed|set_rng_state)": "global seeding",
    r"(?<![.\w])random\.seed\b": "global seeding",
}


def imported(path):
    """Names a file imports, wherever the statement stands: "mialib.runs", "torch.nn", ..."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def tracked():
    """Files that are, or are about to be, in the repository."""
    command = ["git", "-C", str(config.ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    return [path for name in names if name and (path := config.ROOT / name).exists()]


def ours(path):
    """Modules of this project that a file imports."""
    for name in imported(path):
        parent, _, _ = name.rpartition(".")
        found = name if name in SOURCES else parent
        if found in SOURCES:
            yield found


def test_every_module_lies_in_a_wing():
    assert {wing(name) for name in SOURCES} == set(WINGS)
    assert {name.split(".")[1] for name in SOURCES if wing(name) == "ground"} == set(GROUND)


@pytest.mark.parametrize("name", SOURCES)
def test_a_wing_imports_only_wings_below(name):
    height = WINGS.index(wing(name))
    above = {other for other in map(wing, imported(SOURCES[name])) if other and WINGS.index(other) > height}
    assert not above, f"{name} imports {above}"


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: set(ours(path)) - {name} for name, path in SOURCES.items()}
    list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the circle


def test_papers_know_nothing_of_each_other():
    rooms = {name: name.split(".")[2] for name in SOURCES if name.startswith("mialib.papers.")}
    for name, paper in rooms.items():
        others = {rooms.get(other) for other in ours(SOURCES[name])} - {None, paper}
        assert not others, f"{name} imports {others}"


PAPERS = sorted(path.name for path in (config.ROOT / "mialib" / "papers").iterdir() if (path / "sizes.toml").exists())


def strings(path):
    """The texts in a file that are no docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = {
        node.body[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None
    }
    return [
        n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str) and n not in said
    ]


@pytest.mark.parametrize("name", [name for name in SOURCES if wing(name) != "papers"])
def test_no_wing_but_papers_names_an_exhibit(name):
    first = {re.match("[a-z]+", paper)[0] for paper in PAPERS}
    exhibit = re.compile(rf"\b({'|'.join(first)})[_-]?(20|table|fig)|^(table|fig) ?\d", re.IGNORECASE)
    assert not [text for text in strings(SOURCES[name]) if exhibit.search(text)]


@pytest.mark.parametrize("paper", PAPERS)
def test_a_paper_is_a_room_of_bounded_size(paper):
    room = config.ROOT / "mialib" / "papers" / paper
    assert {path.name for path in room.iterdir() if path.suffix} >= {"experiments.py", "exhibits.py", "sizes.toml"}
    # Two have thirty exhibits between them; the others with a bound of their own have two to four protocols each.
    most = {"shokri2017": 736, "rezaei2020": 825, "leino2020": 1510, "nasr2019": 1450, "zarifzadeh2024": 670}
    most = (most | {"zou2020": 660}).get(paper, 500)
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in room.glob("*.py")) <= most


def test_attacks_leave_cache_and_locks_to_work():
    calls = re.compile(r"\bwork\.(?!every\b)\w+|\blocks\b|filelock|\bjoblib\b")
    files = [path for name, path in SOURCES.items() if wing(name) == "attacks"]
    assert len(files) > 8 and not [path.name for path in files if calls.search(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("name", SOURCES)
def test_heavy_libraries_stay_in_their_wings(name):
    height = WINGS.index(wing(name))
    libraries = {other.split(".")[0] for other in imported(SOURCES[name])}
    assert not {each for each in libraries if each in LIBRARIES and WINGS.index(LIBRARIES[each]) > height}


def test_wing_of_a_name():
    assert wing("mialib.attacks.shadow.observe") == "attacks"
    assert wing("mialib.config") == "ground"
    assert wing("companion.site") == "companion"
    assert wing("mialib.__version__") is None
    assert wing("torch.nn") is None


@pytest.mark.parametrize("pattern", BANNED)
def test_no_pickle_and_no_global_seeding(pattern):
    files = [*SOURCES.values(), *config.ROOT.glob("benchmarks/**/*.py"), *config.ROOT.glob("notebooks/*.ipynb")]
    assert not [path.name for path in files if re.search(pattern, path.read_text())], BANNED[pattern]


def readers(path):
    """Calls that read or write text: (line, keywords they name)."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        named = {keyword.arg for keyword in node.keywords}
        modes = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        opened = name == "open" and not any(re.fullmatch(r"[rwax]?b[+]?", mode) for mode in modes)
        owner = getattr(node.func.value, "id", "") if isinstance(node.func, ast.Attribute) else ""
        if (
            name in ("read_text", "write_text")
            or (opened and owner not in ("tarfile", "os", "gzip", "Image"))
            or "text" in named
        ):
            yield node.lineno, named


def test_text_is_utf_8_whatever_the_locale():
    files = [*SOURCES.values(), *config.ROOT.glob("benchmarks/**/*.py")]
    assert not [(path.name, line) for path in files for line, named in readers(path) if "encoding" not in named]


def test_no_machine_paths_are_committed():
    local = re.compile(rb"(?<![\w.:/-])/(?:home|root|work|Users|opt|mnt|private)/\w|[/]pyenv/|C:\\\\Users")
    found = {path.relative_to(config.ROOT): local.search(path.read_bytes()) for path in tracked()}
    assert not {path: match[0] for path, match in found.items() if match and path.suffix not in (".png", ".pdf")}


def test_nothing_large_or_generated_is_committed():
    names = [path.relative_to(config.ROOT).as_posix() for path in tracked()]
    assert "mialib/work.py" in names
    generated = ("build/", ".venv/", "data/raw/", "data/cache/")
    assert not [name for name in names if name.startswith(generated) or "__pycache__" in name]
    # Trained targets take up to 5 MB each, which would be hours to make again.
    limits = {".safetensors": 6_000_000}
    assert not [path for path in tracked() if path.stat().st_size > limits.get(path.suffix, 2_000_000)]


def test_lock_file_has_exact_versions_and_no_places():
    lines = [line for line in (config.ROOT / "requirements.lock").read_text().splitlines() if line[:1] != "#"]
    assert len(lines) > 100
    pin = re.compile(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.+]+( ; (sys_platform|python_version) == \"[a-z0-9.]+\")?")
    assert not [line for line in lines if not pin.fullmatch(line)]
    pinned = {re.split(r"==", line)[0].lower().replace("_", "-") for line in lines}
    project = (config.ROOT / "pyproject.toml").read_text()
    wanted = re.findall(r'"([A-Za-z0-9-]+)>=', project.split("bench =")[0].split("dependencies = [", 1)[1])
    assert len(wanted) > 15
    assert not set(wanted) - pinned


def test_makefile_knows_the_profiles():
    (listed,) = re.findall(r"\$\(filter \$\(PROFILE\),([a-z ]+)\)", (config.ROOT / "Makefile").read_text())
    assert tuple(listed.split()) == config.PROFILES


def test_workflow_and_hooks_call_what_is_there():
    workflow = yaml.safe_load((config.ROOT / ".github" / "workflows" / "companion.yml").read_text())
    steps = workflow["jobs"]["companion"]["steps"]
    called = {line.removeprefix("make ") for step in steps if (line := step.get("run", "")).startswith("make ")}
    assert {"figures", "test"} <= called
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (config.ROOT / "Makefile").read_text(), re.MULTILINE)
    assert called <= set(phony.split())
    ruff, local = yaml.safe_load((config.ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert f"ruff=={ruff['rev'].removeprefix('v')}\n" in (config.ROOT / "requirements.lock").read_text()
    tests = (config.ROOT / "tests" / "test_notebooks.py").read_text()
    chosen = re.findall(r'"(.*)"', local["hooks"][0]["entry"])[0].split(" or ")
    assert all(f"def test_{name}(" in tests for name in chosen)


def test_ruff_is_content():
    check = subprocess.run([sys.executable, "-m", "ruff", "check", config.ROOT], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout
    layout = [sys.executable, "-m", "ruff", "format", "--check", config.ROOT]
    formatted = subprocess.run(layout, capture_output=True, text=True)
    assert formatted.returncode == 0, formatted.stdout


@pytest.mark.parametrize("name", [name for name in SOURCES if name.startswith("mialib.")])
def test_imports_are_of_a_kind_that_source_follows(name):
    """Keys are of code that is found by reading, see `mialib.source`: names by `from … import`, no stars."""
    for node in ast.walk(ast.parse(SOURCES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not [each.name for each in node.names if each.name.partition(".")[0] == "mialib"]
        if isinstance(node, ast.ImportFrom):
            assert "*" not in [each.name for each in node.names]
        if isinstance(node, ast.Name):
            assert node.id not in ("globals", "setattr", "__import__")
