"""STEM: embeddings that are shared beside embeddings of each task's own (Su et al., AAAI 2024)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.layers import ExpertBank, Gate, Network, make_encoders, make_towers, mix
from zoo.mixtures import TASKS


class STEM(Network):
    """Shared and task-specific embeddings; every task reads all experts and trains its own and the shared ones.

    There are T + 1 pairs of tables. The experts of task t read x^t, the shared ones x^S. Task t chooses among all
    experts, but those of other tasks pass no gradient back (all-forward, task-specific-backward):

        z_t = softmax(W_t (x^t + x^S)) . [stop(F^1), .., F^t, .., stop(F^T), F^S]

    One level, the authors' published setting: in their code further levels let a task's loss reach the embeddings of
    another. Their gate has hidden layers; here it is one linear map, as in all networks here.

    Args:
        task_experts: m a task.
        shared_experts: s.

    Raises:
        ValueError: there is no expert of a task, or no shared one.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 32,
        tasks: Sequence[str] = TASKS,
        task_experts: int = 1,
        shared_experts: int = 8,
        expert_units: Sequence[int] = (64,),
        tower_units: Sequence[int] = (32,),
    ) -> None:
        super().__init__(tasks)
        if task_experts < 1 or shared_experts < 1:
            raise ValueError(f"it takes at least 1 expert a task and 1 shared, not {task_experts} and {shared_experts}")
        self.encoders = make_encoders(len(tasks) + 1, num_users, num_items, embedding_dim)
        width = self.encoders[0].width
        self.own = nn.ModuleList(ExpertBank(task_experts, width, expert_units) for _ in tasks)
        self.shared = ExpertBank(shared_experts, width, expert_units)
        self.gate_layers = nn.ModuleList(Gate(width, len(tasks) * task_experts + shared_experts) for _ in tasks)
        self.towers = make_towers(self.shared.width, tower_units, len(tasks))

    def _represent(self, user_ids: Tensor, item_ids: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        *own_inputs, shared_input = (encoder(user_ids, item_ids) for encoder in self.encoders)
        own = [bank(x) for bank, x in zip(self.own, own_inputs, strict=True)]
        shared = self.shared(shared_input)
        gates = {
            task: gate(x + shared_input) for task, gate, x in zip(self.tasks, self.gate_layers, own_inputs, strict=True)
        }
        mixtures = []
        for number, gate in enumerate(gates.values()):
            seen = [bank if other == number else bank.detach() for other, bank in enumerate(own)]
            mixtures += mix([gate], torch.cat([*seen, shared], dim=1))
        return mixtures, gates
