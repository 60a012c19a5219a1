"""Experiments of many runs, each with a table, a figure and the numbers behind them.

    python experiments.py weights          the four experiments: shared and separate tables at two pairs of weights
    python experiments.py sweep            many weights and weighting methods, in the plane of both metrics
    python experiments.py zoo              the networks of the zoo side by side
    python experiments.py dyadic           the dyadic learner: four tasks together against each alone
    python experiments.py folds            cross-validation of one model, on random folds or the published u1 to u5
    python experiments.py search           random trials of settings, by which --preset ensemble was chosen
    python experiments.py report           one page of all results, with answers to the homework's questions
    python experiments.py weights --quick  the same in two minutes, on a small simulated data set

Five seeds each. Finished runs are not repeated; --help lists the options. Results go to results/.
"""

import argparse
import os
import sys
from pathlib import Path

from config.cli import Parser
from config.errors import EXIT_OK, UserError
from sources.catalog import DATASETS
from training.console import log, run_command

INTERRUPTED = "stopped; the same command goes on with what is not finished"
DEFAULT_FOLDERS = {
    "weights": "multitask", "sweep": "multitask", "zoo": "zoo", "dyadic": "dyadic", "folds": "folds",
    "search": "search",
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 an error that the user can fix, 130 ended by Ctrl-C."""
    return run_command("experiments.py", lambda: run(parse(argv)), INTERRUPTED)


def run(options: argparse.Namespace) -> int:
    commands = {"weights": multitask, "sweep": multitask, "zoo": zoo, "dyadic": dyadic}
    commands |= {"folds": folds, "search": search, "report": report}
    commands[options.command](options)
    return EXIT_OK


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Raises UserError where an option is unknown or out of range."""
    options = _make_parser().parse_args(argv)
    if options.command == "report":
        options.folder = Path(options.folder)
        return options
    for name, least in {"seeds": 1, "jobs": 1, "trials": 1, "folds": 2}.items():
        if not least <= getattr(options, name, least) <= 1000:
            raise UserError(f"--{name} must be at least {least} and at most 1000, not {getattr(options, name)}")
    if options.quick and options.command != "folds":
        options.seeds = min(options.seeds, 2)
    default = f"results/{DEFAULT_FOLDERS[options.command]}{'-quick' if options.quick else ''}"
    options.folder = Path(options.folder or default)
    return options


def _make_parser() -> Parser:
    parser = Parser(prog="experiments.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="EXPERIMENT")

    def add(name: str, summary: str) -> Parser:
        return commands.add_parser(name, help=summary, allow_abbrev=False)

    weights = add("weights", "the four experiments: tables and weights, curves and a table")
    sweep = add("sweep", "many weights and weighting methods, MRR against MSE")
    zoo = add("zoo", "the networks of the zoo, on view and like labels")
    dyadic = add("dyadic", "the dyadic learner, four tasks together against each alone")
    folds = add("folds", "cross-validation: RMSE and MRR of one model over folds")
    search = add("search", "trials of settings for both tasks at once, on validation parts")
    report = add("report", "report.md and report.html of all results")
    for command in (weights, sweep):
        command.add_argument("--epochs", type=int, metavar="N", help="epochs of every run (default: 30; quick: 6)")
    _add_options_of_folds(folds)
    for command in (weights, sweep, zoo, folds):
        command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="as for main.py")
    dyadic.add_argument(
        "--scale", type=float, default=0.1, metavar="FRACTION", help="size of the simulated platform (default: 0.1)"
    )
    search.add_argument("--trials", type=int, default=5, metavar="N", help="draws of settings (default: 5; quick: 3)")
    report.add_argument("--folder", metavar="DIR", default="results", help="folder of the results (default: results)")
    for name, command in commands.choices.items():
        if name != "report":
            _add_common_options(command, DEFAULT_FOLDERS[name])
        if name not in ("report", "folds"):
            command.add_argument(
                "--seeds", type=int, default=5, metavar="N", help="seeds, each another split (default: 5)"
            )
    return parser


def _add_options_of_folds(command: Parser) -> None:
    command.add_argument("--model", metavar="NAME", help="as for main.py")
    command.add_argument("--preset", metavar="NAME", help="as for main.py")
    command.add_argument("--epochs", type=int, metavar="N", help="as for main.py")
    command.add_argument("--ratings", metavar="FILE", help="as for main.py")
    command.add_argument("--rating_scale", type=float, nargs=2, metavar=("LOW", "HIGH"), help="as for main.py")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--folds", type=int, default=5, metavar="K", help="number of random folds (default: 5)")
    which.add_argument("--published", action="store_true", help="the folds u1 to u5 of MovieLens 100K")


def _add_common_options(command: Parser, folder: str) -> None:
    command.add_argument("--quick", action="store_true", help="fewer runs and epochs, small simulated data")
    command.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="runs at a time (default: one per CPU)"
    )
    command.add_argument("--dataset", choices=DATASETS, default="auto", help="as for main.py (default: auto)")
    command.add_argument("--data_dir", metavar="DIR", help="as for main.py")
    command.add_argument("--folder", metavar="DIR", help=f"folder of the results (default: results/{folder})")


def multitask(options: argparse.Namespace) -> None:
    """weights and sweep: the multi-task net under other weights; runs that both need are run once."""
    from analysis import configuration, sweep, weights

    common = {"data_dir": options.data_dir, "device": options.device}
    common |= configuration.QUICK if options.quick else {"dataset": resolve_dataset(options)}
    if options.epochs is not None:
        common["epochs"] = options.epochs
    experiment = {"weights": weights, "sweep": sweep}[options.command]
    show(experiment.run(options.folder, common, options.seeds, options.jobs, log, options.quick))


def zoo(options: argparse.Namespace) -> None:
    from analysis import zoo as experiment

    settings = experiment.QUICK if options.quick else experiment.SETTINGS | {"dataset": resolve_dataset(options)}
    common = settings | {"data_dir": options.data_dir, "device": options.device}
    show(experiment.run(options.folder, common, options.seeds, options.jobs, log))


def dyadic(options: argparse.Namespace) -> None:
    """Four tasks together against each alone, on ratings under both mappings and on the simulated platform."""
    from analysis import dyadic as experiment

    if options.quick:
        worlds, learner = experiment.make_worlds(experiment.QUICK_RATINGS, experiment.QUICK_SCALE), experiment.QUICK
    else:
        ratings = {"dataset": resolve_dataset(options), "data_dir": options.data_dir}
        worlds, learner = experiment.make_worlds(ratings, options.scale), experiment.FIXED
    show(experiment.run(options.folder, worlds, options.seeds, options.jobs, learner, log=log))


def folds(options: argparse.Namespace) -> None:
    """Cross-validation of one model."""
    from analysis import folds as experiment

    names = ("model", "preset", "epochs", "device")
    flags = [f"--{name}={getattr(options, name)}" for name in names if getattr(options, name) is not None]
    if options.published:
        if options.ratings or options.rating_scale or options.quick or options.dataset not in ("auto", "ml-100k"):
            raise UserError("--published names the data: leave out --dataset, --ratings, --rating_scale and --quick")
        configs = experiment.make_published_configs(flags, options.data_dir)
    else:
        configs = experiment.make_configs([*_data_flags_of_folds(options), *flags], options.folds)
    show(experiment.run(options.folder, configs, options.jobs, log))


def _data_flags_of_folds(options: argparse.Namespace) -> list[str]:
    from analysis.folds import QUICK

    if options.quick:
        if options.ratings:
            raise UserError("--quick is on simulated data: leave out --ratings")
        return list(QUICK)
    if options.ratings is None:
        names = {"dataset": resolve_dataset(options), "data_dir": options.data_dir}
    else:
        names = {"ratings": options.ratings, "data_dir": options.data_dir}
        if options.dataset != "auto":
            names["dataset"] = options.dataset
    flags = [f"--{name}={value}" for name, value in names.items() if value is not None]
    return flags + (["--rating_scale", *map(str, options.rating_scale)] if options.rating_scale else [])


def search(options: argparse.Namespace) -> None:
    """Random trials of the multi-task net on validation parts; writes trials.csv, effects.csv and ensemble.json."""
    from analysis import configuration
    from analysis import search as experiment

    ratings = {"data_dir": options.data_dir}
    common = configuration.QUICK if options.quick else ratings | {"dataset": resolve_dataset(options)}
    trials = min(options.trials, 3) if options.quick else options.trials
    for path in experiment.run(options.folder, common, options.seeds, options.jobs, trials, log):
        log(f"wrote {path}")


def report(options: argparse.Namespace) -> None:
    """One page of all results."""
    from analysis import report as page

    for path in page.write(options.folder):
        log(f"wrote {path}")


def resolve_dataset(options: argparse.Namespace) -> str:
    """Load the data set to resolve --dataset auto and to find errors before any run; print its notes."""
    from dataset import load

    data = load(options.dataset, options.data_dir)
    for note in data.notes:
        log(f"note: {note}")
    return data.name


def show(paths: list[Path]) -> None:
    """Print the names of the files and the text of the table."""
    for path in paths:
        log(f"wrote {path}")
    log(next(path for path in paths if path.suffix == ".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
