"""Experiments of many runs, each with a table, a figure and the numbers behind them.

    python experiments.py weights          the four experiments: shared and separate tables at two pairs of weights
    python experiments.py sweep            many weights and weighting methods, in the plane of both metrics
    python experiments.py zoo              the networks of the zoo side by side
    python experiments.py dyadic           the dyadic learner: four tasks together against each alone
    python experiments.py folds            cross-validation of one model, on random folds or the published u1 to u5
    python experiments.py published        one model on splits that papers print results for, beside these results
    python experiments.py search           trials of settings on validation parts; writes the best for --config
    python experiments.py report           one page of all results, with answers to the homework's questions
    python experiments.py export run/NAME --format safetensors   the network of a run for other programs
    python experiments.py weights --quick  the same in two minutes, on a small simulated data set

Five seeds each, on MovieLens 100K; --dataset NAME or --ratings FILE name other data. Finished runs are not repeated;
--help lists the options. Results go to results/.
"""

import argparse
import os
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path

from config.cli import Parser, with_tuples
from config.errors import EXIT_OK, UserError
from sources.catalog import DATASETS
from sources.locks import owned
from training.console import log, run_command
from training.terminal import copyable, fit_markdown, terminal_width

INTERRUPTED = "stopped; the same command goes on with what is not finished"
DATA_FLAGS = ("dataset", "data_dir", "ratings", "rating_scale", "columns")  # they mean the same to all commands
DYAD_FLAGS = ("feedback", "labels", "displayed")  # what names the data of dyadic alone
DEFAULT_FOLDERS = {
    "weights": "multitask", "sweep": "multitask", "zoo": "zoo", "dyadic": "dyadic", "folds": "folds",
    "published": "published", "search": "search",
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 an error that the user can fix, 130 ended by Ctrl-C."""
    return run_command("experiments.py", lambda: run(parse(argv)), INTERRUPTED)


def run(options: argparse.Namespace) -> int:
    commands = {"weights": multitask, "sweep": multitask, "zoo": zoo, "dyadic": dyadic}
    commands |= {"folds": folds, "published": published, "search": search, "report": report, "export": export}
    with nullcontext() if options.command in ("report", "export") else owned(options.folder):
        commands[options.command](options)
    return EXIT_OK


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Raises UserError where an option is unknown or out of range."""
    options = _make_parser().parse_args(argv)
    if options.command == "report":
        options.folder = Path(options.folder)
        return options
    if options.command == "export":
        options.folder = Path(options.folder or f"results/export/{options.run.resolve().name}")
        return options
    for name, least in {"seeds": 1, "jobs": 1, "trials": 1, "folds": 2}.items():
        if not least <= getattr(options, name, least) <= 1000:
            raise UserError(f"--{name} must be at least {least} and at most 1000, not {getattr(options, name)}")
    if options.quick:
        _check_quick(options)
    name = DEFAULT_FOLDERS[options.command]
    if options.command == "search" and options.space != "champion":
        name += f"-{options.space}"
    options.folder = Path(options.folder or f"results/{name}{'-quick' if options.quick else ''}")
    return options


def _check_quick(options: argparse.Namespace) -> None:
    """Fewer seeds, and no data but the simulated ones."""
    ignored = [name for name in (*DATA_FLAGS, *DYAD_FLAGS) if name != "data_dir" and name in _given(options, name)]
    if ignored and options.dataset != "simulated":
        raise UserError(f"--quick is on simulated data: leave out --{ignored[-1]}, or leave out --quick")
    if options.command != "folds":
        options.seeds = min(options.seeds, 2)


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
    published = add("published", "RMSE on published splits, beside the figures of papers")
    search = add("search", "trials of settings for both tasks at once, on validation parts")
    report = add("report", "report.md and report.html of all results")
    for command in (weights, sweep):
        command.add_argument("--epochs", type=int, metavar="N", help="epochs of every run (default: 30; quick: 6)")
    _add_options_of_folds(folds)
    _add_options_of_published(published)
    for command in (weights, sweep, zoo, folds, published, search):
        command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="as for main.py")
    zoo.add_argument(
        "--like_from", type=float, default=4.0, metavar="RATING", help="lowest rating that is a like (default: 4)"
    )
    _add_options_of_dyadic(dyadic)
    _add_options_of_search(search)
    report.add_argument("--folder", metavar="DIR", default="results", help="folder of the results (default: results)")
    exported = add("export", "the network of a run for other programs, as safetensors or ONNX")
    exported.add_argument("run", type=Path, metavar="RUN", help="run folder, such as run/NAME")
    exported.add_argument("--format", required=True, choices=("safetensors", "onnx"), help="kind of file")
    exported.add_argument("--folder", metavar="DIR", help="a new folder (default: results/export/NAME)")
    for name, command in commands.choices.items():
        if name not in ("report", "export"):
            _add_run_options(command, DEFAULT_FOLDERS[name])
        if name not in ("report", "published", "export"):
            _add_data_options(command)
        if name not in ("report", "published", "folds", "export"):
            command.add_argument(
                "--seeds", type=int, default=5, metavar="N", help="seeds, each another split (default: 5)"
            )
    return parser


def _add_options_of_model(command: Parser) -> None:
    command.add_argument("--model", metavar="NAME", help="as for main.py")
    command.add_argument("--preset", metavar="NAME", help="as for main.py")
    command.add_argument("--epochs", type=int, metavar="N", help="as for main.py")


def _add_options_of_published(command: Parser) -> None:
    command.set_defaults(quick=False)
    _add_options_of_model(command)
    command.add_argument(
        "--douban", nargs=2, metavar=("TRAIN", "TEST"),
        help="files of the Douban split of Monti et al. 2017: user, item, rating (default: without)",
    )  # fmt: skip


def _add_options_of_folds(command: Parser) -> None:
    _add_options_of_model(command)
    which = command.add_mutually_exclusive_group()
    which.add_argument("--folds", type=int, default=5, metavar="K", help="number of random folds (default: 5)")
    which.add_argument("--published", action="store_true", help="the folds u1 to u5 of MovieLens 100K")


def _add_options_of_dyadic(command: Parser) -> None:
    command.add_argument(
        "--scale", type=float, default=0.1, metavar="FRACTION", help="size of the simulated platform (default: 0.1)"
    )
    for name in ("min_user", "min_item"):
        command.add_argument(f"--{name}", type=int, metavar="K", help="as for main.py --model dyadic")
    for name, metavar in (("feedback", "FILE"), ("labels", "NAME,NAME,NAME"), ("displayed", "NAME")):
        command.add_argument(f"--{name}", metavar=metavar, help="as for main.py --model dyadic")


def _add_options_of_search(command: Parser) -> None:
    command.add_argument(
        "--space", default="champion", choices=("champion", "homework", "ensemble"),
        help="settings of --model closed_form (default), of the plain multi-task net, or behind --preset ensemble",
    )  # fmt: skip
    command.add_argument("--trials", type=int, default=20, metavar="N", help="settings to try (default: 20; quick: 3)")
    command.add_argument(
        "--sampler", default="auto", choices=("auto", "tpe", "random"),
        help="how settings are chosen; auto: TPE where Optuna is installed, else random draws",
    )  # fmt: skip


def _add_run_options(command: Parser, folder: str) -> None:
    command.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="runs at a time (default: one per CPU)"
    )
    command.add_argument("--data_dir", metavar="DIR", help="as for main.py")
    command.add_argument("--folder", metavar="DIR", help=f"folder of the results (default: results/{folder})")


def _add_data_options(command: Parser) -> None:
    command.add_argument("--quick", action="store_true", help="fewer runs and epochs, small simulated data")
    command.add_argument("--dataset", choices=DATASETS, help="as for main.py (default: auto)")
    command.add_argument("--ratings", metavar="FILE", help="your own file, as for main.py")
    command.add_argument("--rating_scale", type=float, nargs=2, metavar=("LOW", "HIGH"), help="as for main.py")
    command.add_argument("--columns", metavar="ROLE=NAME", help="as for main.py")


def multitask(options: argparse.Namespace) -> None:
    """weights and sweep: the multi-task net under other weights; runs that both need are run once."""
    from analysis import configuration, sweep, weights

    common = {"device": options.device} | (configuration.QUICK if options.quick else data_settings(options))
    if options.epochs is not None:
        common["epochs"] = options.epochs
    experiment = {"weights": weights, "sweep": sweep}[options.command]
    show(experiment.run(options.folder, common, options.seeds, options.jobs, log, options.quick))


def zoo(options: argparse.Namespace) -> None:
    from analysis import zoo as experiment

    common = experiment.QUICK if options.quick else experiment.SETTINGS | data_settings(options)
    common = common | {"device": options.device, "like_from": options.like_from}
    show(experiment.run(options.folder, common, options.seeds, options.jobs, log, options.quick))


def dyadic(options: argparse.Namespace) -> None:
    """Four tasks together against each alone, on ratings or a file of feedback and on the simulated platform."""
    from analysis import dyadic as experiment
    from analysis.dyadic_worlds import make_worlds, require_labels

    if options.quick:
        worlds, learner = make_worlds(experiment.QUICK_RATINGS, experiment.QUICK_SCALE), experiment.QUICK
    else:
        named = _given(options, *DYAD_FLAGS, "min_user", "min_item")
        given = data_settings(options) if options.feedback is None else _given(options, *DATA_FLAGS)
        worlds, learner = make_worlds(given | named, options.scale), experiment.FIXED
        require_labels(worlds)
    files = experiment.run(
        options.folder, worlds, options.seeds, options.jobs, learner, log=log, is_quick=options.quick
    )
    show(files)


def folds(options: argparse.Namespace) -> None:
    """Cross-validation of one model."""
    from analysis import folds as experiment

    flags = _flags_of_model(options)
    if options.published:
        named = [name for name in DATA_FLAGS if name != "data_dir" and getattr(options, name) is not None]
        if options.quick or (named and options.dataset != "ml-100k"):
            raise UserError("--published names the data: leave out --dataset, --ratings, --rating_scale and --quick")
        configs = experiment.make_published_configs(flags, options.data_dir)
    else:
        data = experiment.QUICK if options.quick else as_flags(data_settings(options))
        configs = experiment.make_configs([*data, *flags], options.folds)
    show(experiment.run(options.folder, configs, options.jobs, log))


def published(options: argparse.Namespace) -> None:
    """One model, the champion unless another is named, on published splits."""
    from analysis import published as experiment

    if options.model is None and options.preset is None:
        options.preset = "champion"
    protocols = experiment.make_protocols(_flags_of_model(options), options.data_dir, options.douban)
    show(experiment.run(options.folder, protocols, options.jobs, log))


def _flags_of_model(options: argparse.Namespace) -> list[str]:
    names = ("model", "preset", "epochs", "device")
    return [f"--{name}={getattr(options, name)}" for name in names if getattr(options, name) is not None]


def search(options: argparse.Namespace) -> None:
    """Trials of settings on validation parts, and the best of them as a file for main.py --config."""
    from analysis import configuration
    from analysis import search as experiment
    from analysis.samplers import make_sampler
    from analysis.spaces import SPACES

    common = {"device": options.device} | (configuration.QUICK if options.quick else data_settings(options))
    count = min(options.trials, 3) if options.quick else options.trials
    space = SPACES[options.space]
    sampler = make_sampler(space, options.sampler, log)
    trials = experiment.Trials(space, common, options.seeds, options.folder / "runs", options.jobs, log)
    show(experiment.run(trials, sampler, count, options.folder))
    best = shlex.quote(str(options.folder / experiment.BEST))
    log(copyable("train with the best settings: ", ["python", "main.py", "--config", best], terminal_width(sys.stdout)))


def report(options: argparse.Namespace) -> None:
    """One page of all results."""
    from analysis import report as page

    for path in page.write(options.folder):
        log(f"wrote {path}")


def export(options: argparse.Namespace) -> None:
    """The network of a run for other programs, with ids and titles beside it."""
    from serving import export as exporting
    from serving import load_run

    exporting.require_new_folder(options.folder)
    exporting.require_packages(options.format)
    check = exporting.export(load_run(options.run, "cpu"), options.format, options.folder)
    for path in sorted(options.folder.iterdir()):
        log(f"wrote {path}")
    log(check)


def data_settings(options: argparse.Namespace) -> dict[str, object]:
    """The settings of main.py that name the data: a data set by name, or the user's own file.

    Loads the data once, to find errors before any run and to print the notes.
    """
    from dataset import load
    from registry import make_config

    given = _given(options, *DATA_FLAGS)
    config = make_config(**given)
    data = load(**config.data_options)
    for note in data.notes:
        log(f"note: {note}")
    return given if config.own_files else given | {"dataset": data.name}


def _given(options: argparse.Namespace, *names: str) -> dict[str, object]:
    """Those of these options that the command has and the user gave, by name."""
    return with_tuples({name: getattr(options, name) for name in names if getattr(options, name, None) is not None})


def as_flags(settings: dict[str, object]) -> list[str]:
    """The command line of main.py that gives these settings."""
    flags = []
    for name, value in settings.items():
        flags += [f"--{name}", *map(str, value)] if isinstance(value, tuple) else [f"--{name}={value}"]
    return flags


def show(paths: list[Path]) -> None:
    """Print the names of the files and the text of the table."""
    from training.report import BOX, simulated_box

    for path in paths:
        log(f"wrote {path}")
    text = next(path for path in paths if path.suffix == ".md").read_text(encoding="utf-8")
    width = terminal_width(sys.stdout)
    log(fit_markdown(text.replace(BOX, simulated_box(width)), width))


if __name__ == "__main__":
    sys.exit(main())
