"""What tells an object from a changed one, so that what somebody's own classifier answered can be found again.

An object is known by
- its values: all that a copy of it would carry over (parameters, arrays, wrapped objects), at any depth;
- the version of each installed package, and of Python, whose classes and functions it uses, base classes included;
- what the code of this project does that it uses (see `source`);
- the source of each other module that such classes and functions stand in, and of all that these modules import.

Code that stands in no such module is not known: notebook cells, lambdas, functions made by functions, compiled files.
What is not looked at: files that the code reads, imports by computed names, and names set anew from outside a module.
"""

import ast
import copyreg
import functools
import hashlib
import importlib.metadata
import importlib.util
import operator
import os
import platform
import struct
import sys
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch

from mialib import runs, source

INSTALLED = {"site-packages", "dist-packages"}  # an editable package lies elsewhere: its version says nothing
_first_read: dict[str, str] = {}  # path -> digest of the source when this process first looked at it


class Unknown(Exception):
    """An object cannot be told from a changed one; the message names the part that is in the way and what to do."""


def of(thing: Any) -> str:
    """Digest (hex) of an object and its code, the same in every process, no other's. Raises Unknown."""
    code: dict[str, str] = {}
    try:
        values = _parts(thing, {}, code)
    except Unknown:
        raise
    except Exception as error:  # whatever a class raises that does not let itself be copied
        raise Unknown(f"a {type(thing).__qualname__} cannot be taken apart ({error})") from error
    return runs.digest(values, sorted(code.items()), platform.python_version())


def _parts(thing: Any, seen: dict[int, tuple[int, Any]], code: dict[str, str]) -> Any:
    """Plain values in nested tuples, from which `thing` could be made again. Modules met are entered into `code`."""

    def parts(other: Any) -> Any:
        return _parts(other, seen, code)

    if thing is None or type(thing) in (bool, int, float, str):
        return thing
    if type(thing) in (bytes, bytearray):
        return "bytes", hashlib.sha256(thing).hexdigest()
    if type(thing) is tuple:
        return "tuple", *map(parts, thing)
    if isinstance(thing, type):
        return "class", *(_named(base, base.__qualname__, code) for base in thing.__mro__)
    if isinstance(thing, FunctionType):
        return "function", _named(thing, thing.__qualname__, code)
    if id(thing) in seen:  # one generator in two places draws other numbers than two equal ones
        return "seen", seen[id(thing)][0]
    seen[id(thing)] = len(seen), thing  # kept, so that its address is not given to another
    if type(thing) is list:
        return "list", *map(parts, thing)
    if type(thing) is dict:
        return "dict", *map(parts, thing.items())
    if type(thing) in (set, frozenset):
        return "set", *sorted(runs.digest(parts(item)) for item in thing)
    if isinstance(thing, np.dtype):  # the bases of its class are hidden
        return "dtype", repr(thing)
    if isinstance(thing, torch.Tensor):  # it takes itself apart into bytes with an address in them
        numbers = thing.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        return "tensor", str(thing.dtype), tuple(thing.shape), parts(numbers)
    reduce = copyreg.dispatch_table.get(type(thing))
    made = reduce(thing) if reduce else thing.__reduce_ex__(4)  # as copy.copy does
    if isinstance(made, str):
        return "name", _named(thing, made, code)
    function, arguments, state, items, pairs = (*made, None, None, None)[:5]
    kind = type(thing) if type(thing).__module__ != "builtins" else None  # not all of these have a name there
    return "object", *map(parts, (kind, function, arguments, state, list(items or ()), list(pairs or ())))


def _named(thing: Any, name: str, code: dict[str, str]) -> tuple[str, str]:
    """Module and name of a class or function, checked to be found there."""
    module = getattr(thing, "__module__", None) or type(thing).__module__
    if module == "__main__":
        raise Unknown(f"{name} is written in a notebook or script; put it into a module of its own and import it")
    try:
        found = operator.attrgetter(name)(sys.modules[module])
    except (KeyError, AttributeError):
        found = None
    if found is not thing:
        raise Unknown(f"{name} is not what {module} has under that name; define it with def or class at a module's top")
    if module.startswith(f"{source.PACKAGE}."):
        found = source.digest(type(thing) if not isinstance(thing, type | FunctionType) else thing)
        code[f"{source.PACKAGE} {name} {found}"] = found  # no module's name
        return source.PACKAGE, f"{name} {found}"
    _read(module, code)
    return module, name


def _read(module: str, code: dict[str, str]) -> None:
    """Enter a module into `code`: its package's version, or its source's digest followed by all that it imports.

    ModuleNotFoundError if there is none of that name.
    """
    if module in code:
        return
    if module.startswith(f"{source.PACKAGE}."):
        found = source.of_text(f"import {module} as used\nused")[0]
        code[f"{source.PACKAGE} {module.rpartition('.')[2]} {found}"] = found  # no module's name
        return
    parent, _, _ = module.rpartition(".")
    top, _, _ = module.partition(".")
    if (version := _version(top)) is not None:
        code[top] = version
        return
    if parent:
        _read(parent, code)
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise ModuleNotFoundError(module)
    if spec.origin is None:  # a folder without __init__.py
        return
    if not spec.origin.endswith(".py"):
        raise Unknown(f"{module} is compiled and of no installed package; install it as one, with a version")
    text = Path(spec.origin).read_bytes()
    if module in sys.modules and _edited(Path(spec.origin)):
        raise Unknown(f"{Path(spec.origin).name} was edited while in use; restart the kernel, which may run old code")
    code[module] = hashlib.sha256(text).hexdigest()
    if _first_read.setdefault(spec.origin, code[module]) != code[module]:
        raise Unknown(f"{Path(spec.origin).name} was edited while in use; restart the kernel, which may run old code")
    for other in _imports(text, spec.parent):
        with suppress(ModuleNotFoundError):  # no module but a name in one, or a module that may be missing
            _read(other, code)


def _edited(path: Path) -> bool:
    """Whether a source is another than Python last compiled; where it keeps no compiled files, nobody knows: False."""
    compiled, about = Path(importlib.util.cache_from_source(str(path))), path.stat()
    if sys.dont_write_bytecode or not compiled.exists():
        return False
    kind, time, size = struct.unpack("<3I", compiled.read_bytes()[4:16])
    return kind == 0 and (time, size) != (int(about.st_mtime) & 0xFFFFFFFF, about.st_size & 0xFFFFFFFF)


@functools.cache
def _version(top: str) -> str | None:
    """Version of the installed package that is imported as `top`; "" for Python's own; None for all else."""
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise ModuleNotFoundError(top)
    place = Path(spec.origin if spec.has_location else next(iter(spec.submodule_search_locations or ()), ""))
    packages = sorted(set(_distributions().get(top, ()))) if INSTALLED & set(place.parts) else []
    if packages:
        return runs.versions(*packages)
    library = Path(os.__file__).parent
    own = top in sys.stdlib_module_names and (not spec.has_location or library in place.parents)
    return "" if own else None


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())


@functools.lru_cache(1000)
def _imports(text: bytes, package: str) -> list[str]:
    """Every name that may be a module in the import statements of a source, wherever they stand."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names += [start, *(f"{start}.{name.name}" for name in node.names)]
    return list(dict.fromkeys(names))
