"""Mixtures of shared experts: one gate (OMoE), one gate per task (MMoE), and separate embeddings (ME-MMoE)."""

from collections.abc import Sequence

from torch import Tensor, nn

from zoo.layers import TASKS, ExpertBank, Gate, Network, broadcast, make_encoders, make_towers, mix


class OMoE(Network):
    """One-gate mixture of experts: all tasks read the same mixture (Jacobs et al. 1991; named OMoE by Ma et al. 2018).

        y_t = tower_t(z)        z = sum_e g_e f_e(x)        g = softmax(W x)

    The gate is one linear map without a bias.

    Args:
        num_users, num_items, embedding_dim, tasks, expert_units, tower_units: see `zoo.layers`.
        experts: E, at least 1.
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
        inputs = [encoder(user_ids, item_ids) for encoder in self.encoders]  # (B, D) each
        experts = [self.experts(x) for x in inputs]  # (B, E, h) each
        names = self._gate_names()
        gate_inputs = broadcast(inputs, len(names))
        gates = {name: gate(x) for name, gate, x in zip(names, self.gate_layers, gate_inputs, strict=True)}  # (B, E)
        # All gates of one input are mixed in one product.
        groups = [list(gates.values())] if len(experts) == 1 else [[gate] for gate in gates.values()]
        mixtures = [z for group, bank in zip(groups, experts, strict=True) for z in mix(group, bank)]  # (B, h) each
        return broadcast(mixtures, len(self.tasks)), gates


class MMoE(OMoE):
    """Multi-gate mixture of experts: shared experts, one gate per task (Ma et al. 2018, section 4.2).

        y_t = tower_t(z_t)        z_t = sum_e g^t_e f_e(x)        g^t = softmax(W_t x)

    As in the paper, a gate is one linear map of the input, and experts read the input itself. Some public versions put
    hidden layers or batch normalization into the gates, or an MLP in front of the experts.
    """

    def _gate_names(self) -> tuple[str, ...]:
        return self.tasks


class MEMMoE(MMoE):
    """Multi-embedding MMoE: as MMoE, with a separate pair of embedding tables per task.

        y_t = tower_t(z_t)        z_t = sum_e g^t_e f_e(x^t)        g^t = softmax(W_t x^t)

    Su et al. 2024 (STEM) name ME-MMoE as a baseline without publishing code for it; this is our reading of it. The
    experts are shared and evaluated once per task. A task's loss reaches that task's tables only.
    """

    def _count_encoders(self) -> int:
        return len(self.tasks)
