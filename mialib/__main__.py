"""Command line: `python -m mialib run|list|fetch|targets|calibrate|publish|carry|cite|site` (`--help` tells more)."""

import argparse
import ast
import os
import re
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

# Whatever takes long to import is imported where it is needed: help comes at once, and Ctrl-C meets `main`.
from mialib import config, live

MOST_SEEDS = 1000


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, exit code 2; argparse would print its usage first."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 something failed. Exits with 2 when the command is refused."""
    try:
        args, unknown = _parser().parse_known_args(arguments)
        if unknown:
            args.refuse(f"unknown argument {unknown[0]!r}; {' '.join(args.usage().split())}")
        return args.call(args)
    except KeyboardInterrupt:
        print("\nInterrupted. What is done is kept; without --fresh, the same command goes on.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m mialib",
        description="Runs the notebooks behind the figures, and looks after their data.",
        epilog="run and list take --profile demo|laptop|paper, --seed N and --out FOLDER; run also takes notebooks, "
        "--workers N, --parallel N, --memory GB, --seeds A..B, --set NAME=VALUE, --scheduler ADDRESS, --json and "
        "--fresh. An interrupted run resumes: what is done and unchanged is kept.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="run notebooks and print a scorecard",
        description="Runs notebooks; writes executed notebooks, HTML, figures and logs. A notebook that is done, and "
        "whose cells, parameters, data, libraries and mialib's source are unchanged since, is kept: an interrupted run "
        "resumes. --seeds and --set make it a sweep: one folder a run under build/PROFILE/sweep, and a table of every "
        "cell with its mean and 95 % interval over the seeds.",
    )
    run.add_argument("names", nargs="*", metavar="NOTEBOOK", help='number ("01") or file stem; none means all')
    run.add_argument("--workers", type=_whole_number(1), help="cores to use in all (default: every core)")
    run.add_argument(
        "--parallel",
        type=_whole_number(1),
        help="notebooks at once, each with its share of the workers (default: as many as workers in demo, else 1)",
    )
    run.add_argument(
        "--memory", type=_gigabytes, metavar="GB", help="memory for all notebooks at once (default: what is free)"
    )
    run.add_argument("--set", type=_setting, action="append", metavar="NAME=VALUE", help="a notebook's parameter")
    run.add_argument("--scheduler", type=_address, help="Dask scheduler to train on, tcp://HOST:PORT")
    run.add_argument("--json", action="store_true", help="print one JSON object an event and nothing else")
    run.add_argument("--fresh", action="store_true", help="run everything again, keep nothing")
    listing = commands.add_parser("list", help="list the notebooks and their state")
    for command in (run, listing):
        command.add_argument("--profile", default="demo", help=f"{', '.join(config.PROFILES)} (default demo)")
        seeds = command.add_mutually_exclusive_group()
        seeds.add_argument("--seed", type=_whole_number(0), default=0, help="seed of all random streams (default 0)")
        if command is run:
            seeds.add_argument("--seeds", type=_seeds, metavar="A..B", help='several, such as "0..9" or "0,3,5..7"')
        command.add_argument("--out", type=_folder, help="folder for the results (default build/PROFILE)")
    fetch = commands.add_parser("fetch", help="download data sets and check them")
    fetch.add_argument("names", nargs="+", metavar="NAME", help="data set, such as purchase or texas")
    targets = commands.add_parser(
        "targets",
        help="train the target models of Rezaei & Liu 2020",
        description="Trains target models, one process a core, a checkpoint an epoch: the same command resumes. In "
        "laptop this takes hours, and no notebook needs it: the weights are in data/targets.",
    )
    targets.add_argument("names", nargs="*", metavar="TARGET", help='such as "cifar-100-alexnet"; none means all')
    targets.add_argument("--profile", default="laptop", help=f"{', '.join(config.PROFILES)} (default laptop)")
    targets.add_argument("--keep", action="store_true", help="copy the weights and logs to data/targets afterwards")
    calibrate = commands.add_parser("calibrate", help="show how well the simulators fit what is published")
    publish = commands.add_parser("publish", help="copy the laptop profile's notebooks and figures to be committed")
    publish.add_argument("names", nargs="*", metavar="NOTEBOOK", help='number ("01") or file stem; none means all')
    carry = commands.add_parser(
        "carry",
        help="keep committed notebooks whose code changed and whose numbers did not",
        description="Compares a demo run by the code that made the committed notebooks with build/demo, run by the "
        "present code on the same machine. Where all values are equal, notebooks count as made by the present code.",
    )
    carry.add_argument(
        "before", type=_folder, metavar="FOLDER", help="results of the former code, such as ../before/build/demo"
    )
    cite = commands.add_parser("cite", help="print caption, BibTeX and LaTeX lines of an exhibit")
    cite.add_argument("name", metavar="EXHIBIT", help='notebook number ("04"), file stem, or id ("shokri-fig4")')
    pages = commands.add_parser("site", help="make a static site from the committed notebooks, in build/site")

    calls = {run: _run, listing: _list, fetch: _fetch, targets: _targets, calibrate: _calibrate, publish: _publish}
    calls |= {carry: _carry, cite: _cite, pages: _site}
    for command, call in calls.items():
        command.set_defaults(call=call, refuse=command.error, usage=command.format_usage)
    return parser


def _whole_number(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} up, not {text!r}")
        return int(text)

    return parse


def _gigabytes(text: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d+)?", text, re.ASCII) or float(text) <= 0:
        raise argparse.ArgumentTypeError(f'must be a number of gigabytes above 0, such as "8", not {text!r}')
    return float(text) * 2**30


def _seeds(text: str) -> list[int]:
    """ "0..9", "7", "0,3,5..7": the seeds, each once, in order."""
    seeds: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,9})(?:\.\.(\d{1,9}))?", part, re.ASCII)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last or last - first >= MOST_SEEDS:
            raise argparse.ArgumentTypeError(
                f'must be seeds such as "0..9" or "0,3,5..7", at most {MOST_SEEDS}, not {text!r}'
            )
        seeds.update(range(first, last + 1))
    if len(seeds) > MOST_SEEDS:
        raise argparse.ArgumentTypeError(f"must be at most {MOST_SEEDS} seeds, not {len(seeds)}")
    return sorted(seeds)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier() and value):
        raise argparse.ArgumentTypeError(f'must be NAME=VALUE, such as "k=3", not {text!r}')
    if name in ("profile", "seed"):
        raise argparse.ArgumentTypeError(f"{name} has an option of its own: --{name}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return name, value


def _address(text: str) -> str:
    found = re.fullmatch(r"(?:tcp|tls)://([\w.-]+|\[[\da-fA-F:]+\]):(\d{1,5})", text, re.ASCII)
    if not found:
        raise argparse.ArgumentTypeError(f'must be an address such as "tcp://host:8786", not {text!r}')
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise argparse.ArgumentTypeError(
            f"no scheduler answers at {text} ({error}); start one: dask scheduler"
        ) from error
    return text


def _folder(text: str) -> Path:
    if not text or "\0" in text or (Path(text).exists() and not Path(text).is_dir()):
        raise argparse.ArgumentTypeError(f"must be a folder, there or yet to be made, not {text!r}")
    return Path(text)


def _jobs(args: argparse.Namespace, names: list[str], settings: dict[str, Any]):
    """The `batch.Job`s asked for, on all cores each."""
    from mialib import batch

    out = args.out or config.ROOT / "build" / args.profile
    try:
        workers = getattr(args, "workers", None) or config.workers()
        return batch.plan(names, args.profile, args.seed, workers, out, batch.NOTEBOOKS, settings)
    except ValueError as error:
        args.refuse(str(error))


def _run(args: argparse.Namespace) -> int:
    from mialib import batch

    settings = dict(args.set or ())
    if len(settings) < len(args.set or ()):
        args.refuse("argument --set: a parameter is set twice; it takes one value, seeds are what a sweep is over")
    jobs = _jobs(args, args.names, settings)
    if (args.parallel or 1) > jobs[0].workers:
        args.refuse(f"argument --parallel: {args.parallel} at once need as many --workers, not {jobs[0].workers}")
    out = jobs[0].out
    if args.seeds or settings:
        from mialib import sweep

        jobs = sweep.spread(jobs, args.seeds or [args.seed])
        out = jobs[0].out.parent
    parallel = min(args.parallel or (jobs[0].workers if args.profile == "demo" else 1), len(jobs))
    jobs = [replace(job, workers=max(1, job.workers // parallel), scheduler=args.scheduler or "") for job in jobs]
    tell = live.json_lines if args.json else live.lines()
    failures = batch.run(jobs, args.fresh, parallel, args.memory, tell)
    table = None
    if args.seeds or settings:
        table = sweep.write(sweep.finished(jobs[0], out), out)
    if args.json:
        tell({"event": "end", "of": len(jobs), "failed": failures, "out": str(out), "table": table and str(table)})
        return 1 if failures else 0
    if table:
        print(f"\n{sweep.shown(table)}\n\nIn {os.path.relpath(table)}; each run in a folder beside it.")
    else:
        _show_results(out)
    if failures:
        print(f"\n{len(failures)} of {len(jobs)} notebooks failed; as far as they came they are in the logs folder:")
        for name, error in failures.items():
            print(f"  {name}: {error}")
    return 1 if failures else 0


def _show_results(out: Path) -> None:
    """The scorecard and where to look."""
    from mialib import batch

    if card := batch.scorecard(out):
        print(f"\n{card}")
    print("\nLook into:")
    for folder, what in (
        ("html", "the notebooks as pages"),
        ("notebooks", "the executed notebooks"),
        ("figures", "figures, tables and records"),
        ("logs", "what they printed"),
    ):
        print(f"  {os.path.relpath(out / folder):<28} {what}")


def _list(args: argparse.Namespace) -> int:
    from mialib import batch

    for job in _jobs(args, [], {}):
        print(f"{job.stem:<36} {batch.state(job):<12} {batch.title(job.source)}")
    return 0


def _fetch(args: argparse.Namespace) -> int:
    for name in args.names:
        try:
            from mialib import datasets  # which reads the registry, and refuses a bad one

            paths = datasets.fetch(name)
        except (ValueError, OSError) as error:
            args.refuse(str(error))
        for path in paths:
            print(f"{name}: {os.path.relpath(path)}")
    return 0


def _targets(args: argparse.Namespace) -> int:
    from mialib import targets

    try:
        names = args.names or [name for name, target in config.targets(args.profile).items() if target.epochs]
        for path in targets.train_all(names, args.profile):
            print(os.path.relpath(path))
        for path in (path for name in names if args.keep for path in targets.keep(name, args.profile)):
            print(os.path.relpath(path))
    except (ValueError, FileNotFoundError) as error:
        args.refuse(str(error))
    print("Notebooks already run do not see new weights by themselves: run them again with --fresh.")
    return 0


def _calibrate(args: argparse.Namespace) -> int:
    from mialib import calibration

    calibration.main()
    return 0


def _publish(args: argparse.Namespace) -> int:
    from mialib import batch

    try:
        paths = batch.publish(config.ROOT / "build" / "laptop", names=args.names)
    except ValueError as error:
        args.refuse(str(error))
    for path in paths:
        print(os.path.relpath(path))
    return 0


def _carry(args: argparse.Namespace) -> int:
    from mialib import batch

    try:
        paths = batch.carry(args.before, config.ROOT / "build" / "demo")
    except ValueError as error:
        args.refuse(str(error))
    for path in paths:
        print(os.path.relpath(path))
    print("The overview runs in seconds: make figures PROFILE=laptop NOTEBOOKS=00 && make publish NOTEBOOKS=00")
    return 0


def _cite(args: argparse.Namespace) -> int:
    from mialib import batch, citing

    figures = config.ROOT / "figures"
    try:
        record = citing.find(args.name, figures)
    except ValueError as error:
        args.refuse(str(error))
    title = batch.title(batch.NOTEBOOKS / f"{record['notebook']}.ipynb")
    print(citing.cite(record, title, figures))
    return 0


def _site(args: argparse.Namespace) -> int:
    from mialib import site

    try:
        pages = site.build(config.ROOT / "build" / "site")
    except ValueError as error:
        args.refuse(str(error))
    print(f"{len(pages)} pages; open {os.path.relpath(pages[0])} in a browser")
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a terminal that knows no "…" is no reason to fail
    sys.exit(main())
