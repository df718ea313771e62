"""Command line: `python -m mialib run|list|fetch|targets|publish|carry|cite|site|score` (`--help` tells more)."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

# Whatever takes long to import is imported where it is needed: help comes at once, and Ctrl-C meets `main`.
from companion import options
from mialib import config


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 something failed. Exits with 2 when the command is refused."""
    try:
        return commands.main(arguments, "python -m mialib", standalone_mode=False) or 0
    except click.Abort:  # click has ended the line that was being written
        print("Interrupted. What is done is kept; without --fresh, the same command goes on.", file=sys.stderr)
        return 130
    except click.ClickException as error:
        print(f"Error: {_refusal(error)}", file=sys.stderr)
        sys.exit(2)


def _refusal(error: click.ClickException) -> str:
    """One line: what is wrong, and what is valid where that is a matter of commands and options."""
    said, context = " ".join(error.format_message().split()), getattr(error, "ctx", None)
    if context is None or isinstance(error, click.BadParameter):
        return said
    named = [name for each in context.command.params for name in each.opts if name.startswith("-")]
    valid = ", ".join(getattr(context.command, "commands", named)) or "no options"
    return f"{said.rstrip('.')}; valid: {valid}"


@contextmanager
def _refused(*errors: type[Exception]) -> Iterator[None]:
    """What is wrong with a command in words of the functions that it calls."""
    try:
        yield
    except (ValueError, *errors) as error:
        raise click.ClickException(str(error)) from error


def _profile(default: str) -> Callable:
    return click.option("--profile", type=click.Choice(config.PROFILES), default=default, show_default=True)


def _names(what: str) -> Callable:
    return click.argument("names", nargs=-1, metavar=f"[{what}]...")


_SEED = click.option("--seed", type=options.natural, help="Seed of all random streams (default 0).")
_OUT = click.option("--out", type=options.folder, help="Where results go (default build/PROFILE).")


@click.group(no_args_is_help=False)
def commands() -> None:
    """Runs the notebooks behind the figures, and looks after their data.

    A notebook is named by its number ("01") or its file's stem; where none is named, all are meant.
    """


@commands.command()
@_names("NOTEBOOK")
@_profile("demo")
@_SEED
@click.option("--seeds", type=options.seeds, metavar="A..B", help='A sweep over seeds, such as "0..9" or "0,3,5..7".')
@_OUT
@click.option("--set", "settings", type=options.setting, multiple=True, metavar="NAME=VALUE", help="A parameter.")
@click.option("--workers", type=options.positive, help="Cores in all (default: $MIALIB_WORKERS, else every core).")
@click.option("--parallel", type=options.positive, help="Notebooks at once (default: in demo as --workers, else 1).")
@click.option("--memory", type=options.gigabytes, help="Memory for all at once (default: what is free).")
@click.option("--scheduler", type=options.address, help="Dask scheduler to train on.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object an event and nothing else.")
@click.option("--fresh", is_flag=True, help="Run everything again, keep nothing.")
def run(names, profile, seed, seeds, out, settings, workers, parallel, memory, scheduler, as_json, fresh) -> int:
    """Run notebooks and print a scorecard.

    Writes executed notebooks, HTML, figures and logs. A notebook that is done, and whose cells, parameters, data,
    libraries and the code that it uses are unchanged since, is kept: an interrupted run resumes. --seeds and --set make
    it a sweep: one folder a run under build/PROFILE/sweep, and a table of every cell with its mean and 95 % interval
    over the seeds.
    """
    from companion import jobs, live

    if seeds and seed is not None:
        raise click.ClickException("--seed and --seeds are not allowed together: give one of them")
    if len(dict(settings)) < len(settings):
        raise click.ClickException("--set: a parameter is set twice; it takes one value")
    with _refused():
        if parallel or os.environ.get("MIALIB_WORKERS"):  # else counted where something is to run, as it takes long
            workers = workers or config.workers()
    if parallel and parallel > workers:
        raise click.ClickException(f"--parallel: {parallel} at once need as many --workers, not {workers}")
    planned, tell = _plan(names, profile, seed, out, dict(settings)), live.json_lines if as_json else live.lines()
    if is_sweep := bool(seeds or settings):
        from companion import sweep

        planned = sweep.spread(planned, seeds or [seed or 0])
    out = planned[0].out.parent if is_sweep else planned[0].out
    failures, left = {}, planned if fresh else jobs.keep(planned, tell)
    if left:
        from companion import runner

        failures = runner.run(left, fresh, workers, parallel, memory, scheduler or "", tell, len(planned))
    table = sweep.write(sweep.finished(planned[0], out), out) if is_sweep else None
    if as_json:
        tell({"event": "end", "of": len(planned), "failed": failures, "out": str(out), "table": table and str(table)})
    elif table:
        print(f"\n{sweep.shown(table)}\n\nIn {os.path.relpath(table)}; each run in a folder beside it.")
    else:
        print(live.results(out))
    if failures and not as_json:
        print(f"\n{len(failures)} of {len(planned)} notebooks failed; as far as they came they are in the logs folder:")
        print(*(f"  {name}: {error}" for name, error in failures.items()), sep="\n")
    return 1 if failures else 0


def _plan(names, profile, seed, out, settings):
    from companion import jobs

    with _refused():
        return jobs.plan(names, profile, seed or 0, out or config.ROOT / "build" / profile, jobs.NOTEBOOKS, settings)


@commands.command("list")
@_profile("demo")
@_SEED
@_OUT
def list_notebooks(profile, seed, out) -> None:
    """List the notebooks and their state."""
    from companion import jobs

    for job in _plan([], profile, seed, out, {}):
        print(f"{job.stem:<36} {jobs.state(job):<12} {jobs.title(job.source)}")


@commands.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def fetch(names) -> None:
    """Download data sets, such as purchase or texas, and check them."""
    from mialib.data import datasets

    for name in names:
        with _refused(OSError):
            _print(datasets.fetch(name), f"{name}: ")


@commands.command()
@_names("TARGET")
@_profile("laptop")
@click.option("--keep", is_flag=True, help="Copy the weights and logs to data/targets afterwards.")
def targets(names, profile, keep) -> None:
    """Train target models, such as cifar-100-alexnet of Rezaei & Liu 2020 or caltech-101-resnet of Zou et al. 2020.

    One process a core, a checkpoint an epoch: the same command resumes. In laptop only notebook 19 needs it, of the two
    AlexNets, and it takes hours: the weights are in data/targets. Without names all are trained, for days on a CPU.
    """
    from mialib import papers
    from mialib.models import targets

    with _refused(FileNotFoundError):
        known = {name: target for name, target in papers.targets(profile).items() if target.epochs}
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"cannot train {unknown[0]!r}; valid in profile {profile}: {', '.join(known)}")
        wanted = {name: known[name] for name in names or known}
        _print(targets.train_all(wanted, profile))
        for name, target in wanted.items() if keep else ():
            _print(targets.keep(name, target, profile))
    print("Notebooks already run do not see new weights by themselves: run them again with --fresh.")


@commands.command()
@_names("NOTEBOOK")
def publish(names) -> None:
    """Copy the laptop profile's notebooks and figures to be committed."""
    from companion import publish

    with _refused():
        _print(publish.publish(config.ROOT / "build" / "laptop", names=names))


@commands.command()
@click.argument("before", type=options.folder)
def carry(before) -> None:
    """Keep committed notebooks whose code or cells changed and whose numbers did not.

    Compares BEFORE, a demo run by the code that made the committed notebooks (such as ../before/build/demo), with
    build/demo, run by the present code on the same machine. Where all values are equal, and all that changed cells
    show, notebooks count as made by the present code. Readings are made anew, from the committed records.
    """
    from companion import publish

    with _refused():
        _print(publish.carry(before, config.ROOT / "build" / "demo"))
    print("The overview runs in seconds: make figures PROFILE=laptop NOTEBOOKS=00 && make publish NOTEBOOKS=00")


@commands.command()
@click.argument("name", metavar="EXHIBIT")
def cite(name) -> None:
    """Print caption, BibTeX and LaTeX lines of an exhibit: number ("04"), file stem, or id ("shokri-fig4")."""
    from companion import citing, jobs

    figures = config.ROOT / "figures"
    with _refused():
        record = citing.find(name, figures)
        print(citing.cite(record, jobs.title(jobs.NOTEBOOKS / f"{record['notebook']}.ipynb"), figures))


@commands.command()
def site() -> None:
    """Make a static site from the committed notebooks, in build/site."""
    from companion import site

    with _refused():
        pages = site.build(config.ROOT / "build" / "site")
    print(f"{len(pages)} pages; open {os.path.relpath(pages[0])} in a browser")


@commands.command()
@click.argument("file", type=Path)
@click.option("--out", type=options.folder, help="Where the ROC figure goes (default build/score).")
def score(file, out) -> None:
    """Measure scores, or the attacks that logits allow, from a FILE.

    A .csv has a column `member` (1 and 0) and one of numbers for each score, larger for a likelier member. An .npz has
    arrays of the same names, or `logits` (models, records, queries, classes), the target first, `member` (models,
    records) and the true classes `y`. Prints AUC, balanced accuracy and TPR at low FPR with intervals, and draws the
    ROC curves on logarithmic axes.
    """
    from mialib import work
    from mialib.results import brought

    with _refused():
        given = brought.read(file)
    print(brought.shown(given, brought.measured(given)))
    figure = (out or config.ROOT / "build" / "score") / f"{file.stem}_roc.png"
    work.write_atomic(figure, brought.drawn(given, file.name))
    _print([figure], "\nROC: ")


def _print(paths: Iterable[Path], before: str = "") -> None:
    for path in paths:
        print(f"{before}{os.path.relpath(path)}")


def start() -> int:
    sys.stdout.reconfigure(errors="replace")  # a terminal that knows no "…" is no reason to fail
    return main()


if __name__ == "__main__":
    sys.exit(start())
