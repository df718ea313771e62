"""What the options of the command line take: text made into a value, or refused in a line that says what is valid."""

import ast
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

MOST_SEEDS = 1000


def _matching(name: str, pattern: str, make: Callable[[str], Any], told: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise click.BadParameter(f"must be {told}, not {text!r}")
        return make(text)

    parse.__name__ = name  # what help calls the value
    return parse


natural = _matching("n", r"\d+", int, "a whole number from 0 up")
positive = _matching("n", r"0*[1-9]\d*", int, "a whole number from 1 up")
_GIGABYTES = 'a number of gigabytes above 0, such as "8"'
gigabytes = _matching("gb", r"(?=.*[1-9])\d{1,6}(\.\d+)?", lambda text: float(text) * 2**30, _GIGABYTES)


def seeds(text: str) -> list[int]:
    """ "0..9", "7", "0,3,5..7": the seeds, each once, in order."""
    if re.fullmatch(r"\d{1,9}(\.\.\d{1,9})?(,\d{1,9}(\.\.\d{1,9})?)*", text, re.ASCII):
        found = re.findall(r"(\d+)(?:\.\.(\d+))?", text)
        spans = [range(int(first), int(last or first) + 1) for first, last in found]
        if all(spans) and sum(map(len, spans)) <= MOST_SEEDS:
            return sorted(set().union(*spans))
    raise click.BadParameter(f'must be seeds in rising order, at most {MOST_SEEDS}, such as "0..9", not {text!r}')


def setting(text: str) -> tuple[str, Any]:
    """ "k=3": a parameter and its value, which is text where it is nothing else."""
    name, _, value = text.partition("=")
    if not (name.isidentifier() and value):
        raise click.BadParameter(f'must be NAME=VALUE, such as "k=3", not {text!r}')
    if name in ("profile", "seed"):
        raise click.BadParameter(f"{name} has an option of its own: --{name}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return name, value


def address(text: str) -> str:
    """Of a Dask scheduler that answers."""
    found = re.fullmatch(r"(?:tcp|tls)://([\w.-]+|\[[\da-fA-F:]+\]):(\d{1,5})", text, re.ASCII)
    if not found:
        raise click.BadParameter(f'must be an address such as "tcp://host:8786", not {text!r}')
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise click.BadParameter(f"no scheduler answers at {text} ({error}); start one: dask scheduler") from error
    return text


def folder(text: str) -> Path:
    if not text or "\0" in text or (Path(text).exists() and not Path(text).is_dir()):
        raise click.BadParameter(f"must be a folder, there or yet to be made, not {text!r}")
    return Path(text)
