"""Networks that mix experts: from no sharing at all to experts for all, chosen by a gate for each task.

    SingleTask     a network a task, nothing shared
    SharedBottom   one MLP for all tasks                                   Caruana 1997
    OMoE           experts, one gate                                       Jacobs et al. 1991
    MMoE           experts, a gate a task                                  Ma et al., KDD 2018
    CGC, PLE       experts of a task beside shared ones, in levels         Tang et al., RecSys 2020
    ME-*           the same on an embedding table of each task's own       baselines of Su et al., AAAI 2024
    AdaTT          experts of a task, fused with those of all others       Li et al., KDD 2023

Common arguments:
    num_users, num_items, embedding_dim    sizes of the tables
    tasks                                  names of the labels; one alone will do
    expert_units                           widths of the layers of an expert (of the bottom, where there are no experts)
    tower_units                            widths of the hidden layers of a tower
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.layers import MLP, ExpertBank, Gate, Network, PairEncoder, Tower, make_encoders, make_towers, mix, name_gates

TASKS = ("view", "like")


class SingleTask(Network):
    """A network a task, with tables, bottom and tower of its own: what every form of sharing is compared with."""

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 32,
        tasks: Sequence[str] = TASKS,
        expert_units: Sequence[int] = (64,),
        tower_units: Sequence[int] = (32,),
    ) -> None:
        super().__init__(tasks)
        self.encoders = make_encoders(len(tasks), num_users, num_items, embedding_dim)
        self.bottoms = nn.ModuleList(MLP(encoder.width, expert_units) for encoder in self.encoders)
        self.towers = nn.ModuleList(Tower(bottom.width, tower_units) for bottom in self.bottoms)

    def _represent(self, user_ids: Tensor, item_ids: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        pairs = zip(self.encoders, self.bottoms, strict=True)
        return [bottom(encoder(user_ids, item_ids)) for encoder, bottom in pairs], {}


class SharedBottom(Network):
    """One encoder and one bottom, a tower a task: hard parameter sharing (Caruana 1997)."""

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 32,
        tasks: Sequence[str] = TASKS,
        expert_units: Sequence[int] = (64,),
        tower_units: Sequence[int] = (32,),
    ) -> None:
        super().__init__(tasks)
        self.encoder = PairEncoder(num_users, num_items, embedding_dim)
        self.bottom = MLP(self.encoder.width, expert_units)
        self.towers = make_towers(self.bottom.width, tower_units, len(tasks))

    def _represent(self, user_ids: Tensor, item_ids: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        return [self.bottom(self.encoder(user_ids, item_ids))] * len(self.tasks), {}


class OMoE(Network):
    """E experts and one gate: z = sum_e g_e f_e(x), the same for all tasks (Jacobs et al. 1991).

    Args:
        experts: E.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int = 32,
        tasks: Sequence[str] = TASKS,
        experts: int = 8,
        expert_units: Sequence[int] = (64,),
        tower_units: Sequence[int] = (32,),
    ) -> None:
        super().__init__(tasks)
        self.encoders = make_encoders(self._count_encoders(), num_users, num_items, embedding_dim)
        width = self.encoders[0].width
        self.experts = ExpertBank(experts, width, expert_units)
        self.gate_layers = nn.ModuleList(Gate(width, experts) for _ in self._gate_names())
        self.towers = make_towers(self.experts.width, tower_units, len(tasks))

    def _count_encoders(self) -> int:
        return 1

    def _gate_names(self) -> tuple[str, ...]:
        return ("all",)

    def _represent(self, user_ids: Tensor, item_ids: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        inputs = [encoder(user_ids, item_ids) for encoder in self.encoders]
        experts = [self.experts(x) for x in inputs]
        names = self._gate_names()
        gates = {
            name: gate(x) for name, gate, x in zip(names, self.gate_layers, _spread(inputs, len(names)), strict=True)
        }
        groups = [list(gates.values())] if len(experts) == 1 else [[gate] for gate in gates.values()]
        mixtures = [z for group, bank in zip(groups, experts, strict=True) for z in mix(group, bank)]
        return _spread(mixtures, len(self.tasks)), gates


class MMoE(OMoE):
    """E experts and a gate a task: z_t = sum_e g^t_e f_e(x), g^t = softmax(W_t x) (Ma et al. 2018, section 4.2).

    The gates are one linear map of the input and the experts read the input itself, as the paper has it; public
    versions put hidden layers or batch normalisation into the gates, or an MLP before the experts.
    """

    def _gate_names(self) -> tuple[str, ...]:
        return self.tasks


class MEMMoE(MMoE):
    """MMoE with a pair of tables for each task: z_t = sum_e g^t_e f_e(x^t), g^t = softmax(W_t x^t).

    A multi-embedding baseline of Su et al. 2024 (STEM). The experts are shared and evaluated once a task; the tables
    are not, so that a task's loss moves its own alone.
    """

    def _count_encoders(self) -> int:
        return len(self.tasks)


class PLE(Network):
    """Experts of a task beside shared ones, in levels (Tang et al. 2020, progressive layered extraction).

    At each level task t chooses among its own and the shared experts, z_t = softmax(W_t z_t') . [F^t; F^S], and never
    sees those of another task. Between levels the shared path chooses among all experts, z_S = softmax(W_S z_S') .
    [F^1; ..; F^T; F^S], which is how tasks meet; the last level has no shared path, since nobody would read it.

    Args:
        levels: L, at least 1; with one level it is CGC.
        task_experts: m a task and level; may be 0, which leaves MMoE's experts.
        shared_experts: s a level; may be 0, which leaves the tasks apart above the embeddings.

    Raises:
        ValueError: there is no level or no expert, or less than none.
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
                f"it takes at least 1 level and 1 expert, not {levels} levels of {task_experts} experts a task and "
                f"{shared_experts} shared ones"
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
        inputs = _spread([encoder(user_ids, item_ids) for encoder in self.encoders], len(self.tasks) + 1)
        names = (*self.tasks, "(shared)")
        gates = {}
        for number, level in enumerate(self.levels, 1):
            inputs, chosen = level(inputs)
            gates |= name_gates(names, chosen, number, len(self.levels))
        return inputs[: len(self.tasks)], gates


class Extraction(nn.Module):
    """One level of PLE: T + 1 inputs (B, D), the shared one last -> as many outputs (B, h), and the gate weights.

    The last level, and any level without shared experts, puts out T: nobody reads its shared path.
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
        own = [bank(x) for bank, x in zip(self.own, inputs, strict=False)]
        shared = [self.shared(inputs[-1])] if self.shared is not None else []
        choices = [[bank, *shared] for bank in own] if own else [shared] * (len(inputs) - 1)
        choices.append([*own, *shared])
        gates = [gate(x) for gate, x in zip(self.gate_layers, inputs, strict=False)]
        return [mix([gate], torch.cat(choice, dim=1))[0] for gate, choice in zip(gates, choices, strict=False)], gates


class CGC(PLE):
    """Customised gate control: PLE of one level (Tang et al. 2020, section 4.1)."""

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
    """PLE with a pair of tables for each task, and one for the shared experts; a baseline of Su et al. 2024 (STEM).

    Task t's experts and gate read x^t, the shared ones x^S; without shared experts nobody would read x^S, and it has no
    tables.
    """

    def _count_encoders(self, shared_experts: int) -> int:
        return len(self.tasks) + (1 if shared_experts else 0)


class AdaTT(Network):
    """Adaptive task-to-task fusion, the form without shared experts (Li et al. 2023, AdaTT-sp).

    At each level task t has m experts F^t on its own input and a gate over the N = T m experts of all tasks:
    z_t = softmax(W_t z_t') . F + v_t . F^t. The second term, the residual of its own experts, has free weights v_t
    (m of them, of any sign); with m = 1 it is F^t itself.

    Args:
        levels: L, at least 1.
        task_experts: m a task and level, at least 1.
        residual: False leaves out v_t . F^t, the paper's ablation.

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
            raise ValueError(f"it takes at least 1 level and 1 expert a task, not {levels} and {task_experts}")
        self.encoder = PairEncoder(num_users, num_items, embedding_dim)
        width = self.encoder.width
        self.levels = nn.ModuleList()
        for _ in range(levels):
            self.levels.append(Fusion(len(tasks), task_experts, width, expert_units, residual))
            width = expert_units[-1]
        self.towers = make_towers(width, tower_units, len(tasks))

    def _represent(self, user_ids: Tensor, item_ids: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        inputs = [self.encoder(user_ids, item_ids)] * len(self.tasks)
        gates = {}
        for number, level in enumerate(self.levels, 1):
            inputs, chosen = level(inputs)
            gates |= name_gates(self.tasks, chosen, number, len(self.levels))
        return inputs, gates


class Fusion(nn.Module):
    """One level of AdaTT: T inputs (B, D) -> T outputs (B, h), and the gate weights."""

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
        own = [bank(x) for bank, x in zip(self.own, inputs, strict=True)]
        everything = torch.cat(own, dim=1)
        gates = [gate(x) for gate, x in zip(self.gate_layers, inputs, strict=True)]
        outputs = mix(gates, everything)
        if self.residual:
            outputs = [z + self._weigh(task, bank) for task, (z, bank) in enumerate(zip(outputs, own, strict=True))]
        return outputs, gates

    def _weigh(self, task: int, bank: Tensor) -> Tensor:
        if self.residual_weights is None:
            return bank.squeeze(1)
        return mix([self.residual_weights[task].expand(len(bank), -1)], bank)[0]


def _spread(values: list, count: int) -> list:
    """The values themselves, or one value for all."""
    return values * count if len(values) == 1 else values
