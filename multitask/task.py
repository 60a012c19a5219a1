"""The two tasks of the course sheet: what a user watches, and what score they give."""

import copy
from collections.abc import Iterator
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from config.parts import has_module
from dataset import Data, Interactions
from evaluation import METRICS, evaluate, metric_tags, score_all_items
from losses import bpr_loss, regression_loss
from multitask.baselines import Baseline, ease_note, make_baselines
from multitask.dense_layers import layer_names
from multitask.fold_in import fold_in
from training.negatives import CHUNK_ROWS, sample_uniform, sample_unseen
from training.streams import stream

NEGATIVE_SAMPLERS = {"uniform": sample_uniform, "unseen": sample_unseen, "hardest": sample_unseen}


class WatchAndRate:
    """Rank what a user watches (BPR), and predict the score they give (MSE).

    Args:
        data: the split ratings, on the device of the model.
        batch_size: ratings in a step.
        ranking_loss: a name in losses.PAIRWISE_LOSSES.
        negatives: N, items drawn for each rating.
        negative_sampling: "uniform" draws from all items, as in eq. (3); "unseen" from those that the user does
            not have in train; "hardest" takes the one of N unseen items that the model scores highest. With the first
            two, the ranking loss is the mean over all N pairs.
        seed: each epoch's order and negatives come from (seed, epoch), so that a resumed run repeats them exactly.
    """

    family = ""  # the sheet names the tags
    primary_metric = "mrr"
    directions: ClassVar = {name: metric.direction for name, metric in METRICS.items()}
    console_metrics = ("mrr", "mse")
    headlines: ClassVar = {"ranking": ("factorization", "mrr"), "rating": ("regression", "mse")}
    compared = ("mrr", "hit_rate@10", "ndcg@10", "auc", "mse")
    advice: ClassVar = {
        "mrr": "more --epochs" + (" or --preset champion" if has_module("multitask.closed_form_recipe") else ""),
        "mse": "--val_fraction 0.05 --patience 5, a lower --lr or another --regression_weight",
    }
    loss_names = ("factorization", "regression")
    squared_errors = ("regression",)
    regularizers: tuple[str, ...] = ()
    tags: ClassVar = {
        "train_factorization": "training/Factorization Loss",
        "train_regression": "training/MSE",
        "train_joint": "training/Joint Loss",
        **metric_tags(METRICS, console_metrics),
    }

    def __init__(
        self,
        data: Data,
        batch_size: int = 256,
        ranking_loss: str = "bpr_sigmoid",
        negatives: int = 1,
        negative_sampling: str = "uniform",
        seed: int = 0,
    ) -> None:
        self.data = data
        self.batch_size = batch_size
        self.ranking_loss = ranking_loss
        self.negatives = negatives
        self.sample = NEGATIVE_SAMPLERS[negative_sampling]
        self.keep_hardest = negative_sampling == "hardest"
        self.seed = seed

    @property
    def splits(self) -> tuple[str, ...]:
        return ("test",) if self.data.validation is None else ("val", "test")

    @property
    def num_batches(self) -> int:
        return -(-len(self.data.train) // self.batch_size)

    def batches(self, epoch: int) -> Iterator[dict[str, Tensor]]:
        """Yield every training rating once, in random order, with its negatives.

        Yields:
            user_ids (B,), item_ids (B,), ratings (B,) and negative_ids (B, N); the last batch may be smaller.
        """
        train = self.data.train
        generator = stream(self.seed, epoch)
        # In memory of NumPy's, which asks for huge pages as torch does not: of many rows a quarter faster.
        order = torch.from_numpy(np.empty(len(train), np.int32))
        torch.randperm(len(train), generator=generator, out=order)
        batches_at_a_time = max(1, CHUNK_ROWS // self.negatives // self.batch_size)
        for rows in order.split(batches_at_a_time * self.batch_size):
            block = train[rows.to(train.user_ids.device)]
            columns = {
                "user_ids": block.user_ids.long(),
                "item_ids": block.item_ids.long(),
                "ratings": block.ratings,
                "negative_ids": self.sample(train, block.user_ids, self.negatives, generator),
            }
            batches = (column.split(self.batch_size) for column in columns.values())
            for values in zip(*batches, strict=True):
                yield dict(zip(columns, values, strict=True))

    def batch_rows(self, batch: dict[str, Tensor]) -> int:
        return len(batch["ratings"])

    def divisors(self, batch: dict[str, Tensor]) -> dict[str, int]:
        return dict.fromkeys(self.loss_names, self.batch_rows(batch))

    def losses(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Eq. (3) and eq. (5) on one batch."""
        user_ids, negative_ids = batch["user_ids"], batch["negative_ids"]
        if self.keep_hardest:
            with torch.no_grad():
                best = _score_pairs(model, user_ids, negative_ids).argmax(dim=1, keepdim=True)
            negative_ids = negative_ids.gather(1, best)
        positive_predictions, score = model(user_ids, batch["item_ids"])
        negative_predictions = _score_pairs(model, user_ids, negative_ids)
        return {
            "factorization": bpr_loss(positive_predictions, negative_predictions, self.ranking_loss),
            "regression": regression_loss(batch["ratings"], score),
        }

    def metrics(self, model: nn.Module, split: str) -> dict[str, float]:
        """Every metric of evaluation.METRICS on "test" (train and validation items masked) or "val" (train masked).

        A baseline that does not rank or does not rate has fewer.
        """
        data = self.data
        rows, seen = (data.test, data.seen) if split == "test" else (data.validation, data.train)
        return model.metrics(rows, seen) if isinstance(model, Baseline) else evaluate(model, rows, seen)

    def diagnostics(self, model: nn.Module) -> dict[str, float]:
        return {}

    def baselines(self) -> dict[str, Baseline]:
        """The baselines by name, fitted on the training rows anew in every call; on the device of the data."""
        return make_baselines(self.data.train)

    @property
    def baseline_notes(self) -> tuple[str, ...]:
        note = ease_note(self.data.train)
        return () if note is None else (note,)

    def embeddings(self, model: nn.Module) -> dict[str, Tensor]:
        """The item tables that `model` has, by the names of the course sheet: {name: (num_items, d)}."""
        return {name: getattr(model, name).weight.detach() for name in ("Q", "Q_fact", "Q_reg") if hasattr(model, name)}

    def row_tables(self, model: nn.Module) -> dict[str, str]:
        """The user and item tables that `model` has, of those in MultiTaskNet and ItemBasedNet."""
        kinds = {"user": ("U", "U_fact", "U_reg"), "item": ("Q", "Q_fact", "Q_reg", "B", "V")}
        return {f"{name}.weight": kind for kind, names in kinds.items() for name in names if hasattr(model, name)}

    def formulas(self, model: nn.Module) -> tuple[str, ...]:
        ranking, rating = ("", "") if hasattr(model, "U") else ("_fact", "_reg")
        return (
            f"u = U{ranking}.weight[user], q = Q{ranking}.weight[item], b = B.weight[item]",
            "score = u . q + b, which ranks the items of a user",
            f"v = U{rating}.weight[user], w = Q{rating}.weight[item]",
            "predicted rating = f([v, w, v * w]), where * is element-wise and f are, one after another, the layers",
            f"{', '.join(layer_names(model))}: x -> weight @ x + bias, with a ReLU after each but the last.",
            f"It is then clipped to [{self.data.rating_scale[0]:g}, {self.data.rating_scale[1]:g}].",
        )

    scores_any_pair = True

    def score(self, model: nn.Module, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Ranking scores p, shown beside the predicted ratings, which are clipped to the scale here alone."""
        predictions, ratings = model(user_ids, item_ids)
        return predictions, {"score": predictions, "predicted_rating": ratings.clamp(*self.data.rating_scale)}

    def score_all(self, model: nn.Module, user_ids: Tensor) -> Tensor:
        return score_all_items(model, user_ids, len(self.data.items))

    @property
    def excluded(self) -> Interactions:
        """All rows: with the test part left in, lists would name items that the user has rated."""
        return self.data.interactions

    def fold_in(self, model: nn.Module, users: np.ndarray, rows: Interactions) -> tuple[nn.Module, "WatchAndRate"]:
        """New users in closed form or in a few steps; see multitask/fold_in.py."""
        folded = copy.copy(self)
        folded.data = self.data.with_users(users, rows)
        return fold_in(model, self.row_tables(model), self.data.train, folded.data.train), folded


def _score_pairs(model: nn.Module, user_ids: Tensor, item_ids: Tensor) -> Tensor:
    """Ranking scores of N items for each of B users: (B,), (B, N) -> (B, N)."""
    num_items = item_ids.shape[1]
    return model(user_ids.repeat_interleave(num_items), item_ids.flatten())[0].view(-1, num_items)
