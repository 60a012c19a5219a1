"""AdaTT: task-specific experts, fused across tasks level by level (Li et al., KDD 2023)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.layers import TASKS, ExpertBank, Gate, Network, PairEncoder, make_towers, mix, name_gates


class Fusion(nn.Module):
    """One level of AdaTT: T inputs -> T outputs.

    Args:
        num_tasks: T.
        task_experts: m per task.
        width: D, width of each input.
        units: widths of the layers of an expert.
        residual: True adds the experts of the task itself, v_t . F^t.
    """

    def __init__(self, num_tasks: int, task_experts: int, width: int, units: Sequence[int], residual: bool) -> None:
        super().__init__()
        self.own = nn.ModuleList(ExpertBank(task_experts, width, units) for _ in range(num_tasks))
        self.gate_layers = nn.ModuleList(Gate(width, num_tasks * task_experts) for _ in range(num_tasks))
        self.residual = residual
        self.residual_weights = None
        if residual and task_experts > 1:
            bound = 1 / math.sqrt(task_experts)
            self.residual_weights = nn.Parameter(torch.empty(num_tasks, task_experts).uniform_(-bound, bound))

    def forward(self, inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the outputs (B, h) and the gate weights (B, T m); `inputs` are T times (B, D)."""
        own = [bank(x) for bank, x in zip(self.own, inputs, strict=True)]  # T times (B, m, h)
        gates = [gate(x) for gate, x in zip(self.gate_layers, inputs, strict=True)]
        outputs = mix(gates, torch.cat(own, dim=1))  # T times (B, h)
        if self.residual:
            outputs = [z + self._residual(task, bank) for task, (z, bank) in enumerate(zip(outputs, own, strict=True))]
        return outputs, gates

    def _residual(self, task: int, bank: Tensor) -> Tensor:
        """v_t . F^t: (B, m, h) -> (B, h)."""
        if self.residual_weights is None:
            return bank.squeeze(1)
        return mix([self.residual_weights[task].expand(len(bank), -1)], bank)[0]


class AdaTT(Network):
    """Adaptive task-to-task fusion, the form without shared experts (Li et al. 2023, AdaTT-sp).

        z_t = softmax(W_t z'_t) . [F^1; ..; F^T] + v_t . F^t

    z'_t is the output of the level below, x at the first. F^t (m, h) are the experts of task t on z'_t. The gate mixes
    the experts of all tasks. The second term, the residual of the task's own experts, has free weights v_t (m,) of any
    sign; with m = 1 it is F^t itself.

    Args:
        num_users, num_items, embedding_dim, tasks, expert_units, tower_units: see `zoo.layers`.
        levels: L, at least 1.
        task_experts: m per task and level, at least 1.
        residual: False leaves out v_t . F^t, an ablation of the paper.

    Raises:
        ValueError: there is no level or no expert.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 32,
        tasks: Sequence[str] = TASKS,
        levels: int = 2,
        task_experts: int = 2,
        expert_units: Sequence[int] = (64,),
        tower_units: Sequence[int] = (32,),
        residual: bool = True,
    ) -> None:
        super().__init__(tasks)
        if levels < 1 or task_experts < 1:
            raise ValueError(f"it takes at least 1 level and 1 expert per task, not {levels} and {task_experts}")
        self.encoder = PairEncoder(num_users, num_items, embedding_dim)
        width = self.encoder.width
        self.levels = nn.ModuleList()
        for _ in range(levels):
            self.levels.append(Fusion(len(tasks), task_experts, width, expert_units, residual))
            width = expert_units[-1]
        self.towers = make_towers(width, tower_units, len(tasks))

    def _represent(self, user_ids: Tensor, item_ids: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        inputs = [self.encoder(user_ids, item_ids)] * len(self.tasks)  # T times (B, D)
        gates = {}
        for number, level in enumerate(self.levels, 1):
            inputs, chosen = level(inputs)
            gates |= name_gates(self.tasks, chosen, number, len(self.levels))
        return inputs, gates  # T times (B, h)
