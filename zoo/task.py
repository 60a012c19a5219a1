"""The task of the zoo: predict labels of 0 and 1, such as what a user views and what they like."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from dataset import Data, Interactions
from evaluation import Metric, evaluating, metric_tags
from losses import calibrator, chain_logits, masked_log_loss
from training.fold_in import encode_new_users, with_users
from training.negatives import CHUNK_ROWS
from training.streams import stream
from zoo.baselines import Baseline, make_baselines
from zoo.chain import is_chain, mend_chain
from zoo.labels import LabelledRows, Labeller
from zoo.layers import PairEncoder
from zoo.metrics import CHAIN_METRICS, LABEL_METRICS, label_metrics

CHUNK_PAIRS = 2**14  # pairs scored at a time in evaluation: bounds memory

# Of LABEL_METRICS: those combined over all labels, and how; and those computed of P(label | the label before it).
COMBINED = {"auc": lambda values: sum(values) / len(values), "log_loss": sum}
CONDITIONAL = ("auc", "user_auc")


class LabelTask:
    """Train labels of 0 and 1 by cross-entropy, and evaluate each of them.

    Train negatives are drawn anew in each epoch from the items that the user does not have in *train*. Excluding
    held-out items as well would leak them to the network; the cost is that a few negatives are held-out positives.
    Negatives of the validation and the test split are drawn once, from the items that the user has in no split, for
    the users of the positives, so that a user's activity carries no information about a label.

    Args:
        data: ratings, or feedback with labels of its own; on the device of the model.
        labels: the tasks, in the order of the chain.
        batch_size: rows per step.
        negatives: k, negatives per positive row.
        like_from: the lowest rating that counts as a like.
        chain: meaning of a network's logits after the first. "joint": P(label and all before it), trained on all rows.
            "conditional": P(label | the one before it), trained on the rows where that is 1. "none": independent
            labels. In a chain, metrics "<label>_.." evaluate the joint probability, "<label>_given_<before>_.." the
            conditional one, on the rows where `before` is 1.
        calibrate: True adds losses.calibrator to the losses.
        mends_chain: True mends the rows of new users as those of the data were, see zoo.chain.
        seed: of the order of rows and of the negatives; each epoch uses (seed, epoch).

    Raises:
        UserError: a label has one value only in the validation or the test split.
    """

    family = "zoo"
    primary_metric = "auc"
    squared_errors: tuple[str, ...] = ()
    baseline_notes: tuple[str, ...] = ()

    def __init__(
        self,
        data: Data,
        labels: tuple[str, ...] = ("view", "like"),
        batch_size: int = 4096,
        negatives: int = 4,
        like_from: float = 4.0,
        chain: str = "joint",
        calibrate: bool = False,
        mends_chain: bool = False,
        seed: int = 0,
    ) -> None:
        self.data = data
        self.labels = labels
        self.batch_size = batch_size
        self.chain = chain
        self.seed = seed
        self.regularizers = ("calibrator",) if calibrate else ()
        self.loss_names = (*labels, *self.regularizers)
        self.pairs = tuple(pairwise(labels)) if chain != "none" else ()
        described = self._describe_metrics()
        self.directions = {name: metric.direction for name, metric in described.items()}
        self.headlines = {label: (label, f"{label}_auc") for label in labels}
        losses = {f"train_{name}": f"training/{name} loss" for name in (*self.loss_names, "joint")}
        self.tags = losses | metric_tags(described, [metric for _, metric in self.headlines.values()])
        self.compared = self._compared_with_baselines()
        self.console_metrics = (*(f"{label}_auc" for label in labels), "log_loss")
        self.advice = dict.fromkeys(self.console_metrics, "more --epochs, a lower --lr or --patience 5")
        self._labeller = Labeller(data, labels, like_from, negatives)
        self._mends_chain = mends_chain
        self._evaluated = self._draw_evaluated()

    @property
    def splits(self) -> tuple[str, ...]:
        return ("test",) if self.data.validation is None else ("val", "test")

    @property
    def num_batches(self) -> int:
        return -(-self._labeller.count_epoch(self.data.train)[0] // self.batch_size)

    def batches(self, epoch: int) -> Iterator[dict[str, Tensor]]:
        """Yield every training row once, in random order, mixed with its negatives.

        Yields:
            user_ids (B,), item_ids (B,) and labels (B, T); the last batch may be smaller.
        """
        train = self.data.train
        generator = stream(self.seed, epoch)
        device = train.user_ids.device
        order = torch.randperm(len(train), generator=generator, dtype=torch.int32)
        rest = self._labeller.label(train[:0])  # rows of the previous chunk that do not fill a batch
        for chunk in order.split(max(1, CHUNK_ROWS // (1 + self._labeller.negatives))):
            rows = self._labeller.label(train[chunk.to(device)])
            rows = rows + self._labeller.draw_negatives(rows, train, generator)
            rows = rest + rows[torch.randperm(len(rows), generator=generator).to(device)]
            full = len(rows) // self.batch_size * self.batch_size
            for start in range(0, full, self.batch_size):
                yield vars(rows[start : start + self.batch_size])
            rest = rows[full:]
        if len(rest):
            yield vars(rest)

    def batch_rows(self, batch: dict[str, Tensor]) -> int:
        return len(batch["labels"])

    def divisors(self, batch: dict[str, Tensor]) -> dict[str, int | Tensor]:
        """The number of rows that each loss of `losses` is a mean over."""
        counts = {name: mask.sum().clamp(min=1) for name, mask in self._masks(batch["labels"]).items()}
        return dict.fromkeys(self.loss_names, self.batch_rows(batch)) | counts

    def losses(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean cross-entropy of each label over the rows that train it, and the calibrator if it is on."""
        logits = model(batch["user_ids"], batch["item_ids"])
        labels, masks = self._columns(batch["labels"]), self._masks(batch["labels"])
        losses = {name: masked_log_loss(logits[name], labels[name], masks.get(name)) for name in self.labels}
        return losses | ({"calibrator": calibrator(list(logits.values()))} if self.regularizers else {})

    def metrics(self, model: nn.Module, split: str) -> dict[str, float]:
        """Every metric of `directions` on the rows of a split and their stored negatives."""
        rows = self._evaluated[split]
        joint = self._predict(self._joint_logits, model, rows)
        columns = self._columns(rows.labels)
        by_label = {label: label_metrics(joint[label], columns[label], rows.user_ids) for label in self.labels}
        found = {kind: combine([values[kind] for values in by_label.values()]) for kind, combine in COMBINED.items()}
        found |= {f"{label}_{kind}": value for label, values in by_label.items() for kind, value in values.items()}
        for before, label in self.pairs:
            given = rows[columns[before] == 1]
            logits = self._predict(self._conditional_logits, model, given)[label]
            values = label_metrics(logits, self._columns(given.labels)[label], given.user_ids, CONDITIONAL)
            found |= {f"{label}_given_{before}_{kind}": value for kind, value in values.items()}
            for kind, metric in CHAIN_METRICS.items():
                found[f"{label}_{kind}_{before}"] = metric.function(joint[label], joint[before])
        return found

    def diagnostics(self, model: nn.Module) -> dict[str, float]:
        """The mean weight of every expert in every gate, over the rows of the first split: {"gates/view/1": ..}."""
        rows = self._evaluated[self.splits[0]]
        gates = self._predict(lambda model, *pair: model.gates(*pair), model, rows)
        return {
            f"gates/{name}/{number}": weight
            for name, weights in gates.items()
            for number, weight in enumerate(weights.mean(dim=0).tolist(), 1)
        }

    def baselines(self) -> dict[str, Baseline]:
        """The baselines by name, from the training rows; on the device of the data."""
        made = make_baselines(self._labeller, self.data.train, self.chain)
        return {name: baseline.to(self.data.train.user_ids.device) for name, baseline in made.items()}

    def embeddings(self, model: nn.Module) -> dict[str, Tensor]:
        """Every item table of `model` by its module name: {"encoder.Q": (num_items, d)}."""
        tables = {name: module for name, module in model.named_modules() if name.endswith("Q")}
        return {name: table.weight.detach() for name, table in tables.items()}

    def row_tables(self, model: nn.Module) -> dict[str, str]:
        """The tables of every PairEncoder."""
        encoders = [name for name, module in model.named_modules() if isinstance(module, PairEncoder)]
        kinds = {"U": "user", "Q": "item"}
        return {f"{name}.{table}.weight": kind for name in encoders for table, kind in kinds.items()}

    def formulas(self, model: nn.Module) -> tuple[str, ...]:
        labels = ", ".join(self.labels)
        meaning = (
            "The sigmoid of a logit is P(label | the label before it); the shown probability of a label is the product "
            "up to it."
            if self.chain == "conditional"
            else "The sigmoid of a logit is the shown probability of the label."
        )
        return (
            "u = U.weight[user], q = Q.weight[item] of an encoder; its output is [u, q, u * q], * element-wise.",
            f"A logit for each label, in the order {labels}; the docstring of {type(model).__name__} has equations.",
            meaning,
            f"Items are ranked by the probability of {self.labels[-1]}.",
        )

    scores_any_pair = True

    def score(self, model: nn.Module, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores to rank items by, the joint logits of the last label (B,); and each label's probability (B,)."""
        logits = self._joint_logits(model, user_ids, item_ids)
        return logits[self.labels[-1]], {name: logit.sigmoid() for name, logit in logits.items()}

    def score_all(self, model: nn.Module, user_ids: Tensor) -> Tensor:
        items = torch.arange(len(self.data.items), device=user_ids.device)
        pairs = torch.cartesian_prod(user_ids, items)
        scores = [self._joint_logits(model, *block.T)[self.labels[-1]] for block in pairs.split(CHUNK_PAIRS)]
        return torch.cat(scores).view(len(user_ids), len(items))

    @property
    def excluded(self) -> Interactions:
        """All rows, test rows too."""
        return self.data.interactions

    def fold_in(self, model: nn.Module, users: np.ndarray, rows: Interactions) -> tuple[nn.Module, "LabelTask"]:
        """New users from the sums of their item vectors, and of those of the items with each label.

        docs/serving.md compares this with the users trained along.
        """
        folded = copy.copy(self)
        folded.data = self.data.with_users(users, rows)
        if self._mends_chain and not is_chain(folded.data):
            folded.data = mend_chain(folded.data)
        own, new = (self._fold_in_weights(part) for part in (self.data.train, folded.data.train))
        kinds = self.row_tables(model)
        encoded = encode_new_users(model, kinds, self.data.train, folded.data.train, own, new)
        return with_users(model, kinds, encoded.mean), folded

    def _fold_in_weights(self, rows: Interactions) -> Tensor:
        """(R, 1 + T): 1 and the labels; where a rating is missing, labels have their mean over the training rows."""
        labels = self._labeller.label(rows).labels
        is_missing = rows.ratings.view(len(rows), -1).isnan().any(dim=1, keepdim=True)
        if is_missing.any():
            means = self._labeller.label(self.data.train).labels.mean(dim=0)
            labels = torch.where(is_missing, means, labels)
        return torch.cat([torch.ones_like(labels[:, :1]), labels], dim=1)

    def _columns(self, labels: Tensor) -> dict[str, Tensor]:
        """(B, T) -> {label: (B,)}."""
        return dict(zip(self.labels, labels.unbind(dim=1), strict=True))

    def _masks(self, labels: Tensor) -> dict[str, Tensor]:
        """The rows that train a label, {label: (B,) bool}; a label that is not a key uses all rows."""
        columns = self._columns(labels)
        return {label: columns[before] == 1 for before, label in self.pairs} if self.chain == "conditional" else {}

    def _joint_logits(self, model: nn.Module, user_ids: Tensor, item_ids: Tensor) -> dict[str, Tensor]:
        logits = model(user_ids, item_ids)
        return chain_logits(logits) if self.chain == "conditional" else logits

    def _conditional_logits(self, model: nn.Module, user_ids: Tensor, item_ids: Tensor) -> dict[str, Tensor]:
        if self.chain == "conditional":
            return model(user_ids, item_ids)
        return model.conditional_logits(user_ids, item_ids)

    def _predict(
        self, function: Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]], model: nn.Module, rows: LabelledRows
    ) -> dict[str, Tensor]:
        """`function(model, user_ids, item_ids)` on all rows, in chunks: {name: (R, ..)}."""
        pairs = zip(rows.user_ids.split(CHUNK_PAIRS), rows.item_ids.split(CHUNK_PAIRS), strict=True)
        with evaluating(model):
            chunks = [function(model, *pair) for pair in pairs]
        return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def _draw_evaluated(self) -> dict[str, LabelledRows]:
        """The rows that each split is measured on. Negatives are drawn once, from (seed, split) alone."""
        everything = self.data.seen + self.data.test
        splits = {"val": self.data.validation, "test": self.data.test}
        drawn = {}
        for number, (name, split) in enumerate(splits.items(), 1):
            if split is None:
                continue
            rows = self._labeller.label(split)
            drawn[name] = rows + self._labeller.draw_negatives(rows, everything, stream(self.seed, -number))
            ones, num_rows = drawn[name].labels.count_nonzero(dim=0).tolist(), len(drawn[name])
            self._labeller.require_both_classes(f"the {name} split", "no metric can be computed", ones, num_rows)
        return drawn

    def _describe_metrics(self) -> dict[str, Metric]:
        """Every metric of this task, with its direction and its title."""
        described = {kind: LABEL_METRICS[kind] for kind in COMBINED}
        for label in self.labels:
            described |= {f"{label}_{kind}": _retitle(metric, label) for kind, metric in LABEL_METRICS.items()}
        for before, label in self.pairs:
            prefix = f"{label}_given_{before}"
            described |= {f"{prefix}_{kind}": _retitle(LABEL_METRICS[kind], prefix) for kind in CONDITIONAL}
            for kind, metric in CHAIN_METRICS.items():
                described[f"{label}_{kind}_{before}"] = _retitle(metric, label, before)
        return described

    def _compared_with_baselines(self) -> tuple[str, ...]:
        """The metrics of the table that compares a network with the baselines."""
        names = [*COMBINED, *(f"{label}_{kind}" for label in self.labels for kind in COMBINED)]
        for before, label in self.pairs:
            names += [f"{label}_given_{before}_auc", *(f"{label}_{kind}_{before}" for kind in CHAIN_METRICS)]
        return tuple(names)


def _retitle(metric: Metric, before: str, after: str = "") -> Metric:
    """The metric with words before and after its title; underscores become spaces."""
    return replace(metric, title=f"{before} {metric.title} {after}".replace("_", " ").strip())
