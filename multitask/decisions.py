"""What --model closed_form decides from the data: the regularization of EASE, the width of its tables, and whether
networks trained by gradient help the ranking. Every decision reads a validation part that is cut from train."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from config.errors import UserError
from config.multitask import ClosedFormConfig, MultiTaskConfig
from dataset import Data, Interactions, split_rows
from evaluation import mrr_score
from multitask.closed_form import RankingBlock
from multitask.ease import ScoreTable, choose_ridge, cut, ease_scores
from multitask.networks import block_of, mix_blocks, train_networks
from training.protocols import Log

VALIDATION_FRACTION = 0.05
WIDTHS = (64, 128, 256, 512)
TOLERANCE = 0.0005  # of validation MRR that narrower tables may lose
# Of validation MRR that networks have to add to EASE: smaller differences are noise of the validation part.
MIN_GAIN = 0.003
MAX_CELLS = 10**8  # users x items: a score for each of them is held in memory several times
MAX_NETWORK_CELLS = 1.2 * 10**7  # users x items up to which the networks are tried; beyond it they take minutes
# The networks that are tried, and those that are trained in the end: half of them learn users, half encode them.
NETWORKS = MultiTaskConfig(
    ranking_loss="softmax", schedule="cosine", init_rating_bias=True, factorization_weight=1.0, regression_weight=0.2,
    lr=0.02, embedding_decay=1.2, batch_size=2000, user_weight_exponent=0.3, epochs=12, ensemble_size=4,
    num_item_based=2, embedding_dim=1024, layer_sizes=(3072,), quiet=True,
)  # fmt: skip
TRIAL = replace(NETWORKS, ensemble_size=2, num_item_based=1, embedding_dim=256, layer_sizes=(768,))


@dataclass(frozen=True, eq=False)
class Parts:
    """The training rows, cut into a part to fit and a part to measure on."""

    fitted: Interactions
    held_out: Interactions


def decide(config: ClosedFormConfig, data: Data, log: Log) -> ClosedFormConfig:
    """The config with everything decided that it leaves open; the test part is not read.

    Raises:
        UserError: there are too many users and items for a score of each pair.
    """
    require_room(data)
    if config.decided:
        return config
    if config.ranking == "networks":
        return config
    parts = cut_validation(data, config.seed)
    config, scores = _decide_ridge(config, parts, log)
    config, block = _decide_width(config, parts, scores, log)
    return _decide_ranking(config, data, parts, block, log) if config.ranking == "auto" else config


def require_room(data: Data) -> None:
    """Raises UserError where a score for every user and item does not fit into memory."""
    cells = len(data.users) * len(data.items)
    if cells > MAX_CELLS:
        raise UserError(
            f"--model closed_form holds a score for each of {len(data.users):,} users and {len(data.items):,} items, "
            f"more than {MAX_CELLS:,} in all: take --model multitask"
        )


def cut_validation(data: Data, seed: int) -> Parts:
    """A random part of the training rows to decide on; drawn from the seed alone."""
    train = data.train.to(torch.device("cpu"))
    rows, _, held_out = split_rows(len(train), VALIDATION_FRACTION, 0.0, seed)
    return Parts(train[torch.from_numpy(rows)], train[torch.from_numpy(held_out)])


def _decide_ridge(config: ClosedFormConfig, parts: Parts, log: Log) -> tuple[ClosedFormConfig, Tensor]:
    if config.ridge:
        return config, ease_scores(parts.fitted, config.ridge)
    ridge, tried = choose_ridge(parts.fitted, parts.held_out)
    found = ", ".join(f"{mrr:.4f} with {value:g}" for value, mrr in sorted(tried.items()))
    log(f"decided: EASE with lambda {ridge:g} (validation MRR {found})")
    return replace(config, ridge=ridge), ease_scores(parts.fitted, ridge)


def _decide_width(
    config: ClosedFormConfig, parts: Parts, scores: Tensor, log: Log
) -> tuple[ClosedFormConfig, RankingBlock]:
    """The narrowest tables within TOLERANCE of the best."""
    widths = (
        [config.ranking_dim] if config.ranking_dim else [w for w in WIDTHS if w == WIDTHS[0] or w < min(scores.shape)]
    )
    users, items, bias = cut(scores, widths[-1])
    blocks = {width: RankingBlock(users[:, :width], items[:, :width], bias) for width in widths}
    if config.ranking_dim:
        return config, blocks[config.ranking_dim]
    found = {width: validation_mrr(block, parts) for width, block in blocks.items()}
    chosen = next(width for width in widths if found[width] >= max(found.values()) - TOLERANCE)
    log(
        f"decided: its tables {chosen} wide (validation MRR {', '.join(f'{m:.4f} with {w}' for w, m in found.items())})"
    )
    return replace(config, ranking_dim=chosen), blocks[chosen]


def _decide_ranking(
    config: ClosedFormConfig, data: Data, parts: Parts, block: RankingBlock, log: Log
) -> ClosedFormConfig:
    """EASE alone, or mixed with networks where these add at least MIN_GAIN."""
    if len(data.users) * len(data.items) > MAX_NETWORK_CELLS:
        log(
            f"decided: EASE alone; networks are not tried on more than {MAX_NETWORK_CELLS:,.0f} pairs of users and items"
        )
        return replace(config, ranking="ease")
    networks = train_networks(replace(TRIAL, seed=config.seed), replace(data, train=parts.fitted, validation=None))
    mixed = validation_mrr(mix_blocks(block, block_of(networks)), parts)
    alone = validation_mrr(block, parts)
    ranking = "mix" if mixed >= alone + MIN_GAIN else "ease"
    words = "mixed with networks" if ranking == "mix" else "alone"
    log(f"decided: EASE {words} (validation MRR {alone:.4f} alone, {mixed:.4f} mixed; {MIN_GAIN} more are asked for)")
    return replace(config, ranking=ranking)


def validation_mrr(block: RankingBlock, parts: Parts) -> float:
    """MRR of the held-out rows among all items that a user does not have in the fitted part."""
    return mrr_score(ScoreTable(block.users @ block.items.T + block.item_bias), parts.held_out, parts.fitted)
