"""What a family of networks trains on, its named losses and its metrics.

The training loop (training.py) knows no family: it asks its task for batches, losses and metrics. A task offers

    headline                 (name, +1 or -1): the metric that speaks for the family, and whether more or less is better
    directions               the same for every metric: {name: +1 or -1}; 0 where neither more nor less is better
    told                     the metrics that are told in one line an epoch
    parts                    what is evaluated: "test", and "val" where there is a validation part
    loss_names               the keys of what `losses` returns; the settings carry a weight for each
    squared_errors           those of them that are squared errors, not cross-entropies
    penalties                those of them that are no tasks, which no method of weighting balances
    tags                     TensorBoard tag of every column of a history row
    num_batches              steps in an epoch
    batches(epoch)           an iterator over dicts of tensors, drawn from (seed, epoch) alone
    batch_rows(batch)        how many rows a batch holds
    losses(model, batch)     {name: scalar tensor}, each a sum over rows divided by a number
    divisors(batch)          those numbers, {name: number or scalar tensor}: with them shares of a batch add up to it
    metrics(model, part)     {name: float} on the "test" or the "val" part
    diagnostics(model)       {TensorBoard tag: float}: what is drawn beside the metrics
    compared                 the metrics that are put beside those of the baselines
    baselines()              {name: module}: what knows nothing personal or no network, measured like a network
    data                     the dataset.Data it draws from
    embeddings(model)        {name: (items, d) tensor} for the projector
    score(model, users, items)   what `--recommend` ranks by, and what it shows: (B,), {column: (B,)}
"""

from dataset import Data
from tasks.denoising import WatchAndRateByDenoising
from tasks.softmax import WatchAndRateBySoftmax
from tasks.view_and_like import ViewAndLike
from tasks.watch_and_rate import WatchAndRate

__all__ = ["ViewAndLike", "WatchAndRate", "WatchAndRateByDenoising", "WatchAndRateBySoftmax", "build_task"]


def build_task(model: str, data: Data, **options) -> WatchAndRate | ViewAndLike:
    """The task that a network is trained on, by the network's name; `options` go to its constructor."""
    if model != "multitask":
        return ViewAndLike(data, **options)
    if "denoisers" in options:
        make = WatchAndRateByDenoising if options.pop("denoisers") else WatchAndRateBySoftmax
        return make(data, **options)
    return WatchAndRate(data, **options)
