"""How good and how fast the project is, side by side with others in the same run.

    python benchmark.py multitask                 all parts below; takes half an hour
    python benchmark.py multitask quality         MRR, MSE and time to quality, with every peer that is installed
    python benchmark.py multitask epoch           CPU seconds of an epoch, the plain loop's, and the limit
    python benchmark.py multitask evaluation      seconds of a full evaluation, and of the plain one
    python benchmark.py multitask growth          1M, 10M and 25M simulated ratings: rows per second and memory
    python benchmark.py multitask processes       1 against 2 processes under torchrun
    python benchmark.py zoo                       an epoch of MMoE against the same network written the plain way
    python benchmark.py dyadic                    features and steps of the dyadic learner, at two sizes

Prints seconds and ratios: seconds change from machine to machine, ratios less so. `multitask` also writes benchmark.csv
and benchmark.png; a part that is measured alone replaces its own rows. The peers: benchmarks/requirements.txt.
"""

if __name__ == "__main__":
    # Read by numerical libraries when they are imported: all that is compared runs on one thread.
    import os

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor, nn

import registry as family
from benchmarks.growth import SIZES, grow, measure_growth
from benchmarks.processes import measure_processes
from benchmarks.results import Record, Results
from benchmarks.timing import cpu_seconds, in_turns, table_of_times
from config.cli import find_preset, read_settings_file
from config.errors import UserError
from config.settings import Settings
from dataset import Interactions

PARTS = ("quality", "epoch", "evaluation", "growth", "processes")
CPU = torch.device("cpu")
IN_CACHE = 4096  # rows whose activations fit the processor's cache


class PlainNet(nn.Module):
    """The multi-task net on shared tables as the course sheet leads one to write it; its parameters as in models.py."""

    def __init__(self, num_users: int, num_items: int, dim: int = 32, width: int = 64) -> None:
        super().__init__()
        self.U, self.Q, self.B = nn.Embedding(num_users, dim), nn.Embedding(num_items, dim), nn.Embedding(num_items, 1)
        for table, spread in ((self.U, 1 / dim), (self.Q, 1 / dim), (self.B, 0.0)):
            nn.init.normal_(table.weight, 0.0, spread)
        self.mlp_layers = nn.Sequential(nn.Linear(3 * dim, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        u, q = self.U(users), self.Q(items)
        return (u * q).sum(1) + self.B(items)[:, 0], self.mlp_layers(torch.cat([u, q, u * q], dim=1))[:, 0]

    def watch(self, users: Tensor, items: Tensor) -> Tensor:
        return (self.U(users) * self.Q(items)).sum(1) + self.B(items)[:, 0]


def joint(weights: dict[str, float], positive: Tensor, negative: Tensor, score: Tensor, ratings: Tensor) -> Tensor:
    ranking = (1 - torch.sigmoid(positive - negative)).mean()
    return weights["factorization"] * ranking + weights["regression"] * ((score - ratings) ** 2).mean()


def plain_epoch(
    net: PlainNet, optimizer, settings: Settings, train: Interactions, stop: Callable[[], bool] = lambda: False
) -> int:
    """One epoch, or what is done of it when `stop` says so; returns the rows it has trained on."""
    rows, total = 0, 0.0
    for chosen in torch.randperm(len(train)).split(settings.batch_size):
        if stop():
            break
        users, items, ratings = train.user_ids[chosen], train.item_ids[chosen], train.ratings[chosen]
        negatives = torch.randint(train.num_items, (len(chosen),))
        positive, score = net(users, items)
        negative, _ = net(users, negatives)
        loss = joint(settings.weights, positive, negative, score, ratings)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        rows += len(chosen)
    return rows


def plain_growth(settings: Settings, train: Interactions, stop: Callable[[], bool]) -> int:
    net = PlainNet(train.num_users, train.num_items)
    return plain_epoch(net, torch.optim.Adam(net.parameters(), lr=settings.lr), settings, train, stop)


def plain_evaluation(net: PlainNet, test: Interactions, train: Interactions) -> dict[str, float]:
    """The metrics of evaluation.METRICS with one argsort a user; equal scores in any order."""
    found: dict[str, list[float]] = {name: [] for name in ("mrr", "first_hit_mrr", "hit_rate@10", "ndcg@10", "auc")}
    with torch.no_grad():
        for user in test.user_ids.unique():
            scores = net.Q.weight @ net.U.weight[user] + net.B.weight[:, 0]
            scores[train.item_ids[train.user_ids == user]] = -torch.inf
            place = np.empty(len(scores))
            place[np.argsort(-scores.numpy())] = np.arange(1, len(scores) + 1)
            ranks = np.sort(place[test.item_ids[test.user_ids == user].numpy()])
            hits, candidates = len(ranks), int(scores.isfinite().sum())
            top = ranks[ranks <= 10]
            ideal = 1 / np.log2(np.arange(2, min(hits, 10) + 2))
            found["mrr"].append((1 / ranks).mean())
            found["first_hit_mrr"].append(1 / ranks[0])
            found["hit_rate@10"].append(float(len(top) > 0))
            found["ndcg@10"].append((1 / np.log2(top + 1)).sum() / ideal.sum())
            if candidates > hits:
                behind = ranks.sum() - hits * (hits + 1) / 2
                found["auc"].append(1 - behind / (hits * (candidates - hits)))
        errors = net(test.user_ids, test.item_ids)[1] - test.ratings
    return {name: float(np.mean(values)) for name, values in found.items()} | {"mse": errors.square().mean().item()}


def measure_epoch(record: Record, settings: Settings, repeats: int, say: Callable[[str], None]) -> None:
    """CPU seconds of an epoch of both tasks at the homework's setting, ours and the plain loop's in turns.

    Beside them stands the limit, the arithmetic that no way of cutting an epoch into steps avoids: forward and backward
    of every row by autograd, with nothing computed that the losses do not need and nothing drawn, in one batch; the
    same in blocks that fit the processor's cache, which is faster; and that with as many updates of all parameters, by
    fused Adam, as the epoch has steps.
    """
    data = family.load_data(settings)
    model, task, make_stepper = family.build(settings, data, CPU)
    stepper = make_stepper(model, task, settings, CPU)
    plain = PlainNet(len(data.users), len(data.items))
    adam = torch.optim.Adam(plain.parameters(), lr=settings.lr)
    whole = PlainNet(len(data.users), len(data.items))
    fused = torch.optim.Adam(whole.parameters(), lr=settings.lr, fused=True)
    train, updates = data.train, -(-len(data.train) // settings.batch_size)
    negatives = torch.randint(train.num_items, (len(train),))

    def arithmetic(rows: int) -> None:
        whole.zero_grad()
        columns = (train.user_ids, train.item_ids, negatives, train.ratings)
        for users, items, others, ratings in zip(*(column.split(rows) for column in columns), strict=True):
            positive, score = whole(users, items)
            joint(settings.weights, positive, whole.watch(users, others), score, ratings).backward()

    def arithmetic_and_updates() -> None:
        arithmetic(IN_CACHE)
        for _ in range(updates):
            fused.step()

    ways = {
        "plain loop": lambda: plain_epoch(plain, adam, settings, train),
        "ours": lambda: stepper.run_epoch(1, [], lambda: False),
        "limit: one batch of all rows": lambda: arithmetic(len(train)),
        f"limit: {IN_CACHE:,} rows at a time": lambda: arithmetic(IN_CACHE),
        f"the latter and {updates} Adam updates": arithmetic_and_updates,
    }
    in_turns(ways, 1)  # the first pass of each builds what later ones have
    say(f"{data}\nan epoch of both tasks, batch {settings.batch_size}, CPU seconds of {repeats} epochs each, in turns")
    _record_times(record, in_turns(ways, repeats, cpu_seconds), "CPU s", say)


def measure_evaluation(record: Record, settings: Settings, repeats: int, say: Callable[[str], None]) -> None:
    """Seconds of all six metrics on the test part, ours and by one argsort a user, on the same weights."""
    data = family.load_data(settings)
    model, task, _ = family.build(settings, data, CPU)
    plain = PlainNet(len(data.users), len(data.items))
    plain.load_state_dict(model.state_dict())
    ways = {
        "plain: an argsort a user": lambda: plain_evaluation(plain, data.test, data.train),
        "ours": lambda: task.metrics(model, "test"),
    }
    in_turns(ways, 1)
    say(f"{data}\na full evaluation, six metrics, CPU seconds of {repeats} each, in turns")
    _record_times(record, in_turns(ways, repeats, cpu_seconds), "CPU s", say)


def _record_times(record: Record, seconds: dict[str, list[float]], unit: str, say: Callable[[str], None]) -> None:
    for name, values in seconds.items():
        record(name, "median", statistics.median(values), unit)
        record(name, "lowest", min(values), unit)
    say(table_of_times(seconds))


def multitask(options: argparse.Namespace) -> None:
    """Measure the parts, write the table after each, then the picture."""
    from benchmarks.picture import draw
    from benchmarks.quality import measure_quality

    torch.set_num_threads(1)
    parts = options.parts or list(PARTS)
    here = Path(__file__).resolve()
    homework = replace(Settings(quiet=True), dataset=options.dataset)
    network = network_settings(options.preset, options.dataset) if "quality" in parts else homework
    measures = {
        "quality": lambda record: measure_quality(record, network, say),
        "epoch": lambda record: measure_epoch(record, homework, options.repeats, say),
        "evaluation": lambda record: measure_evaluation(record, homework, options.repeats, say),
        "growth": lambda record: measure_growth(record, options.sizes, here, say),
        "processes": lambda record: measure_processes(record, here.with_name("main.py"), say),
    }
    results, picture = Results(options.output), options.output / "benchmark.png"
    for part in parts:
        say(f"\n== {part}")
        results.measure(part, measures[part])
        draw(results, picture)
    say(f"\nwrote {results.path}\nwrote {picture}")


def network_settings(preset: str, dataset: str) -> Settings:
    """The settings of the network whose quality is measured: a name in presets/, or a file.

    Raises:
        UserError: there is none, or it is of another network, or it chooses an epoch.
    """
    path = Path(preset) if preset.endswith(".json") else find_preset(preset)
    settings = replace(Settings(**read_settings_file(path)), quiet=True, threads=1, dataset=dataset)
    if settings.model != "multitask":
        raise UserError(f"{path}: quality is that of the multi-task net, and this is for --model {settings.model}")
    if settings.val_fraction:
        raise UserError(f"{path}: val_fraction must be 0, so that the peers and the network train on the same rows")
    return settings


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is answered by one sentence and not by the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (--help lists all options)\n")


def at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {text}")
    return int(text)


def make_parser() -> Parser:
    parser = Parser(prog="benchmark.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="BENCHMARK")
    multi = commands.add_parser("multitask", help="the multi-task net: quality, times, growth", allow_abbrev=False)
    multi.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    multi.add_argument(
        "--preset", default="champion", metavar="NAME", help="whose quality: of presets/, or a file (default: champion)"
    )
    multi.add_argument(
        "--dataset", default="ml-100k", choices=("ml-100k", "simulated"),
        help="of quality, epoch and evaluation (default: ml-100k)",
    )  # fmt: skip
    multi.add_argument(
        "--sizes", nargs="+", default=["1M", "10M", "25M"], choices=tuple(SIZES), help="of growth (default: 1M 10M 25M)"
    )
    multi.add_argument(
        "--repeats", type=at_least_one, default=7, metavar="N", help="of epoch and evaluation (default: 7)"
    )
    multi.add_argument("--output", type=Path, default=Path("results/benchmark"), metavar="FOLDER")
    growing = commands.add_parser("grow")  # one size of growth, in a process of its own
    growing.add_argument("size", nargs=3, type=at_least_one)
    zoo = commands.add_parser("zoo", help="an epoch of MMoE against the same network written the plain way")
    zoo.add_argument("--batch_size", type=at_least_one, default=4096, metavar="ROWS")
    zoo.add_argument("--threads", type=at_least_one, default=2, metavar="N")
    zoo.add_argument("--repeats", type=at_least_one, default=5, metavar="N")
    dyadic = commands.add_parser("dyadic", help="features and steps of the dyadic learner, at two sizes")
    dyadic.add_argument("--scale", type=float, default=1.0, metavar="SHARE", help="of the paper's size (default: 1)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 something the user can mend."""
    parser = make_parser()
    options = parser.parse_args(argv)
    if options.command == "multitask" and (unknown := set(options.parts) - set(PARTS)):
        parser.error(f"there is no part {min(unknown)!r}: choose of {', '.join(PARTS)}")
    try:
        run(options)
    except (UserError, OSError) as error:
        print(f"benchmark.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def run(options: argparse.Namespace) -> None:
    if options.command == "multitask":
        multitask(options)
    elif options.command == "grow":
        torch.set_num_threads(1)
        print(json.dumps(grow(options.size, plain_growth)))
    elif options.command == "dyadic":
        from benchmarks.dyadic import benchmark_dyadic

        torch.set_num_threads(1)
        benchmark_dyadic(options.scale)
    else:
        from benchmarks.zoo import benchmark_zoo

        torch.set_num_threads(options.threads)
        benchmark_zoo(options.batch_size, options.repeats)


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
