"""How the losses of several tasks are weighed against each other: five methods, for every model and any set of tasks.

The training loop asks its weighting where it would otherwise call backward() on a sum:

    parameters()                 what the optimizer is to learn besides the model
    begin_epoch(epoch, history)  history: the rows of the finished epochs, with "train_<loss>", the unweighted means
    backward(losses, model, add_up)
                                 adds to .grad as loss.backward() does; returns the joint loss, detached. add_up sums
                                 gradients of the model over processes, each of which holds the losses of all
    report()                     columns for the row of the epoch: "weight_<loss>", the w_t now in force, or "conflicts"
    state_dict(), load_state_dict(state)

The lambdas multiply the losses before a method sees them. Under "dwa" and "pcgrad" they keep their meaning. Under
"uncertainty" and "gradnorm" they largely cancel: a loss with a smaller lambda is given a factor as much larger, so that
the lambdas only say where training starts, how fast the factors move and, under "gradnorm", the scale of the whole.

Extras are losses that are no tasks, such as a regulariser: they are added with their lambda and never balanced.

Letters: T tasks, L_t the loss of task t, g_t the gradient of lambda_t L_t, w_t the factor a method gives to both.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from config.errors import UserError
from losses import joint_loss
from training.streams import stream

GRADNORM_ALPHA = 1.5  # how hard tasks are pulled to one pace of learning; as in the experiments of Chen et al. 2018
GRADNORM_STEP = 0.025  # step size of the factors, from the same experiments
GRADNORM_FLOOR = 1e-3  # keeps the factors positive; the paper does not say how
DWA_TEMPERATURE = 2.0  # Liu et al. 2019: the higher, the more even the factors

AddUp = Callable[[list[Tensor]], list[Tensor]]
Column = tuple[Tensor | None, ...]  # g_t of one parameter, one entry a task; None where a task does not reach it


class Fixed:
    """The weighted sum, joint = sum_t lambda_t L_t; also what the other methods build on.

    `tasks` are the names to balance, in the order of w; the other arguments are those of make_weighting.
    """

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, float], gaussian, seed: int, device) -> None:
        self.tasks, self.weights = tuple(tasks), dict(weights)
        self.gaussian, self.seed, self.device = gaussian, seed, device
        self.begin_epoch(1, [])

    def parameters(self) -> list[nn.Parameter]:
        return []

    def begin_epoch(self, epoch: int, history: Sequence[Mapping[str, float]]) -> None:
        pass

    def factors(self) -> dict[str, float | Tensor]:
        """The w_t in force, {task: scalar}; a loss without an entry has 1."""
        return {}

    def joint(self, losses: Mapping[str, Tensor]) -> Tensor:
        """sum_t w_t lambda_t L_t plus the extras; raises ValueError where losses and lambdas differ in their names."""
        factors = self.factors()
        return joint_loss(losses, {name: weight * factors.get(name, 1.0) for name, weight in self.weights.items()})

    def backward(self, losses: Mapping[str, Tensor], model: nn.Module, add_up: AddUp | None = None) -> Tensor:
        joint = self.joint(losses)
        joint.backward()
        if add_up is not None:
            reached = [parameter for parameter in model.parameters() if parameter.grad is not None]
            for parameter, gradient in zip(reached, add_up([parameter.grad for parameter in reached]), strict=True):
                parameter.grad = gradient
        return joint.detach()

    def report(self) -> dict[str, float]:
        with torch.no_grad():
            return {f"weight_{name}": float(factor) for name, factor in self.factors().items()}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        pass


class Uncertainty(Fixed):
    """Kendall, Gal and Cipolla 2018, eq. (7) and (10): the noise sigma_t of each task is learnt, s_t = log sigma_t^2.

        squared errors    1/2 exp(-s) lambda L + 1/2 s        least at exp(s) = lambda L
        all others            exp(-s) lambda L + 1/2 s        least at exp(s) = 2 lambda L

    The second is theirs for a softmax likelihood; for a loss that is no log-likelihood (BPR in its sigmoid form) it is
    a heuristic. The joint loss holds the 1/2 s and may fall below 0. Weight decay would pull every s_t to 0.
    """

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.s = nn.Parameter(torch.zeros(len(self.tasks), device=self.device))
        self.scales = torch.tensor([0.5 if name in self.gaussian else 1.0 for name in self.tasks], device=self.device)

    def parameters(self) -> list[nn.Parameter]:
        return [self.s]

    def factors(self) -> dict[str, Tensor]:
        return dict(zip(self.tasks, self.scales * torch.exp(-self.s), strict=True))

    def joint(self, losses: Mapping[str, Tensor]) -> Tensor:
        return super().joint(losses) + self.s.sum() / 2

    def state_dict(self) -> dict[str, Tensor]:
        return {"s": self.s.detach().clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            self.s.copy_(state["s"])


class DWA(Fixed):
    """Dynamic weight average, Liu, Johns and Davison 2019, eq. (7): what fell less in the last epoch weighs more now.

    w = T softmax(r / temperature) with r_t = L_t(e-1) / L_t(e-2), from the means in the history; w_t = 1 in the first
    two epochs. A loss that was 0 counts as unchanged. There is no state but the history.
    """

    def begin_epoch(self, epoch: int, history: Sequence[Mapping[str, float]]) -> None:
        self.w = [1.0] * len(self.tasks)
        if len(history) >= 2:
            columns = [f"train_{name}" for name in self.tasks]
            before, last = history[-2:]
            ratios = [last[column] / before[column] if before[column] else 1.0 for column in columns]
            shares = torch.softmax(torch.tensor(ratios, dtype=torch.float64) / DWA_TEMPERATURE, dim=0)
            self.w = (len(self.tasks) * shares).tolist()

    def factors(self) -> dict[str, float]:
        return dict(zip(self.tasks, self.w, strict=True))


class _ByGradients(Fixed):
    """A method that looks at each g_t: one autograd pass a loss, combined by hand instead of another backward().

    Subclasses `combine`: for each parameter, what the g_t are multiplied by before they are summed, {task: scalar}.
    """

    def backward(self, losses: Mapping[str, Tensor], model: nn.Module, add_up: AddUp | None = None) -> Tensor:
        joint = self.joint(losses).detach()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients = {name: _gradient(self.weights[name] * loss, parameters, add_up) for name, loss in losses.items()}
        columns = list(zip(*(gradients[name] for name in self.tasks), strict=True))
        factors = self.combine(columns, losses)
        for index, parameter in enumerate(parameters):
            for name, gradient in gradients.items():
                if (part := gradient[index]) is not None:
                    part = part * factors[index].get(name, 1.0)
                    parameter.grad = part if parameter.grad is None else parameter.grad + part
        return joint


class GradNorm(_ByGradients):
    """Chen et al. 2018, algorithm 1: factors that bring tasks to one pace of learning, by the norms of their gradients.

        G_t = || grad_W w_t lambda_t L_t ||,   r_t = (L_t / L_t(0)) / mean over tasks,   target_t = mean(G) r_t^alpha
        w  <-  w - step * grad_w sum_t | G_t - target_t |,   targets held constant;   then scaled to sum T

    The model's gradient is that of sum_t w_t lambda_t L_t with the w from before this update. As G_t is linear in w_t,
    its slope is || g_t ||, and nothing is differentiated twice.

    Where we differ: W is every parameter that all tasks' losses reach, not the last shared layer, for that needs no
    knowledge of the network and serves those that share embeddings alone. The factors take plain gradient steps, not
    Adam's, and are held above a small floor, so that they stay positive. L_t(0) is the first loss above 0, as the first
    batch may hold no row of a task; until then the task counts as having made no progress.
    """

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.w = torch.ones(len(self.tasks), device=self.device)
        self.first_losses = torch.zeros(len(self.tasks), device=self.device)

    def factors(self) -> dict[str, Tensor]:
        return dict(zip(self.tasks, self.w, strict=True))

    def combine(self, columns: list[Column], losses: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """The w in force, and then a step of w; raises UserError where no parameter is shared by all tasks."""
        factors = self.factors()
        self._update(torch.stack([losses[name].detach() for name in self.tasks]), _shared_norms(columns))
        return [factors] * len(columns)

    def _update(self, losses: Tensor, norms: Tensor) -> None:
        """One step of w from the losses L_t and the norms || g_t ||, (T,) each."""
        self.first_losses = torch.where(self.first_losses > 0, self.first_losses, losses)
        progress = torch.where(self.first_losses > 0, losses / self.first_losses, 1.0)
        pace = progress / progress.mean().clamp_min(1e-30)  # no 0 / 0 where every loss has reached 0
        targets = (self.w * norms).mean() * pace**GRADNORM_ALPHA
        slopes = torch.sign(self.w * norms - targets) * norms
        w = (self.w - GRADNORM_STEP * slopes).clamp_min(GRADNORM_FLOOR)
        self.w = w * (len(w) / w.sum())

    def state_dict(self) -> dict[str, Tensor]:
        return {"w": self.w, "first_losses": self.first_losses}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.w, self.first_losses = state["w"], state["first_losses"]


class PCGrad(_ByGradients):
    """Yu et al. 2020, algorithm 1: a gradient that points against another task's gives up the part that does.

    The g_t are projected over the parameters that two tasks or more reach, and summed; a parameter that one task
    reaches alone takes that gradient as it is. No loss has the sum as its gradient; the joint loss told is that of
    "fixed". The orders come from (seed, epoch), so that a resumed run repeats them exactly.
    """

    def begin_epoch(self, epoch: int, history: Sequence[Mapping[str, float]]) -> None:
        self.generator = stream(self.seed, -1000 - epoch)  # none of the streams of the batches
        self.steps, self.steps_in_conflict = 0, 0

    def combine(self, columns: list[Column], losses: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        self.steps += 1
        is_shared = [sum(gradient is not None for gradient in column) > 1 for column in columns]
        if not any(is_shared):
            return [{}] * len(columns)
        gram = sum(_inner_products(column) for column, shared in zip(columns, is_shared, strict=True) if shared)
        self.steps_in_conflict = self.steps_in_conflict + (gram < 0).any()  # a tensor: reading it makes a GPU wait
        summed = dict(zip(self.tasks, project_conflicts(gram, self.generator).sum(dim=0), strict=True))
        return [summed if shared else {} for shared in is_shared]

    def report(self) -> dict[str, float]:
        """The share of this epoch's steps in which some two tasks' gradients had a negative inner product."""
        return {"conflicts": int(self.steps_in_conflict) / max(1, self.steps)}


def project_conflicts(gram: Tensor, generator: torch.Generator) -> Tensor:
    """PCGrad's projections from inner products alone, as every projected gradient is a sum of original ones.

    Each gradient meets the original others in a random order and gives up its part along each with which it then has a
    negative inner product; along one of norm 0 there is nothing to give up.

    Args:
        gram: (T, T) inner products of the original gradients.

    Returns:
        C (T, T): projected gradient i is sum_j C[i, j] g_j.
    """
    coefficients = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for i, row in enumerate(coefficients):
        for j in torch.randperm(len(gram), generator=generator).tolist():
            if i != j:
                inner, square = row @ gram[:, j], gram[j, j]
                row[j] -= torch.where((inner < 0) & (square > 0), inner / square, 0.0)
    return coefficients


_CLASSES = {"fixed": Fixed, "uncertainty": Uncertainty, "gradnorm": GradNorm, "dwa": DWA, "pcgrad": PCGrad}
METHODS = tuple(_CLASSES)


def make_weighting(
    name: str,
    weights: Mapping[str, float],
    gaussian: Collection[str],
    seed: int,
    device: torch.device,
    extras: Collection[str] = (),
) -> Fixed:
    """Build a weighting by its name, one of METHODS.

    Args:
        weights: {name: lambda > 0} for every loss, extras included.
        gaussian: the losses that are squared errors, for "uncertainty".
        seed: of the orders of "pcgrad".
        extras: the losses that are no tasks.

    Raises:
        ValueError: no method has this name, or a name in `gaussian` or `extras` has no lambda.
    """
    if unknown := sorted({*gaussian, *extras} - weights.keys()):
        raise ValueError(f"no loss is called {', '.join(unknown)}: there are {', '.join(weights)}")
    if name not in _CLASSES:
        raise ValueError(f"unknown weighting {name!r}: choose one of {', '.join(METHODS)}")
    tasks = [loss for loss in weights if loss not in extras]
    return _CLASSES[name](tasks, weights, gaussian, seed, device)


def _gradient(loss: Tensor, parameters: list[nn.Parameter], add_up: AddUp | None) -> Sequence[Tensor | None]:
    if not loss.requires_grad:
        return [None] * len(parameters)
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    if add_up is not None:
        summed = iter(add_up([gradient for gradient in found if gradient is not None]))
        found = [None if gradient is None else next(summed) for gradient in found]
    # The fused AdamW reads memory as it lies: gradients in another order would go to the wrong weights.
    return [None if gradient is None else gradient.contiguous() for gradient in found]


def _shared_norms(columns: list[Column]) -> Tensor:
    """|| g_t || over the parameters that all tasks reach: (T,)."""
    shared = [column for column in columns if all(gradient is not None for gradient in column)]
    if not shared:
        raise UserError(
            "--weighting gradnorm balances gradients in parameters that all tasks share, and this network has none"
        )
    return torch.stack([torch.stack([part.norm() for part in parts]).norm() for parts in zip(*shared, strict=True)])


def _inner_products(column: Column) -> Tensor:
    """g_i . g_j within one parameter, 0 where one of the two does not reach it: (T, T)."""
    zero = torch.zeros_like(next(gradient for gradient in column if gradient is not None))
    rows = torch.stack([(zero if gradient is None else gradient).flatten() for gradient in column])  # (T, numel)
    return rows @ rows.T
