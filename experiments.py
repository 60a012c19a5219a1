"""Experiments of many runs, each with a table, a picture and the numbers behind them.

    python experiments.py weights          the four experiments: shared and separate tables at two pairs of weights
    python experiments.py sweep            many weights and ways to weigh, in the plane of both metrics
    python experiments.py zoo              the networks of the zoo side by side
    python experiments.py dyadic           the dyadic learner: four tasks together against each alone
    python experiments.py search           trials of settings on validation parts, by which --preset champion was chosen
    python experiments.py report           one page of all that has been run, with answers to the homework's questions
    python experiments.py weights --quick  the same in two minutes, on a small simulated world

Five seeds each. What is finished is not run again; --help lists the options. Results go to results/.
"""

import argparse
import os
import sys
from pathlib import Path

from sources.catalog import DATASETS

from analysis.runner import Run, run_all
from config.errors import UserError
from registry import make_config

MULTITASK_QUICK = {"epochs": 6, "dataset": "simulated", "simulated_size": (300, 400, 12_000)}
# One setting for all rows, chosen on the validation part for MMoE alone and the same for every network.
ZOO = {"epochs": 20, "patience": 3, "lr": 5e-3}
ZOO_QUICK = {"epochs": 4, "patience": 3, "lr": 5e-3, "dataset": "simulated", "simulated_size": (300, 400, 12_000)}
# The eight rows that such comparisons show, then ours.
ZOO_ROWS = {
    "MMoE, view only": {"model": "mmoe", "labels": "view"},
    "MMoE, like only": {"model": "mmoe", "labels": "like"},
    "MMoE": {"model": "mmoe"},
    "ESMM": {"model": "esmm"},
    "AITM": {"model": "aitm"},
    "PLE": {"model": "ple"},
    "OMoE": {"model": "omoe"},
    "STEM": {"model": "stem"},
    "single task": {"model": "single"},
    "shared-bottom": {"model": "shared_bottom"},
    "CGC": {"model": "cgc"},
    "ME-MMoE": {"model": "me_mmoe"},
    "ME-PLE": {"model": "me_ple"},
    "AdaTT": {"model": "adatt"},
}
REFERENCE = "single task"


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 something the user can mend, 130 ended by Ctrl-C."""
    try:
        options = parse(argv)
        commands = {"weights": multitask, "sweep": multitask, "zoo": zoo, "dyadic": dyadic}
        commands |= {"search": search, "report": report}
        commands[options.command](options)
    except (UserError, OSError) as error:
        print(f"experiments.py: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("experiments.py: stopped; the same command goes on with what is not finished", file=sys.stderr)
        return 130
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="experiments.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="EXPERIMENT")
    weights = commands.add_parser("weights", help="the four experiments: tables and weights, curves and a table")
    sweep = commands.add_parser("sweep", help="many weights and ways to weigh, MRR against MSE")
    zoo = commands.add_parser("zoo", help="the networks of the zoo, on view and like labels")
    dyadic = commands.add_parser("dyadic", help="the dyadic learner, four tasks together against each alone")
    search = commands.add_parser("search", help="trials of settings for both tasks at once, on validation parts")
    search.add_argument("--trials", type=int, default=5, metavar="N", help="draws of settings (default: 5; quick: 3)")
    report = commands.add_parser("report", help="report.md and report.html of what has been run")
    report.add_argument("--folder", metavar="DIR", default="results", help="that holds the results (default: results)")
    for command in (weights, sweep):
        command.add_argument("--epochs", type=int, metavar="N", help="of every run (default: 30; quick: 6)")
    for command in (weights, sweep, zoo):
        command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"), help="as for main.py")
    dyadic.add_argument(
        "--scale", type=float, default=0.1, metavar="SHARE", help="size of the simulated platform (default: 0.1)"
    )
    named = ((weights, "multitask"), (sweep, "multitask"), (zoo, "zoo"), (dyadic, "dyadic"), (search, "search"))
    for command, name in named:
        command.add_argument("--quick", action="store_true", help="two seeds, few epochs, small simulated data")
        command.add_argument("--seeds", type=int, default=5, metavar="N", help="each another split (default: 5)")
        command.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="runs at a time")
        command.add_argument("--dataset", choices=DATASETS, default="auto", help="as for main.py (default: auto)")
        command.add_argument("--data_dir", metavar="DIR", help="as for main.py")
        command.add_argument("--folder", metavar="DIR", help=f"where results go (default: results/{name})")
        command.set_defaults(name=name)
    options = parser.parse_args(argv)
    if options.command != "report":
        _check(options)
    options.folder = Path(options.folder or f"results/{options.name}{'-quick' if options.quick else ''}")
    return options


def _check(options: argparse.Namespace) -> None:
    for name in ("seeds", "jobs", "trials"):
        if not 1 <= getattr(options, name, 1) <= 1000:
            raise UserError(f"--{name} must be at least 1 and at most 1000, not {getattr(options, name)}")
    if options.quick:
        options.seeds = min(options.seeds, 2)


def multitask(options: argparse.Namespace) -> None:
    """weights and sweep: the multi-task net under other weights; runs that both need are run once."""
    from analysis import sweep, weights

    common = {"data_dir": options.data_dir, "device": options.device}
    common |= MULTITASK_QUICK if options.quick else {"dataset": name_of_data(options)}
    if options.epochs is not None:
        common["epochs"] = options.epochs
    experiment = {"weights": weights, "sweep": sweep}[options.command]
    show(experiment.run(options.folder, common, options.seeds, options.jobs, say, options.quick))


def zoo(options: argparse.Namespace) -> None:
    """All rows of ZOO_ROWS and the baselines, on the same splits; writes table.md, table.csv, runs.csv, table.png."""
    from analysis import zoo as comparison

    common = ZOO_QUICK if options.quick else ZOO | {"dataset": name_of_data(options)}
    runs = [
        Run(row, make_config(**common | about, seed=seed, data_dir=options.data_dir, device=options.device))
        for seed in range(options.seeds)
        for row, about in ZOO_ROWS.items()
    ]
    results = run_all(runs, options.folder / "runs", options.jobs, say)
    results += comparison.measure_baselines([run.config for run in runs if run.row == REFERENCE])
    table = comparison.tabulate(results, REFERENCE)
    show(comparison.write(table, results, options.folder, runs[0].config, options.seeds))


def dyadic(options: argparse.Namespace) -> None:
    """Four tasks together against each alone, on ratings under both mappings and on the simulated platform."""
    from analysis.dyadic import FIXED, QUICK, ratings_world, run, simulated_world

    if options.quick:
        common = {"dataset": "simulated", "simulated_size": (300, 400, 30_000)}
    else:
        common = {"dataset": name_of_data(options), "data_dir": options.data_dir}
    worlds = [simulated_world(0.02 if options.quick else options.scale)]
    for mapping in ("P", "N"):
        worlds.insert(0, ratings_world(f"{common['dataset']} {mapping}", {"mapping": mapping} | common))
    learner = QUICK if options.quick else FIXED
    show(run(options.folder, worlds, options.seeds, options.jobs, learner, say=say))


def search(options: argparse.Namespace) -> None:
    """Random trials of the multi-task net on validation parts; writes trials.csv and champion.json."""
    from analysis import search as trials

    common = MULTITASK_QUICK if options.quick else {"dataset": name_of_data(options), "data_dir": options.data_dir}
    number = min(options.trials, 3) if options.quick else options.trials
    for path in trials.run(options.folder, common, options.seeds, options.jobs, number, say):
        print(f"wrote {path}")


def report(options: argparse.Namespace) -> None:
    """One page of all that has been run."""
    from analysis import report as page

    for path in page.write(options.folder):
        print(f"wrote {path}")


def name_of_data(options: argparse.Namespace) -> str:
    """The data set there is, after a look; what is to be said of it is said."""
    from dataset import load

    data = load(options.dataset, options.data_dir)
    for note in data.notes:
        say(f"note: {note}")
    return data.name


def show(paths: list[Path]) -> None:
    for path in paths:
        print(f"wrote {path}")
    print(next(path for path in paths if path.suffix == ".md").read_text(encoding="utf-8"))


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
