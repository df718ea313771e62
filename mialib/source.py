"""What code does, as a digest that comments, docstrings, type hints and a move to another module leave as it is.

A result that was kept belongs to the functions that made it and to all of this project that those reach. They are
read, not run: the text of each module gives its names, and the names in a function's body say what it reaches. An
object's methods count with its class. Other packages count by name alone: their versions belong into the key as well.
"""

import ast
import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mialib import config

PACKAGE = "mialib"
_LEFT_OUT = {"annotation", "returns", "ctx", "kind", "type_comment", "type_params"}  # fields of the syntax tree
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Name = tuple[str, str]  # module, and a name at its top


@dataclass(frozen=True, eq=False)
class _Module:
    name: str
    defined: dict[str, list[ast.stmt]]  # name -> the statements at the module's top that give it a value
    imported: dict[str, str]  # name -> what it stands for, "numpy" or "mialib.runs.digest"


def digest(*things: Callable) -> str:
    """SHA-256 (hex) of functions and classes of this project, and of all of it that they reach.

    ValueError if none is of this project: nothing would tell their code from another. A file that is edited while a
    process runs the former code is not looked into here: restart the kernel.
    """
    found = reached((thing.__module__, thing.__qualname__.partition(".")[0]) for thing in things)
    if not found:
        raise ValueError(f"{things[0].__qualname__} is no function at the top of a module of {PACKAGE}")
    return _digest(found)


def of_text(text: str) -> tuple[str, set[str]]:
    """`digest` of what a notebook's code reaches, and every word in there and in it, but for `published`'s own."""
    module, met = _read("a notebook", text), {}
    for statement in ast.parse(text).body:
        _plain(statement, module, frozenset(), met)
    found = reached(met)
    parts = (part for (name, _), part in found.items() if not name.endswith(".published"))
    return _digest(found), set(re.findall(r"\w+", text)).union(*(part.words for part in parts))


@dataclass(frozen=True)
class _Part:
    """What one name stands for."""

    digest: str
    words: frozenset[str]
    met: tuple[Name, ...]  # the names that it refers to, in the order in which they are met


def reached(names: Iterable[Name]) -> dict[Name, _Part]:
    """Each name of this project that these lead to."""
    found: dict[Name, _Part] = {}
    todo = list(names)
    while todo:
        if (place := _place(*todo.pop())) and place not in found:
            found[place] = _part(_module(place[0]), place[1])
            todo += found[place].met
    return found


def _place(module: str, name: str) -> Name | None:
    """Where a name is defined, past imports; None outside this project."""
    while (here := _module(module)) and name not in here.defined:
        module, _, name = here.imported.get(name, "").rpartition(".")
    return (module, name) if here else None


def _digest(found: dict[Name, _Part]) -> str:
    """Of each name what it does, and what those do that it refers to: two of one name in two modules are two."""
    parts = [
        (name, part.digest, [found[place].digest for each in part.met if (place := _place(*each))])
        for (_, name), part in found.items()
    ]
    return hashlib.sha256(repr(sorted(parts)).encode()).hexdigest()


@functools.cache
def _part(module: _Module, name: str) -> _Part:
    met: dict[Name, None] = {}
    plain = repr([_plain(each, module, frozenset(), met) for each in module.defined[name]])
    words = frozenset(re.findall(r"\w+", plain))
    return _Part(hashlib.sha256(plain.encode()).hexdigest(), words, tuple(met))


def _module(name: str) -> _Module | None:
    if not (path := _paths(config.ROOT).get(name)):
        return None
    about = path.stat()
    return _at(path, name, about.st_mtime_ns, about.st_size)


@functools.cache
def _at(path: Path, name: str, *stamp: int) -> _Module:
    return _read(name, path.read_text(encoding="utf-8"))


@functools.cache
def _paths(root: Path) -> dict[str, Path]:
    files = {path.relative_to(root).with_suffix(""): path for path in root.glob(f"{PACKAGE}/**/*.py")}
    names = {".".join(place.parts).removesuffix(".__init__"): path for place, path in files.items()}
    return {name: path for name, path in names.items() if name != PACKAGE}  # that holds the version, no results


def _read(name: str, text: str) -> _Module:
    tree = ast.parse(text)
    defined: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        for bound in _bound(statement):
            defined.setdefault(bound, []).append(statement)
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {each.asname or each.name.partition(".")[0]: each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return _Module(name, defined, imported)


def _bound(node: ast.AST) -> Iterator[str]:
    """Names that a node gives a value, without those inside the functions, classes, comprehensions that it holds."""
    if isinstance(node, ast.arg):
        yield node.arg
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif not isinstance(node, ast.Lambda):
        inner = [node.iter, *node.ifs] if isinstance(node, ast.comprehension) else ast.iter_child_nodes(node)
        for child in inner:
            yield from _bound(child)


def _plain(node: Any, module: _Module, local: frozenset[str], met: dict[Name, None]) -> Any:
    """A syntax tree as tuples, names of this project without their modules; what it refers to goes into `met`."""
    if isinstance(node, list):
        kept = (each for each in node if not isinstance(each, ast.Import | ast.ImportFrom))
        return tuple(_plain(each, module, local, met) for each in kept)
    if not isinstance(node, ast.AST):
        return type(node).__name__, repr(node)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id not in local:
        owner = module.imported.get(node.value.id, "")
        if owner in _paths(config.ROOT):
            met[owner, node.attr] = None
            return "Name", node.attr
    if isinstance(node, ast.Name):
        return "Name", node.id if node.id in local else _referred(node.id, module, met)
    inner = _inner(node, local)
    if inner != local:  # what is computed outside of the new names: defaults, decorators, what is iterated over first
        outside = [getattr(node, "decorator_list", []), [each.iter for each in getattr(node, "generators", [])[:1]]]
        if hasattr(node, "args"):
            outside += [node.args.defaults, node.args.kw_defaults]
        _plain(outside, module, local, met)
    fields = dict(ast.iter_fields(node))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
        fields["body"] = node.body[1:]
    kept = ((name, value) for name, value in fields.items() if name not in _LEFT_OUT and value not in (None, []))
    return type(node).__name__, *((name, _plain(value, module, inner, met)) for name, value in kept)


def _inner(node: ast.AST, local: frozenset[str]) -> frozenset[str]:
    """The names that are local inside a node, of which those outside are `local`."""
    if isinstance(node, _FUNCTIONS):
        body = node.body if isinstance(node.body, list) else [node.body]
        declared = {
            name for part in body for each in ast.walk(part) if isinstance(each, ast.Global) for name in each.names
        }
        return (local | {name for part in (node.args, *body) for name in _bound(part)}) - declared
    return local | {name for each in getattr(node, "generators", []) for name in _bound(each.target)}


def _referred(name: str, module: _Module, met: dict[Name, None]) -> str:
    """What a name stands for: without the module if it is of this project, else with the package it comes from."""
    full = module.imported.get(name, "")
    if name in module.defined:
        met[module.name, name] = None
    elif full in _paths(config.ROOT):  # a module by itself, which may be looked into in any way
        met.update(dict.fromkeys((full, each) for each in _module(full).defined))
    elif full.startswith(f"{PACKAGE}."):
        owner, _, name = full.rpartition(".")
        met[owner, name] = None
    elif full:
        return full
    return name
