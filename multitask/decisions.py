"""What --model closed_form decides: the ranking block, the regularization and width of EASE, and the use of genres.

They follow from a validation part cut out of the training rows, and the ranking block from their counts as well. The
test part is never read. Each decision is recorded in config.json, so that a resumed run does not decide again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from config.errors import UserError
from config.multitask import ClosedFormConfig
from dataset import Data, Interactions
from multitask.bayesian import BayesianFactorization
from multitask.ease import choose_ridge, choose_width, gain_over_popularity
from multitask.features import genre_features, watch_features
from sources.splits import split_randomly
from training.protocols import Log

VALIDATION_FRACTION = 0.05
# Networks need many ratings per row of their tables to rank better than EASE; see docs/champion.md for measurements.
DENSE_USER, DENSE_ITEM = 60, 30  # mean ratings of a user, and of an item
TRIAL_SWEEPS = 8
FEW_ROWS_RIDGE, FEW_ROWS_WIDTH = 120.0, 64  # where the training rows are too few for a validation part
# Standard errors by which EASE has to beat popularity. One is too few, as ridge and width are the best of a dozen on
# the same rows. On MovieLens 100K, ml-latest-small and Douban the gain is 10 to 22.
MIN_GAIN = 2.0
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
    if config.ranking != "auto" and config.ridge and config.ranking_dim and config.genres != "auto":
        return config
    parts = cut_validation(data, config.seed)
    if not len(parts.held_out):
        return _without_validation(config, data, log)
    config = _decide_ease(config, parts, log)
    config = _decide_ranking(config, data, parts, log)
    return _decide_genres(config, data, parts, log)


def _without_validation(config: ClosedFormConfig, data: Data, log: Log) -> ClosedFormConfig:
    """Fixed choices where the training rows are too few for a validation part."""
    log("decided: fixed --ranking, --ridge, --ranking_dim and --genres, as the ratings are too few to validate")
    ranking = "popularity" if config.ranking == "auto" else config.ranking
    genres = "off" if config.genres == "auto" else config.genres
    ridge, width = config.ridge or FEW_ROWS_RIDGE, config.ranking_dim or FEW_ROWS_WIDTH
    return replace(config, ranking=ranking, ridge=ridge, ranking_dim=width, genres=genres)


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
    rows, _, held_out = split_randomly(len(train), VALIDATION_FRACTION, 0.0, seed)
    return Parts(train[torch.from_numpy(rows)], train[torch.from_numpy(held_out)])


def _decide_ease(config: ClosedFormConfig, parts: Parts, log: Log) -> ClosedFormConfig:
    """The lambda of EASE with the best MRR, then the width of its tables with the best MRR."""
    reasons = []
    if not config.ridge:
        ridge, tried = choose_ridge(parts.fitted, parts.held_out)
        config = replace(config, ridge=ridge)
        reasons.append((f"--ridge {ridge:g}", _in_words(tried)))
    if not config.ranking_dim:
        width, found = choose_width(parts.fitted, parts.held_out, config.ridge)
        config = replace(config, ranking_dim=width)
        reasons.append((f"--ranking_dim {width}", _in_words(found)))
    if reasons:
        flags, figures = zip(*reasons, strict=True)
        log(f"decided: {' '.join(flags)}, by the validation MRR ({'; '.join(figures)})")
    return config


def _decide_ranking(config: ClosedFormConfig, data: Data, parts: Parts, log: Log) -> ClosedFormConfig:
    """Popularity, unless EASE is better by more than noise: where EASE finds nothing, networks find nothing.

    Else networks and EASE, or EASE alone, by counts.
    """
    if config.ranking != "auto":
        return config
    gain, error = gain_over_popularity(parts.fitted, parts.held_out, config.ridge, config.ranking_dim)
    against_popularity = f"EASE has a validation MRR {gain:.4f} ± {error:.4f} above popularity"
    if not gain > MIN_GAIN * error:
        log(f"decided: --ranking popularity, as {against_popularity}")
        return replace(config, ranking="popularity")
    per_user, per_item = len(data.train) / len(data.users), len(data.train) / len(data.items)
    ranking = "networks" if per_user >= DENSE_USER and per_item >= DENSE_ITEM else "ease"
    log(
        f"decided: --ranking {ranking}, as users have {per_user:.0f} ratings and items {per_item:.0f} on average "
        f"(networks from {DENSE_USER} and {DENSE_ITEM} on), and {against_popularity}"
    )
    return replace(config, ranking=ranking)


def _decide_genres(config: ClosedFormConfig, data: Data, parts: Parts, log: Log) -> ClosedFormConfig:
    """Genres as features of the items, where they lower the squared error of one factorization."""
    if config.genres != "auto":
        return config
    if not any(data.genres):
        return replace(config, genres="off")
    users, items = watch_features(parts.fitted, config.num_features)
    found = {}
    for name, genres in (("off", ()), ("on", data.genres)):
        features = users, with_genres(items, genres)
        fit = BayesianFactorization(parts.fitted, features, config.rating_dim, config.seed)
        for _ in range(TRIAL_SWEEPS):
            fit.sweep()
        errors = fit.predict(parts.held_out.user_ids.long(), parts.held_out.item_ids.long()) - parts.held_out.ratings
        found[name] = errors.square().mean().item()
    best = min(found, key=lambda name: found[name])
    log(f"decided: --genres {best}, by the validation MSE ({_in_words(found)})")
    return replace(config, genres=best)


def with_genres(items: Tensor, genres: Sequence[str]) -> Tensor:
    """The features of the items (num_items, F), with columns for their genres where given."""
    return torch.cat([items, genre_features(genres)], dim=1) if any(genres) else items


def _in_words(tried: Mapping) -> str:
    return ", ".join(
        f"{value:.4f} with {name if isinstance(name, str) else f'{name:g}'}" for name, value in sorted(tried.items())
    )
