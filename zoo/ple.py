"""Task-specific experts beside shared ones: in one level (CGC), in several (PLE), with separate embeddings (ME-PLE)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.layers import TASKS, ExpertBank, Gate, Network, broadcast, make_encoders, make_towers, mix, name_gates


class Extraction(nn.Module):
    """One level of PLE, an extraction network: T + 1 inputs -> T or T + 1 outputs, the shared path last.

    The last level, and any level without shared experts, has T outputs: nothing reads its shared path.

    Args:
        num_tasks: T.
        task_experts, shared_experts: m per task, and s.
        width: D, width of each input.
        units: widths of the layers of an expert.
        is_last: True for the last level.
    """

    def __init__(
        self, num_tasks: int, task_experts: int, shared_experts: int, width: int, units: Sequence[int], is_last: bool
    ) -> None:
        super().__init__()
        self.own = nn.ModuleList(
            ExpertBank(task_experts, width, units) for _ in range(num_tasks if task_experts else 0)
        )
        self.shared = ExpertBank(shared_experts, width, units) if shared_experts else None
        self.gate_layers = nn.ModuleList(Gate(width, task_experts + shared_experts) for _ in range(num_tasks))
        if not is_last and shared_experts:
            self.gate_layers.append(Gate(width, num_tasks * task_experts + shared_experts))

    def forward(self, inputs: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the outputs (B, h) and the gate weights (B, E) that made them; `inputs` are T + 1 times (B, D)."""
        own = [bank(x) for bank, x in zip(self.own, inputs, strict=False)]  # T times (B, m, h)
        shared = [self.shared(inputs[-1])] if self.shared is not None else []  # (B, s, h)
        choices = [[bank, *shared] for bank in own] if own else [shared] * (len(inputs) - 1)
        choices.append([*own, *shared])
        gates = [gate(x) for gate, x in zip(self.gate_layers, inputs, strict=False)]
        return [mix([gate], torch.cat(choice, dim=1))[0] for gate, choice in zip(gates, choices, strict=False)], gates


class PLE(Network):
    """Progressive layered extraction: levels of task-specific and shared experts (Tang et al. 2020, section 4.2).

        z_t = softmax(W_t z'_t) . [F^t; F^S]                   task t: its own and the shared experts
        z_S = softmax(W_S z'_S) . [F^1; ..; F^T; F^S]          shared path: all experts; not in the last level

    z' are the outputs of the level below, z'_t = z'_S = x at the first. F^t (m, h) are the experts of task t on z'_t,
    F^S (s, h) the shared ones on z'_S. Task t never reads experts of another task directly; tasks meet in the shared
    path.

    Args:
        num_users, num_items, embedding_dim, tasks, expert_units, tower_units: see `zoo.layers`.
        levels: L, at least 1; one level is CGC.
        task_experts: m per task and level; 0 leaves shared experts only, as in MMoE.
        shared_experts: s per level; 0 separates the tasks above the embeddings.

    Raises:
        ValueError: there is no level, no expert, or a negative number of experts.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 32,
        tasks: Sequence[str] = TASKS,
        levels: int = 2,
        task_experts: int = 4,
        shared_experts: int = 4,
        expert_units: Sequence[int] = (64,),
        tower_units: Sequence[int] = (32,),
    ) -> None:
        super().__init__(tasks)
        if levels < 1 or min(task_experts, shared_experts) < 0 or task_experts + shared_experts < 1:
            raise ValueError(
                f"it takes at least 1 level and 1 expert, not {levels} levels of {task_experts} experts per task and "
                f"{shared_experts} shared experts"
            )
        self.encoders = make_encoders(self._count_encoders(shared_experts), num_users, num_items, embedding_dim)
        width = self.encoders[0].width
        self.levels = nn.ModuleList()
        for level in range(levels):
            is_last = level == levels - 1
            self.levels.append(Extraction(len(tasks), task_experts, shared_experts, width, expert_units, is_last))
            width = expert_units[-1]
        self.towers = make_towers(width, tower_units, len(tasks))

    def _count_encoders(self, shared_experts: int) -> int:
        return 1

    def _represent(self, user_ids: Tensor, item_ids: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        inputs = broadcast([encoder(user_ids, item_ids) for encoder in self.encoders], len(self.tasks) + 1)  # (B, D)
        names = (*self.tasks, "(shared)")
        gates = {}
        for number, level in enumerate(self.levels, 1):
            inputs, chosen = level(inputs)
            gates |= name_gates(names, chosen, number, len(self.levels))
        return inputs[: len(self.tasks)], gates  # T times (B, h)


class CGC(PLE):
    """Customized gate control: PLE with one level (Tang et al. 2020, section 4.1)."""

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 32,
        tasks: Sequence[str] = TASKS,
        task_experts: int = 4,
        shared_experts: int = 4,
        expert_units: Sequence[int] = (64,),
        tower_units: Sequence[int] = (32,),
    ) -> None:
        super().__init__(
            num_users, num_items, embedding_dim, tasks, 1, task_experts, shared_experts, expert_units, tower_units
        )


class MEPLE(PLE):
    """Multi-embedding PLE: as PLE, with one pair of embedding tables per task and one for the shared experts.

    At the first level the experts and the gate of task t read x^t, the shared ones read x^S. Without shared experts
    nothing reads x^S, and it has no tables.

    Su et al. 2024 (STEM) name ME-PLE as a baseline without publishing code for it; this is our reading of it.
    """

    def _count_encoders(self, shared_experts: int) -> int:
        return len(self.tasks) + (1 if shared_experts else 0)
