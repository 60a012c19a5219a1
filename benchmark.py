"""Quality and speed of the project beside other packages and plain loops, measured in the same run.

    python benchmark.py multitask                 all parts up to processes; takes half an hour
    python benchmark.py multitask quality         MRR, MSE and time to quality, with every peer that is installed
    python benchmark.py multitask epoch           CPU seconds of an epoch, of the plain loop and of the limit
    python benchmark.py multitask evaluation      CPU seconds of a full evaluation and of a plain one
    python benchmark.py multitask growth          1M, 10M and 25M simulated ratings: rows per second and memory
    python benchmark.py multitask processes       1 against 2 processes under torchrun
    python benchmark.py multitask extremes        no harm on extreme simulated ratings: half an hour, only if named
    python benchmark.py multitask any             any ratings, beside tuned peers: 20 minutes, only if named
    python benchmark.py zoo                       an epoch of MMoE against the same network as plain PyTorch
    python benchmark.py fold_in                   new users without training, beside the same users trained along
    python benchmark.py dyadic                    features and steps of the dyadic learner, at two sizes

Prints seconds and ratios; seconds differ between machines, ratios less so. `multitask` also writes benchmark.csv,
benchmark.png and, after quality, learning_curve.png; a part that is measured again replaces its own rows. The peers:
benchmarks/requirements.txt.
"""

if __name__ == "__main__":
    # Numerical libraries read these when they are imported: everything that is compared runs on one thread.
    import os

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.extremes import measure_extremes
from benchmarks.growth import SIZES, grow, measure_growth
from benchmarks.plain import measure_epoch, measure_evaluation
from benchmarks.processes import measure_processes
from benchmarks.results import Results
from config.base import RunConfig
from config.cli import Parser, find_preset, read_settings_file, with_tuples
from config.errors import EXIT_OK, UserError
from config.multitask import ClosedFormConfig, MultiTaskConfig
from dataset import load
from registry import CHOICES, MODELS, make_config
from sources.catalog import MOVIELENS
from training.console import log, run_command

PARTS = ("quality", "epoch", "evaluation", "growth", "processes")
FURTHER_PARTS = ("extremes", "any")  # only where they are named
SINGLE_DATASETS = ("ml-100k", "simulated")  # of quality, epoch and evaluation
ANY_DATASETS = ("ml-100k", "ml-latest-small")
DATA_FLAGS = ("ratings", "train_ratings", "test_ratings", "rating_scale", "columns", "data_dir")  # as of main.py


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 an error that the user can fix, 130 ended by Ctrl-C."""
    return run_command("benchmark.py", lambda: run(make_parser().parse_args(argv)))


def run(options: argparse.Namespace) -> int:
    torch.set_num_threads(options.threads)
    options.measure(options)
    return EXIT_OK


def multitask(options: argparse.Namespace) -> None:
    """Measure the parts; the table and the pictures are written after each."""
    from benchmarks.any_data import measure_any
    from benchmarks.picture import draw
    from benchmarks.quality import measure_quality

    parts = options.parts or list(PARTS)
    if unknown := set(parts) - {*PARTS, *FURTHER_PARTS}:
        raise UserError(f"there is no part {min(unknown)!r}: choose one of {', '.join(PARTS + FURTHER_PARTS)}")
    configs = configs_of_any(options) if "any" in parts else []
    here = Path(__file__).resolve()
    data = data_of_one(options) if {*parts} - {"any"} else {}
    homework = MultiTaskConfig(quiet=True, **data)
    network = network_config(options.preset, **data) if {"quality", "extremes"} & {*parts} else homework
    measures = {
        "quality": lambda record: measure_quality(record, network),
        "epoch": lambda record: measure_epoch(record, homework, options.repeats),
        "evaluation": lambda record: measure_evaluation(record, homework, options.repeats),
        "growth": lambda record: measure_growth(record, options.sizes, here),
        "processes": lambda record: measure_processes(record, here.with_name("main.py")),
        "extremes": lambda record: measure_extremes(record, network),
        "any": lambda record: measure_any(record, configs),
    }
    results, pictures = Results(options.output), list[Path]()
    for part in parts:
        log(f"\n== {part}")
        results.measure(part, measures[part])
        pictures = draw(results, options.output)
    log("\n" + "\n".join(f"wrote {path}" for path in (results.path, *pictures)))


def data_of_one(options: argparse.Namespace) -> dict[str, Any]:
    """The data of the parts that are measured on one data set; UserError where the options name others."""
    names = options.dataset or SINGLE_DATASETS[:1]
    if len(names) > 1 or names[0] not in SINGLE_DATASETS:
        known = " or ".join(SINGLE_DATASETS)
        raise UserError(f"--dataset {' '.join(names)} is for the part any: the other parts take {known}")
    for name in DATA_FLAGS:
        if getattr(options, name) is not None and name != "data_dir":
            raise UserError(f"--{name} is for the part any: leave it out, or leave out the other parts")
    return {"dataset": names[0], "data_dir": options.data_dir}


def configs_of_any(options: argparse.Namespace) -> list[RunConfig]:
    """A config of the network for each data set of the part `any`: those named, and that of the user's own files.

    Raises:
        UserError: flags contradict each other, or the preset is not for this.
    """
    given = with_tuples({name: getattr(options, name) for name in DATA_FLAGS if getattr(options, name) is not None})
    place = {"data_dir": given.pop("data_dir")} if "data_dir" in given else {}
    names = options.dataset or (() if given else ANY_DATASETS)
    configs = [network_config(options.preset, dataset=name, **place) for name in dict.fromkeys(names)]
    if given:
        configs.append(network_config(options.preset, **given, **({} if names else place)))
    return configs


def network_config(preset: str, **data: Any) -> RunConfig:
    """The config of the network whose quality is measured.

    Args:
        preset: a name of config/presets, or a JSON file.
        data: the fields of the config that name the data.

    Raises:
        UserError: there is no such preset, it is for another model, or it holds a validation part out.
    """
    path = Path(preset) if preset.endswith(".json") else find_preset(preset)
    values = read_settings_file(path, MODELS, CHOICES)
    own = {"quiet": True, "threads": 1}
    config = make_config(values.pop("model", MultiTaskConfig.model), **values | own | data)
    if not isinstance(config, (MultiTaskConfig, ClosedFormConfig)):
        raise UserError(f"{path} is for --model {config.model}: quality is measured for the multi-task net")
    if config.val_fraction:
        raise UserError(f"{path}: val_fraction must be 0, so that the peers and the network train on the same rows")
    return config


def zoo(options: argparse.Namespace) -> None:
    from benchmarks.zoo import benchmark_zoo

    benchmark_zoo(options.batch_size, options.repeats)


def dyadic(options: argparse.Namespace) -> None:
    from benchmarks.dyadic import benchmark_dyadic

    benchmark_dyadic(options.scale)


def fold_in(options: argparse.Namespace) -> None:
    from benchmarks.fold_in import measure_fold_in

    own = {"quiet": True, "threads": 1, "dataset": options.dataset}
    trained = {"epochs": options.epochs} if options.epochs else {}
    if unknown := set(options.models) - {"champion"} - {name for name in MODELS if name != "dyadic"}:
        raise UserError(
            f"there is no model {min(unknown)!r} that takes new users: choose champion or a --model of main.py"
        )
    configs = {
        name: network_config(name, options.dataset) if name == "champion" else make_config(name, **own | trained)
        for name in options.models
    }
    measure_fold_in(configs, load(options.dataset), range(options.seeds))


def grow_once(options: argparse.Namespace) -> None:
    print(json.dumps(grow(options.size)))


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return int(text)


def make_parser() -> Parser:
    parser = Parser(prog="benchmark.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="BENCHMARK")
    parts = commands.add_parser("multitask", help="the multi-task net: quality, times, growth", allow_abbrev=False)
    _add_multitask_options(parts)
    growing = commands.add_parser("grow", allow_abbrev=False)  # one size of growth, in a process of its own
    growing.add_argument("size", nargs=3, type=positive)
    networks = commands.add_parser("zoo", help="an epoch of MMoE against the same network as plain PyTorch")
    networks.add_argument("--batch_size", type=positive, default=4096, metavar="ROWS", help="rows in a step")
    networks.add_argument("--threads", type=positive, default=2, metavar="N", help="CPU threads")
    networks.add_argument("--repeats", type=positive, default=5, metavar="N", help="epochs of each")
    folding = commands.add_parser("fold_in", help="new users without training, beside the same users trained along")
    folding.add_argument(
        "models", nargs="*", default=["champion", "multitask", "mmoe"], metavar="MODEL",
        help="names of --model, or champion (default: champion multitask mmoe)",
    )  # fmt: skip
    folding.add_argument("--epochs", type=positive, metavar="N", help="of all but the champion (default: the model's)")
    folding.add_argument("--seeds", type=positive, default=3, metavar="N", help="seeds 0 to N - 1 (default: 3)")
    folding.add_argument("--dataset", default="ml-100k", choices=("ml-100k", "simulated"), help="default: ml-100k")
    learner = commands.add_parser("dyadic", help="features and steps of the dyadic learner, at two sizes")
    learner.add_argument(
        "--scale", type=float, default=1.0, metavar="FRACTION", help="of the paper's size (default: 1)"
    )
    for command, measure in (
        (parts, multitask),
        (growing, grow_once),
        (networks, zoo),
        (learner, dyadic),
        (folding, fold_in),
    ):
        command.set_defaults(measure=measure, **{} if command is networks else {"threads": 1})
    return parser


def _add_multitask_options(parser: Parser) -> None:
    parser.add_argument(
        "parts", nargs="*", metavar="PART",
        help=f"{', '.join((*PARTS, *FURTHER_PARTS))} (default: all but {', '.join(FURTHER_PARTS)})",
    )  # fmt: skip
    parser.add_argument(
        "--preset", default="champion", metavar="NAME",
        help="settings of the network that is measured: a preset of main.py or a JSON file (default: champion)",
    )  # fmt: skip
    parser.add_argument(
        "--dataset", nargs="+", choices=tuple(MOVIELENS) + SINGLE_DATASETS[1:], metavar="NAME",
        help="data of quality, epoch and evaluation: ml-100k (default) or simulated; of any: one or more data sets "
        f"(default: {' '.join(ANY_DATASETS)})",
    )  # fmt: skip
    for name in ("ratings", "train_ratings", "test_ratings"):
        parser.add_argument(f"--{name}", metavar="FILE", help="for any: your own data, as for main.py")
    parser.add_argument("--rating_scale", type=float, nargs=2, metavar=("LOW", "HIGH"), help="as for main.py")
    parser.add_argument("--columns", metavar="ROLE=NAME", help="as for main.py")
    parser.add_argument("--data_dir", metavar="DIR", help="for any: as for main.py")
    parser.add_argument(
        "--sizes", nargs="+", default=["1M", "10M", "25M"], choices=tuple(SIZES),
        help="sizes of growth (default: 1M 10M 25M)",
    )  # fmt: skip
    parser.add_argument(
        "--repeats", type=positive, default=7, metavar="N", help="epochs and evaluations of each (default: 7)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("results/benchmark"), metavar="FOLDER",
        help="folder of the table and the pictures (default: results/benchmark)",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
