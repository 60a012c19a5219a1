"""An epoch of MMoE against the same network as plain PyTorch."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.timing import in_turns, table_of_times
from dataset import load
from training.weighting import make_weighting
from zoo.networks import build_network
from zoo.task import LabelTask

LR = 5e-3


class PlainMMoE(nn.Module):
    """MMoE as it is commonly written: a module per expert, called in a loop."""

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
        """Copy the tables, experts, gates and towers of our network."""
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
    task = LabelTask(data, batch_size=batch_size)
    torch.manual_seed(0)
    ours = build_network("mmoe", users, items)
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
    ways = {
        "plain: DataLoader, a Linear per expert in a loop": lambda: plain_epoch(plain, rows, batch_size),
        "plain network on our batches": lambda: epoch(plain, task, plain_losses),
        "ours": lambda: epoch(ours, task, task.losses),
    }
    print(f"\n{table_of_times(in_turns(ways, repeats))}")


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


def epoch(model: nn.Module, task: LabelTask, losses: Callable) -> None:
    """An epoch as training.steps runs it, with sampling but without bookkeeping."""
    weighting = make_weighting("fixed", {"view": 1.0, "like": 1.0}, (), 0, torch.device("cpu"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0, fused=True)
    for batch in task.batches(1):
        optimizer.zero_grad()
        weighting.backward(losses(model, batch), model)
        optimizer.step()
