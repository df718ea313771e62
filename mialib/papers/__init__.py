"""The papers, a package each: sizes.toml (how large its experiments are in each profile), experiments, exhibits."""

import functools
import tomllib
from pathlib import Path
from typing import Any

from mialib import config
from mialib.models.targets import Target


@functools.cache
def sizes(paper: str) -> dict[str, Any]:
    """What sizes.toml of a paper says ("shokri2017")."""
    return tomllib.loads((Path(__file__).parent / paper / "sizes.toml").read_text(encoding="utf-8"))


def targets(profile: str, paper: str = "*") -> dict[str, Target]:
    """The target networks that a paper, or all of them, attack in `profile`, by name ("cifar-100-alexnet")."""
    config.check_profile(profile)
    found = {}
    for path in sorted(Path(__file__).parent.glob(f"{paper}/sizes.toml")):
        for name, about in sizes(path.parent.name).get("targets", {}).get(profile, {}).items():
            about = {key: tuple(value) if isinstance(value, list) else value for key, value in about.items()}
            if found.setdefault(name, target := Target(**about)) != target:
                raise ValueError(f"{path.parent.name}: another paper has a target {name} of another kind; rename it")
    return found
