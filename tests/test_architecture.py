"""The house rules that no other test would notice being broken."""

import ast
import re
import subprocess
import sys

import pytest
import yaml

from mialib import config

# The floors of the house. A room imports only rooms that stand before it in this table.
FLOORS = (
    ("machine", "config", "runs", "source", "work", "arrays"),
    ("simulate", "datasets", "splits", "metrics"),
    (
        "models",
        "training",
        "signals",
        "defenses",
        "synthesis",
        "identity",
        "platforms",
        "nets",
        "targets",
        "boundary",
        "gradients",
        "features",
    ),
    # calibration stands before the attacks: a simulator is never fitted to an attack result.
    (
        "calibration",
        "attacks",
        "attacks.baselines",
        "attacks.classifiers",
        "attacks.shadow",
        "attacks.known",
        "whitebox",
        "progress",
        "experiments",
        "difficulty",
    ),
    ("published", "exhibits", "plots", "report", "ledger"),
    ("light", "pages", "citing", "committed", "live", "pool", "batch", "site", "sweep", "__main__"),
)
ROOMS = [room for floor in FLOORS for room in floor]
LOWEST = {"torch": 2, "torchvision": 2, "xgboost": 2, "matplotlib": 4, "seaborn": 4, "papermill": 5, "nbconvert": 5}
SOURCES = {
    ".".join(path.relative_to(config.ROOT / "mialib").with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((config.ROOT / "mialib").rglob("*.py"))
    if path != config.ROOT / "mialib" / "__init__.py"
}
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


def room(name):
    """The room an imported name lies in: mialib.attacks.shadow.observe -> attacks.shadow; None outside mialib."""
    parts = name.split(".")[1:] if name.startswith("mialib.") else []
    return next((found for n in (2, 1) if (found := ".".join(parts[:n])) in ROOMS and len(parts) >= n), None)


def tracked():
    """Files that are, or are about to be, in the repository."""
    command = ["git", "-C", str(config.ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    return [path for name in names if name and (path := config.ROOT / name).exists()]


def test_every_room_is_in_the_table():
    assert sorted(SOURCES) == sorted(ROOMS), "put the new module on its floor in FLOORS"


@pytest.mark.parametrize("name", SOURCES)
def test_room_imports_only_rooms_below(name):
    height = ROOMS.index(name)
    above = {other for other in map(room, imported(SOURCES[name])) if other and ROOMS.index(other) >= height}
    assert not above, f"{name} imports {above}"


@pytest.mark.parametrize("name", SOURCES)
def test_heavy_libraries_stay_on_their_floors(name):
    floor = next(number for number, rooms in enumerate(FLOORS) if name in rooms)
    libraries = {other.split(".")[0] for other in imported(SOURCES[name])}
    assert not {library for library in libraries if LOWEST.get(library, 0) > floor}


def test_room_of_a_name():
    assert room("mialib.attacks.shadow.observe") == "attacks.shadow"
    assert room("mialib.attacks.Result") == "attacks"
    assert room("mialib.config") == "config"
    assert room("mialib.__version__") is None
    assert room("torch.nn") is None


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
            or (opened and owner not in ("tarfile", "os", "gzip"))
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
    assert "mialib/batch.py" in names
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
