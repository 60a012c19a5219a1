"""How fast the project is, against a plain reference in the same run.

    python benchmark.py zoo          an epoch of MMoE against the same network written the plain way
    python benchmark.py dyadic       features and steps of the dyadic learner, at two sizes

Prints seconds and ratios: seconds change from machine to machine, ratios less so.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, TensorDataset

from dataset import load
from models import build_model
from tasks import ViewAndLike
from weighting import make_weighting

LR = 5e-3


class PlainMMoE(nn.Module):
    """MMoE as it is commonly written: a module an expert, called in a loop."""

    def __init__(self, num_users: int, num_items: int, dim: int, experts: int, width: int, tower: int) -> None:
        super().__init__()
        self.U, self.Q = nn.Embedding(num_users, dim), nn.Embedding(num_items, dim)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(3 * dim, width), nn.ReLU()) for _ in range(experts))
        self.gates = nn.ModuleList(nn.Linear(3 * dim, experts, bias=False) for _ in range(2))
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(width, tower), nn.ReLU(), nn.Linear(tower, 1)) for _ in range(2)
        )

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> list[Tensor]:
        user, item = self.U(user_ids), self.Q(item_ids)
        x = torch.cat([user, item, user * item], dim=1)
        outputs = torch.stack([expert(x) for expert in self.experts], dim=1)
        logits = []
        for gate, tower in zip(self.gates, self.towers, strict=True):
            weights = gate(x).softmax(dim=1).unsqueeze(1)
            logits.append(tower(torch.bmm(weights, outputs).squeeze(1)).squeeze(1))
        return logits

    def copy_from(self, ours: nn.Module) -> None:
        """The same network: same tables, experts, gates and towers."""
        with torch.no_grad():
            self.U.weight.copy_(ours.encoders[0].U.weight)
            self.Q.weight.copy_(ours.encoders[0].Q.weight)
            for number, expert in enumerate(self.experts):
                expert[0].weight.copy_(ours.experts.weights[0][number].T)
                expert[0].bias.copy_(ours.experts.biases[0][number])
            for mine, theirs in zip(self.gates, ours.gate_layers, strict=True):
                mine.weight.copy_(theirs.weight)
            for mine, theirs in zip(self.towers, ours.towers, strict=True):
                mine[0].load_state_dict(theirs.hidden[0].state_dict())
                mine[2].load_state_dict(theirs.output.state_dict())


def benchmark_zoo(batch_size: int, repeats: int) -> None:
    """One epoch of MMoE (8 experts 96-64) on 400,000 rows, both ways from the same weights, taken in turns."""
    data = load("simulated", test_fraction=0.1, val_fraction=1 / 9)
    users, items = len(data.users), len(data.items)
    task = ViewAndLike(data, batch_size=batch_size)
    torch.manual_seed(0)
    ours = build_model("mmoe", users, items)
    plain = PlainMMoE(users, items, 32, 8, 64, 32)
    plain.copy_from(ours)
    batch = next(iter(task.batches(0)))
    rows = TensorDataset(*(torch.cat([b[name] for b in task.batches(0)]) for name in batch))
    with torch.no_grad():
        pairs = zip(
            ours(batch["user_ids"], batch["item_ids"]).values(),
            plain(batch["user_ids"], batch["item_ids"]),
            strict=True,
        )
        difference = max((a - b).abs().max().item() for a, b in pairs)
    print(f"{len(rows):,} simulated rows, batch {batch_size}, {torch.get_num_threads()} threads")
    print(f"largest difference between the logits of the two: {difference:.1e}")
    compare(
        {
            "plain: DataLoader, a Linear an expert in a loop": lambda: plain_epoch(plain, rows, batch_size),
            "plain network on our batches": lambda: epoch(plain, task, plain_losses),
            "ours": lambda: epoch(ours, task, task.losses),
        },
        repeats,
    )


def benchmark_dyadic(scale: float) -> None:
    """Features, and 100,000 steps, exact and in batches, on ratings and on a platform of the paper's size."""
    import resource  # not on Windows, where the other benchmark runs

    from dyadic.family import read_dyads
    from dyadic.simulate import simulate

    ratings = load().name  # MovieLens 100K where it is, else the simulated one
    for data in (read_dyads({"model": "dyadic", "dataset": ratings}, 0), simulate(scale)):
        print(f"\n{data}")
        measure_dyadic(data)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform != "darwin" else 2**30)
    print(f"\npeak memory of the whole program: {peak:.2f} GB")


def measure_dyadic(data) -> None:
    from dyadic.features import add_features
    from dyadic.learner import build_net, run_epoch
    from dyadic.options import LearnerOptions
    from dyadic.sampling import make_sampler, prepare

    start = time.perf_counter()
    data = add_features(data)
    print(f"{'features of all dyads':<36}{time.perf_counter() - start:>8.2f} s")
    sampler, inputs = make_sampler(data), prepare(data)
    triples = sampler.draw(100_000, 0, 1)
    reference = None
    for batch in (1, 64, 128, 1024):
        options = LearnerOptions(eta=1e-3, batch=batch)
        net = build_net(data, sampler, options)
        start = time.perf_counter()
        run_epoch(net, inputs, triples, options)
        seconds = time.perf_counter() - start
        reference = reference or seconds
        name = "exact" if batch == 1 else f"in batches of {batch}"
        print(f"{'100,000 steps, ' + name:<36}{seconds:>8.2f} s{reference / seconds:>8.1f} times as fast")


def plain_epoch(model: PlainMMoE, rows: TensorDataset, batch_size: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    for user_ids, item_ids, labels in DataLoader(rows, batch_size, shuffle=True):
        logits = model(user_ids, item_ids)
        loss = sum(binary_cross_entropy_with_logits(logit, labels[:, task]) for task, logit in enumerate(logits))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def plain_losses(model: PlainMMoE, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    logits = model(batch["user_ids"], batch["item_ids"])
    names = zip(("view", "like"), logits, batch["labels"].unbind(dim=1), strict=True)
    return {name: binary_cross_entropy_with_logits(logit, label) for name, logit, label in names}


def epoch(model: nn.Module, task: ViewAndLike, losses: Callable) -> None:
    """An epoch as training.py runs it, sampling included, without its bookkeeping."""
    weighting = make_weighting("fixed", {"view": 1.0, "like": 1.0}, (), 0, torch.device("cpu"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0, fused=True)
    for batch in task.batches(1):
        optimizer.zero_grad()
        weighting.backward(losses(model, batch), model)
        optimizer.step()


def compare(ways: dict[str, Callable[[], None]], repeats: int) -> None:
    """Time each way `repeats` times, in turns; print medians and how many times faster than the first each is."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    reference = statistics.median(seconds[next(iter(ways))])
    width = max(map(len, ways))
    print(f"\n{'':<{width}}  median s  lowest  highest   times as fast")
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{name:<{width}}{median:>10.2f}{min(values):>8.2f}{max(values):>9.2f}{reference / median:>16.1f}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmark.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="BENCHMARK")
    zoo = commands.add_parser("zoo", help="an epoch of MMoE against the same network written the plain way")
    zoo.add_argument("--batch_size", type=int, default=4096, metavar="ROWS")
    zoo.add_argument("--threads", type=int, default=2, metavar="N")
    zoo.add_argument("--repeats", type=int, default=5, metavar="N")
    dyadic = commands.add_parser("dyadic", help="features and steps of the dyadic learner, at two sizes")
    dyadic.add_argument("--scale", type=float, default=1.0, metavar="SHARE", help="of the paper's size (default: 1)")
    options = parser.parse_args(argv)
    if options.command == "dyadic":
        torch.set_num_threads(1)
        benchmark_dyadic(options.scale)
        return 0
    if min(options.batch_size, options.threads, options.repeats) < 1:
        parser.error("--batch_size, --threads and --repeats must be at least 1")
    torch.set_num_threads(options.threads)
    benchmark_zoo(options.batch_size, options.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(main())
