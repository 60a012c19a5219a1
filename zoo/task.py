"""Labels of 0 and 1, such as what a user views and what they like of it."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from config.errors import UserError
from dataset import Data
from evaluation import auc_by_group, evaluating, label_metrics, roc_auc
from losses import calibrator, chain_logits, masked_log_loss
from training.negatives import CHUNK_ROWS
from training.streams import stream
from zoo.baselines import Baseline, make_baselines
from zoo.labels import LabelledRows, Labeller

PAIRS_AT_A_TIME = 2**14  # scored, where nothing is learnt


class ViewAndLike:
    """Labels of 0 and 1, trained by cross-entropy: what a user views, and what they like of it; or any such labels.

    Train negatives are drawn anew each epoch from what the user has not in *train*. Leaving out what is held out as
    well would tell the network where the test items are; the price of not knowing is that some negatives are none.
    Negatives of the test and the validation part are drawn once, from what the user has in no part of the data, for the
    users of the positives: how active a user is tells nothing about a label.

    Args:
        data: ratings, or feedback with labels of its own; on the device of the model.
        labels: the tasks, in the order of the chain.
        batch_size: rows in a step.
        negatives: k, rows drawn for each positive one.
        like_from: the lowest rating that is a like.
        chain: "joint": a network's later logits mean P(label and all before it), learnt on all rows. "conditional":
            they mean P(label | the one before), learnt on the rows where that is 1. "none": labels side by side.
            Metrics of a label are about the first meaning wherever there is a chain, those of "a given b" about the
            second, on the rows where b is 1.
        calibrate: whether the calibrator is among the losses.
        seed: of order and negatives.

    Raises:
        UserError: the labels of a part are all the same.
    """

    squared_errors = ()

    def __init__(
        self,
        data: Data,
        labels: tuple[str, ...] = ("view", "like"),
        batch_size: int = 4096,
        negatives: int = 4,
        like_from: float = 4.0,
        chain: str = "joint",
        calibrate: bool = False,
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
        self.directions = self._name_metrics()
        self.headline = ("auc", +1)
        self.compared = tuple(
            name for name, way in self.directions.items() if way and not name.endswith(("_entropy", "_user_auc"))
        )
        self.told = (*(f"{label}_auc" for label in labels), "log_loss")
        self._labeller = Labeller(data, labels, like_from, negatives)
        self._evaluated = self._draw_evaluated()

    @property
    def parts(self) -> tuple[str, ...]:
        return ("test",) if self.data.validation is None else ("val", "test")

    @property
    def tags(self) -> dict[str, str]:
        losses = {f"train_{name}": f"training/{name} loss" for name in (*self.loss_names, "joint")}
        metrics = {name: name.replace("_", " ") for name in self.directions}
        tested = {f"test_{name}": f"eval/{words}" for name, words in metrics.items()}
        return losses | tested | {f"val_{name}": f"validation/{words}" for name, words in metrics.items()}

    @property
    def num_batches(self) -> int:
        train, count = self.data.train, self._labeller.count_negatives
        blocks = (train[start : start + CHUNK_ROWS] for start in range(0, len(train), CHUNK_ROWS))
        negatives = sum(count(self._labeller.label(block), train) for block in blocks)
        return -(-(len(train) + negatives) // self.batch_size)

    def batches(self, epoch: int) -> Iterator[dict[str, Tensor]]:
        """Yield every training row once, in random order, mixed with its negatives.

        Yields:
            user_ids (B,), item_ids (B,) and labels (B, T); the last batch may be smaller.
        """
        train = self.data.train
        generator = stream(self.seed, epoch)
        device = train.user_ids.device
        order = torch.randperm(len(train), generator=generator, dtype=torch.int32)
        left = self._labeller.label(train[:0])
        for part in order.split(max(1, CHUNK_ROWS // (1 + self._labeller.negatives))):
            rows = self._labeller.label(train[part.to(device)])
            rows = rows + self._labeller.draw_negatives(rows, train, generator)
            rows = left + rows[torch.randperm(len(rows), generator=generator).to(device)]
            full = len(rows) // self.batch_size * self.batch_size
            for start in range(0, full, self.batch_size):
                yield vars(rows[start : start + self.batch_size])
            left = rows[full:]
        if len(left):
            yield vars(left)

    def batch_rows(self, batch: dict[str, Tensor]) -> int:
        return len(batch["labels"])

    def divisors(self, batch: dict[str, Tensor]) -> dict[str, int | Tensor]:
        counts = {name: mask.sum().clamp(min=1) for name, mask in self._masks(batch["labels"]).items()}
        return dict.fromkeys(self.loss_names, self.batch_rows(batch)) | counts

    def losses(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Mean cross-entropy of each label over the rows that belong to it; the calibrator if it is asked for."""
        logits = model(batch["user_ids"], batch["item_ids"])
        labels, masks = self._columns(batch["labels"]), self._masks(batch["labels"])
        losses = {name: masked_log_loss(logits[name], labels[name], masks.get(name)) for name in self.labels}
        return losses | ({"calibrator": calibrator(list(logits.values()))} if self.regularizers else {})

    def metrics(self, model: nn.Module, part: str) -> dict[str, float]:
        """Every metric of `directions` on the rows of a part and their stored negatives."""
        rows = self._evaluated[part]
        joint = self._predict(self._joint_logits, model, rows)
        columns = self._columns(rows.labels)
        found = {
            f"{name}_{kind}": value
            for name in self.labels
            for kind, value in label_metrics(joint[name], columns[name], rows.user_ids).items()
        }
        for before, label in self.pairs:
            given = rows[columns[before] == 1]
            logits = self._predict(self._conditional_logits, model, given)[label]
            liked = given.labels[:, self.labels.index(label)]
            found[f"{label}_given_{before}_auc"] = roc_auc(logits, liked)
            found[f"{label}_given_{before}_user_auc"] = auc_by_group(logits, liked, given.user_ids).nanmean().item()
            found[f"{label}_over_{before}"] = (joint[label] > joint[before]).float().mean().item()
        of_labels = {kind: [found[f"{name}_{kind}"] for name in self.labels] for kind in ("auc", "log_loss")}
        return {"auc": sum(of_labels["auc"]) / len(self.labels), "log_loss": sum(of_labels["log_loss"])} | found

    def diagnostics(self, model: nn.Module) -> dict[str, float]:
        """The mean weight of every expert in every gate, over the first part's rows: {"gates/view/1": ..}."""
        rows = self._evaluated[self.parts[0]]
        gates = self._predict(lambda model, *pair: model.gates(*pair), model, rows)
        return {
            f"gates/{name}/{number}": weight
            for name, weights in gates.items()
            for number, weight in enumerate(weights.mean(dim=0).tolist(), 1)
        }

    def baselines(self) -> dict[str, Baseline]:
        made = make_baselines(self._labeller, self.data.train, self.chain)
        return {name: baseline.to(self.data.train.user_ids.device) for name, baseline in made.items()}

    def embeddings(self, model: nn.Module) -> dict[str, Tensor]:
        """Every item table of `model` by its place in it: {"encoder.Q": (num_items, d)}."""
        tables = {name: module for name, module in model.named_modules() if name.endswith("Q")}
        return {name: table.weight.detach() for name, table in tables.items()}

    def score(self, model: nn.Module, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The logit of the last label, with all before it where there is a chain, and every label's probability."""
        logits = self._joint_logits(model, user_ids, item_ids)
        return logits[self.labels[-1]], {name: logit.sigmoid() for name, logit in logits.items()}

    def _columns(self, labels: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.labels, labels.unbind(dim=1), strict=True))

    def _masks(self, labels: Tensor) -> dict[str, Tensor]:
        """The rows that belong to a label, {label: (B,)}; a label that is not named has all of them."""
        columns = self._columns(labels)
        return {label: columns[before] == 1 for before, label in self.pairs} if self.chain == "conditional" else {}

    def _joint_logits(self, model: nn.Module, user_ids: Tensor, item_ids: Tensor) -> dict[str, Tensor]:
        logits = model(user_ids, item_ids)
        return chain_logits(logits) if self.chain == "conditional" else logits

    def _conditional_logits(self, model: nn.Module, user_ids: Tensor, item_ids: Tensor) -> dict[str, Tensor]:
        if self.chain == "conditional":
            return model(user_ids, item_ids)
        return model.conditional_logits(user_ids, item_ids)

    def _predict(self, answer, model: nn.Module, rows: LabelledRows) -> dict[str, Tensor]:
        """{name: one row each} of what `answer(model, user_ids, item_ids)` says, a block of rows at a time."""
        pairs = zip(rows.user_ids.split(PAIRS_AT_A_TIME), rows.item_ids.split(PAIRS_AT_A_TIME), strict=True)
        with evaluating(model):
            blocks = [answer(model, *pair) for pair in pairs]
        return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}

    def _draw_evaluated(self) -> dict[str, LabelledRows]:
        """The rows that each part is measured on; negatives from (seed, part) alone, drawn once."""
        everything = self.data.seen + self.data.test
        parts = {"val": self.data.validation, "test": self.data.test}
        drawn = {}
        for number, (name, part) in enumerate(parts.items(), 1):
            if part is None:
                continue
            rows = self._labeller.label(part)
            drawn[name] = rows + self._labeller.draw_negatives(rows, everything, stream(self.seed, -number))
            self._require_both_classes(name, drawn[name])
        return drawn

    def _require_both_classes(self, part: str, rows: LabelledRows) -> None:
        for label, rate in zip(self.labels, rows.labels.mean(dim=0).tolist(), strict=True):
            if not 0 < rate < 1:
                raise UserError(
                    f"the label {label} is {round(rate)} in all {len(rows)} rows of the {part} part, so nothing can be "
                    "measured: give more rows, --negatives N to draw some, or another --like_from or --seed"
                )

    def _name_metrics(self) -> dict[str, int]:
        """{metric: +1 or -1, or 0 where it should be neither high nor low}."""
        kinds = {"auc": +1, "log_loss": -1, "entropy": -1, "calibration": 0, "user_auc": +1}
        directions = {"auc": +1, "log_loss": -1}
        directions |= {f"{label}_{kind}": way for label in self.labels for kind, way in kinds.items()}
        for before, label in self.pairs:
            directions |= {f"{label}_given_{before}_auc": +1, f"{label}_given_{before}_user_auc": +1}
            directions |= {f"{label}_over_{before}": -1}
        return directions
