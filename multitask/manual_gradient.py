"""The multi-task net's steps with a gradient written by hand: what gradient.py does, some three times as fast.

A step on 256 ratings is little arithmetic, and autograd spends longer on its bookkeeping than on that. What is learnt
is the same up to rounding. As models.py is what students write, the gradient is held against autograd before the first
step; where they differ, or on another device, with another weighting or a decay of embeddings alone, autograd takes
the steps.

Letters as in models.py; N negatives, x = [u, q, u * q]. The slope in something is the gradient of the joint loss in it.
"""

import copy
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losses import joint_loss
from models import MultiTaskNet
from training.steps import GradientSteps

# The comparison with autograd takes weights from N(0, 1): those of a fresh network are so near zero that they would
# hide a score that is clipped or squashed.
PROBE_ROWS = 256
PROBE_TOLERANCE = 1e-8  # of the largest entry of a gradient, in float64
ROWS_AT_A_TIME = 4096  # of a larger batch: what these need fits the processor's cache, and memory does not grow


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


def make_steps(model: nn.Module, task, settings, device: torch.device) -> GradientSteps:
    """Steps of the multi-task net on tasks.WatchAndRate: by hand where that is the same, else by autograd."""
    by_hand = suits(model, task, settings, device)
    return (HandwrittenSteps if by_hand else GradientSteps)(model, task, settings, device)


def suits(model: nn.Module, task, settings, device: torch.device) -> bool:
    """Whether steps by hand are those of GradientSteps."""
    in_pairs = settings.bpr in PAIRWISE_GRADIENTS
    is_plain = device.type == "cpu" and settings.weighting == "fixed" and not settings.embedding_decay
    return in_pairs and is_plain and agrees(model, task, settings.weights)


class HandwrittenSteps(GradientSteps):
    """GradientSteps with HandwrittenGradient in the place of autograd. Checkpoints are the same."""

    def __init__(self, model: MultiTaskNet, task, settings, device: torch.device) -> None:
        self.gradient = HandwrittenGradient(model, task, settings.weights)
        super().__init__(model, task, settings, device)

    def make_optimizer(self, groups: list[dict], **options) -> "FlatAdamW":
        return FlatAdamW(groups, self.gradient.values, self.gradient.slopes, **options)

    def backward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.gradient(batch)


class HandwrittenGradient:
    """The gradient of lambda_F L_F + lambda_R L_R, eq. (3) and (5), in .grad of every parameter.

    Args:
        model: a network that `agrees`, on the CPU. Its parameters and their .grad become views of two flat tensors;
            they may be written into, but not replaced, while this is in use.
        task: tasks.WatchAndRate, for the form of its ranking loss and the negatives it keeps.
        weights: the lambdas, {"factorization": .., "regression": ..}.
    """

    def __init__(self, model: MultiTaskNet, task, weights: dict[str, float]) -> None:
        self.task, self.weights, self.sharing = task, weights, model.embedding_sharing
        names = ("U", "Q") if self.sharing else ("U_reg", "Q_reg", "U_fact", "Q_fact")
        tables = [getattr(model, name).weight for name in names]
        layers = [(layer.weight, layer.bias) for layer in model.mlp_layers if isinstance(layer, nn.Linear)]
        self.values, self.slopes = flatten([*tables, *(part for layer in layers for part in layer), model.B.weight])
        self.layers = [(weight.detach(), bias.detach()) for weight, bias in layers]
        self.layer_slopes = [(weight.grad, bias.grad) for weight, bias in layers]
        self.bias, self.bias_slope = model.B.weight.detach().view(-1), model.B.weight.grad.view(-1)
        # All tables are one: a batch is one look-up. Where in it the table of each block of _Buffers begins, (K, 1):
        self.table, self.table_slope = _join(tables, self.values), _join(tables, self.slopes)
        begins = [0, *accumulate(map(len, tables[:-1]))]
        self.begins = torch.tensor(begins + begins[-1:] * (1 if task.keep_hardest else task.negatives)).unsqueeze(1)
        self.buffers: dict[int, _Buffers] = {}

    @torch.inference_mode()
    def __call__(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The losses of the task and the "joint" one on a batch; .grad then holds the gradient of the latter."""
        self.slopes.zero_()
        rows = len(batch["ratings"])
        if rows <= ROWS_AT_A_TIME:
            losses = self._add_slopes(batch, 1.0)
        else:
            losses = dict.fromkeys(self.weights, 0.0)
            # Users in order, so that those of a part lie close to each other in the table: of many users that saves a
            # tenth of the time. Numbers of 32 bits are sorted several times as fast.
            order = batch["user_ids"].int().argsort(stable=True)
            parts = (column.index_select(0, order).split(ROWS_AT_A_TIME) for column in batch.values())
            for values in zip(*parts, strict=True):
                share = len(values[0]) / rows
                found = self._add_slopes(dict(zip(batch, values, strict=True)), share)
                losses = {name: losses[name] + share * loss for name, loss in found.items()}
        return losses | {"joint": joint_loss(losses, self.weights)}

    def _add_slopes(self, batch: dict[str, Tensor], share: float) -> dict[str, Tensor]:
        """Add to .grad what these rows contribute that are this share of the batch; returns their own losses."""
        rows = len(batch["ratings"])
        if rows not in self.buffers:
            widths = [weight.shape[1] for weight, _ in self.layers]
            self.buffers[rows] = _Buffers(rows, len(self.begins), self.sharing, widths, self.table)
        at = self.buffers[rows]
        at.flat_slopes.zero_()
        self._look_up(batch, at)
        losses = {"factorization": self._rank(at, share), "regression": self._rate(batch["ratings"], at, share)}
        self.table_slope.index_add_(0, at.flat_rows, at.flat_slopes)
        return losses

    def _look_up(self, batch: dict[str, Tensor], at: "_Buffers") -> None:
        """Fetch the embeddings and the item biases of a batch."""
        negative_ids = batch["negative_ids"].T
        if self.task.keep_hardest:
            negative_ids = self._hardest(batch["user_ids"], negative_ids)
        torch.cat([batch["user_ids"].unsqueeze(0), batch["item_ids"].unsqueeze(0), negative_ids], out=at.ids)
        torch.add(at.ids, self.begins[-len(at.ids) :], out=at.rows_ranked)
        if not self.sharing:
            torch.add(at.ids[:2], self.begins[:2], out=at.rows_rated)
        torch.index_select(self.table, 0, at.flat_rows, out=at.flat_embeddings)
        torch.index_select(self.bias, 0, at.candidate_ids, out=at.bias)

    def _hardest(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """The one of N items with the highest p, for each user: (B,), (N, B) -> (1, B)."""
        users, items = self.table[user_ids + self.begins[-3]], self.table[item_ids + self.begins[-1]]
        p = (users * items).sum(dim=2) + self.bias[item_ids]
        return item_ids.gather(0, p.argmax(dim=0, keepdim=True))

    def _rank(self, at: "_Buffers", share: float) -> Tensor:
        """L_F, eq. (1) and (3). Writes the slope of lambda_F L_F in user and candidates, and adds that in their b."""
        torch.mul(at.candidates, at.user, out=at.products)
        torch.sum(at.products, dim=2, out=at.p)
        at.flat_p.add_(at.bias)
        torch.sub(at.p_negative, at.p_positive, out=at.gap)
        loss = PAIRWISE_GRADIENTS[self.task.bpr](at.gap)  # at.gap now holds the gradient of each pair's loss in it
        torch.mul(at.gap, share * self.weights["factorization"] / at.gap.numel(), out=at.slope_negative)
        torch.sum(at.slope_negative, dim=0, out=at.slope_positive).neg_()
        torch.mul(at.candidates, at.slope_p, out=at.products)
        torch.sum(at.products, dim=0, out=at.slope_user)  # dp / du = q
        torch.mul(at.user, at.slope_p, out=at.slope_candidates)  # dp / dq = u
        self.bias_slope.index_add_(0, at.candidate_ids, at.flat_slope_p)  # dp / db = 1
        return loss

    def _rate(self, ratings: Tensor, at: "_Buffers", share: float) -> Tensor:
        """L_R, eq. (4) and (5). Adds the slope of lambda_R L_R in user and item, and that in f_theta."""
        torch.cat([at.rated_user, at.rated_item, at.rated_user * at.rated_item], dim=1, out=at.hidden[0])  # x
        last = len(self.layers) - 1
        for number, (weight, bias) in enumerate(self.layers):
            torch.addmm(bias, at.hidden[number], weight.T, out=at.hidden[number + 1])
            if number < last:
                at.hidden[number + 1].relu_()
        error = at.hidden[-1].sub_(ratings.unsqueeze(1))  # (B, 1)
        loss = error.square().mean()
        torch.mul(error, 2 * share * self.weights["regression"] / len(ratings), out=at.slope_hidden[-1])
        for number in range(last, -1, -1):
            weight_slope, bias_slope = self.layer_slopes[number]
            weight_slope.addmm_(at.slope_hidden[number + 1].T, at.hidden[number])
            bias_slope.addmv_(at.slope_hidden[number + 1].T, at.ones)
            torch.mm(at.slope_hidden[number + 1], self.layers[number][0], out=at.slope_hidden[number])
            if number:
                at.slope_hidden[number].mul_(at.hidden[number].sign_())  # of the ReLU: 1 where it is open, else 0
        at.slope_rated_user.add_(at.slope_x[0]).addcmul_(at.slope_x[2], at.rated_item)
        at.slope_rated_item.add_(at.slope_x[1]).addcmul_(at.slope_x[2], at.rated_user)
        return loss


class _Buffers:
    """What a step on B rows writes into, made once, with names for its parts: on small batches both are much of a step.

    Embeddings lie in K blocks of B rows. Shared: user, item, N negatives; K = 2 + N. Separate: user and item of the
    rating, then user, item and negatives of the ranking; K = 4 + N. Candidates: the watched item, then the negatives.

    Args:
        rows: B.
        blocks: K.
        sharing: whether tables are shared.
        widths: input width of every layer of f_theta, the first 3d.
        like: a tensor (.., d) of the type of the parameters.
    """

    def __init__(self, rows: int, blocks: int, sharing: bool, widths: list[int], like: Tensor) -> None:
        width, first = like.shape[1], 0 if sharing else 2
        rows_of_table = torch.zeros(blocks, rows, dtype=torch.long)
        self.ids = torch.zeros(blocks - first, rows, dtype=torch.long)
        self.candidate_ids, self.flat_rows = self.ids[1:].view(-1), rows_of_table.view(-1)
        self.rows_rated, self.rows_ranked = rows_of_table[:2], rows_of_table[first:]

        embeddings, slopes = (like.new_zeros(blocks, rows, width) for _ in range(2))
        self.flat_embeddings, self.flat_slopes = embeddings.view(-1, width), slopes.view(-1, width)
        self.rated_user, self.rated_item = embeddings[:2]
        self.slope_rated_user, self.slope_rated_item = slopes[:2]
        self.user, self.candidates = embeddings[first], embeddings[first + 1 :]
        self.slope_user, self.slope_candidates = slopes[first], slopes[first + 1 :]
        self.products = like.new_zeros(self.candidates.shape)

        self.p, slope_p = (like.new_zeros(self.candidates.shape[:2]) for _ in range(2))
        self.flat_p, self.p_positive, self.p_negative = self.p.view(-1), self.p[0], self.p[1:]
        self.flat_slope_p, self.slope_positive, self.slope_negative = slope_p.view(-1), slope_p[0], slope_p[1:]
        self.slope_p = slope_p.unsqueeze(2)
        self.bias, self.gap = torch.zeros_like(self.flat_p), torch.zeros_like(self.p_negative)

        self.hidden, self.slope_hidden = ([like.new_zeros(rows, size) for size in (*widths, 1)] for _ in range(2))
        self.ones = like.new_ones(rows)
        self.slope_x = self.slope_hidden[0].chunk(3, dim=1)  # of u, q and u * q


class FlatAdamW:
    """AdamW on parameters that are views of one flat tensor: one fused operation a step. Its state is AdamW's own.

    Args:
        groups: one group of parameters, and `options`, as torch.optim.AdamW takes them.
        values, slopes: the flat tensors of which the parameters and their .grad are views.
    """

    def __init__(self, groups: list[dict], values: Tensor, slopes: Tensor, **options) -> None:
        self.adamw = torch.optim.AdamW(groups, **options)
        self.values, self.slopes = values, slopes
        self.counts = torch.zeros(len(groups[0]["params"]))  # of steps, one a parameter as AdamW has it
        self.moments = {"exp_avg": torch.zeros_like(values), "exp_avg_sq": torch.zeros_like(values)}
        self._show_state()

    @property
    def param_groups(self) -> list[dict]:
        return self.adamw.param_groups

    def _show_state(self) -> None:
        """Make the state of every parameter a view of the flat one."""
        for parameter, count in zip(self.adamw.param_groups[0]["params"], self.counts, strict=True):
            place = parameter.shape, parameter.stride(), parameter.storage_offset()
            moments = {name: moment.as_strided(*place) for name, moment in self.moments.items()}
            self.adamw.state[parameter] = {"step": count} | moments

    @torch.inference_mode()
    def step(self) -> None:
        group = self.adamw.param_groups[0]
        self.counts += 1
        torch._fused_adamw_(  # what AdamW(fused=True).step() comes to, without its preparations
            [self.values], [self.slopes], [self.moments["exp_avg"]], [self.moments["exp_avg_sq"]], [], [self.counts[0]],
            lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1], weight_decay=group["weight_decay"],
            eps=group["eps"], amsgrad=False, maximize=False,
        )  # fmt: skip

    def state_dict(self) -> dict:
        return self.adamw.state_dict()

    def load_state_dict(self, state: dict) -> None:
        self.adamw.load_state_dict(state)
        loaded = dict(self.adamw.state)
        self._show_state()
        for parameter, values in loaded.items():
            for name, value in values.items():
                self.adamw.state[parameter][name].copy_(value)


def flatten(parameters: list[nn.Parameter]) -> tuple[Tensor, Tensor]:
    """Move parameters into one flat tensor, in this order, and their gradients into another, all zero: (n,) both."""
    values = torch.cat([parameter.detach().flatten() for parameter in parameters])
    slopes = torch.zeros_like(values)
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, value, slope in zip(parameters, values.split(sizes), slopes.split(sizes), strict=True):
        parameter.data, parameter.grad = value.view_as(parameter), slope.view_as(parameter)
    return values, slopes


def _join(tables: list[nn.Parameter], flat: Tensor) -> Tensor:
    """The tables, (.., d) each, with which a flat tensor begins, as one."""
    rows, width = sum(map(len, tables)), tables[0].shape[1]
    return flat[: rows * width].view(rows, width)


def agrees(model: nn.Module, task, weights: dict[str, float]) -> bool:
    """Whether the gradient by hand is that of autograd, on a copy of the network with other weights and made-up rows.

    Neither the network nor any random stream is touched. What a network does only after many calls goes unseen.
    """
    if type(model) is not MultiTaskNet or task.bpr not in PAIRWISE_GRADIENTS:
        return False
    with torch.random.fork_rng(devices=()):
        try:
            return _compare(copy.deepcopy(model).double().train(), task, weights)
        except Exception:  # a network may fail in any way; if it does so in training, it is told there
            return False


def _compare(model: nn.Module, task, weights: dict[str, float]) -> bool:
    generator = torch.Generator().manual_seed(0)
    parameters = list(model.parameters())
    for parameter in parameters:
        nn.init.normal_(parameter, generator=generator)
    batch = _probe(task, generator)
    losses = task.losses(model, batch)
    losses["joint"] = joint_loss(losses, weights)
    gradients = torch.autograd.grad(losses["joint"], parameters)
    found = HandwrittenGradient(model, task, weights)(batch)
    pairs = [(losses[name], found[name]) for name in losses]
    pairs += zip(gradients, (parameter.grad for parameter in parameters), strict=True)
    return all((a - b).abs().max() <= PROBE_TOLERANCE * a.abs().max() for a, b in pairs)


def _probe(task, generator: torch.Generator) -> dict[str, Tensor]:
    """Rows with the first and the last user and item, each twice: a padding row shows, and so do counts."""
    train, half = task.data.train, PROBE_ROWS // 2
    return {
        "user_ids": torch.linspace(0, train.num_users - 1, half).long().repeat(2),
        "item_ids": torch.linspace(train.num_items - 1, 0, half).long().repeat(2),
        "ratings": torch.randn(PROBE_ROWS, generator=generator, dtype=torch.double),
        "negative_ids": torch.randint(train.num_items, (PROBE_ROWS, task.negatives), generator=generator),
    }
