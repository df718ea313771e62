"""What a reader installs: the choice of PyTorch's build, the lock file, the Makefile's switches, a clone's files."""

import ast
import importlib.metadata
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from mialib import config

LOCK = (config.ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((config.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = [Requirement(line) for line in LOCK.splitlines() if line[:1] != "#"]
DECLARED = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]


@pytest.fixture
def install(monkeypatch):
    """install.py as a module that sees no driver, in whose `asked` pip's arguments are collected."""
    spec = importlib.util.spec_from_file_location("install", config.ROOT / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.asked = []
    monkeypatch.setattr(module, "pip", lambda *what: module.asked.append(what) or True)
    monkeypatch.setattr(module, "DRIVER", ())
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setattr(module.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.chdir(config.ROOT)
    return module


@pytest.mark.parametrize("wanted", ["cpu", ""])
def test_the_cpu_build_comes_without_cuda(install, wanted, monkeypatch, capsys):
    monkeypatch.setattr(install, "reached", lambda url: url.startswith(install.CPU_INDEX))
    install.main(wanted)
    torch, rest = install.asked
    assert torch[torch.index("--index-url") + 1] == install.CPU_INDEX
    [pin] = [line for line in LOCK.splitlines() if line.startswith("torch==")]
    assert f"{pin}+cpu" in torch
    cuda = {name.name for name in PINS if "linux" in str(name.marker)}
    assert len(cuda) > 15
    names = [Requirement(what).name for what in rest if what[0] != "-"]
    assert len(names) > 100
    assert "--no-deps" in rest
    assert not cuda.intersection(names)
    assert {pin.name for pin in PINS} - cuda == set(names)
    assert re.fullmatch(r"Installing .* 2 GB .*\n", capsys.readouterr().out)


@pytest.mark.parametrize("case", ["TORCH=cuda", "a driver", "no answer", "macOS"])
def test_the_default_build_is_the_lock_as_it_is(case, install, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(install, "reached", lambda url: case == "a driver")
    if case == "a driver":
        monkeypatch.setattr(install, "DRIVER", (tmp_path,))
    if case == "macOS":
        monkeypatch.setattr(sys, "platform", "darwin")
    install.main("cuda" if case == "TORCH=cuda" else "cpu" if case == "macOS" else "")
    assert install.asked == [("-r", "requirements.lock")]
    size = "2 GB" if case == "macOS" else "7 GB"
    assert re.fullmatch(rf"Installing .* {size} .*\n", capsys.readouterr().out)


def test_an_index_that_fails_is_left_unless_it_was_asked_for(install, monkeypatch):
    monkeypatch.setattr(install, "reached", lambda url: True)
    monkeypatch.setattr(install, "pip", lambda *what: install.asked.append(what) or "--index-url" not in what)
    install.main()
    assert install.asked[1:] == [("-r", "requirements.lock")]
    with pytest.raises(SystemExit, match=r"^https://.* TORCH=cuda"):
        install.main("cpu")


def test_an_index_that_is_silent_is_given_up(install, tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not install.reached(f"http://127.0.0.1:{silent.getsockname()[1]}/torch/", seconds=0.5)
    assert not install.reached((tmp_path / "none").as_uri(), seconds=60)
    (tmp_path / "index").touch()
    assert install.reached((tmp_path / "index").as_uri(), seconds=60)


def make(folder, *arguments, **variables):
    """What `make -n` would run there, and what it says; `variables` of the environment."""
    if shutil.which("make") is None:
        pytest.skip("no make")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "-n", "-C", folder, "figures", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment | variables)


@pytest.mark.parametrize(("given", "fresh"), [("", 0), ("0", 0), ("no", 0), ("1", 1), ("yes", 1)])
def test_fresh_means_what_it_says(given, fresh):
    assert ("--fresh" in make(config.ROOT, f"FRESH={given}").stdout) == bool(fresh)
    assert ("--fresh" in make(config.ROOT, FRESH=given).stdout) == bool(fresh)


@pytest.mark.parametrize("given", ["FRESH=maybe", "FRESH=0 1", "TORCH=gpu", "TORCH=cpu cuda"])
def test_a_slip_is_refused_in_one_line(given):
    run = make(config.ROOT, given)
    assert run.returncode
    [line] = run.stderr.splitlines()
    assert f'"{given.split("=")[1]}"' in line


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyTorch has one build")
def test_the_build_of_an_environment_stays(tmp_path):
    for name in ("Makefile", "requirements.lock", "pyproject.toml", "install.py"):
        shutil.copy(config.ROOT / name, tmp_path)
    assert "install.py cpu\n" in make(tmp_path, "TORCH=cpu").stdout
    assert "install.py cpu\n" in make(tmp_path, TORCH="cpu").stdout
    libraries = tmp_path / ".venv" / "lib" / "python3.11" / "site-packages"
    (libraries / "torch-2.15.0+cpu.dist-info").mkdir(parents=True)
    stamp = tmp_path / ".venv" / ".installed"
    stamp.touch()
    os.utime(stamp, (0, 0))  # older than the lock file
    assert "rm -rf .venv" in make(tmp_path, "TORCH=cuda").stderr
    assert "install.py cpu\n" in make(tmp_path).stdout
    (tmp_path / ".venv" / ".installing").touch()  # it was interrupted, and is made anew
    assert "install.py cuda\n" in make(tmp_path, "TORCH=cuda").stdout


def test_every_way_names_the_same_index(install):
    environment = (config.ROOT / "environment.yml").read_text(encoding="utf-8")
    assert f"\n      # - --extra-index-url {install.CPU_INDEX}\n      - -c requirements.lock\n" in environment
    manual = (config.ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert manual.count(install.CPU_INDEX) > 1


def test_every_pin_runs_on_the_promised_python():
    promised = PROJECT["requires-python"].removeprefix(">=") + ".0"
    wants = {
        pin.name: importlib.metadata.metadata(pin.name).get("Requires-Python")
        for pin in PINS
        if pin.marker is None and pin.specifier.contains(importlib.metadata.version(pin.name))
    }
    assert len(wants) > 100
    assert not {name: want for name, want in wants.items() if want and not SpecifierSet(want).contains(promised)}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_the_lock_is_whole(python):
    """Nothing is missing or too old for another: the CPU build's installation leaves it to the lock alone."""
    system = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    system |= {"platform_system": "Linux", "os_name": "posix", "implementation_name": "cpython"}
    pinned = {canonicalize_name(pin.name): pin for pin in PINS if not pin.marker or pin.marker.evaluate(system)}
    waiting, met = list(DECLARED), set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        assert name in pinned, f"{wanted} is not in requirements.lock"
        [version] = pinned[name].specifier
        assert wanted.specifier.contains(version.version), f"the lock has {pinned[name]}, another wants {wanted}"
        if (name, *sorted(wanted.extras)) not in met:
            met.add((name, *sorted(wanted.extras)))
            waiting += needs(name, wanted.extras, system)


def needs(name, extras, system):
    """Requirements of a package as installed here; none of one that this Python does not need."""
    try:
        found = [Requirement(text) for text in importlib.metadata.requires(name) or []]
    except importlib.metadata.PackageNotFoundError:
        return []
    chosen = [system | {"extra": extra} for extra in ("", *extras)]
    return [one for one in found if one.marker is None or any(map(one.marker.evaluate, chosen))]


def test_what_is_imported_is_declared():
    files = [path for package in ("mialib", "companion") for path in (config.ROOT / package).rglob("*.py")]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    libraries = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"mialib", "companion"}
    assert len(libraries) > 10
    declared = {canonicalize_name(one.name) for one in DECLARED}
    homes = importlib.metadata.packages_distributions()
    assert not {name for name in libraries if not declared.intersection(map(canonicalize_name, homes[name]))}


def test_a_clone_has_every_byte_whatever_git_converts(tmp_path):
    """Under core.autocrlf, bash would meet bash\\r, and every figure and table would count as changed by hand."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    for name in ("figures", "notebooks", "data/published", ".ci"):
        shutil.copytree(config.ROOT / name, one / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for name in (".gitattributes", "Makefile", "requirements.lock"):
        shutil.copy(config.ROOT / name, one)

    def git(*arguments):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        subprocess.run(["git", *arguments], check=True, env=environment, capture_output=True, cwd=tmp_path)

    git("init", "-q", one)
    git("-C", one, "-c", "core.autocrlf=true", "add", ".")
    git("-C", one, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all", "--no-gpg-sign")
    git("clone", "-q", "-c", "core.autocrlf=true", one, other)
    paths = [path.relative_to(one) for path in one.rglob("*") if path.is_file() and ".git" not in path.parts]
    assert len(paths) > 200
    assert not [path for path in paths if (other / path).read_bytes() != (one / path).read_bytes()]
