"""What --model closed_form decides: which ranking block, how strongly EASE is regularized, and how wide its tables are.

The first follows from counts of the training rows, the others from a validation part cut out of them. The test part is
never read. Each decision is recorded in config.json, so that a resumed run does not decide again.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from config.errors import UserError
from config.multitask import ClosedFormConfig
from dataset import Data, Interactions, split_rows
from evaluation import mrr_score
from multitask.closed_form import RankingBlock
from multitask.ease import ScoreTable, choose_ridge, cut, ease_scores
from training.protocols import Log

VALIDATION_FRACTION = 0.05
WIDTHS = (64, 128, 256, 512)
TOLERANCE = 0.0005  # of validation MRR that narrower tables may lose
# Networks need many ratings per row of their tables to rank better than EASE; see docs/champion.md for measurements.
DENSE_USER, DENSE_ITEM = 60, 30  # mean ratings of a user, and of an item
MAX_CELLS = 10**8  # users x items: a score for each pair is held in memory


@dataclass(frozen=True, eq=False)
class Parts:
    """The training rows, cut into a part to fit and a part to measure on."""

    fitted: Interactions
    held_out: Interactions


def decide(config: ClosedFormConfig, data: Data, log: Log) -> ClosedFormConfig:
    """Decide what the config leaves open, and log each decision with its reason.

    Raises:
        UserError: there are too many users and items for a score of each pair.
    """
    require_room(data)
    if config.ranking == "auto":
        config = _decide_ranking(config, data, log)
    if config.ridge and config.ranking_dim:
        return config
    parts = cut_validation(data, config.seed)
    config, scores = _decide_ridge(config, parts, log)
    return config if config.ranking_dim else _decide_width(config, parts, scores, log)


def require_room(data: Data) -> None:
    """Raises UserError where a score for every user and item does not fit into memory."""
    if len(data.users) * len(data.items) > MAX_CELLS:
        raise UserError(
            f"--model closed_form holds a score for each of {len(data.users):,} users and {len(data.items):,} items, "
            f"and more than {MAX_CELLS:,} do not fit: take --model multitask"
        )


def cut_validation(data: Data, seed: int) -> Parts:
    """A random part of the training rows to decide on, drawn from the seed alone; all rows where they are few."""
    train = data.train.to(torch.device("cpu"))
    if round(len(train) * VALIDATION_FRACTION) in (0, len(train)):
        return Parts(train, train[:0])
    rows, _, held_out = split_rows(len(train), VALIDATION_FRACTION, 0.0, seed)
    return Parts(train[torch.from_numpy(rows)], train[torch.from_numpy(held_out)])


def validation_mrr(block: RankingBlock, parts: Parts) -> float:
    """MRR of the held-out rows among all items that a user does not have in the fitted part."""
    return mrr_score(ScoreTable(block.users @ block.items.T + block.item_bias), parts.held_out, parts.fitted)


def _decide_ranking(config: ClosedFormConfig, data: Data, log: Log) -> ClosedFormConfig:
    per_user, per_item = len(data.train) / len(data.users), len(data.train) / len(data.items)
    is_dense = per_user >= DENSE_USER and per_item >= DENSE_ITEM
    ranking = "networks" if is_dense else "ease"
    log(
        f"decided: --ranking {ranking}, as users have {per_user:.0f} ratings and items {per_item:.0f} on average "
        f"(networks from {DENSE_USER} and {DENSE_ITEM} on)"
    )
    return replace(config, ranking=ranking)


def _decide_ridge(config: ClosedFormConfig, parts: Parts, log: Log) -> tuple[ClosedFormConfig, Tensor]:
    """The lambda with the best MRR; the scores are those of EASE on the fitted part."""
    if not config.ridge:
        ridge, tried = choose_ridge(parts.fitted, parts.held_out)
        found = ", ".join(f"{mrr:.4f} with {value:g}" for value, mrr in sorted(tried.items()))
        log(f"decided: --ridge {ridge:g}, by its validation MRR ({found})")
        config = replace(config, ridge=ridge)
    return config, ease_scores(parts.fitted, config.ridge)


def _decide_width(config: ClosedFormConfig, parts: Parts, scores: Tensor, log: Log) -> ClosedFormConfig:
    """The narrowest tables within TOLERANCE of the best."""
    widths = [width for width in WIDTHS if width < min(scores.shape)] or [WIDTHS[0]]
    users, items, bias = cut(scores, widths[-1])
    blocks = {width: RankingBlock(users[:, :width], items[:, :width], bias) for width in widths}
    found = {width: validation_mrr(block, parts) for width, block in blocks.items()}
    chosen = next(width for width in widths if found[width] >= max(found.values()) - TOLERANCE)
    tried = ", ".join(f"{mrr:.4f} with {width}" for width, mrr in found.items())
    log(f"decided: --ranking_dim {chosen}, by its validation MRR ({tried})")
    return replace(config, ranking_dim=chosen)
