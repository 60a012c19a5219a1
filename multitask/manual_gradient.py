"""Steps of the multi-task net with a manually derived gradient, about three times as fast as autograd.

A step on 256 ratings is little arithmetic, and autograd spends more time on its bookkeeping than on the arithmetic. The
result is the same up to rounding. Students write models.py, so the gradient is compared with autograd before the first
step. multitask/steps.py says when autograd takes the steps.

Symbols as in models.py; N negatives, B rows, d embedding width, x = [u, q, u * q]. "The gradient in y" is the gradient
of the joint loss with respect to y.
"""

import copy
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from config.multitask import MultiTaskConfig
from losses import joint_loss
from models import MultiTaskNet
from multitask.dense_layers import dense_layers
from multitask.flat_adamw import FlatAdamW, flatten
from multitask.task import WatchAndRate
from training.data_parallel import DataParallelStepper
from training.process_group import SingleProcess
from training.steps import GradientStepper

# The comparison with autograd draws weights from N(0, 1). Those of a fresh network are so close to zero that they would
# hide a score that is clipped or squashed.
PROBE_ROWS = 256
PROBE_TOLERANCE = 1e-8  # relative to the largest entry of a gradient, in float64
CHUNK_ROWS = 4096  # larger batches are split: the buffers of a chunk fit the CPU cache, and memory stays bounded


def _bpr_sigmoid_gradient(gap: Tensor) -> Tensor:
    """losses.bpr_sigmoid of gap = p- - p+. Overwrites gap with the gradient of each pair's loss, w (1 - w)."""
    wrong = gap.sigmoid_()  # w = 1 - sigmoid(p+ - p-)
    loss = wrong.mean()
    wrong.addcmul_(wrong, wrong, value=-1)
    return loss


def _bpr_gradient(gap: Tensor) -> Tensor:
    """losses.bpr of gap = p- - p+. Overwrites gap with the gradient of each pair's loss, sigmoid(gap)."""
    loss = F.softplus(gap).mean()
    gap.sigmoid_()
    return loss


# Forms of losses.PAIRWISE_LOSSES with a gradient here. Autograd trains all others.
PAIRWISE_GRADIENTS = {"bpr_sigmoid": _bpr_sigmoid_gradient, "bpr": _bpr_gradient}


def make_manual_stepper(
    model: MultiTaskNet,
    task: WatchAndRate,
    config: MultiTaskConfig,
    device: torch.device,
    group: SingleProcess | None = None,
) -> "ManualGradientStepper":
    """The stepper with the manual gradient; group: the processes that share each step, None: one process."""
    if group is None:
        return ManualGradientStepper(model, task, config, device)
    return DataParallelManualGradientStepper(model, task, config, device, group)


class ManualGradientStepper(GradientStepper):
    """GradientStepper with ManualGradient instead of autograd. Checkpoints are interchangeable."""

    def __init__(self, model: MultiTaskNet, task: WatchAndRate, config: MultiTaskConfig, device: torch.device) -> None:
        self.gradient = ManualGradient(model, task, config.weights)
        super().__init__(model, task, config, device)

    def make_optimizer(self, groups: list[dict], **options) -> FlatAdamW:
        return FlatAdamW(groups, self.gradient.values, self.gradient.gradients, **options)

    def backward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.gradient(batch)


class DataParallelManualGradientStepper(DataParallelStepper, ManualGradientStepper):
    """DataParallelStepper with the gradient of ManualGradientStepper; a step reduces one flat tensor."""

    @torch.no_grad()
    def backward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        shard, weights = self._shard(batch)
        found = self.gradient(shard)
        weight = weights["regression"]  # the same for both losses: they are means over rows
        packed = self._pack([found[name] * weight for name in weights])
        totals, gradients = self.group.all_reduce([packed, self.gradient.gradients * weight])
        self.gradient.gradients.copy_(gradients)
        self._stop_votes = totals[-1]
        losses = dict(zip(weights, totals[:-1].unbind(), strict=True))
        return losses | {"joint": joint_loss(losses, self.config.weights)}


class ManualGradient:
    """Writes the gradient of lambda_F L_F + lambda_R L_R, eq. (3) and (5), to .grad of every parameter.

    Args:
        model: a network on the CPU for which `matches_autograd` is true. Its parameters and their .grad become views of
            two flat tensors. They may be modified in place but not replaced while this object is in use.
        task: WatchAndRate, for the form of its ranking loss and its choice of negatives.
        weights: the lambdas, {"factorization": .., "regression": ..}.

    Attributes:
        values, gradients: the flat tensors (n,) of all parameters and of their gradients.
    """

    def __init__(self, model: MultiTaskNet, task, weights: dict[str, float]) -> None:
        self.task, self.weights, self.sharing = task, weights, model.embedding_sharing
        names = ("U", "Q") if self.sharing else ("U_reg", "Q_reg", "U_fact", "Q_fact")
        tables = [getattr(model, name).weight for name in names]
        layers = [(layer.weight, layer.bias) for layer in dense_layers(model)]
        self.values, self.gradients = flatten([*tables, *(part for layer in layers for part in layer), model.B.weight])
        self.layers = [(weight.detach(), bias.detach()) for weight, bias in layers]
        self.layer_gradients = [(weight.grad, bias.grad) for weight, bias in layers]
        self.bias, self.bias_gradient = model.B.weight.detach().view(-1), model.B.weight.grad.view(-1)
        # All tables form one table, so that a batch is one lookup.
        self.table, self.table_gradient = _join(tables, self.values), _join(tables, self.gradients)
        # The first row of each block of _Buffers in that table: (K, 1).
        offsets = [0, *accumulate(map(len, tables[:-1]))]
        self.offsets = torch.tensor(offsets + offsets[-1:] * (1 if task.keep_hardest else task.negatives)).unsqueeze(1)
        self.buffers: dict[int, _Buffers] = {}

    @torch.inference_mode()
    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The losses of the task on a batch and the "joint" loss, whose gradient .grad holds afterwards."""
        self.gradients.zero_()
        rows = len(batch["ratings"])
        if rows <= CHUNK_ROWS:
            losses = self._accumulate(batch, 1.0)
        else:
            losses = dict.fromkeys(self.weights, 0.0)
            # Sorted by user, the users of a chunk are neighbors in the table: with many users this saves a tenth of the
            # time. 32-bit integers sort several times as fast.
            order = batch["user_ids"].int().argsort(stable=True)
            chunks = (column.index_select(0, order).split(CHUNK_ROWS) for column in batch.values())
            for columns in zip(*chunks, strict=True):
                fraction = len(columns[0]) / rows
                found = self._accumulate(dict(zip(batch, columns, strict=True)), fraction)
                losses = {name: losses[name] + fraction * loss for name, loss in found.items()}
        return losses | {"joint": joint_loss(losses, self.weights)}

    def _accumulate(self, batch: dict[str, Tensor], fraction: float) -> dict[str, Tensor]:
        """Add the gradient of the given fraction of the batch to .grad; returns the mean losses of these rows."""
        rows = len(batch["ratings"])
        if rows not in self.buffers:
            widths = [weight.shape[1] for weight, _ in self.layers]
            self.buffers[rows] = _Buffers(rows, len(self.offsets), self.sharing, widths, self.table)
        at = self.buffers[rows]
        at.flat_gradients.zero_()
        self._look_up(batch, at)
        losses = {"factorization": self._rank(at, fraction), "regression": self._rate(batch["ratings"], at, fraction)}
        self.table_gradient.index_add_(0, at.flat_rows, at.flat_gradients)
        return losses

    def _look_up(self, batch: dict[str, Tensor], at: "_Buffers") -> None:
        """Look up the embeddings and the item biases of a batch."""
        negative_ids = batch["negative_ids"].T
        if self.task.keep_hardest:
            negative_ids = self._hardest(batch["user_ids"], negative_ids)
        torch.cat([batch["user_ids"].unsqueeze(0), batch["item_ids"].unsqueeze(0), negative_ids], out=at.ids)
        torch.add(at.ids, self.offsets[-len(at.ids) :], out=at.rows_ranked)
        if not self.sharing:
            torch.add(at.ids[:2], self.offsets[:2], out=at.rows_rated)
        torch.index_select(self.table, 0, at.flat_rows, out=at.flat_embeddings)
        torch.index_select(self.bias, 0, at.candidate_ids, out=at.bias)

    def _hardest(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Of N items for each user the one with the highest p: (B,), (N, B) -> (1, B)."""
        users, items = self.table[user_ids + self.offsets[-3]], self.table[item_ids + self.offsets[-1]]
        p = (users * items).sum(dim=2) + self.bias[item_ids]
        return item_ids.gather(0, p.argmax(dim=0, keepdim=True))

    def _rank(self, at: "_Buffers", fraction: float) -> Tensor:
        """L_F, eq. (1) and (3). Writes its weighted gradient in user and candidates and adds that in their biases."""
        torch.mul(at.candidates, at.user, out=at.products)
        torch.sum(at.products, dim=2, out=at.p)
        at.flat_p.add_(at.bias)
        torch.sub(at.p_negative, at.p_positive, out=at.gap)
        loss = PAIRWISE_GRADIENTS[self.task.ranking_loss](at.gap)  # at.gap now holds the gradient of each pair's loss
        torch.mul(at.gap, fraction * self.weights["factorization"] / at.gap.numel(), out=at.grad_negative)
        torch.sum(at.grad_negative, dim=0, out=at.grad_positive).neg_()
        torch.mul(at.candidates, at.grad_p, out=at.products)
        torch.sum(at.products, dim=0, out=at.grad_user)  # dp / du = q
        torch.mul(at.user, at.grad_p, out=at.grad_candidates)  # dp / dq = u
        self.bias_gradient.index_add_(0, at.candidate_ids, at.flat_grad_p)  # dp / db = 1
        return loss

    def _rate(self, ratings: Tensor, at: "_Buffers", fraction: float) -> Tensor:
        """L_R, eq. (4) and (5). Adds its weighted gradient in user, item and the parameters of f_theta."""
        torch.cat([at.rated_user, at.rated_item, at.rated_user * at.rated_item], dim=1, out=at.hidden[0])  # x
        last = len(self.layers) - 1
        for number, (weight, bias) in enumerate(self.layers):
            torch.addmm(bias, at.hidden[number], weight.T, out=at.hidden[number + 1])
            if number < last:
                at.hidden[number + 1].relu_()
        error = at.hidden[-1].sub_(ratings.unsqueeze(1))  # (B, 1)
        loss = error.square().mean()
        torch.mul(error, 2 * fraction * self.weights["regression"] / len(ratings), out=at.grad_hidden[-1])
        for number in range(last, -1, -1):
            weight_gradient, bias_gradient = self.layer_gradients[number]
            weight_gradient.addmm_(at.grad_hidden[number + 1].T, at.hidden[number])
            bias_gradient.addmv_(at.grad_hidden[number + 1].T, at.ones)
            torch.mm(at.grad_hidden[number + 1], self.layers[number][0], out=at.grad_hidden[number])
            if number:
                at.grad_hidden[number].mul_(at.hidden[number].sign_())  # derivative of the ReLU: 1 or 0
        at.grad_rated_user.add_(at.grad_x[0]).addcmul_(at.grad_x[2], at.rated_item)
        at.grad_rated_item.add_(at.grad_x[1]).addcmul_(at.grad_x[2], at.rated_user)
        return loss


class _Buffers:
    """Preallocated tensors of a step on B rows and named views of them.

    On small batches, allocation and slicing would take much of the time of a step.

    The embeddings form K blocks of B rows. Shared tables: user, item, N negatives; K = 2 + N. Separate tables: user and
    item of the rating, then user, item and negatives of the ranking; K = 4 + N. The candidates are the watched item and
    the negatives.

    Args:
        rows: B.
        blocks: K.
        sharing: True if ranking and rating share their tables.
        widths: input width of every layer of f_theta; the first is 3d.
        like: a tensor (.., d) with the dtype of the parameters.
    """

    def __init__(self, rows: int, blocks: int, sharing: bool, widths: list[int], like: Tensor) -> None:
        width, first = like.shape[1], 0 if sharing else 2
        rows_of_table = torch.zeros(blocks, rows, dtype=torch.long)
        self.ids = torch.zeros(blocks - first, rows, dtype=torch.long)
        self.candidate_ids, self.flat_rows = self.ids[1:].view(-1), rows_of_table.view(-1)
        self.rows_rated, self.rows_ranked = rows_of_table[:2], rows_of_table[first:]

        embeddings, gradients = (like.new_zeros(blocks, rows, width) for _ in range(2))
        self.flat_embeddings, self.flat_gradients = embeddings.view(-1, width), gradients.view(-1, width)
        self.rated_user, self.rated_item = embeddings[:2]
        self.grad_rated_user, self.grad_rated_item = gradients[:2]
        self.user, self.candidates = embeddings[first], embeddings[first + 1 :]
        self.grad_user, self.grad_candidates = gradients[first], gradients[first + 1 :]
        self.products = like.new_zeros(self.candidates.shape)

        self.p, grad_p = (like.new_zeros(self.candidates.shape[:2]) for _ in range(2))
        self.flat_p, self.p_positive, self.p_negative = self.p.view(-1), self.p[0], self.p[1:]
        self.flat_grad_p, self.grad_positive, self.grad_negative = grad_p.view(-1), grad_p[0], grad_p[1:]
        self.grad_p = grad_p.unsqueeze(2)
        self.bias, self.gap = torch.zeros_like(self.flat_p), torch.zeros_like(self.p_negative)

        self.hidden, self.grad_hidden = ([like.new_zeros(rows, size) for size in (*widths, 1)] for _ in range(2))
        self.ones = like.new_ones(rows)
        self.grad_x = self.grad_hidden[0].chunk(3, dim=1)  # of u, q and u * q


def _join(tables: list[nn.Parameter], flat: Tensor) -> Tensor:
    """The tables (.., d), with which a flat tensor begins, as one table (rows of all, d)."""
    rows, width = sum(map(len, tables)), tables[0].shape[1]
    return flat[: rows * width].view(rows, width)


def matches_autograd(model: nn.Module, task, weights: dict[str, float]) -> bool:
    """True if the manual gradient equals that of autograd; see `difference_from_autograd`."""
    return difference_from_autograd(model, task, weights) is None


def difference_from_autograd(model: nn.Module, task, weights: dict[str, float]) -> str | None:
    """Why the manual gradient cannot replace autograd; None where both are equal.

    They are compared on a copy of the network with random weights and rows. Changes neither the network nor any random
    stream. Does not detect behavior that changes after many calls.
    """
    if type(model) is not MultiTaskNet:
        return f"{type(model).__name__} is not MultiTaskNet itself"
    if task.ranking_loss not in PAIRWISE_GRADIENTS:
        return f"--ranking_loss {task.ranking_loss} has no manual gradient"
    with torch.random.fork_rng(devices=()):
        try:
            is_equal = _compare(copy.deepcopy(model).double().train(), task, weights)
        except Exception as error:  # a student's network may raise anything; if it does, training raises it again
            return f"the gradient of this models.py cannot be compared in float64: {type(error).__name__}"
    return None if is_equal else "the gradient of this models.py differs"


def _compare(model: nn.Module, task, weights: dict[str, float]) -> bool:
    generator = torch.Generator().manual_seed(0)
    parameters = list(model.parameters())
    for parameter in parameters:
        nn.init.normal_(parameter, generator=generator)
    batch = _probe(task, generator)
    losses = task.losses(model, batch)
    losses["joint"] = joint_loss(losses, weights)
    gradients = torch.autograd.grad(losses["joint"], parameters)
    found = ManualGradient(model, task, weights)(batch)
    pairs = [(losses[name], found[name]) for name in losses]
    pairs += zip(gradients, (parameter.grad for parameter in parameters), strict=True)
    return all((a - b).abs().max() <= PROBE_TOLERANCE * a.abs().max() for a, b in pairs)


def _probe(task, generator: torch.Generator) -> dict[str, Tensor]:
    """A batch with the first and the last user and item, each twice, to detect padding rows and frequency scaling."""
    train, half = task.data.train, PROBE_ROWS // 2
    return {
        "user_ids": torch.linspace(0, train.num_users - 1, half).long().repeat(2),
        "item_ids": torch.linspace(train.num_items - 1, 0, half).long().repeat(2),
        "ratings": torch.randn(PROBE_ROWS, generator=generator, dtype=torch.double),
        "negative_ids": torch.randint(train.num_items, (PROBE_ROWS, task.negatives), generator=generator),
    }
