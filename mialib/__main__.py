"""Command line: `python -m mialib run|list|fetch|targets|calibrate|publish` (`--help` tells more)."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from mialib import batch, config


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, exit code 2; argparse would print its usage first."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 something failed. Exits with 2 when the command is refused."""
    args, unknown = _parser().parse_known_args(arguments)
    if unknown:
        args.refuse(f"unknown argument {unknown[0]!r}; {' '.join(args.usage().split())}")
    try:
        return args.call(args)
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on where this one stopped.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m mialib",
        description="Runs the notebooks behind the figures, and looks after their data.",
        epilog="run and list take --profile demo|laptop|paper, --seed N and --out FOLDER; run also takes notebooks, "
        "--workers N and --fresh. An interrupted run resumes: what is done and unchanged is kept.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="run notebooks and print a scorecard",
        description="Runs notebooks; writes executed notebooks, HTML, figures and logs. A notebook that is done, and "
        "whose cells, parameters and mialib's source are unchanged since, is kept: an interrupted run resumes.",
    )
    run.add_argument("names", nargs="*", metavar="NOTEBOOK", help='number ("01") or file stem; none means all')
    run.add_argument("--workers", type=_whole_number(1), help="worker processes for training (default: one a core)")
    run.add_argument("--fresh", action="store_true", help="run everything again, keep nothing")
    listing = commands.add_parser("list", help="list the notebooks and their state")
    for command in (run, listing):
        command.add_argument("--profile", default="demo", help=f"{', '.join(config.PROFILES)} (default demo)")
        command.add_argument("--seed", type=_whole_number(0), default=0, help="seed of all random streams (default 0)")
        command.add_argument("--out", type=Path, help="folder for the results (default build/PROFILE)")
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

    calls = {run: _run, listing: _list, fetch: _fetch, targets: _targets, calibrate: _calibrate, publish: _publish}
    for command, call in calls.items():
        command.set_defaults(call=call, refuse=command.error, usage=command.format_usage)
    return parser


def _whole_number(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} up, not {text!r}")
        return int(text)

    return parse


def _jobs(args: argparse.Namespace, names: list[str], workers: int) -> list[batch.Job]:
    out = args.out or config.ROOT / "build" / args.profile
    try:
        return batch.plan(names, args.profile, args.seed, workers, out, batch.NOTEBOOKS)
    except ValueError as error:
        args.refuse(str(error))


def _run(args: argparse.Namespace) -> int:
    jobs = _jobs(args, args.names, args.workers or config.workers())
    failures = batch.run(jobs, args.fresh)
    out = jobs[0].out
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
    if failures:
        print(f"\n{len(failures)} of {len(jobs)} notebooks failed; as far as they came they are in the logs folder:")
        for stem, error in failures.items():
            print(f"  {stem}: {error}")
    return 1 if failures else 0


def _list(args: argparse.Namespace) -> int:
    for job in _jobs(args, [], 1):
        print(f"{job.stem:<36} {batch.state(job):<12} {batch.title(job.source)}")
    return 0


def _fetch(args: argparse.Namespace) -> int:
    from mialib import datasets  # imports scikit-learn, which the other commands do without

    for name in args.names:
        try:
            paths = datasets.fetch(name)
        except (ValueError, FileNotFoundError) as error:
            args.refuse(str(error))
        for path in paths:
            print(f"{name}: {os.path.relpath(path)}")
    print("Notebooks already run do not see new data by themselves: run them again with --fresh.")
    return 0


def _targets(args: argparse.Namespace) -> int:
    from mialib import targets  # imports torch, which the other commands do without

    try:
        names = args.names or [name for name, target in config.targets(args.profile).items() if target.epochs]
        for path in targets.train_all(names, args.profile):
            print(os.path.relpath(path))
        for path in (path for name in names if args.keep for path in targets.keep(name, args.profile)):
            print(os.path.relpath(path))
    except (ValueError, FileNotFoundError) as error:
        args.refuse(str(error))
    return 0


def _calibrate(args: argparse.Namespace) -> int:
    from mialib import calibration  # imports torch, which the other commands do without

    calibration.main()
    return 0


def _publish(args: argparse.Namespace) -> int:
    try:
        paths = batch.publish(config.ROOT / "build" / "laptop")
    except ValueError as error:
        args.refuse(str(error))
    for path in paths:
        print(os.path.relpath(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
