"""Every command of the README on a tiny simulated world, in this process; run in a copy of the project.

    PYTHONPATH=COPY python every_command.py FOLDER

Prints the lines that say which steps train. Ends with an exception where a command fails.
"""

import contextlib
import io
import sys
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import benchmark
import experiments
import main
from analysis import runner
from benchmarks.plain import measure_epoch, measure_evaluation
from config.multitask import MultiTaskConfig

WORLD = ["--dataset", "simulated", "--simulated_size", "40", "60", "1200", "--device", "cpu", "--epochs", "2"]
WEIGHTS = {"99": ["--factorization_weight", "0.99", "--regression_weight", "0.01"],
           "50": ["--factorization_weight", "0.5", "--regression_weight", "0.5"]}  # fmt: skip
SMALL_ENSEMBLE = ["--preset", "ensemble", "--embedding_dim", "16", "--layer_sizes", "48"]
SMALL_CHAMPION = ["--preset", "champion", "--ranking", "networks", "--ridge", "50", "--ranking_dim", "8",
                  "--rating_fits", "1", "--genres", "off"]  # fmt: skip


class Here:
    """main.py called in this process in place of a started one: PyTorch is not imported again."""

    def __init__(self, command, **options):
        self.returncode = main.main(command[2:])

    def communicate(self):
        return "", "see above"


class OneAfterAnother(contextlib.nullcontext):
    """A pool of threads that has none."""

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


def run(command, *arguments) -> str:
    """The output of a command that has to succeed."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        out.reconfigure = lambda **options: None
        code = command([*map(str, arguments)])
    assert code == 0, (arguments, out.getvalue())
    return out.getvalue()


def steps(*arguments) -> None:
    """Train, and print the line on the steps."""
    lines = [line for line in run(main.main, *WORLD, *arguments).splitlines() if line.startswith("steps: ")]
    print(*lines, sep="\n")
    assert len(lines) == (0 if "champion" in arguments else 1), lines


def ask(folder: Path, logdir: str) -> None:
    """All questions to a run."""
    (folder / "pairs.csv").write_text("user,item\n1,2\n40,60\n")
    (folder / "new.csv").write_text("user,item,rating\nnew,1,5\nnew,2,3\nother,60,1\n")
    where = ["--logdir", folder / logdir]
    assert "Simulated film" in run(main.main, "--recommend", "1", *where)
    run(main.main, "--recommend", "all", "--output", folder / f"{logdir}.csv", *where)
    assert run(main.main, "--predict", folder / "pairs.csv", *where).count("\n") == 3
    assert "other" in run(main.main, "--for", folder / "new.csv", *where)


def short(folder: Path) -> None:
    """The four experiments' flags, the presets, and what is done with a run."""
    for sharing in ([], ["--no_shared_embeddings"]):
        for name, weights in WEIGHTS.items():
            steps(*sharing, *weights, "--logdir", folder / f"run{len(sharing)}{name}")
        ask(folder, f"run{len(sharing)}{name}")
    run(main.main, "--resume", folder / "run099", "--epochs", "3")
    steps(*SMALL_ENSEMBLE, "--logdir", folder / "ensemble")
    ask(folder, "ensemble")
    run(main.main, *WORLD, *SMALL_CHAMPION, "--logdir", folder / "champion")
    ask(folder, "champion")
    steps("--start_from", folder / "run099", "--init_rating_bias", "--steps", "autograd", "--logdir", folder / "warm")


def all_commands(folder: Path) -> None:
    """`short`, further options, and the other commands."""
    short(folder)
    for name, flags in {
        "uncertainty": ["--weighting", "uncertainty"],
        "pcgrad": ["--weighting", "pcgrad"],
        "hardest": ["--negative_sampling", "hardest", "--negatives", "3", "--ranking_loss", "bpr"],
        "softmax": ["--ranking_loss", "softmax", "--num_item_based", "1", "--layer_sizes", "96", "48", "8"],
    }.items():
        steps(*flags, "--logdir", folder / name)
    results = folder / "results"
    quick = ["--quick", "--seeds", "1", "--jobs", "1"]
    for command in ("weights", "sweep"):
        run(experiments.main, command, *quick, "--epochs", "1", "--folder", results / "multitask")
    for space in ("homework", "champion"):
        run(experiments.main, "search", *quick, "--space", space, "--trials", "1", "--folder", results / space)
    run(experiments.main, "folds", "--quick", "--folds", "2", "--epochs", "1", "--jobs", "1", "--folder", results / "f")
    run(experiments.main, "report", "--folder", results)
    run(experiments.main, "export", folder / "run099", "--format", "safetensors", "--folder", folder / "exported")
    config = MultiTaskConfig(dataset="simulated", simulated_size=(40, 60, 1200), quiet=True)
    for measure in (measure_epoch, measure_evaluation):
        measure(lambda *row: None, config, 1)
    run(benchmark.main, "grow", "40", "60", "1200")


if __name__ == "__main__":
    runner.subprocess = SimpleNamespace(Popen=Here, DEVNULL=None, PIPE=None)
    runner.ThreadPoolExecutor = lambda at_a_time: OneAfterAnother(OneAfterAnother())
    all_commands(Path(sys.argv[1]))
