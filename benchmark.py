"""Quality and speed of the project beside other packages and plain loops, measured in the same run.

    python benchmark.py multitask                 all parts below; takes half an hour
    python benchmark.py multitask quality         MRR, MSE and time to quality, with every peer that is installed
    python benchmark.py multitask epoch           CPU seconds of an epoch, of the plain loop and of the limit
    python benchmark.py multitask evaluation      CPU seconds of a full evaluation and of a plain one
    python benchmark.py multitask growth          1M, 10M and 25M simulated ratings: rows per second and memory
    python benchmark.py multitask processes       1 against 2 processes under torchrun
    python benchmark.py zoo                       an epoch of MMoE against the same network as plain PyTorch
    python benchmark.py fold_in                   new users without training, beside the same users trained along
    python benchmark.py dyadic                    features and steps of the dyadic learner, at two sizes

Prints seconds and ratios; seconds differ between machines, ratios less so. `multitask` also writes benchmark.csv and
benchmark.png; a part that is measured again replaces its own rows. The peers: benchmarks/requirements.txt.
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

import torch

from benchmarks.growth import SIZES, grow, measure_growth
from benchmarks.plain import measure_epoch, measure_evaluation
from benchmarks.processes import measure_processes
from benchmarks.results import Results
from config.base import RunConfig
from config.cli import Parser, find_preset, read_settings_file
from config.errors import EXIT_OK, UserError
from config.multitask import ClosedFormConfig, MultiTaskConfig
from dataset import load
from registry import CHOICES, MODELS, make_config
from training.console import log, run_command

PARTS = ("quality", "epoch", "evaluation", "growth", "processes")


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 an error that the user can fix, 130 ended by Ctrl-C."""
    return run_command("benchmark.py", lambda: run(make_parser().parse_args(argv)))


def run(options: argparse.Namespace) -> int:
    torch.set_num_threads(options.threads)
    options.measure(options)
    return EXIT_OK


def multitask(options: argparse.Namespace) -> None:
    """Measure the parts; the table and the figure are written after each."""
    from benchmarks.picture import draw
    from benchmarks.quality import measure_quality

    parts = options.parts or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        raise UserError(f"there is no part {min(unknown)!r}: choose one of {', '.join(PARTS)}")
    here = Path(__file__).resolve()
    homework = MultiTaskConfig(quiet=True, dataset=options.dataset)
    network = network_config(options.preset, options.dataset) if "quality" in parts else homework
    measures = {
        "quality": lambda record: measure_quality(record, network),
        "epoch": lambda record: measure_epoch(record, homework, options.repeats),
        "evaluation": lambda record: measure_evaluation(record, homework, options.repeats),
        "growth": lambda record: measure_growth(record, options.sizes, here),
        "processes": lambda record: measure_processes(record, here.with_name("main.py")),
    }
    results, picture = Results(options.output), options.output / "benchmark.png"
    for part in parts:
        log(f"\n== {part}")
        results.measure(part, measures[part])
        draw(results, picture)
    log(f"\nwrote {results.path}\nwrote {picture}")


def network_config(preset: str, dataset: str) -> RunConfig:
    """The config of the network whose quality is measured. preset: a name of config/presets, or a JSON file.

    Raises:
        UserError: there is no such preset, it is for another model, or it holds a validation part out.
    """
    path = Path(preset) if preset.endswith(".json") else find_preset(preset)
    values = read_settings_file(path, MODELS, CHOICES)
    own = {"quiet": True, "threads": 1, "dataset": dataset}
    config = make_config(values.pop("model", MultiTaskConfig.model), **values | own)
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
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(PARTS)} (default: all)")
    parser.add_argument(
        "--preset", default="champion", metavar="NAME",
        help="settings of the network of quality: a preset of main.py or a JSON file (default: champion)",
    )  # fmt: skip
    parser.add_argument(
        "--dataset", default="ml-100k", choices=("ml-100k", "simulated"),
        help="data of quality, epoch and evaluation (default: ml-100k)",
    )  # fmt: skip
    parser.add_argument(
        "--sizes", nargs="+", default=["1M", "10M", "25M"], choices=tuple(SIZES),
        help="sizes of growth (default: 1M 10M 25M)",
    )  # fmt: skip
    parser.add_argument(
        "--repeats", type=positive, default=7, metavar="N", help="epochs and evaluations of each (default: 7)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("results/benchmark"), metavar="FOLDER",
        help="folder of the table and the figure (default: results/benchmark)",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
