"""STEM: embeddings shared by all tasks beside embeddings of each task (Su et al., AAAI 2024)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.layers import TASKS, ExpertBank, Gate, Network, make_encoders, make_towers, mix


class STEM(Network):
    """Shared and task-specific embeddings: a task reads all experts, and trains its own and the shared ones.

        z_t = softmax(W_t (x^t + x^S)) . [stop(F^1); ..; F^t; ..; stop(F^T); F^S]

    There are T + 1 pairs of tables. F^t (m, h) are the experts of task t on x^t, F^S (s, h) the shared ones on x^S.
    stop(.) blocks the gradient: all-forward, task-specific-backward gating.

    Differs from the authors' code: one level only, their published setting (with more levels, in their code, a task's
    loss reaches the embeddings of other tasks); the gate is one linear map, as in every network here, theirs has
    hidden layers.

    Args:
        num_users, num_items, embedding_dim, tasks, expert_units, tower_units: see `zoo.layers`.
        task_experts: m per task, at least 1.
        shared_experts: s, at least 1.

    Raises:
        ValueError: there is no task-specific or no shared expert.
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
            raise ValueError(
                f"it takes at least 1 expert per task and 1 shared expert, not {task_experts} and {shared_experts}"
            )
        self.encoders = make_encoders(len(tasks) + 1, num_users, num_items, embedding_dim)
        width = self.encoders[0].width
        self.own = nn.ModuleList(ExpertBank(task_experts, width, expert_units) for _ in tasks)
        self.shared = ExpertBank(shared_experts, width, expert_units)
        self.gate_layers = nn.ModuleList(Gate(width, len(tasks) * task_experts + shared_experts) for _ in tasks)
        self.towers = make_towers(self.shared.width, tower_units, len(tasks))

    def _represent(self, user_ids: Tensor, item_ids: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        *own_inputs, shared_input = (encoder(user_ids, item_ids) for encoder in self.encoders)  # (B, D) each
        own = [bank(x) for bank, x in zip(self.own, own_inputs, strict=True)]  # T times (B, m, h)
        shared = self.shared(shared_input)  # (B, s, h)
        gates = {
            task: gate(x + shared_input) for task, gate, x in zip(self.tasks, self.gate_layers, own_inputs, strict=True)
        }  # (B, T m + s) each
        mixtures = []
        for number, gate in enumerate(gates.values()):
            visible = [bank if other == number else bank.detach() for other, bank in enumerate(own)]
            mixtures += mix([gate], torch.cat([*visible, shared], dim=1))
        return mixtures, gates  # T times (B, h)
